//! `imagebuild test`: is a host of this image well?
//!
//! It boots the image's disk without network and reads the verdict from its console; or it runs the image's commands in
//! a container. It refuses to call an image well that said nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use image_manifest::Manifest;
use image_manifest::layout::Layout;
use imagebuild::container;
use imagebuild::trial::{self, Outcome, junit};
use imagebuild::vm::{Console, Network};

use super::failure::Failure;
use super::machine::{MachineArgs, MachineError};
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Test the container image, by podman: the image's commands, without its init.
    #[arg(long)]
    container: bool,
    /// How long the host may take until it has come to a verdict, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Where to keep what the host said on its console [default: `IMAGE.console.log`, when it fails].
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Write a `JUnit` report for a CI system.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

pub(super) fn run(args: &TestArgs) -> Result<(), Failure> {
    let store = Layout::open(&args.store).map_err(Failure::Store)?;
    let manifest = store.resolve(&args.image).map_err(Failure::Store)?.manifest;
    let outcome = if args.container {
        let image = container::load(&store, &args.image)?;
        image.test(&manifest.tree, Duration::from_secs(args.timeout))?
    } else {
        boot(args, &store, &manifest)?
    };
    if let Some(path) = &args.junit {
        let report = junit::report(&manifest.name, &outcome);
        fs::write(path, report).map_err(write(path))?;
    }
    if args.json {
        print_json(&outcome)?;
    } else {
        show(&manifest, &outcome)?;
    }
    if outcome.is_good() {
        Ok(())
    } else {
        Err(MachineError::Unwell(manifest.name).into())
    }
}

fn boot(args: &TestArgs, store: &Layout, manifest: &Manifest) -> Result<Outcome, Failure> {
    let running = args
        .machine
        .start(store, manifest, Network::None, Console::Pipe)?;
    let own = running.folder.log();
    let log = args.log.as_deref().unwrap_or(&own);
    let patience = Duration::from_secs(args.timeout);
    let outcome = trial::follow(running.computer, &manifest.tree, patience, log)?;
    if !outcome.is_good() {
        let kept = match &args.log {
            Some(log) => log.clone(),
            None => keep(&own, &manifest.name)?,
        };
        eprintln!("What the host said is in `{}`.", kept.display());
    }
    Ok(outcome)
}

fn write(path: &Path) -> impl FnOnce(io::Error) -> MachineError {
    let path = path.to_owned();
    move |source| MachineError::Write { path, source }
}

/// Keeps the console of a host that failed.
pub(super) fn keep(log: &Path, name: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(format!("{name}.console.log"));
    fs::copy(log, &path).map_err(write(&path))?;
    Ok(path)
}

fn show(manifest: &Manifest, outcome: &Outcome) -> Result<(), Failure> {
    print(&manifest.name)?;
    print(&format!("tree     {}", manifest.tree))?;
    let checks = outcome.verdict.iter().flat_map(|verdict| &verdict.checks);
    for check in checks {
        match &check.problem {
            None => print(&format!("passed   {}", check.name))?,
            Some(problem) => print(&format!("FAILED   {}: {problem}", check.name))?,
        }
    }
    if let Some(failure) = &outcome.failure {
        print(&format!("FAILED   {failure}"))?;
    }
    let seconds = outcome.elapsed_ms / 1000;
    let word = match &outcome.verdict {
        Some(verdict) => format!("init says {}", verdict.state),
        None => "no verdict".to_owned(),
    };
    print(&format!("{word}, after {seconds} s"))
}
