//! `lab test`: every test of the project, in the order in which a failure is cheapest to learn of.
//!
//! It refuses to skip in silence: a suite that cannot run here has failed.

mod count;

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use clap::ValueEnum;

use crate::npm;
use crate::python;
use crate::state::State;
use crate::tools::{self, Need};
use crate::workspace::{self, Workspace};

use count::{check, count, count_into};

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
    /// Test peers of npm are missing.
    #[error(transparent)]
    Npm(#[from] npm::Error),
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
        npm::Peers::of(state).ensure(&workspace.root.join("tests/e2e/npm"))?;
    }
    workspace.build()?;
    let chosen = |suite: &Suite| only.is_empty() || only.contains(suite);
    let mut suites: Vec<_> = Suite::value_variants()
        .iter()
        .filter(|suite| chosen(suite))
        .collect();
    let beside = chosen(&Suite::Operate) && chosen(&Suite::Fuzz);
    if beside {
        suites.retain(|suite| **suite != Suite::Fuzz);
    }
    let mut results = Vec::new();
    for suite in suites {
        if beside && *suite == Suite::Operate {
            results.extend(side_by_side(workspace, state)?);
        } else {
            results.push(suite.timed(workspace, state, &mut io::stdout())?);
        }
    }
    println!();
    let mut total = Tally::default();
    for Timed {
        suite,
        tally,
        seconds,
    } in results
    {
        println!(
            "{:<10} {:>5} passed {:>3} failed  {seconds:>4} s",
            format!("{suite:?}").to_lowercase(),
            tally.passed,
            tally.failed
        );
        total.passed += tally.passed;
        total.failed += tally.failed;
    }
    Ok(total)
}

/// How a suite went.
struct Timed {
    suite: Suite,
    tally: Tally,
    seconds: u64,
}

/// Racks of a few commands wait, and fuzzers wait for nothing: they take what the racks leave of the processors.
fn side_by_side(workspace: &Workspace, state: &State) -> Result<[Timed; 2], Error> {
    let mut said = Vec::new();
    let (fuzz, operate) = thread::scope(|scope| {
        let fuzz = scope.spawn(|| Suite::Fuzz.timed(workspace, state, &mut said));
        let operate = Suite::Operate.timed(workspace, state, &mut io::stdout());
        (fuzz.join(), operate)
    });
    Ok([operate?, heard(fuzz, &said)?])
}

/// Shows what ran aside.
fn heard<T>(ended: thread::Result<Result<T, Error>>, said: &[u8]) -> Result<T, Error> {
    let failed = |source| Error::Run("tests that run beside others".to_owned(), source);
    io::stdout().write_all(said).map_err(failed)?;
    ended.unwrap_or_else(|_| Err(failed(io::Error::other("nobody waited for them"))))
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

impl Suite {
    fn timed(
        self,
        workspace: &Workspace,
        state: &State,
        screen: &mut impl Write,
    ) -> Result<Timed, Error> {
        eprintln!("\n== {self:?}");
        let started = Instant::now();
        let tally = self.run(workspace, state, screen)?;
        Ok(Timed {
            suite: self,
            tally,
            seconds: started.elapsed().as_secs(),
        })
    }

    fn run(
        self,
        workspace: &Workspace,
        state: &State,
        screen: &mut impl Write,
    ) -> Result<Tally, Error> {
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
            Self::Unit => unit(|words: &[&str]| {
                let tests = ["test", "--quiet", "--workspace", "--no-fail-fast"];
                cargo(&[&tests[..], words].concat())
            }),
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
            Self::Fuzz => count_into(yielding(&cargo(&end_to_end("e2e/fuzz"))), screen),
        }
    }
}

/// Parts of names of unit tests that wait for BMCs rather than work.
const WAITING: [&str; 2] = ["bmc::tests::", "operate::tests::crash::"];

/// Runs the tests that wait beside all others; together they are all there are, whatever their names.
fn unit(cargo: impl Fn(&[&str]) -> Command) -> Result<Tally, Error> {
    // Built before: of two commands that build, one would wait for the other.
    let built = check(cargo(&["--no-run"]))?;
    if built.failed > 0 {
        return Ok(Tally { passed: 0, ..built });
    }
    let waiting = cargo(&[&["--"][..], &WAITING].concat());
    let skipped: Vec<_> = WAITING
        .into_iter()
        .flat_map(|name| ["--skip", name])
        .collect();
    let others = cargo(&[&["--"][..], &skipped].concat());
    let mut said = Vec::new();
    let (waiting, others) = thread::scope(|scope| {
        let waiting = scope.spawn(|| count_into(waiting, &mut said));
        let others = count(others);
        (waiting.join(), others)
    });
    let waiting = heard(waiting, &said)?;
    let others = others?;
    Ok(Tally {
        passed: waiting.passed + others.passed,
        failed: waiting.failed + others.failed,
    })
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

/// The same command, behind all others that want the processors.
fn yielding(command: &Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"]).arg(command.get_program());
    nice.args(command.get_args());
    nice.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    nice
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
