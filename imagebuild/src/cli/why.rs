//! `imagebuild why`: what asks for a package, or what brings a file.
//!
//! It refuses to guess: what a maintainer script makes has no package.

use std::path::PathBuf;

use clap::Args;
use imagebuild::insight::why;

use super::describe::LockedArgs;
use super::failure::{Exit, Failure};
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    #[command(flatten)]
    locked: LockedArgs,
    /// A store that may have the packages too.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The package.
    #[arg(value_name = "PACKAGE", required_unless_present = "file")]
    package: Option<String>,
    /// A path of the image, instead of a package.
    #[arg(long, value_name = "PATH", conflicts_with = "package")]
    file: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &WhyArgs) -> Result<(), Failure> {
    let known = args.locked.load(args.store.as_deref())?;
    let failed = |error| Failure::told(error, Exit::Failed);
    if let Some(path) = &args.file {
        let origin = why::file(known.definition(), &known.packages, path).map_err(failed)?;
        if args.json {
            return print_json(&origin);
        }
        for package in &origin.packages {
            print(&format!("{}: package {package}", origin.path))?;
        }
        if origin.by_definition {
            let name = &known.definition().name;
            print(&format!("{}: the definition of {name}", origin.path))?;
        }
        return Ok(());
    }
    let name = args.package.as_deref().unwrap_or_default();
    let reasons = why::package(known.definition(), &known.pairs(), name).map_err(failed)?;
    if args.json {
        return print_json(&reasons);
    }
    print(&format!("{} {}", reasons.package, reasons.version))?;
    for chain in &reasons.chains {
        let way = chain.packages.join(" -> ");
        print(&format!("  {}: {way}", chain.asked_by))?;
    }
    Ok(())
}
