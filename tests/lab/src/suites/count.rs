//! One command that tests: what it says is shown, and its tests are counted.
//!
//! It refuses to take silence for success.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::{Error, Tally};

/// Runs a program that passes or fails as a whole.
pub(super) fn check(mut command: Command) -> Result<Tally, Error> {
    let name = describe(&command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|source| Error::Run(name.clone(), source))?;
    if !status.success() {
        eprintln!("failed: {name}");
    }
    Ok(Tally {
        passed: u64::from(status.success()),
        failed: u64::from(!status.success()),
    })
}

/// Runs tests, showing what they print, and counts what their summaries say.
pub(super) fn count(command: Command) -> Result<Tally, Error> {
    count_into(command, &mut io::stdout())
}

/// Does the same, showing it elsewhere.
pub(super) fn count_into(mut command: Command, screen: &mut impl Write) -> Result<Tally, Error> {
    let name = describe(&command);
    let failed = |source| Error::Run(name.clone(), source);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(failed)?;
            let text = String::from_utf8_lossy(&line);
            if let Some(found) = summary(&text) {
                tally.passed += found.passed;
                tally.failed += found.failed;
            }
            writeln!(screen, "{text}").map_err(failed)?;
        }
    }
    let status = child.wait().map_err(failed)?;
    let judged = judge(tally, status.success());
    if judged != tally {
        eprintln!("failed: {name}");
    }
    Ok(judged)
}

/// Tests that do not compile, or a runner that dies, have no summary; and a suite that ran nothing has shown nothing.
fn judge(tally: Tally, succeeded: bool) -> Tally {
    let silent = !succeeded || tally.passed == 0;
    Tally {
        failed: tally.failed.max(u64::from(silent)),
        ..tally
    }
}

/// Reads a line such as `test result: ok. 4 passed; 0 failed; …`.
fn summary(line: &str) -> Option<Tally> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut parts = rest.split("; ");
    let number = |part: Option<&str>, word: &str| part?.strip_suffix(word)?.trim().parse().ok();
    Some(Tally {
        passed: number(parts.next(), "passed")?,
        failed: number(parts.next(), "failed")?,
    })
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_that_ran_nothing_has_failed() {
        let tally = |passed, failed| Tally { passed, failed };
        let cases = [
            ("passed", tally(3, 0), true, tally(3, 0)),
            ("failed", tally(3, 2), false, tally(3, 2)),
            ("died", tally(3, 0), false, tally(3, 1)),
            ("nothing ran", tally(0, 0), true, tally(0, 1)),
        ];
        for (name, found, succeeded, expected) in cases {
            assert_eq!(judge(found, succeeded), expected, "{name}");
        }
    }

    #[test]
    fn summaries_of_tests_are_counted() {
        let cases = [
            (
                "ok",
                "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured",
                Some((4, 0)),
            ),
            (
                "failed",
                "test result: FAILED. 3 passed; 2 failed; 0 ignored",
                Some((3, 2)),
            ),
            ("something else", "running 4 tests", None),
        ];
        for (name, line, expected) in cases {
            let expected = expected.map(|(passed, failed)| Tally { passed, failed });
            assert_eq!(summary(line), expected, "{name}");
        }
    }
}
