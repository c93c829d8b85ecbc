//! The running boot of each host, and its timeline on the way to the store.
//!
//! It refuses to judge a boot, and to grow: what repeats itself is one event, and a boot has a
//! bounded number of them, of bounded size.

mod proof;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use image_manifest::{Digest, Stage};
use netboot_core::boot::{Event, File, Progress, Step, Transfer, What, begins};
use netboot_core::dhcp::Firmware;
use netboot_core::site::{Mode, Parameters};
use netboot_core::{Mac, Timestamp};
use serde::{Deserialize, Serialize};

use super::token::new_boot_id;
use crate::store::{
    BOOTS_AT_START, BYTES_PER_BOOT, BootRow, Change, EVENTS_PER_BOOT, EventRow, StoreError,
    StoredBoot,
};

/// A boot that was heard of this recently when the appliance starts was cut by its restart.
const RECENT: Duration = Duration::from_mins(10);

/// What is known about a boot besides its timeline; stored as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BootDetail {
    /// The interface that it boots from.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The address that it boots with.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// What it was told to boot.
    #[serde(default)]
    pub target: Option<Target>,
    /// Digest of the nonce that its token was exchanged with; the token is worth nothing since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchanged: Option<Digest>,
    /// What its host is told besides, as its generation says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,
}

/// What a boot was told to boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// Name of the image.
    pub image: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Its tree digest.
    pub tree: Digest,
    /// Digest of the kernel.
    pub kernel: Digest,
    /// Digest of the initrd.
    pub initrd: Digest,
    /// Digest of the root file system.
    pub rootfs: Digest,
}

impl Target {
    /// Tells what an artifact is for in this boot.
    fn file(&self, digest: &Digest) -> Option<File> {
        let files = [
            (self.kernel, File::Kernel),
            (self.initrd, File::Initrd),
            (self.rootfs, File::Rootfs),
        ];
        let found = files.iter().find(|(known, _)| known == digest);
        found.map(|(_, file)| *file)
    }
}

/// Reads a stored boot.
///
/// # Errors
/// When it holds what no version of this program writes.
pub fn read_boot(stored: &StoredBoot) -> Result<(BootDetail, Vec<Event>), StoreError> {
    let corrupt = |field, value: &str| StoreError::Corrupt {
        what: format!("boot `{}`", stored.boot.id),
        field,
        value: value.chars().take(200).collect(),
    };
    let detail = serde_json::from_str(&stored.boot.detail)
        .map_err(|_| corrupt("detail", &stored.boot.detail))?;
    let event = |row: &EventRow| {
        let what = serde_json::from_str(&row.event).map_err(|_| corrupt("event", &row.event))?;
        let at = Timestamp(row.at_ms);
        Ok(Event { at, what })
    };
    let events: Result<_, StoreError> = stored.events.iter().map(event).collect();
    Ok((detail, events?))
}

/// How many boots of a host are admitted at a time; more than two only when it starts again and
/// again without a report.
const ADMITTED: usize = BOOTS_AT_START;

/// The running boot of each host.
#[derive(Debug, Default)]
pub(super) struct Boots {
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    by_host: HashMap<Arc<str>, Admitted>,
    /// Hosts by the ids of their boots that are admitted.
    by_id: HashMap<Arc<str>, Arc<str>>,
}

/// The boots of one host whose tokens are worth something.
///
/// Any packet that names the host may begin a boot, and only the host's own system can report. So
/// the boot before stays admitted until the new one reports; when the one before reports instead,
/// the host never started again, and its boot goes on.
#[derive(Debug, Default)]
struct Admitted {
    /// Oldest first.
    boots: Vec<Running>,
    /// The one that events belong to.
    current: usize,
}

/// What a recorded event led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    /// Id of the boot that it belongs to.
    pub(super) boot: Arc<str>,
    /// Whether it is the boot's first.
    pub(super) began: bool,
    /// What must be stored.
    pub(super) changes: Vec<Change>,
}

