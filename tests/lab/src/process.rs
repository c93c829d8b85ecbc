//! Processes of the lab: found again and ended by process id *and* start time, so that a reused id is never hit.
//!
//! It refuses to end anything that it did not start: what is not recorded must carry the lab's mark
//! in its environment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::poll;

/// Environment variable that every process of a lab carries; its value is the lab's state directory.
pub const MARK: &str = "FIRSTBOOT_LAB";

/// One process, as it can be recognised later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// What it is for, such as `netboot` or a host's name.
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// Its start, in clock ticks since the machine started.
    pub started: u64,
}

impl Recorded {
    /// Records a process that runs now.
    #[must_use]
    pub fn now(name: &str, pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let started = start_of(pid)?;
        Some(Self {
            name: name.to_owned(),
            pid,
            started,
        })
    }

    /// Says whether that very process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_of(self.pid) == Some(self.started)
    }

    /// Ends it: politely first, for certain after three seconds.
    pub fn end(&self) {
        for (sign, limit) in [(Signal::SIGTERM, 3), (Signal::SIGKILL, 10)] {
            if !self.is_alive() {
                return;
            }
            // An error means that it has ended in between, which the next check sees.
            signal::kill(Pid::from_raw(self.pid), sign).ok();
            poll::until(Duration::from_secs(limit), || {
                // A child of ours stays as a zombie until it is waited for.
                waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)).ok();
                (!self.is_alive()).then_some(())
            });
        }
    }
}

/// Reads when a process started, in clock ticks since the machine did; `None` when it is gone or a zombie.
fn start_of(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Takes field 22 of `/proc/<pid>/stat`. The name in field 2 may hold spaces and brackets, so
/// counting starts behind the last `)`.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Finds every process that carries the mark of the lab with this state directory.
#[must_use]
pub fn marked(state: &Path) -> Vec<Recorded> {
    let mark = format!("{MARK}={}", state.display());
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&pid| pid != own)
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|&byte| byte == 0)
                .any(|entry| entry == mark.as_bytes())
        })
        .filter_map(|pid| Recorded::now("marked", pid))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_start_is_field_22_behind_the_name() {
        let tail = (3..=21)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        let cases = [
            (
                "plain",
                format!("1 (sh) {} 777 0", tail.replacen('3', "S", 1)),
                Some(777),
            ),
            (
                "a name with brackets",
                format!("1 (a) b) {} 9 0", tail.replacen('3', "R", 1)),
                Some(9),
            ),
            (
                "a zombie",
                format!("1 (sh) {} 777 0", tail.replacen('3', "Z", 1)),
                None,
            ),
            ("cut short", "1 (sh) S 1 2".to_owned(), None),
        ];
        for (name, stat, expected) in cases {
            assert_eq!(parse_stat(&stat), expected, "{name}");
        }
    }

    #[test]
    fn only_the_very_process_is_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let recorded = Recorded::now("sleep", child.id()).unwrap();
        let other = Recorded {
            started: recorded.started + 1,
            ..recorded.clone()
        };
        other.end();
        assert!(recorded.is_alive());
        recorded.end();
        assert!(!recorded.is_alive());
        child.wait().ok();
    }
}
