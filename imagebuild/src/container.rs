//! The container form of an image in a runtime: podman, which takes it straight from the store.
//!
//! It refuses to judge by what only a booted host has: units and ports are its init's, so the image's commands are what
//! is tested, and those that need a running host say so in the definition.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use image_manifest::layout::{self, Layout};
use image_manifest::{CheckCommand, CheckResult, Checks, Digest, Verdict};
use nix::sys::resource::{Resource, getrlimit};

use crate::trial::Outcome;
use crate::vm::Network;

const PODMAN: &str = "podman";
/// What podman may start containers with, beside what it is configured to.
const RUNTIMES: [&str; 2] = ["crun", "runc"];
/// Characters of what a command said that are shown.
const REASON: usize = 200;
/// What the agent of a host lets a command do beside what everybody may: read.
const READ: &str = "--cap-add=dac_read_search";

/// Why a container does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read, or does not have the image.
    #[error(transparent)]
    Store(#[from] layout::Error),
    /// The image has no container form.
    #[error("image `{image}` has no container form: `oci` is not among its outputs")]
    NoContainer {
        /// The image.
        image: String,
    },
    /// The store has a container form of the newest generation only.
    #[error(
        "`{reference}` is not the newest generation of its image, and only that has its container form under a name"
    )]
    Older {
        /// What was asked for.
        reference: String,
    },
    /// Nothing can be tested without an init.
    #[error(
        "image `{image}` has no command in its `[test]`, and units and ports need a booted host"
    )]
    NoCommands {
        /// The image.
        image: String,
    },
    /// The runtime could not be run.
    #[error("failed to run `{PODMAN}`")]
    Run(#[source] io::Error),
    /// The runtime refused.
    #[error("`{PODMAN} {verb}` failed: {said}")]
    Refused {
        /// What it was asked for.
        verb: &'static str,
        /// What it said.
        said: String,
    },
    /// The image's checks could not be read.
    #[error("the checks of the image are malformed")]
    Checks(#[source] serde_json::Error),
}

impl Error {
    /// What a person may do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Run(source) if source.kind() == io::ErrorKind::NotFound => {
                Some("install podman; on Debian `podman` with `crun`")
            }
            _ => None,
        }
    }
}

/// An image that podman has, and how it starts containers here.
#[derive(Debug)]
pub struct Loaded {
    image: String,
    id: String,
    /// Another runtime than the one that podman is configured to use.
    runtime: Option<&'static str>,
}

/// Gives podman the container form of an image, and finds a runtime that starts it.
///
/// # Errors
/// When the image has no such form, podman is missing or does not take it, or no runtime starts it.
pub fn load(store: &Layout, reference: &str) -> Result<Loaded, Error> {
    let found = store.resolve(reference)?;
    let image = found.manifest.name;
    if store.resolve(&image)?.digest != found.digest {
        let reference = reference.to_owned();
        return Err(Error::Older { reference });
    }
    let name = format!("{image}-oci");
    if store.named(&name)?.is_none() {
        return Err(Error::NoContainer { image });
    }
    let source = format!("oci:{}:{name}", store.root().display());
    let mut pull = Command::new(PODMAN);
    let pulled = ask("pull", pull.args(["pull", "--quiet", &source]))?;
    let mut loaded = Loaded {
        image,
        id: pulled.lines().last().unwrap_or_default().trim().to_owned(),
        runtime: None,
    };
    loaded.find_runtime()?;
    Ok(loaded)
}

impl Loaded {
    /// Tries podman's own runtime first: a computer may have one that its kernel or its control groups do not suit.
    fn find_runtime(&mut self) -> Result<(), Error> {
        let Err(refused) = self.probe() else {
            return Ok(());
        };
        for runtime in RUNTIMES {
            self.runtime = Some(runtime);
            if self.probe().is_ok() {
                tracing::warn!(runtime, error = %refused, "podman's own runtime does not start containers here");
                return Ok(());
            }
        }
        Err(refused)
    }

    /// Starts a container that does nothing: every image has what Debian marks essential.
    fn probe(&self) -> Result<(), Error> {
        let mut run = self.podman(Network::None);
        run.arg("--entrypoint=true").arg(&self.id);
        ask("run", &mut run).map(drop)
    }

    /// Runs a command in it, or what the image says, with the terminal of the person who asks.
    ///
    /// # Errors
    /// When podman cannot be run.
    pub fn run(&self, network: Network, command: &[OsString]) -> Result<ExitStatus, Error> {
        let mut podman = self.podman(network);
        if io::IsTerminal::is_terminal(&io::stdin()) {
            podman.arg("--tty");
        }
        podman.arg("--interactive");
        match command.split_first() {
            None => podman.arg(&self.id),
            Some((program, arguments)) => self.instead(&mut podman, program).args(arguments),
        };
        podman.status().map_err(Error::Run)
    }

