//! Ctrl-C and its like: held back while there is something to take down, and asked for between two looks at it.
//!
//! It refuses to block signals: a mask is inherited by everything that is started, and what cannot
//! be ended politely leaves its own children behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether somebody wants the lab to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on SIGINT, SIGTERM and SIGHUP are noted and end nothing by themselves.
    ///
    /// # Errors
    /// When they cannot be caught.
    pub fn hold(&self) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        drop(entered);
        let asked = Arc::clone(&self.0);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = arrival(&mut interrupt) => {}
                    () = arrival(&mut terminate) => {}
                    () = arrival(&mut hang_up) => {}
                }
            });
            asked.store(true, Ordering::Relaxed);
        });
        Ok(())
    }

    /// Says whether one of them came.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

async fn arrival(signal: &mut Signal) {
    signal.recv().await;
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::getpid;

    use super::*;
    use crate::poll;

    #[test]
    fn a_signal_is_noted_and_what_is_started_can_still_be_ended() {
        let stop = Stop::default();
        stop.hold().unwrap();
        assert!(!stop.is_asked());
        let child = Command::new("grep")
            .args(["^SigBlk:", "/proc/self/status"])
            .output()
            .unwrap();
        let mask = String::from_utf8(child.stdout).unwrap();
        assert_eq!(mask.trim(), "SigBlk:\t0000000000000000");
        kill(getpid(), Signal::SIGTERM).unwrap();
        let noted = poll::until(Duration::from_secs(10), || stop.is_asked().then_some(()));
        assert_eq!(noted, Some(()));
    }
}