impl Boots {
    /// Goes on with stored boots.
    pub(super) fn restore(stored: Vec<StoredBoot>) -> Result<Self, StoreError> {
        let mut all = All::default();
        for boot in stored {
            let (detail, events) = read_boot(&boot)?;
            if let Some(running) = Running::restore(&boot, detail, events) {
                let proved = running.is_proved();
                all.insert(boot.boot.host.as_str().into(), running);
                if proved {
                    all.prove(&boot.boot.id);
                }
            }
        }
        Ok(Self {
            all: Mutex::new(all),
        })
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many hosts have one.
    pub(super) fn len(&self) -> usize {
        self.all().by_host.len()
    }

    /// Marks the boots that the appliance's restart has cut into.
    pub(super) fn restarted(&self, now: Timestamp) -> Vec<Change> {
        let mut all = self.all();
        let running = all.by_host.values_mut().filter_map(Admitted::current);
        let cut = running.filter(|running| {
            let recent = now.since(running.progress.last) < RECENT;
            recent && running.progress.reached < Step::Health
        });
        let mark = |running: &mut Running| {
            let event = Event {
                at: now,
                what: What::Restarted,
            };
            running.record(event).map(Change::Event)
        };
        cut.filter_map(mark).collect()
    }

    /// Adds an event to the host's timeline; a new boot begins where the core says so.
    ///
    /// `None` when the host has no boot and the event begins none, or when nothing is new.
    pub(super) fn record(
        &self,
        host: &Arc<str>,
        event: Event,
        mode: Mode,
        detail: impl FnOnce(&mut BootDetail),
    ) -> Option<Recorded> {
        let mut all = self.all();
        let current = all.by_host.get_mut(host).and_then(Admitted::current);
        let last = current.map(|running| running.progress);
        let began = begins(last.as_ref(), &event, mode);
        if began {
            all.insert(Arc::clone(host), Running::begin(&event)?);
        }
        let running = all.by_host.get_mut(host)?.current()?;
        let before = running.detail.clone();
        detail(&mut running.detail);
        let mut changes = Vec::new();
        if began || running.detail != before {
            changes.push(Change::Boot(running.row(host)));
        }
        changes.extend(running.record(event).map(Change::Event));
        Some(Recorded {
            boot: Arc::clone(&running.id),
            began,
            changes,
        })
    }

    /// Adds a report, which shows that the boot runs: those before it have ended.
    ///
    /// `None` when no host has this boot.
    pub(super) fn report(&self, boot: &str, event: Event) -> Option<Recorded> {
        let mut all = self.all();
        let (host, returned) = all.prove(boot)?;
        let running = all.by_host.get_mut(&host)?.current()?;
        let mut changes = Vec::new();
        if returned {
            tracing::info!(host = &*host, boot, "boot goes on, no other one has begun");
            // Boots that were none may have pushed it out of the store.
            changes.push(Change::Boot(running.row(&host)));
        }
        changes.extend(running.record(event).map(Change::Event));
        Some(Recorded {
            boot: Arc::clone(&running.id),
            began: false,
            changes,
        })
    }

    /// Finds the host that has a boot with this id, and what is known about that boot.
    pub(super) fn find(&self, boot: &str) -> Option<(Arc<str>, BootDetail)> {
        let all = self.all();
        let host = all.by_id.get(boot)?;
        let running = all.by_host.get(host)?.of(boot)?;
        Some((Arc::clone(host), running.detail.clone()))
    }

    /// Tells whether the running boot of a host has reported.
    pub(super) fn has_reported(&self, host: &str) -> bool {
        let mut all = self.all();
        let current = all.by_host.get_mut(host).and_then(Admitted::current);
        current.is_some_and(|running| running.progress.reported)
    }

    /// Returns the address that each host was last seen at.
    pub(super) fn addresses(&self) -> Vec<(Ipv4Addr, Arc<str>)> {
        let mut all = self.all();
        let boots = all.by_host.iter_mut();
        let address = |(host, admitted): (&Arc<str>, &mut Admitted)| {
            let address = admitted.current()?.detail.address?;
            Some((address, Arc::clone(host)))
        };
        boots.filter_map(address).collect()
    }

    /// Tells what an artifact is for in the running boot of a host.
    pub(super) fn file(&self, host: &str, digest: &Digest) -> Option<File> {
        let mut all = self.all();
        let running = all.by_host.get_mut(host)?.current()?;
        running.detail.target.as_ref()?.file(digest)
    }
}

impl All {
    fn insert(&mut self, host: Arc<str>, running: Running) {
        self.by_id
            .insert(Arc::clone(&running.id), Arc::clone(&host));
        let ended = self.by_host.entry(host).or_default().begin(running);
        for id in ended {
            self.by_id.remove(&id);
        }
    }
}

impl All {
    /// Makes a boot the running one of its host: those before it have ended. Tells whether another
    /// one seemed to run.
    fn prove(&mut self, boot: &str) -> Option<(Arc<str>, bool)> {
        let host = self.by_id.get(boot).cloned()?;
        let (returned, ended) = self.by_host.get_mut(&host)?.prove(boot)?;
        for id in ended {
            self.by_id.remove(&id);
        }
        Some((host, returned))
    }
}

impl Admitted {
    fn current(&mut self) -> Option<&mut Running> {
        self.boots.get_mut(self.current)
    }

    fn of(&self, boot: &str) -> Option<&Running> {
        self.boots.iter().find(|running| &*running.id == boot)
    }

