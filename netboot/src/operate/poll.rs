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
    loop {
        rounds.tick().await;
        let now = targets.borrow_and_update().clone();
        if poll(now, &polled).await.is_err() {
            return;
        }
    }
}

async fn poll(
    targets: Targets,
    polled: &mpsc::Sender<Polled>,
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
        polled.send(Polled(std::mem::take(&mut batch))).await?;
    }
    Ok(())
}

async fn read(reached: &Reached) -> Result<Power, (&'static str, String)> {
    let failed = |error: ipmi::Error| (error.label(), error.to_string());
    let power = reached.bmc.power(READ).await.map_err(failed)?;
    Ok(bmc::power(&power))
}
