//! How each intent is carried out: look, act once, look until it shows.

use std::time::Duration;

use tokio::time::Instant;

use super::work::{Looks, Opener, Work};
use super::{
    Acted, BootDevice, BootOverride, Done, Error, Expected, Intent, Off, OperationId, PowerState,
    ResetKind, Sent,
};
use crate::journal::{Failure, Journal, Step};

/// How long after a command without an answer its effect is waited for. Longer than any BMC was seen to lag;
/// when nothing shows by then the caller may ask again, which begins with a look.
const SETTLE: Duration = Duration::from_secs(75);
/// How long after "on" an off host is told again: a host that is off loses nothing by it, and some BMCs take
/// the first one and do nothing (Lenovo). Sooner when the first was not answered.
const ON_AGAIN: Duration = Duration::from_secs(70);
const ON_AGAIN_UNANSWERED: Duration = Duration::from_secs(10);
/// How long a boot override may take to show before it is set again, and how often that is tried.
const BOOT_SHOWS: Duration = Duration::from_secs(10);
const BOOT_TRIES: u32 = 3;

/// Carries out `intent`.
pub(super) async fn execute<O: Opener>(
    opener: &O,
    expected: &Expected,
    intent: &Intent,
    journal: &dyn Journal,
    deadline: Instant,
) -> Result<Done, Error> {
    let began = Instant::now();
    let mut work = Work::new(opener, expected, deadline);
    let done = carry_out(&mut work, intent, journal).await;
    work.close().await;
    done.map(|done| Done {
        elapsed: began.elapsed(),
        ..done
    })
}

async fn carry_out<O: Opener>(
    work: &mut Work<'_, O>,
    intent: &Intent,
    journal: &dyn Journal,
) -> Result<Done, Error> {
    let identity = work.identity().await?;
    let mut boot = None;
    let (acted, power) = match intent {
        Intent::EnsureOn => (
            ensure(work, PowerState::On, ResetKind::On, journal).await?,
            PowerState::On,
        ),
        Intent::EnsureOff(off) => (ensure_off(work, *off, journal).await?, PowerState::Off),
        Intent::CycleOnce(operation) => {
            let acted = cycle(work, operation, journal).await?;
            (acted, work.power().await?)
        }
        Intent::Boot(wanted) => {
            boot = Some(set_boot(work, wanted).await?);
            (Acted::Sent, work.power().await?)
        }
        Intent::Diagnose => {
            diagnose(work, journal).await?;
            (Acted::Sent, work.power().await?)
        }
    };
    Ok(Done {
        power,
        identity,
        boot,
        acted,
        elapsed: Duration::ZERO,
    })
}

/// What was sent, and when.
struct Command {
    kind: ResetKind,
    sent: Sent,
    at: Instant,
}

impl Command {
    /// Until when its effect is waited for.
    fn patience(&self, deadline: Instant) -> Instant {
        match self.sent {
            Sent::Unsure { .. } if self.kind != ResetKind::On => deadline.min(self.at + SETTLE),
            _ => deadline,
        }
    }

    /// Whether it may be sent again to a host that was just seen in the state from before.
    fn may_go_again(&self) -> bool {
        let after = match self.sent {
            Sent::Accepted => ON_AGAIN,
            Sent::Unsure { .. } => ON_AGAIN_UNANSWERED,
        };
        self.kind == ResetKind::On && self.at.elapsed() >= after
    }

    fn not_seen(&self, wanted: &PowerState, found: String) -> Error {
        match &self.sent {
            Sent::Accepted => Error::NotVerified {
                wanted: wanted.to_string(),
                found,
            },
            Sent::Unsure { why } => Error::Unknown {
                sent: self.kind.to_string(),
                read: format!("{found}; {why}"),
            },
        }
    }
}

