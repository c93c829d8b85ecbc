//! The container form of an image in a runtime: podman, which takes it straight from the store.
//!
//! It refuses to judge by what only a booted host has: units and ports are its init's, so the image's commands are what
//! is tested, and those that need a running host say so in the definition.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use image_manifest::{CheckCommand, CheckResult, Checks, Digest, Verdict};

use crate::trial::Outcome;
use crate::vm::Network;

const RUNTIME: &str = "podman";
/// Characters of what a command said that are shown.
const REASON: usize = 200;

/// Why a container does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime could not be run.
    #[error("failed to run `{RUNTIME}`")]
    Run(#[source] io::Error),
    /// The runtime refused.
    #[error("`{RUNTIME} {verb}` failed: {said}")]
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

/// An image that the runtime has.
#[derive(Debug)]
pub struct Loaded {
    id: String,
}

/// Gives the runtime the container form of an image.
///
/// # Errors
/// When the runtime is missing or does not take it.
pub fn load(store: &Path, image: &str) -> Result<Loaded, Error> {
    let name = image.split('@').next().unwrap_or(image);
    let source = format!("oci:{}:{name}-oci", store.display());
    let pulled = ask(
        "pull",
        Command::new(RUNTIME).args(["pull", "--quiet", &source]),
    )?;
    let id = pulled.lines().last().unwrap_or_default().trim().to_owned();
    Ok(Loaded { id })
}

impl Loaded {
    /// Runs a command in it, or what the image says, with the terminal of the person who asks.
    ///
    /// # Errors
    /// When the runtime cannot be run.
    pub fn run(&self, network: Network, command: &[OsString]) -> Result<ExitStatus, Error> {
        let mut podman = podman(network);
        if io::IsTerminal::is_terminal(&io::stdin()) {
            podman.arg("--tty");
        }
        podman.arg("--interactive").arg(&self.id).args(command);
        podman.status().map_err(Error::Run)
    }

    /// Runs the image's commands in it, each in a container of its own, and says how each ended.
    ///
    /// # Errors
    /// When the runtime cannot be run, or the image has no checks that can be read.
    pub fn test(&self, tree: &Digest, patience: Duration) -> Result<Outcome, Error> {
        let started = Instant::now();
        let file = format!("/{}", Checks::PATH);
        let mut cat = podman(Network::None);
        let text = ask("run", cat.arg(&self.id).args(["cat", &file]))?;
        let checks: Checks = serde_json::from_str(&text).map_err(Error::Checks)?;
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

    fn check(&self, check: &CheckCommand, left: Duration) -> Result<Option<String>, Error> {
        let seconds = left.as_secs().min(check.timeout_seconds.into()).max(1);
        let mut podman = podman(Network::None);
        podman.arg("--timeout").arg(seconds.to_string());
        let output = podman
            .arg(&self.id)
            .args(&check.run)
            .output()
            .map_err(Error::Run)?;
        if output.status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().map(str::trim).find(|line| !line.is_empty());
        let problem = format!("{}: {}", output.status, line.unwrap_or("it said nothing"));
        Ok(Some(problem.chars().take(REASON).collect()))
    }
}

/// The command that runs a container once.
fn podman(network: Network) -> Command {
    let mut podman = Command::new(RUNTIME);
    podman.args(["run", "--rm"]);
    if network == Network::None {
        podman.arg("--network=none");
    }
    podman
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
