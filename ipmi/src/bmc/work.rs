//! One piece of work with one BMC: a conversation that is opened again when it is lost, until the deadline.
//!
//! Only reads are repeated here. What acts goes out once per call, after the identity was checked in the very
//! same conversation.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::journal::{Failure, Journal};

use super::{
    BootOverride, Conversation, Depth, Error, Expected, Identity, PowerState, ResetKind, Seen, Sent,
};

/// How long to wait before a lost conversation is opened again.
const PAUSE: Duration = Duration::from_millis(500);
/// The shortest and the longest pause between two looks at something that is changing.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const SLOWEST_LOOK: Duration = Duration::from_secs(3);

/// How long a checked identity is good for in the conversation that it was checked in: for the look at the power
/// that follows it, also where that has to be asked ten times.
const FRESH: Duration = Duration::from_secs(10);

/// Opens conversations.
pub(super) trait Opener: Sync {
    /// What it opens.
    type Talk: Conversation;

    /// Opens one before the deadline.
    fn open(&self, deadline: Instant) -> impl Future<Output = Result<Self::Talk, Error>> + Send;
}

/// Asks until there is an answer, in another conversation if need be; not for anything that acts.
macro_rules! repeat {
    ($work:expr, $talk:ident => $read:expr) => {
        loop {
            let error = match $work.talk().await {
                Ok($talk) => match $read {
                    Ok(read) => break Ok(read),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if !$work.again(&error).await {
                break Err(error);
            }
        }
    };
}

/// One piece of work.
pub(super) struct Work<'a, O: Opener> {
    opener: &'a O,
    expected: &'a Expected,
    talk: Option<O::Talk>,
    /// When the identity was last checked in the present conversation.
    checked: Option<Instant>,
    /// The end of it.
    pub(super) deadline: Instant,
}

/// The pauses between looks at something that is changing: soon at first, then at leisure.
pub(super) struct Looks(Duration);

impl Looks {
    pub(super) fn new() -> Self {
        Self(FIRST_LOOK)
    }

    /// Waits for the next look; false when `until` comes first.
    pub(super) async fn next(&mut self, until: Instant) -> bool {
        let next = Instant::now() + self.0;
        self.0 = (self.0 * 3 / 2).min(SLOWEST_LOOK);
        sleep_until(next.min(until)).await;
        next < until
    }
}

impl<'a, O: Opener> Work<'a, O> {
    pub(super) fn new(opener: &'a O, expected: &'a Expected, deadline: Instant) -> Self {
        Self {
            opener,
            expected,
            talk: None,
            checked: None,
            deadline,
        }
    }

    /// Ends the conversation.
    pub(super) async fn close(&mut self) {
        self.checked = None;
        if let Some(talk) = self.talk.take() {
            talk.close().await;
        }
    }

    async fn talk(&mut self) -> Result<&mut O::Talk, Error> {
        if self.talk.is_none() {
            self.talk = Some(self.opener.open(self.deadline).await?);
        }
        self.talk.as_mut().ok_or_else(|| Error::Unreachable {
            detail: "no conversation".to_owned(),
        })
    }

    /// Whether there is time to do after `error` what failed again; the conversation is given up if it is lost.
    async fn again(&mut self, error: &Error) -> bool {
        if matches!(error, Error::Unreachable { .. }) {
            self.close().await;
        }
        let next = Instant::now() + PAUSE;
        if !matches!(error, Error::Unreachable { .. } | Error::Busy { .. }) || next >= self.deadline
        {
            return false;
        }
        sleep_until(next).await;
        true
    }

    /// Who the BMC says it is, which must be who is expected.
    pub(super) async fn identity(&mut self) -> Result<Identity, Error> {
        let depth = self.expected.depth();
        let identity = repeat!(self, talk => talk.identity(depth).await)?;
        self.expected.check(&identity)?;
        self.checked = Some(Instant::now());
        Ok(identity)
    }

    /// The power.
    pub(super) async fn power(&mut self) -> Result<PowerState, Error> {
        repeat!(self, talk => talk.power().await)
    }

    /// The power of the host whose identity was checked in this very conversation.
    pub(super) async fn power_of_checked(&mut self) -> Result<PowerState, Error> {
        loop {
            let power = self.power().await?;
            // The conversation may have been another one by the time of the answer.
            if self.checked.is_some() {
                return Ok(power);
            }
            self.identity().await?;
        }
    }

    /// The boot override.
    pub(super) async fn boot(&mut self) -> Result<Option<BootOverride>, Error> {
        repeat!(self, talk => talk.boot().await)
    }

    /// Everything that can be seen, of whoever answers.
    pub(super) async fn seen(&mut self) -> Result<Seen, Error> {
        Ok(Seen {
            power: self.power().await?,
            identity: repeat!(self, talk => talk.identity(Depth::Whole).await)?,
            boot: self.boot().await?,
            firmware: repeat!(self, talk => talk.firmware().await)?,
        })
    }

    /// Sets the boot override of the expected host; it is the caller's to read it back.
    pub(super) async fn set_boot(&mut self, boot: &BootOverride) -> Result<(), Error> {
        loop {
            self.assure().await?;
            let error = match &mut self.talk {
                Some(talk) => match talk.set_boot(boot).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                None => lost(),
            };
            if !self.again(&error).await {
                return Err(error);
            }
        }
    }

    /// Acts on the power of the expected host, once, after `journal` has it. An error means that it surely had no
    /// effect.
    pub(super) async fn act(
        &mut self,
        kind: ResetKind,
        journal: &dyn Journal,
    ) -> Result<Sent, Error> {
        self.assure().await?;
        if kind.takes_power() {
            let about = journal.about(kind).await;
            about.map_err(|Failure(detail)| Error::Journal { detail })?;
            // A journal may be slow, and is not the host.
            self.assure().await?;
        }
        match &mut self.talk {
            Some(talk) => talk.reset(kind).await,
            None => Err(lost()),
        }
    }

    /// Makes sure that this very conversation is with the expected host.
    async fn assure(&mut self) -> Result<(), Error> {
        let fresh = self
            .checked
            .is_some_and(|checked| checked.elapsed() < FRESH);
        if !fresh || self.talk.is_none() {
            self.identity().await?;
        }
        Ok(())
    }
}

fn lost() -> Error {
    Error::Unreachable {
        detail: "the conversation was lost".to_owned(),
    }
}
