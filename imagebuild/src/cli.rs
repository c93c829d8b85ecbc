//! The command line: verbs, arguments, exit codes.
//!
//! Standard output is for data, standard error for narration; nothing else is written to either.

mod build;
mod deprecate;
mod describe;
mod diff;
mod documents;
mod export;
mod failure;
mod gc;
mod inspect;
mod lock;
mod machine;
mod narration;
mod progress;
mod prune;
mod publish;
mod pull;
mod push;
mod report;
mod run;
mod sign;
mod targets;
mod test;
mod update;
mod vendor;
mod verify;
mod whereabouts;
mod why;

use std::io;
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
    /// Resolves anew and tells what changes, by source package; writes the lock.
    Update(update::UpdateArgs),
    /// Builds the image of a definition and its lock into a store.
    Build(build::BuildArgs),
    /// Writes the disk of an image in the form that a hypervisor or a cloud takes.
    Export(export::ExportArgs),
    /// Sends an image of a store to a registry: what it has already is not sent.
    Push(push::PushArgs),
    /// Fetches an image from a registry into a store.
    Pull(pull::PullArgs),
    /// Keeps the packages of an image in a store, where they outlive their mirrors.
    Vendor(vendor::VendorArgs),
    /// Starts an image in a virtual computer, or its container form in a container.
    Run(run::RunArgs),
    /// Boots an image in a virtual computer and tells whether it is well.
    Test(test::TestArgs),
    /// Checks that every artifact of an image is what its manifest says.
    Verify(verify::VerifyArgs),
    /// Tells what differs between two images of a store, or between two locks.
    Diff(diff::DiffArgs),
    /// Tells why a package is in an image, or which package brings a file.
    Why(why::WhyArgs),
    /// Tells all that is known about an image of a store.
    Inspect(inspect::InspectArgs),
    /// Prints what an image is made of, for other tools.
    Sbom(documents::SbomArgs),
    /// Prints how and from what an image was built, for other tools.
    Provenance(documents::ProvenanceArgs),
    /// Signs an image, as cosign does.
    Sign(sign::SignArgs),
    /// Makes keys for signatures.
    Key(sign::KeyVerbArgs),
    /// Brings an image to all clouds and registries of a targets file; what is there is not done again.
    Publish(publish::PublishArgs),
    /// Takes a published image a stage further: shares it, and moves what names the newest one.
    Promote(publish::PromoteArgs),
    /// Says in all clouds that a published image should not be used any more.
    Deprecate(deprecate::DeprecateArgs),
    /// Removes published images that nobody keeps.
    Prune(prune::PruneArgs),
    /// Tells of a digest, an AMI or another name which published objects are one build with it.
    Where(whereabouts::WhereArgs),
    /// Removes what no image of a store needs, and what a cache has too much of.
    Gc(gc::GcArgs),
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
        Verb::Run(args) => run::run(args),
        Verb::Test(args) => test::run(args),
        Verb::Export(args) => export::run(args),
        Verb::Verify(args) => verify::run(args),
        Verb::Update(args) => update::run(args),
        Verb::Diff(args) => diff::run(args),
        Verb::Why(args) => why::run(args),
        Verb::Inspect(args) => inspect::run(args),
        Verb::Sbom(args) => documents::sbom(args),
        Verb::Provenance(args) => documents::provenance(args),
        Verb::Sign(args) => sign::run(args),
        Verb::Key(args) => sign::key(args),
        Verb::Publish(args) => publish::run(args),
        Verb::Promote(args) => publish::promote(args),
        Verb::Deprecate(args) => deprecate::run(args),
        Verb::Prune(args) => prune::run(args),
        Verb::Where(args) => whereabouts::run(args),
        Verb::Gc(args) => gc::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough: `imagebuild why … | head`.
        Err(Failure::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
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
