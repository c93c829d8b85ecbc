//! Reads the power of all hosts again and again, so that drift is seen without anybody asking.
//!
//! It refuses to change anything; which BMC is left alone for a while, [`ipmi::fleet`] decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipmi::fleet::{Pace, Poller, Reading};
use netboot_core::lifecycle::Power;
use netboot_core::site;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::bmc;
use super::clock::Clock;
use super::power::Reached;

/// Time between two reads of a host: power drift is healed within minutes, and a BMC is not kept
/// busy.
pub(super) const EVERY: Duration = Duration::from_mins(1);

/// Answers that are taken in one transaction.
const BATCH: usize = 256;

/// The BMCs that there are, by host.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets(BTreeMap<Arc<str>, Reached>);

/// What some hosts' BMCs said: the power, or the constant word and the text of an error.
#[derive(Debug)]
pub(super) struct Polled {
    /// When the first of them was asked; what was done to a host since may have changed its power.
    pub(super) began: Instant,
    pub(super) reads: Vec<Read>,
}

type Read = (Arc<str>, Result<Power, (&'static str, String)>);

/// How each host's BMC is described.
type Described = BTreeMap<Arc<str>, Arc<site::Bmc>>;

impl Targets {
    /// Adds a host's BMC.
    pub(super) fn add(&mut self, host: &Arc<str>, reached: Reached) {
        self.0.insert(Arc::clone(host), reached);
    }

    fn described(&self) -> Described {
        let described = self.0.iter();
        described
            .map(|(host, reached)| (Arc::clone(host), Arc::clone(&reached.described)))
            .collect()
    }

    /// Keeps those that were not there before, or were another BMC.
    fn since(mut self, before: &Described) -> Self {
        self.0
            .retain(|host, reached| before.get(host) != Some(&reached.described));
        self
    }

    fn only(mut self, host: &str) -> Self {
        self.0.retain(|name, _| **name == *host);
        self
    }
}

/// Polls until nobody listens any more: all in rounds, and at once what is new or wished for.
pub(super) async fn run(
    mut targets: watch::Receiver<Targets>,
    mut wishes: mpsc::Receiver<Arc<str>>,
    answers: mpsc::Sender<Polled>,
    clock: Clock,
) {
    let mut rounds = interval(clock.wait(EVERY));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut poller = None;
    let mut known = Described::new();
    loop {
        let now = tokio::select! {
            biased;
            _ = rounds.tick() => targets.borrow_and_update().clone(),
            Ok(()) = targets.changed() => targets.borrow_and_update().clone().since(&known),
            Some(host) = wishes.recv() => targets.borrow().clone().only(&host),
        };
        known = targets.borrow().described();
        if poller.is_none() {
            poller = Poller::bind(Pace::default())
                .inspect_err(|error| tracing::warn!(error = %error, "power is not polled"))
                .ok();
        }
        let Some(poller) = &mut poller else { continue };
        if poll(poller, now, &answers).await.is_err() {
            return;
        }
    }
}

async fn poll(
    poller: &mut Poller,
    targets: Targets,
    answers: &mpsc::Sender<Polled>,
) -> Result<(), mpsc::error::SendError<Polled>> {
    let (hosts, bmcs): (Vec<_>, Vec<_>) = targets
        .0
        .into_iter()
        .map(|(host, reached)| (host, reached.bmc))
        .unzip();
    let began = Instant::now();
    let readings = poller.sweep(&bmcs).await;
    let told = hosts.into_iter().zip(readings).filter_map(read);
    let told: Vec<Read> = told.collect();
    for batch in told.chunks(BATCH) {
        let reads = batch.to_vec();
        answers.send(Polled { began, reads }).await?;
    }
    Ok(())
}

fn read((host, reading): (Arc<str>, Reading)) -> Option<Read> {
    match reading {
        Reading::Power(power) => Some((host, Ok(bmc::power(&power)))),
        Reading::Failed(error) => Some((host, Err((error.label(), error.to_string())))),
        // What was known of it stays known.
        Reading::Skipped(_) => None,
    }
}
