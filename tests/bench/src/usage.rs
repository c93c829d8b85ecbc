//! What a piece of work cost: time on the wall, time of the processor, memory.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// What a piece of work cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// From its beginning to its end.
    pub wall: Duration,
    /// Of the processor, in user and system mode.
    pub cpu: Duration,
}

/// Whose processor time is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// This process.
    Us,
    /// The processes that it started and saw end.
    Children,
}

impl Who {
    fn cpu(self) -> Duration {
        let who = match self {
            Self::Us => UsageWho::RUSAGE_SELF,
            Self::Children => UsageWho::RUSAGE_CHILDREN,
        };
        getrusage(who).map_or(Duration::ZERO, |usage| {
            let both =
                usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            Duration::from_micros(u64::try_from(both).unwrap_or(0))
        })
    }

    /// Does some work, and says what it cost.
    pub(crate) fn measure<T>(self, work: impl FnOnce() -> T) -> (T, Cost) {
        let (began, cpu) = (Instant::now(), self.cpu());
        let done = work();
        (
            done,
            Cost {
                wall: began.elapsed(),
                cpu: self.cpu().saturating_sub(cpu),
            },
        )
    }
}

/// The most memory that this process ever had, in KiB.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
