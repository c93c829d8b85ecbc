//! Reports to the appliance: what stage1 did, while it goes on.
//!
//! They never hold the boot up: a thread delivers them, and what it could not deliver until
//! stage1 ends is given to the agent, so that no step of a boot is lost.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use image_manifest::{Report, Stage};

use crate::backoff::Backoff;
use crate::cmdline::Appliance;
use crate::errors::chain;
use crate::http::{Connection, Error};
use crate::{console, uptime};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Makes a report of something that happened just now.
pub(crate) fn now(stage: Stage) -> Report {
    let uptime_ms = uptime::milliseconds();
    Report {
        // A clock that only goes forward, also over a restart of the agent.
        sequence: uptime_ms,
        uptime_ms,
        stage,
    }
}

/// Sends one report, once.
pub(crate) fn deliver(appliance: &Appliance, report: &Report) -> Result<(), Error> {
    // A report is plain data: it always has a JSON form.
    let body = serde_json::to_vec(report).unwrap_or_default();
    let path = format!("/v1/boots/{}/reports", appliance.boot);
    Connection::open(appliance.server)?.post(appliance, &path, &body)
}

/// Delivers reports in the background, in order.
#[derive(Clone)]
pub(crate) struct Reporter {
    shared: Arc<(Mutex<VecDeque<Report>>, Condvar)>,
}

impl Reporter {
    /// Starts the thread that delivers.
    pub(crate) fn start(appliance: Appliance) -> Self {
        let reporter = Self {
            shared: Arc::default(),
        };
        let worker = reporter.clone();
        thread::spawn(move || worker.work(&appliance));
        reporter
    }

    /// Takes a report for delivery.
    pub(crate) fn report(&self, stage: Stage) {
        self.queue().push_back(now(stage));
        self.shared.1.notify_all();
    }

    /// Waits until all is delivered, but not longer than this; returns what is not.
    pub(crate) fn finish(&self, patience: Duration) -> Vec<Report> {
        let waiting = self
            .shared
            .1
            .wait_timeout_while(self.queue(), patience, |queue| !queue.is_empty());
        let (queue, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        queue.iter().cloned().collect()
    }

    fn work(&self, appliance: &Appliance) {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        let mut told: Option<Instant> = None;
        loop {
            let report = {
                let queue = self
                    .shared
                    .1
                    .wait_while(self.queue(), |queue| queue.is_empty());
                let queue = queue.unwrap_or_else(PoisonError::into_inner);
                queue.front().cloned()
            };
            let Some(report) = report else { continue };
            match deliver(appliance, &report) {
                Err(error) if !error.is_final() => {
                    if told.is_none_or(|at| at.elapsed() > Duration::from_secs(30)) {
                        console::warn(&format!("report not delivered yet: {}", chain(&error)));
                        told = Some(Instant::now());
                    }
                    thread::sleep(backoff.pause());
                    continue;
                }
                Err(error) => console::warn(&format!("report refused: {}", chain(&error))),
                Ok(()) => backoff.reset(),
            }
            self.queue().pop_front();
            self.shared.1.notify_all();
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Report>> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
