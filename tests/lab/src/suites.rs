//! `lab test`: every test of the project, in the order in which a failure is cheapest to learn of.
//!
//! It refuses to skip in silence: a suite that cannot run here has failed.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::ValueEnum;

use crate::python;
use crate::state::State;
use crate::tools::{self, Need};
use crate::workspace::{self, Workspace};

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// The code is laid out as rustfmt does it.
    Format,
    /// clippy has nothing to say.
    Lint,
    /// Unit tests, properties, and the rules about dependencies and licences.
    Unit,
    /// Licences, sources and bans, by cargo-deny where it is installed.
    Licences,
    /// Network clients that no one here wrote, in namespaces.
    Network,
    /// Images: reproducible, refused clearly, accepted by other tools.
    Images,
    /// Images in clouds: fakes of ours, and peers of others.
    Publish,
    /// Disks in real firmware, with and without Secure Boot.
    Disk,
    /// Hosts in real firmware.
    Boot,
    /// Simulated BMCs and clients of both protocols, judged by peers.
    Power,
    /// Hosts of a few commands, and everything that can go wrong while they are deployed.
    Operate,
    /// The lab's scenes: deployed, rolled back and rolled out in real firmware.
    Show,
    /// Fuzz targets, each for a bounded time.
    Fuzz,
}

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
}

/// Why the tests could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Tools are missing.
    #[error(transparent)]
    Tools(#[from] tools::Error),
    /// Test peers of Python are missing.
    #[error(transparent)]
    Python(#[from] python::Error),
    /// The product does not build.
    #[error(transparent)]
    Workspace(#[from] workspace::Error),
    /// A program could not be run.
    #[error("failed to run `{0}`")]
    Run(String, #[source] io::Error),
}

/// Runs suites in order, all of them when none is named, and tells how each went.
///
/// # Errors
/// When tools are missing or the product does not build.
pub fn run(
    workspace: &Workspace,
    state: &State,
    only: &[Suite],
    install: bool,
) -> Result<Tally, Error> {
    match tools::ensure(Need::Tests, install) {
        // At a desk, tests that lack a tool say so one by one; in CI nothing is skipped.
        Err(error @ tools::Error::Missing { .. }) if !install && !is_ci() => {
            eprintln!("lab: {error}");
        }
        result => result?,
    }
    if install {
        let requirements = workspace.root.join("tests/e2e/requirements.txt");
        python::Environment::of(state).ensure(&requirements)?;
    }
    workspace.build()?;
    let mut total = Tally::default();
    let mut lines = Vec::new();
    for &suite in Suite::value_variants() {
        if !only.is_empty() && !only.contains(&suite) {
            continue;
        }
        eprintln!("\n== {suite:?}");
        let started = Instant::now();
        let tally = suite.run(workspace, state)?;
        let seconds = started.elapsed().as_secs();
        lines.push(format!(
            "{:<10} {:>5} passed {:>3} failed  {seconds:>4} s",
            format!("{suite:?}").to_lowercase(),
            tally.passed,
            tally.failed
        ));
        total.passed += tally.passed;
        total.failed += tally.failed;
    }
    println!();
    for line in lines {
        println!("{line}");
    }
    Ok(total)
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

impl Suite {
    fn run(self, workspace: &Workspace, state: &State) -> Result<Tally, Error> {
        let cargo = |words: &[&str]| {
            let mut cargo = workspace.cargo();
            cargo.args(words).env("LAB_STATE", state.path());
            cargo
        };
        match self {
            Self::Format => check(cargo(&["fmt", "--all", "--", "--check"])),
            Self::Lint => check(cargo(&[
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--",
                "-D",
                "warnings",
            ])),
            Self::Unit => count(cargo(&["test", "--quiet", "--workspace", "--no-fail-fast"])),
            Self::Licences => licences(workspace),
            Self::Network => count(cargo(&end_to_end("e2e/network"))),
            Self::Images => count(cargo(&end_to_end("e2e/images"))),
            Self::Publish => count(cargo(&end_to_end("e2e/publish"))),
            Self::Disk => count(cargo(&end_to_end("e2e/disk"))),
            Self::Boot => count(cargo(&end_to_end("e2e/boot"))),
            Self::Power => count(cargo(&end_to_end("e2e/power"))),
            Self::Operate => {
                // Its racks wait more than they work: side by side they take as long as the longest.
                let mut words = end_to_end("e2e/operate");
                for word in &mut words {
                    if *word == "--test-threads=1" {
                        *word = "--test-threads=16";
                    }
                }
                count(cargo(&words))
            }
            Self::Show => count(cargo(&end_to_end("e2e/show"))),
            Self::Fuzz => count(cargo(&end_to_end("e2e/fuzz"))),
        }
    }
}

/// End-to-end tests run one after the other, since two cores are what they are timed for.
fn end_to_end(feature: &'static str) -> Vec<&'static str> {
    let tests = match feature.trim_start_matches("e2e/") {
        // What is built, where, for what and in which forms; what is not; what is known about it, and where it goes from there.
        "images" => vec![
            "images",
            "builds",
            "forms",
            "everywhere",
            "releases",
            "refusals",
            "insight",
            "registry",
            "ci",
        ],
        // What operators do with hosts, and what they do with the appliance.
        "operate" => vec!["operate", "site"],
        // One file for each protocol.
        "power" => vec!["power_*"],
        name => vec![name],
    };
    let mut words = vec![
        "test",
        "--workspace",
        "--no-fail-fast",
        "--features",
        feature,
    ];
    words.extend(tests.into_iter().flat_map(|test| ["--test", test]));
    words.extend(["--", "--test-threads=1", "--nocapture"]);
    words
}

fn check(mut command: Command) -> Result<Tally, Error> {
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

/// Licences are judged over `cargo metadata` in the unit tests in any case; cargo-deny, which takes
/// minutes to build, is asked as well where it is installed.
fn licences(workspace: &Workspace) -> Result<Tally, Error> {
    if tools::find("cargo-deny").is_none() {
        eprintln!(
            "cargo-deny is not installed: licences and sources were checked by the unit tests"
        );
        let mut test = workspace.cargo();
        test.args(["test", "--quiet", "--workspace", "--test", "dependencies"]);
        return count(test);
    }
    let mut deny = workspace.cargo();
    deny.args([
        "deny",
        "--all-features",
        "check",
        "licenses",
        "bans",
        "sources",
    ]);
    check(deny)
}

/// Runs tests, showing what they print, and counts what their summaries say.
fn count(mut command: Command) -> Result<Tally, Error> {
    let name = describe(&command);
    let failed = |source| Error::Run(name.clone(), source);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        let mut screen = io::stdout();
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
