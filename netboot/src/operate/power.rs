//! What is done to hosts' power: one operation of a host at a time, so many at all.
//!
//! It refuses to try again by itself, to act on a host whose BMC was never recorded (it asks for that
//! first), and to switch a host off without leave: the executor writes down that it is about to be
//! sent, and says no when it is no longer asked for. So after a crash it is known whether an off can
//! have left, and what was called off in time never leaves.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ipmi::{
    Bmc, Credentials, Expected, Identity, Journal, OperationId, ResetKind, Seen, Step, journal,
};
use netboot_core::lifecycle::{Operation, Outcome, Power, PowerIntent};
use netboot_core::site;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::bmc;

/// Operations at the same time, over all hosts: each is a session and a few packets.
const AT_ONCE: usize = 64;

/// How long the end of an operation is remembered: no round of polls takes as long.
const REMEMBERED: Duration = Duration::from_mins(10);

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

/// Something that is about to take the power from a host, to be written down before it is sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) host: Arc<str>,
    pub(super) operation: Operation,
    /// Answered when it is on disk, or with why it must not be sent.
    pub(super) leave: oneshot::Sender<Result<(), String>>,
}

/// Whom operations ask.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    pub(super) learn: mpsc::Sender<Learned>,
    pub(super) sending: mpsc::Sender<Sending>,
}

/// The operations that are under way; dropping it drops them.
#[derive(Debug)]
pub(super) struct Powers {
    tasks: JoinSet<Ended>,
    /// The host of each task.
    hosts: HashMap<Id, Arc<str>>,
    busy: HashSet<Arc<str>>,
    /// When the last operation of a host ended, for [`REMEMBERED`].
    ended: HashMap<Arc<str>, Instant>,
    waiting: HashMap<Arc<str>, VecDeque<Job>>,
    permits: Arc<Semaphore>,
    asks: Asks,
}

impl Powers {
    /// Begins with none.
    pub(super) fn new(asks: Asks) -> Self {
        Self {
            tasks: JoinSet::new(),
            hosts: HashMap::new(),
            busy: HashSet::new(),
            ended: HashMap::new(),
            waiting: HashMap::new(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            asks,
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
        let asks = self.asks.clone();
        let host = Arc::clone(&job.host);
        let task = self.tasks.spawn(async move {
            let permit = permits.acquire().await;
            let (outcome, problem) = run(&job, &asks).await;
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
            self.ended.retain(|_, at| at.elapsed() < REMEMBERED);
            self.ended.insert(Arc::clone(host), Instant::now());
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

    /// Whether an operation of a host is under way, or ended after an instant: what was read since
    /// that instant may be older than what the operation did.
    pub(super) fn was_busy(&self, host: &str, since: Instant) -> bool {
        self.is_busy(host) || self.ended.get(host).is_some_and(|at| *at >= since)
    }
}

async fn run(job: &Job, asks: &Asks) -> (Outcome, Option<&'static str>) {
    let reached = match &job.bmc {
        Ok(reached) => reached,
        Err(why) => {
            return (
                Outcome::Refused { why: why.clone() },
                Some("unreachable-by-site"),
            );
        }
    };
    match carry_out(job, reached, asks).await {
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

async fn carry_out(job: &Job, reached: &Reached, asks: &Asks) -> Result<Power, Failed> {
    let ends = Instant::now() + job.deadline;
    let intent = bmc::intent(job.intent, &reached.described);
    let (seen, expected) = if let Some(recorded) = &reached.recorded {
        (None, bmc::expected(&reached.described, recorded))
    } else {
        let seen = reached.bmc.read(job.deadline).await?;
        let expected = recognise(job, reached, &seen, &asks.learn).await?;
        (Some(seen.power), expected)
    };
    let Some(intent) = intent else {
        let seen = match seen {
            Some(seen) => seen,
            None => reached.bmc.look(&expected, job.deadline).await?,
        };
        return Ok(bmc::power(&seen));
    };
    let left = ends.saturating_duration_since(Instant::now());
    let leave = Leave {
        host: &job.host,
        operation: job.operation,
        sending: &asks.sending,
    };
    let done = reached
        .bmc
        .execute(&expected, &intent, &leave, left)
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

/// Records who a BMC says it is, which it was not asked before; a site that says otherwise is right.
async fn recognise(
    job: &Job,
    reached: &Reached,
    seen: &Seen,
    learn: &mpsc::Sender<Learned>,
) -> Result<Expected, Failed> {
    let expected = bmc::expected(&reached.described, &seen.identity);
    expected.check(&seen.identity)?;
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
    Ok(expected)
}

/// Asks the executor before a host is switched off. The lifecycle has no cycles: it turns off, and on.
#[derive(Debug)]
struct Leave<'a> {
    host: &'a Arc<str>,
    operation: Operation,
    sending: &'a mpsc::Sender<Sending>,
}

impl Leave<'_> {
    async fn ask(&self) -> Result<(), journal::Failure> {
        let ends = || journal::Failure("the appliance stops".to_owned());
        let (leave, wait) = oneshot::channel();
        let sending = Sending {
            host: Arc::clone(self.host),
            operation: self.operation,
            leave,
        };
        self.sending.send(sending).await.map_err(|_| ends())?;
        wait.await.map_err(|_| ends())?.map_err(journal::Failure)
    }
}

impl Journal for Leave<'_> {
    fn last<'a>(&'a self, operation: &'a OperationId) -> journal::Later<'a, Option<Step>> {
        Box::pin(std::future::ready(Err(refused(operation))))
    }

    fn record<'a>(&'a self, operation: &'a OperationId, _: Step) -> journal::Later<'a, ()> {
        Box::pin(std::future::ready(Err(refused(operation))))
    }

    fn about(&self, _: ResetKind) -> journal::Later<'_, ()> {
        Box::pin(self.ask())
    }
}

fn refused(operation: &OperationId) -> journal::Failure {
    journal::Failure(format!("`{operation}` is no operation of the lifecycle"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_read_before_an_operation_ended_is_not_believed() {
        let (learn, _learned) = mpsc::channel(1);
        let (sending, _sent) = mpsc::channel(1);
        let mut powers = Powers::new(Asks { learn, sending });
        let host: Arc<str> = "web1".into();
        let before = Instant::now();
        assert!(!powers.was_busy(&host, before));
        powers.begin(Job {
            host: Arc::clone(&host),
            operation: Operation(1),
            intent: PowerIntent::EnsureOn,
            deadline: Duration::from_secs(1),
            bmc: Err("its password is missing".to_owned()),
        });
        assert!(powers.was_busy(&host, Instant::now()), "it is under way");
        powers.ended().await;
        assert!(powers.was_busy(&host, before), "it ended after that");
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(!powers.was_busy(&host, Instant::now()));
        assert!(!powers.was_busy("web2", before), "that is another host");
    }
}
