//! What is done to hosts' power: one operation of a host at a time, so many at all.
//!
//! It refuses to try again by itself, and to act on a host whose BMC was never recorded: it asks
//! for that first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ipmi::{Bmc, Credentials, Expected, Identity, Journal, OperationId, Seen, Step, journal};
use netboot_core::lifecycle::{Operation, Outcome, Power, PowerIntent};
use netboot_core::site;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::bmc;

/// Operations at the same time, over all hosts: each is a session and a few packets.
const AT_ONCE: usize = 64;

/// One operation on one host's power.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) host: Arc<str>,
    pub(super) operation: Operation,
    pub(super) intent: PowerIntent,
    /// How long it may take.
    pub(super) deadline: Duration,
    /// The BMC; or why there is none, in words.
    pub(super) bmc: Result<Reached, String>,
}

/// A BMC that can be spoken to.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    pub(super) bmc: Arc<Bmc>,
    pub(super) described: Arc<site::Bmc>,
    /// Who we are to it.
    pub(super) credentials: Credentials,
    /// What was recorded of it.
    pub(super) recorded: Option<Identity>,
}

/// An operation that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) host: Arc<str>,
    pub(super) operation: Operation,
    pub(super) intent: PowerIntent,
    pub(super) outcome: Outcome,
    /// The constant word of the BMC's error.
    pub(super) problem: Option<&'static str>,
}

/// An identity that was seen for the first time, to be recorded before anything is done.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) host: Arc<str>,
    pub(super) identity: Identity,
    /// Answered when it is on disk.
    pub(super) recorded: oneshot::Sender<Result<(), String>>,
}

/// The operations that are under way; dropping it drops them.
#[derive(Debug)]
pub(super) struct Powers {
    tasks: JoinSet<Ended>,
    /// The host of each task.
    hosts: HashMap<Id, Arc<str>>,
    busy: HashSet<Arc<str>>,
    waiting: HashMap<Arc<str>, VecDeque<Job>>,
    permits: Arc<Semaphore>,
    learn: mpsc::Sender<Learned>,
}

impl Powers {
    /// Begins with none; what is learned is sent to `learn`.
    pub(super) fn new(learn: mpsc::Sender<Learned>) -> Self {
        Self {
            tasks: JoinSet::new(),
            hosts: HashMap::new(),
            busy: HashSet::new(),
            waiting: HashMap::new(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            learn,
        }
    }

    /// Begins an operation, after those of the same host that are under way.
    pub(super) fn begin(&mut self, job: Job) {
        if self.busy.insert(Arc::clone(&job.host)) {
            self.spawn(job);
        } else {
            let host = Arc::clone(&job.host);
            self.waiting.entry(host).or_default().push_back(job);
        }
    }

    fn spawn(&mut self, job: Job) {
        let permits = Arc::clone(&self.permits);
        let learn = self.learn.clone();
        let host = Arc::clone(&job.host);
        let task = self.tasks.spawn(async move {
            let permit = permits.acquire().await;
            let (outcome, problem) = run(&job, &learn).await;
            drop(permit);
            Ended {
                host: job.host,
                operation: job.operation,
                intent: job.intent,
                outcome,
                problem,
            }
        });
        self.hosts.insert(task.id(), host);
    }

    /// Waits for the next operation that ends; for ever when none is under way.
    pub(super) async fn ended(&mut self) -> Ended {
        loop {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return std::future::pending().await;
            };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            if let Some(host) = self.hosts.remove(&id) {
                self.next_of(&host);
            }
            match ended {
                Ok((_, ended)) => return ended,
                // A task that panicked is a defect of ours; the lifecycle takes it for lost.
                Err(error) => tracing::error!(error = %error, "power operation broke off"),
            }
        }
    }

    fn next_of(&mut self, host: &Arc<str>) {
        let next = self.waiting.get_mut(host).and_then(VecDeque::pop_front);
        if let Some(job) = next {
            self.spawn(job);
        } else {
            self.waiting.remove(host);
            self.busy.remove(host);
        }
    }