    /// Adds the newest boot, and returns the ids of those that are admitted no more.
    fn begin(&mut self, running: Running) -> Vec<Arc<str>> {
        let mut ended = self.drop_unless(Running::has_token);
        if self.boots.len() >= ADMITTED {
            // Those that only have a token may be many; the one that reported is one.
            let unproved = self.boots.iter().position(|one| !one.is_proved());
            ended.push(self.boots.remove(unproved.unwrap_or(0)).id);
        }
        self.current = self.boots.len();
        self.boots.push(running);
        ended
    }

    /// Makes a boot the running one; tells whether another one seemed to be, and which have ended.
    fn prove(&mut self, boot: &str) -> Option<(bool, Vec<Arc<str>>)> {
        let index = self.boots.iter().position(|one| &*one.id == boot)?;
        let returned = index != self.current;
        let before = self.boots.drain(..index).map(|one| one.id);
        let mut ended: Vec<_> = before.collect();
        ended.extend(self.drop_unless(|one| &*one.id == boot || one.has_token()));
        self.current = 0;
        Some((returned, ended))
    }

    fn drop_unless(&mut self, keep: impl Fn(&Running) -> bool) -> Vec<Arc<str>> {
        let dropped = self.boots.extract_if(.., |one| !keep(one));
        dropped.map(|one| one.id).collect()
    }
}

/// One running boot.
#[derive(Debug)]
struct Running {
    id: Arc<str>,
    started: Timestamp,
    detail: BootDetail,
    progress: Progress,
    /// Number of the newest report that is stored.
    sequence: u64,
    /// Answers with secrets since the appliance started.
    secrets_given: u32,
    /// For what it was refused something since the appliance started.
    refused: Vec<&'static str>,
    /// Number of the next event.
    next: u32,
    /// Bytes of its numbered events, as they are stored.
    bytes: usize,
    /// Events that later ones may be joined with.
    open: Vec<Open>,
}

/// An event that a later one may be joined with.
#[derive(Debug)]
struct Open {
    seq: u32,
    at: Timestamp,
    what: What,
}

impl Running {
    fn begin(first: &Event) -> Option<Self> {
        let id = new_boot_id().inspect_err(|error| {
            tracing::error!(error = %error, "no randomness for a boot id");
        });
        Some(Self {
            id: id.ok()?.into(),
            started: first.at,
            detail: BootDetail::default(),
            progress: Progress::new(first),
            sequence: 0,
            secrets_given: 0,
            refused: Vec::new(),
            next: 0,
            bytes: 0,
            open: Vec::new(),
        })
    }

    /// Goes on after the highest number, with gaps where events were never stored.
    fn restore(stored: &StoredBoot, detail: BootDetail, events: Vec<Event>) -> Option<Self> {
        let mut running = Self {
            id: stored.boot.id.as_str().into(),
            started: Timestamp(stored.boot.started_ms),
            detail,
            progress: Progress::of(&events)?,
            sequence: 0,
            secrets_given: 0,
            refused: Vec::new(),
            next: 0,
            bytes: 0,
            open: Vec::new(),
        };
        for (row, event) in stored.events.iter().zip(events) {
            if let What::Report(report) = &event.what {
                running.sequence = running.sequence.max(report.sequence);
            }
            running.keep(row.seq, event.at, event.what);
            running.next = running.next.max(row.seq.saturating_add(1));
            running.bytes = running.bytes.saturating_add(row.event.len());
        }
        Some(running)
    }

    /// Tells whether its host has shown that this boot runs.
    fn is_proved(&self) -> bool {
        self.progress.reported || self.detail.exchanged.is_some()
    }

    /// Tells whether its host was given the token: nothing else can report for it.
    fn has_token(&self) -> bool {
        self.detail.target.is_some() || self.progress.reported
    }

    fn row(&self, host: &Arc<str>) -> BootRow {
        BootRow {
            id: self.id.to_string(),
            host: host.to_string(),
            started_ms: self.started.0,
            // A detail has no map with keys that JSON cannot hold.
            detail: serde_json::to_string(&self.detail).unwrap_or_default(),
        }
    }

    /// Takes an event, and returns it as it is stored: perhaps over an earlier one.
    fn record(&mut self, event: Event) -> Option<EventRow> {
        self.progress.note(&event);
        let joined = self
            .open
            .iter()
            .rposition(|open| same_slot(&open.what, &event.what))
            .and_then(|index| Some((index, join(&self.open[index], &event, self.since(&event))?)));
        let (seq, what) = match joined {
            Some((_, Joined::Nothing)) => return None,
            Some((index, Joined::Instead(what))) => (Some(self.open[index].seq), what),
            None => (None, event.what),
        };
        let text = serde_json::to_string(&what).ok()?;
        let seq = seq.unwrap_or_else(|| self.number(text.len()));
        self.keep(seq, event.at, what);
        Some(EventRow {
            boot: self.id.to_string(),
            seq,
            at_ms: event.at.0,
            event: text,
        })
    }

