//! Reports to the appliance: what stage1 did, while it goes on.
//!
//! They never hold the boot up: a thread delivers them, and what it could not deliver until
//! stage1 ends is given to the agent, so that no step of a boot is lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use image_manifest::{Report, Stage};

use crate::backoff::Backoff;
use crate::errors::chain;
use crate::session::Session;
use crate::{console, uptime};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The number of the newest report that this process made.
static NEWEST: AtomicU64 = AtomicU64::new(0);

/// Makes a report of something that happened just now.
///
/// Its number comes from the clock that starts with the kernel and never goes back, so that it grows
/// from stage1 to the agent, and over a restart of the agent, with nothing to be remembered.
pub(crate) fn now(stage: Stage) -> Report {
    let uptime_ms = uptime::milliseconds();
    let before = NEWEST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |newest| {
        Some(next(newest, uptime_ms))
    });
    // It never refuses, so both answers are the number before.
    let (Ok(newest) | Err(newest)) = before;
    Report {
        sequence: next(newest, uptime_ms),
        uptime_ms,
        stage,
    }
}

fn next(newest: u64, uptime_ms: u64) -> u64 {
    uptime_ms.max(newest.saturating_add(1))
}

/// Delivers reports in the background, in order.
#[derive(Clone)]
pub(crate) struct Reporter {
    shared: Arc<(Mutex<VecDeque<Report>>, Condvar)>,
}

impl Reporter {
    /// Starts the thread that delivers.
    pub(crate) fn start(session: Session) -> Self {
        let reporter = Self {
            shared: Arc::default(),
        };
        let worker = reporter.clone();
        thread::spawn(move || worker.work(&session));
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

    fn work(&self, session: &Session) {
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
            match session.report(&report) {
                // The answer to an earlier try was lost.
                Err(error) if error.is_repetition() => backoff.reset(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_with_the_clock_and_without_it() {
        let cases = [
            ("first", 0, 0, 1),
            ("later", 100, 250, 250),
            ("at the same time", 250, 250, 251),
            ("no clock", 251, 0, 252),
            ("no number left", u64::MAX, 5, u64::MAX),
        ];
        for (name, newest, uptime_ms, expected) in cases {
            assert_eq!(next(newest, uptime_ms), expected, "{name}");
        }
        let (one, two) = (now(Stage::SwitchRoot), now(Stage::SwitchRoot));
        assert!(two.sequence > one.sequence);
    }
}
