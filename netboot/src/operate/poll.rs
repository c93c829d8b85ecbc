//! Reads the power of all hosts again and again, so that drift is seen without anybody asking.
//!
//! It refuses to change anything, and to ask one BMC twice at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use netboot_core::lifecycle::Power;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::bmc;
use super::clock::Clock;
use super::power::Reached;

/// Time between two reads of a host: power drift is healed within minutes, and a BMC is not kept
/// busy.
const EVERY: Duration = Duration::from_mins(1);

/// What one read may take: an order that comes meanwhile waits for it.
const READ: Duration = Duration::from_secs(5);

/// BMCs that are asked at the same time.
const AT_ONCE: usize = 128;

/// Rounds that a BMC which failed again and again is left alone: it may be gone, and an account
/// that is refused too often is locked by many.
const LONGEST_PAUSE: u32 = 15;

/// Answers that are taken in one transaction.
const BATCH: usize = 256;

/// The BMCs that there are, by host.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets(HashMap<Arc<str>, Reached>);

/// What some hosts' BMCs said: the power, or the constant word and the text of an error.
#[derive(Debug)]
pub(super) struct Polled(pub(super) Vec<Read>);

type Read = (Arc<str>, Result<Power, (&'static str, String)>);

impl Targets {
    /// Adds a host's BMC.
    pub(super) fn add(&mut self, host: &Arc<str>, reached: Reached) {
        self.0.insert(Arc::clone(host), reached);
    }
}

/// Polls until nobody listens any more.
pub(super) async fn run(
    mut targets: watch::Receiver<Targets>,
    polled: mpsc::Sender<Polled>,
    clock: Clock,
) {
    let mut rounds = interval(clock.wait(EVERY));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pauses = Pauses::default();
    loop {
        rounds.tick().await;
        if targets.has_changed().unwrap_or(false) {
            // Whatever was wrong may have been put right.
            pauses = Pauses::default();
        }
        let mut now = targets.borrow_and_update().clone();
        now.0.retain(|host, _| pauses.is_due(host));
        if poll(now, &polled, &mut pauses).await.is_err() {
            return;
        }
    }
}

/// Which BMCs are left alone, and for how many rounds.
#[derive(Debug, Default)]
struct Pauses(HashMap<Arc<str>, Pause>);

#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    rounds: u32,
}

impl Pauses {
    /// Counts a round, and tells whether a BMC is asked in it.
    fn is_due(&mut self, host: &Arc<str>) -> bool {
        let Some(pause) = self.0.get_mut(host) else {
            return true;
        };
        let due = pause.rounds == 0;
        pause.rounds = pause.rounds.saturating_sub(1);
        due
    }

    /// Remembers whether a BMC answered: after the second failure it is asked in every second
    /// round, then in every fourth.
    fn note(&mut self, read: &Read) {
        let (host, answer) = read;
        if answer.is_ok() {
            self.0.remove(host);
            return;
        }
        let pause = self.0.entry(Arc::clone(host)).or_default();
        pause.failures = pause.failures.saturating_add(1);
        let doubled = 1_u32.checked_shl(pause.failures - 1).unwrap_or(u32::MAX);
        pause.rounds = (doubled - 1).min(LONGEST_PAUSE);
    }
}

async fn poll(
    targets: Targets,
    polled: &mpsc::Sender<Polled>,
    pauses: &mut Pauses,
) -> Result<(), mpsc::error::SendError<Polled>> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (host, reached) in targets.0 {
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            let permit = permits.acquire().await;
            let read = read(&reached).await;
            drop(permit);
            (host, read)
        });
    }
    let mut batch = Vec::new();
    while let Some(read) = tasks.join_next().await {
        batch.extend(read.ok());
        // What came meanwhile comes along.
        while let Some(more) = tasks.try_join_next() {
            batch.extend(more.ok());
            if batch.len() >= BATCH {
                break;
            }
        }
        for read in &batch {
            pauses.note(read);
        }
        polled.send(Polled(std::mem::take(&mut batch))).await?;
    }
    Ok(())
}

async fn read(reached: &Reached) -> Result<Power, (&'static str, String)> {
    let failed = |error: ipmi::Error| (error.label(), error.to_string());
    let power = reached.bmc.power(READ).await.map_err(failed)?;
    Ok(bmc::power(&power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bmc_that_fails_is_asked_less_and_less() {
        let host: Arc<str> = "web1".into();
        let mut pauses = Pauses::default();
        let mut asked = Vec::new();
        for round in 0..60 {
            if pauses.is_due(&host) {
                asked.push(round);
                let failed = ("unreachable", "no answer".to_owned());
                pauses.note(&(Arc::clone(&host), Err(failed)));
            }
        }
        assert_eq!(asked, [0, 1, 3, 7, 15, 31, 47]);
        pauses.note(&(Arc::clone(&host), Ok(Power::On)));
        assert!(pauses.is_due(&host) && pauses.is_due(&host));
    }
}
