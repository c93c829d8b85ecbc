//! The command line: verbs, arguments, exit codes.
//!
//! Standard output is for data, standard error for narration; nothing else is written to either.

mod build;
mod failure;
mod lock;
mod narration;
mod pull;
mod push;
mod report;
mod vendor;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use imagebuild::cache::Cache;
use imagebuild::mirror::Mirrors;

use failure::Failure;

/// Builds immutable OS images from pinned packages.
///
/// Exit codes: 0 done; 1 failed; 2 bad usage; 3 bad definition, lock or mirror settings; 4 a remote
/// is unreachable or refused (a retry may help); 5 a locked package is gone from every source.
#[derive(Debug, Parser)]
#[command(name = "imagebuild", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Resolves a definition into exact packages and writes its lock.
    Lock(lock::LockArgs),
    /// Builds the image of a definition and its lock into a store.
    Build(build::BuildArgs),
    /// Sends an image of a store to a registry: what it has already is not sent.
    Push(push::PushArgs),
    /// Fetches an image from a registry into a store.
    Pull(pull::PullArgs),
    /// Keeps the packages of an image in a store, where they outlive their mirrors.
    Vendor(vendor::VendorArgs),
    /// Checks that every artifact of an image is what its manifest says.
    Verify(verify::VerifyArgs),
}

/// Where packages come from and are kept.
#[derive(Debug, Args)]
struct SourceArgs {
    /// Where packages are kept by digest [default: the user's cache directory].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Mirror to fetch from, once for each; a plain URL is one of `debian` [default: the
    /// variable `IMAGEBUILD_MIRROR`, the user's `mirrors.toml`, or the apt sources of this computer].
    #[arg(long = "mirror", value_name = "[ARCHIVE=]URL")]
    mirrors: Vec<String>,
    /// Snapshot archive that still has what mirrors have dropped.
    #[arg(long, value_name = "URL")]
    snapshot: Option<String>,
}

impl SourceArgs {
    fn cache(&self) -> Result<Cache, Failure> {
        Cache::open(self.cache.as_deref()).map_err(Failure::Cache)
    }

    fn mirrors(&self) -> Result<Mirrors, Failure> {
        Mirrors::find(&self.mirrors, self.snapshot.as_deref()).map_err(Failure::Mirror)
    }
}

/// Runs the verb that the arguments ask for.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    narration::start();
    let done = match &cli.verb {
        Verb::Lock(args) => lock::run(args),
        Verb::Build(args) => build::run(args),
        Verb::Push(args) => push::run(args),
        Verb::Pull(args) => pull::run(args),
        Verb::Vendor(args) => vendor::run(args),
        Verb::Verify(args) => verify::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::report(&failure);
            failure.exit().into()
        }
    }
}

/// Prints data as one line of JSON.
fn print_json<T: serde::Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::Print(error.into()))?;
    print(&text)
}

/// Prints a line of data.
fn print(line: &str) -> Result<(), Failure> {
    use std::io::Write;
    let written = writeln!(std::io::stdout(), "{line}");
    written.map_err(Failure::Print)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
