//! What the host's init says about the host, through `systemctl`.
//!
//! It changes nothing, waits for nothing without an end, and reads a bounded answer.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// An answer of `systemctl` that is longer is cut.
const LONGEST: u64 = 64 * 1024;
/// A question to a healthy init takes milliseconds; a host in trouble may take long.
const ANSWER: Duration = Duration::from_secs(30);
/// Enough to see what is wrong; the journal has the rest.
const FAILED_UNITS: usize = 50;

/// Waits until init has started everything or given up; returns its state, such as `running` or
/// `degraded`.
pub(crate) fn wait_until_started(patience: Duration) -> String {
    ask(&["is-system-running", "--wait"], patience)
}

/// Returns init's state now.
pub(crate) fn state() -> String {
    ask(&["is-system-running"], ANSWER)
}

/// Returns the names of the units that failed.
pub(crate) fn failed_units() -> Vec<String> {
    let listing = ask(
        &[
            "list-units",
            "--state=failed",
            "--plain",
            "--no-legend",
            "--no-pager",
            "--full",
        ],
        ANSWER,
    );
    names(&listing)
}

/// Returns what init says about each unit, such as `active` or `failed`, in their order; nothing where
/// it does not say.
pub(crate) fn states(units: &[String]) -> Vec<String> {
    let mut arguments = vec!["is-active", "--"];
    arguments.extend(units.iter().map(String::as_str));
    ask(&arguments, ANSWER).lines().map(str::to_owned).collect()
}

/// Reads the first word of every line.
fn names(listing: &str) -> Vec<String> {
    let lines = listing
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    lines.take(FAILED_UNITS).map(str::to_owned).collect()
}

/// Runs `systemctl`; what it cannot say in time is `unknown`.
fn ask(arguments: &[&str], patience: Duration) -> String {
    let unknown = || "unknown".to_owned();
    let command = Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = command else {
        return unknown();
    };
    let output = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        output.map(|output| output.take(LONGEST).read_to_end(&mut text));
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    if !wait(&mut child, patience) {
        return unknown();
    }
    match reader.join() {
        Ok(text) if !text.is_empty() || arguments.contains(&"list-units") => text,
        _ => unknown(),
    }
}

/// Waits for a child, and ends it when it takes too long.
fn wait(child: &mut Child, patience: Duration) -> bool {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(_)) => return true,
            Ok(None) if started.elapsed() < patience => thread::sleep(Duration::from_millis(100)),
            _ => break,
        }
    }
    let ended = child.kill().and_then(|()| child.wait());
    drop(ended);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_units_are_the_first_words() {
        let cases = [
            ("none", "", vec![]),
            (
                "two",
                "ssh.service loaded failed failed OpenBSD\nx.mount loaded failed failed X\n",
                vec!["ssh.service", "x.mount"],
            ),
        ];
        for (name, listing, expected) in cases {
            assert_eq!(names(listing), expected, "{name}");
        }
    }
}