    /// Numbers an event of so many bytes. The newest one always has a place: the last one.
    fn number(&mut self, bytes: usize) -> u32 {
        let seq = if self.bytes > BYTES_PER_BOOT {
            self.next.saturating_sub(1)
        } else {
            self.bytes = self.bytes.saturating_add(bytes);
            self.next
        };
        let seq = seq.min(EVENTS_PER_BOOT - 1);
        self.next = seq + 1;
        seq
    }

    /// Returns when the file of an event was first asked for.
    fn since(&self, event: &Event) -> Timestamp {
        let What::Fetch { file, .. } = &event.what else {
            return event.at;
        };
        let started = self.open.iter().find(|open| {
            matches!(&open.what, What::Fetch { file: other, transfer: Transfer::Started, .. } if other == file)
        });
        started.map_or(event.at, |open| open.at)
    }

    /// Remembers an event that later ones may be joined with.
    fn keep(&mut self, seq: u32, at: Timestamp, what: What) {
        let slot = self
            .open
            .iter_mut()
            .find(|open| same_slot(&open.what, &what));
        match slot {
            Some(open) if open.seq == seq => open.what = what,
            Some(open) => *open = Open { seq, at, what },
            None if is_repeated(&what) => self.open.push(Open { seq, at, what }),
            None => {}
        }
    }
}

/// Tells whether an event is of a kind that repeats itself.
fn is_repeated(what: &What) -> bool {
    match what {
        What::Dhcp { firmware, .. } => *firmware == Firmware::Os,
        What::Fetch { .. } | What::Report(_) | What::Refused { .. } => true,
        What::Restarted => false,
    }
}

/// Tells whether a later event replaces the earlier one as the newest of its kind. There are few
/// kinds: reports, questions of the system, refusals, and one a file and step.
fn same_slot(earlier: &What, later: &What) -> bool {
    match (earlier, later) {
        (What::Report(_), What::Report(_)) | (What::Refused { .. }, What::Refused { .. }) => true,
        (What::Dhcp { firmware, .. }, What::Dhcp { firmware: now, .. }) => {
            *firmware == Firmware::Os && firmware == now
        }
        (
            What::Fetch { file, transfer, .. },
            What::Fetch {
                file: now,
                transfer: step,
                ..
            },
        ) => file == now && std::mem::discriminant(transfer) == std::mem::discriminant(step),
        _ => false,
    }
}

enum Joined {
    /// The earlier event says it all.
    Nothing,
    /// This stands in the place of the earlier event.
    Instead(What),
}

/// Joins an event with the newest one of its kind, if both say the same.
fn join(open: &Open, event: &Event, since: Timestamp) -> Option<Joined> {
    match (&open.what, &event.what) {
        (What::Report(before), What::Report(report)) => match (&before.stage, &report.stage) {
            (Stage::Heartbeat { .. }, Stage::Heartbeat { .. }) if before.stage == report.stage => {
                Some(Joined::Instead(event.what.clone()))
            }
            _ => None,
        },
        (What::Dhcp { .. }, What::Dhcp { .. }) | (What::Refused { .. }, What::Refused { .. }) => {
            (open.what == event.what).then(|| Joined::Instead(event.what.clone()))
        }
        (What::Fetch { name, .. }, What::Fetch { name: now, .. }) if name != now => None,
        (What::Fetch { transfer, .. }, What::Fetch { transfer: step, .. }) => {
            let transfer = add(transfer, step, event.at.since(since))?;
            let mut what = event.what.clone();
            if let What::Fetch { transfer: sum, .. } = &mut what {
                *sum = transfer;
            }
            Some(match step {
                Transfer::Started => Joined::Nothing,
                Transfer::Done { .. } | Transfer::Failed { .. } => Joined::Instead(what),
            })
        }
        _ => None,
    }
}

/// Adds up the pieces that a file is fetched in: stage1 asks for the root in some forty ranges.
fn add(sum: &Transfer, piece: &Transfer, elapsed: Duration) -> Option<Transfer> {
    Some(match (sum, piece) {
        (Transfer::Started, Transfer::Started) => Transfer::Started,
        (Transfer::Done { bytes, .. }, Transfer::Done { bytes: more, .. }) => Transfer::Done {
            bytes: bytes.saturating_add(*more),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        },
        (
            Transfer::Failed { bytes, .. },
            Transfer::Failed {
                bytes: more,
                reason,
            },
        ) => Transfer::Failed {
            bytes: bytes.saturating_add(*more),
            reason: reason.clone(),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
