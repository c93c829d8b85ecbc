//! The one writer: a bounded queue, and one transaction for all that waits in it.
//!
//! It refuses work when the queue is full, rather than let replies grow old: DISCOVERs are shed
//! first, so that clients which already have an offer get through.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::{Change, Store, StoreError};
use crate::audit::Chain;

/// Jobs that may wait. At 50,000 rows a second on a busy disk the last one waits 160 ms, well
/// below the 4 s after which firmware asks again.
const QUEUE: usize = 8_192;

/// Places of the queue that are kept for urgent jobs.
const RESERVED: usize = QUEUE / 4;

/// Jobs in one transaction: beyond this the cost of each row is the same
/// (137k rows a second at 512, 72k at 64, 8k at 1).
const BATCH: usize = 512;

/// How long a transaction is held open for more jobs once there is more than one.
const GATHER: Duration = Duration::from_millis(2);

/// Failed transactions in a row after which the writer gives up…
const FAILURES: u32 = 8;

/// …when they have gone on for this long: a disk that is full for a moment is waited for, and a
/// service manager that starts us again does not run into its limit.
const FAILING: Duration = Duration::from_mins(1);

/// How much it matters that a job gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A client may as well ask again later.
    Deferrable,
    /// A client waits that has got far already.
    Urgent,
}

/// The queue has no place for this job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store's queue is full")]
pub struct QueueFull;

#[derive(Debug)]
struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), Arc<StoreError>>>,
}

/// Where changes are handed in.
#[derive(Clone, Debug)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

/// Waits until a job is on disk.
#[derive(Debug)]
pub struct Commit(oneshot::Receiver<Result<(), Arc<StoreError>>>);

impl Commit {
    /// Waits until the job is on disk.
    ///
    /// # Errors
    /// When the store failed: then nothing of it may be promised to anyone.
    pub async fn durable(self) -> Result<(), StoreError> {
        match self.0.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StoreError::Batch(error)),
            Err(_) => Err(StoreError::Closed),
        }
    }
}

impl Writer {
    /// Starts the writer; it ends, with all work done, when the last [`Writer`] is dropped.
    ///
    /// It ends before that when the store fails for good, and never in any other case.
    /// Records of the audit log go on after the end of `chain`.
    pub fn spawn<S: Store>(store: S, chain: Chain) -> (Self, JoinHandle<()>) {
        Self::spawn_with(store, chain, FAILING)
    }

    /// Starts the writer with another patience than [`FAILING`].
    pub(super) fn spawn_with<S: Store>(
        store: S,
        chain: Chain,
        patience: Duration,
    ) -> (Self, JoinHandle<()>) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(run(store, chain, queue, patience));
        (Self { jobs }, task)
    }

    /// Hands in changes that belong together.
    ///
    /// # Errors
    /// When the queue has no place for a job of this urgency.
    pub fn submit(&self, changes: Vec<Change>, urgency: Urgency) -> Result<Commit, QueueFull> {
        if urgency == Urgency::Deferrable && self.is_crowded() {
            return Err(QueueFull);
        }
        let (done, wait) = oneshot::channel();
        match self.jobs.try_send(Job { changes, done }) {
            // After the end of the writer the job is dropped, and `durable` says so.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(Commit(wait)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(QueueFull),
        }
    }

    /// Tells whether only urgent jobs get a place now.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.jobs.capacity() < RESERVED
    }

    /// Returns how many jobs wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        QUEUE - self.jobs.capacity()
    }
}

async fn run<S: Store>(
    mut store: S,
    mut chain: Chain,
    mut queue: mpsc::Receiver<Job>,
    patience: Duration,
) {
    let mut jobs = Vec::with_capacity(BATCH);
    let mut failing = Failing::default();
    while gather(&mut queue, &mut jobs).await {
        let mut changes: Vec<Change> = jobs
            .iter_mut()
            .flat_map(|job| std::mem::take(&mut job.changes))
            .collect();
        // Numbers and hashes are given here and not where the job was made: a transaction that fails
        // must leave no hole in the chain.
        let mut next = chain.clone();
        next.link(&mut changes);
        let outcome = store.commit(&changes).await.map_err(Arc::new);
        if outcome.is_ok() {
            chain = next;
        }
        if let Err(error) = &outcome {
            tracing::error!(
                error = %crate::cli::report::chain(&**error),
                rows = changes.len(),
                "store failed"
            );
        }
        for job in jobs.drain(..) {
            // Nobody waits any more for an event that no reply depends on.
            drop(job.done.send(outcome.clone()));
        }
        if failing.take(outcome.is_err(), Instant::now()) >= patience && failing.count >= FAILURES {
            tracing::error!(failures = failing.count, "store fails for good");
            break;
        }
    }
    if let Err(error) = store.close().await {
        tracing::warn!(error = %crate::cli::report::chain(&error), "store did not close");
    }
}

/// How long transactions have been failing.
#[derive(Debug, Default)]
struct Failing {
    /// Failures in a row.
    count: u32,
    since: Option<Instant>,
}

impl Failing {
    /// Takes the outcome of one transaction, and tells how long they have failed.
    fn take(&mut self, failed: bool, now: Instant) -> Duration {
        if !failed {
            *self = Self::default();
            return Duration::ZERO;
        }
        self.count = self.count.saturating_add(1);
        now.duration_since(*self.since.get_or_insert(now))
    }
}

/// Fills `jobs` with what waits; a single job does not wait for company.
async fn gather(queue: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) -> bool {
    if queue.recv_many(jobs, BATCH).await == 0 {
        return false;
    }
    let until = Instant::now() + GATHER;
    while jobs.len() > 1 && jobs.len() < BATCH {
        match timeout_at(until, queue.recv_many(jobs, BATCH - jobs.len())).await {
            Ok(received) if received > 0 => {}
            Ok(_) | Err(_) => break,
        }
    }
    true
}