    /// Runs the image's commands in it, each in a container of its own, and says how each ended.
    ///
    /// # Errors
    /// When podman cannot be run, or the image has no checks that can be read.
    pub fn test(&self, tree: &Digest, patience: Duration) -> Result<Outcome, Error> {
        let started = Instant::now();
        let checks = self.checks()?;
        let mut results = Vec::new();
        for check in &checks.commands {
            let left = patience.saturating_sub(started.elapsed());
            results.push(CheckResult {
                name: format!("command {}", check.name),
                problem: self.check(check, left)?,
            });
        }
        let healthy = results.iter().all(|result| result.problem.is_none());
        Ok(Outcome {
            verdict: Some(Verdict {
                healthy,
                tree: *tree,
                // A container has no init that could say anything.
                state: "running".to_owned(),
                checks: results,
            }),
            failure: None,
            elapsed_ms: started.elapsed().as_millis(),
        })
    }

    /// Reads the checks that the image brings along.
    fn checks(&self) -> Result<Checks, Error> {
        let mut podman = self.podman(Network::None);
        let script = format!("test ! -e /{0} || cat /{0}", Checks::PATH);
        let cat = self
            .instead(&mut podman, OsStr::new("sh"))
            .args(["-c", &script]);
        let text = ask("run", cat)?;
        let checks: Checks = match text.as_str() {
            "" => Checks::default(),
            text => serde_json::from_str(text).map_err(Error::Checks)?,
        };
        if checks.commands.is_empty() {
            let image = self.image.clone();
            return Err(Error::NoCommands { image });
        }
        Ok(checks)
    }

    fn check(&self, check: &CheckCommand, left: Duration) -> Result<Option<String>, Error> {
        let seconds = left.as_secs().min(check.timeout_seconds.into()).max(1);
        let Some((program, arguments)) = check.run.split_first() else {
            return Ok(None);
        };
        let mut podman = self.podman(Network::None);
        // As the agent of a host runs it.
        podman.args(["--user=0", "--workdir=/", "--cap-drop=all", READ]);
        // conmon's timer goes by whole seconds and may come a quarter of one early: nobody is killed before his time.
        podman.arg(format!("--timeout={}", seconds + 1));
        let run = self
            .instead(&mut podman, OsStr::new(program))
            .args(arguments);
        let started = Instant::now();
        let output = run.stdin(Stdio::null()).output().map_err(Error::Run)?;
        if output.status.success() {
            return Ok(None);
        }
        let said =
            [output.stderr, output.stdout].map(|text| String::from_utf8_lossy(&text).into_owned());
        let mut lines = said.iter().flat_map(|text| text.lines()).map(str::trim);
        let line = lines.find(|line| !line.is_empty());
        let problem = if started.elapsed() >= Duration::from_secs(seconds) {
            format!("it took longer than {seconds} s")
        } else {
            format!("{}: {}", output.status, line.unwrap_or("it said nothing"))
        };
        Ok(Some(problem.chars().take(REASON).collect()))
    }

    /// Names the image with a program that is run instead of what the image says.
    fn instead<'c>(&self, podman: &'c mut Command, program: &OsStr) -> &'c mut Command {
        podman.arg("--entrypoint").arg(program).arg(&self.id)
    }

    /// The command that runs a container once.
    fn podman(&self, network: Network) -> Command {
        let mut podman = Command::new(PODMAN);
        if let Some(runtime) = self.runtime {
            podman.args(["--runtime", runtime]);
        }
        podman.args(["run", "--rm", "--pull=never"]);
        podman.args(limits());
        if network == Network::None {
            podman.arg("--network=none");
        }
        podman
    }
}

/// The limits of whoever asks.
///
/// podman 4.3 gives containers 1,048,576 open files and as many processes as there are numbers for, above what root
/// without `CAP_SYS_RESOURCE` may hand on, as in a CI job's container; and it has lowered its own limit of processes to
/// that count before. Limits that are said count instead. Measured: `setrlimit: Operation not permitted` by crun 1.8 and
/// runc 1.1.
fn limits() -> impl Iterator<Item = String> {
    let processes = fs::read_to_string("/proc/sys/kernel/pid_max");
    let processes = processes.ok().and_then(|text| text.trim().parse().ok());
    let of = |name: &str, resource, most: u64| {
        let (soft, hard) = getrlimit(resource).ok()?;
        let (soft, hard) = (soft.min(most), hard.min(most));
        Some(format!("--ulimit={name}={soft}:{hard}"))
    };
    [
        of("nofile", Resource::RLIMIT_NOFILE, 1 << 20),
        of(
            "nproc",
            Resource::RLIMIT_NPROC,
            processes.unwrap_or(1 << 15),
        ),
    ]
    .into_iter()
    .flatten()
}

/// Runs the runtime and returns what it answers.
fn ask(verb: &'static str, command: &mut Command) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output().map_err(Error::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Refused { verb, said })
}