/// Brings the host to `wanted`, with `kind` if it is in the other state. A host that is in transition, or of which
/// nothing is known, is only looked at.
async fn ensure<O: Opener>(
    work: &mut Work<'_, O>,
    wanted: PowerState,
    kind: ResetKind,
    journal: &dyn Journal,
) -> Result<Acted, Error> {
    let other = if wanted == PowerState::On {
        PowerState::Off
    } else {
        PowerState::On
    };
    let mut command: Option<Command> = None;
    let mut hindered = None;
    let mut looks = Looks::new();
    loop {
        let found = match (work.power().await, &command) {
            (Ok(found), _) => found,
            (Err(error), Some(command)) => return Err(command.not_seen(&wanted, error.to_string())),
            (Err(error), None) => return Err(error),
        };
        if found == wanted {
            return Ok(command.map_or(Acted::Nothing, |_| Acted::Sent));
        }
        if found == other && command.as_ref().is_none_or(Command::may_go_again) {
            let at = Instant::now();
            match work.act(kind, journal).await {
                Ok(sent) => {
                    command = Some(Command { kind, sent, at });
                    looks = Looks::new();
                }
                Err(error @ (Error::Busy { .. } | Error::Unreachable { .. })) => {
                    hindered = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let until = command
            .as_ref()
            .map_or(work.deadline, |command| command.patience(work.deadline));
        if !looks.next(until).await {
            return Err(match (command, hindered) {
                (Some(command), _) => command.not_seen(&wanted, found.to_string()),
                (None, Some(hindered)) => hindered,
                (None, None) => Error::NotVerified {
                    wanted: wanted.to_string(),
                    found: found.to_string(),
                },
            });
        }
    }
}

async fn ensure_off<O: Opener>(
    work: &mut Work<'_, O>,
    off: Off,
    journal: &dyn Journal,
) -> Result<Acted, Error> {
    let mut acted = Acted::Nothing;
    if let Off::Graceful { within } = off
        && !within.is_zero()
    {
        let deadline = work.deadline;
        work.deadline = deadline.min(Instant::now() + within);
        let asked = ensure(work, PowerState::Off, ResetKind::GracefulShutdown, journal).await;
        work.deadline = deadline;
        match asked {
            Ok(acted) => return Ok(acted),
            // It did not go by itself: that is what the second way is for.
            Err(Error::NotVerified { .. } | Error::Unknown { .. }) => acted = Acted::Sent,
            Err(Error::Unsupported { .. } | Error::Busy { .. } | Error::Unreachable { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    match (
        ensure(work, PowerState::Off, ResetKind::ForceOff, journal).await,
        acted,
    ) {
        (Ok(Acted::Nothing), _) => Ok(acted),
        (Ok(Acted::Sent), _) => Ok(Acted::Sent),
        // That nothing was sent now does not make the shutdown unsent.
        (
            Err(error @ (Error::Unreachable { .. } | Error::Busy { .. } | Error::Journal { .. })),
            Acted::Sent,
        ) => Err(Error::Unknown {
            sent: ResetKind::GracefulShutdown.to_string(),
            read: error.to_string(),
        }),
        (Err(error), _) => Err(error),
    }
}

/// Off and on, once. Each step is written down before it is taken; what is found written down is never sent again.
async fn cycle<O: Opener>(
    work: &mut Work<'_, O>,
    operation: &OperationId,
    journal: &dyn Journal,
) -> Result<Acted, Error> {
    let last = journal.last(operation).await.map_err(unrecorded)?;
    let record = async |step| journal.record(operation, step).await.map_err(unrecorded);
    match last {
        Some(Step::Done) => return Ok(Acted::Nothing),
        Some(Step::SeenOff) => {}
        Some(Step::Off) => {
            watch_off(work).await?;
            record(Step::SeenOff).await?;
        }
        None => {
            record(Step::Off).await?;
            ensure(work, PowerState::Off, ResetKind::ForceOff, journal).await?;
            record(Step::SeenOff).await?;
        }
    }
    ensure(work, PowerState::On, ResetKind::On, journal).await?;
    record(Step::Done).await?;
    Ok(Acted::Sent)
}

/// Waits for the effect of an "off" that may have been sent before a crash.
async fn watch_off<O: Opener>(work: &mut Work<'_, O>) -> Result<(), Error> {
    let until = work.deadline.min(Instant::now() + SETTLE);
    let mut looks = Looks::new();
    loop {
        let found = work.power().await?;
        if found == PowerState::Off {
            return Ok(());
        }
        if !looks.next(until).await {
            let sent = format!("{}, before a restart", ResetKind::ForceOff);
            return Err(Error::Unknown {
                sent,
                read: found.to_string(),
            });
        }
    }
}

async fn diagnose<O: Opener>(work: &mut Work<'_, O>, journal: &dyn Journal) -> Result<(), Error> {
    match work.act(ResetKind::Nmi, journal).await? {
        Sent::Accepted => Ok(()),
        Sent::Unsure { why } => Err(Error::Unknown {
            sent: ResetKind::Nmi.to_string(),
            read: format!("an interrupt cannot be read back; {why}"),
        }),
    }
}

async fn set_boot<O: Opener>(
    work: &mut Work<'_, O>,
    wanted: &BootOverride,
) -> Result<BootOverride, Error> {
    let mut found = None;
    for _ in 0..BOOT_TRIES {
        work.set_boot(wanted).await?;
        let until = work.deadline.min(Instant::now() + BOOT_SHOWS);
        let mut looks = Looks::new();
        loop {
            found = work.boot().await?;
            match found {
                Some(found) if is_so(wanted, &found) => return Ok(found),
                _ => {}
            }
            if !looks.next(until).await {
                break;
            }
        }
        if Instant::now() >= work.deadline {
            break;
        }
    }
    let found = found.map_or_else(|| "nothing about it".to_owned(), |found| found.to_string());
    Err(Error::NotVerified {
        wanted: wanted.to_string(),
        found,
    })
}

/// Whether `found` is what was wanted; of an override that is gone nothing but that matters.
fn is_so(wanted: &BootOverride, found: &BootOverride) -> bool {
    match &wanted.device {
        BootDevice::None => found.device == BootDevice::None,
        BootDevice::Http { uri: None } => {
            matches!(found.device, BootDevice::Http { .. }) && same_manner(wanted, found)
        }
        device => *device == found.device && same_manner(wanted, found),
    }
}

fn same_manner(wanted: &BootOverride, found: &BootOverride) -> bool {
    wanted.persistence == found.persistence && wanted.firmware == found.firmware
}

fn unrecorded(Failure(detail): Failure) -> Error {
    Error::Journal { detail }
}
