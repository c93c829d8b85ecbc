//! Reads the power of all hosts again and again, so that drift is seen without anybody asking.
//!
//! It refuses to change anything; which BMC is left alone for a while, [`ipmi::fleet`] decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipmi::fleet::{Pace, Poller, Reading};
use netboot_core::lifecycle::Power;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::bmc;
use super::clock::Clock;
use super::power::Reached;

/// Time between two reads of a host: power drift is healed within minutes, and a BMC is not kept
/// busy.
const EVERY: Duration = Duration::from_mins(1);

/// Answers that are taken in one transaction.
const BATCH: usize = 256;

/// The BMCs that there are, by host.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets(BTreeMap<Arc<str>, Reached>);

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
    targets: watch::Receiver<Targets>,
    answers: mpsc::Sender<Polled>,
    clock: Clock,
) {
    let mut rounds = interval(clock.wait(EVERY));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut poller = None;
    loop {
        rounds.tick().await;
        if poller.is_none() {
            poller = Poller::bind(Pace::default())
                .inspect_err(|error| tracing::warn!(error = %error, "power is not polled"))
                .ok();
        }
        let now = targets.borrow().clone();
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
    let readings = poller.sweep(&bmcs).await;
    let told = hosts.into_iter().zip(readings).filter_map(read);
    let told: Vec<Read> = told.collect();
    for batch in told.chunks(BATCH) {
        answers.send(Polled(batch.to_vec())).await?;
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