    /// Forgets operations of a host that have not begun and are no longer waited for.
    pub(super) fn retain(&mut self, host: &str, awaited: impl Fn(Operation) -> bool) {
        if let Some(waiting) = self.waiting.get_mut(host) {
            waiting.retain(|job| awaited(job.operation));
        }
    }

    /// Whether an operation of a host is under way.
    pub(super) fn is_busy(&self, host: &str) -> bool {
        self.busy.contains(host)
    }
}

async fn run(job: &Job, learn: &mpsc::Sender<Learned>) -> (Outcome, Option<&'static str>) {
    let reached = match &job.bmc {
        Ok(reached) => reached,
        Err(why) => {
            return (
                Outcome::Refused { why: why.clone() },
                Some("unreachable-by-site"),
            );
        }
    };
    match carry_out(job, reached, learn).await {
        Ok(power) => (Outcome::Done { power }, None),
        Err(Failed::Bmc(error)) => (bmc::outcome(&error), Some(error.label())),
        Err(Failed::Unstored(why)) => (Outcome::NotSent { why }, None),
    }
}

enum Failed {
    Bmc(ipmi::Error),
    /// The identity could not be recorded, so nothing was sent.
    Unstored(String),
}

impl From<ipmi::Error> for Failed {
    fn from(error: ipmi::Error) -> Self {
        Self::Bmc(error)
    }
}

async fn carry_out(
    job: &Job,
    reached: &Reached,
    learn: &mpsc::Sender<Learned>,
) -> Result<Power, Failed> {
    let ends = Instant::now() + job.deadline;
    let intent = bmc::intent(job.intent, &reached.described);
    let known = reached.recorded.as_ref().filter(|_| intent.is_some());
    let (seen, expected) = if let Some(recorded) = known {
        (None, bmc::expected(&reached.described, recorded))
    } else {
        let seen = reached.bmc.read(job.deadline).await?;
        let expected = recognise(job, reached, &seen, learn).await?;
        (Some(seen), expected)
    };
    let Some(intent) = intent else {
        return Ok(seen.map_or(Power::Unknown, |seen| bmc::power(&seen.power)));
    };
    let left = ends.saturating_duration_since(Instant::now());
    let done = reached
        .bmc
        .execute(&expected, &intent, &NoCycles, left)
        .await?;
    tracing::info!(
        host = &*job.host,
        bmc = %reached.bmc.endpoint(),
        action = %intent,
        sent = matches!(done.acted, ipmi::Acted::Sent),
        elapsed_ms = u64::try_from(done.elapsed.as_millis()).unwrap_or(u64::MAX),
        "power is as asked"
    );
    Ok(bmc::power(&done.power))
}

/// Checks who a BMC says it is; what is seen for the first time is recorded.
async fn recognise(
    job: &Job,
    reached: &Reached,
    seen: &Seen,
    learn: &mpsc::Sender<Learned>,
) -> Result<Expected, Failed> {
    let recorded = reached.recorded.as_ref().unwrap_or(&seen.identity);
    let expected = bmc::expected(&reached.described, recorded);
    expected.check(&seen.identity)?;
    if reached.recorded.is_none() {
        let (recorded, wait) = oneshot::channel();
        let learned = Learned {
            host: Arc::clone(&job.host),
            identity: seen.identity.clone(),
            recorded,
        };
        let ends = || Failed::Unstored("the appliance stops".to_owned());
        learn.send(learned).await.map_err(|_| ends())?;
        let stored = wait.await.map_err(|_| ends())?;
        stored.map_err(Failed::Unstored)?;
    }
    Ok(expected)
}

/// The lifecycle has no cycles: it turns off, and on, and writes down each before it is done.
#[derive(Debug)]
struct NoCycles;

impl Journal for NoCycles {
    fn last<'a>(&'a self, operation: &'a OperationId) -> journal::Later<'a, Option<Step>> {
        Box::pin(std::future::ready(Err(refused(operation))))
    }

    fn record<'a>(&'a self, operation: &'a OperationId, _: Step) -> journal::Later<'a, ()> {
        Box::pin(std::future::ready(Err(refused(operation))))
    }
}

fn refused(operation: &OperationId) -> journal::Failure {
    journal::Failure(format!("`{operation}` is no operation of the lifecycle"))
}
