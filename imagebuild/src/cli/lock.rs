//! `imagebuild lock`: a definition is resolved into exact packages.
//!
//! It refuses to build.

use clap::Args;
use imagebuild::lock;
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct LockArgs {
    #[command(flatten)]
    arguments: lock::Arguments,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &LockArgs) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(Failure::Start)?;
    let outcome = runtime.block_on(lock::run(&args.arguments));
    let outcome = outcome.map_err(|error| match error {
        lock::RunError::Definition(problems) => Failure::Problems(problems),
        error => Failure::Resolve(error),
    })?;
    if args.json {
        return print_json(&outcome);
    }
    let how = if outcome.written {
        "written"
    } else {
        "not written"
    };
    print(&format!(
        "{}: {} packages, {how}",
        outcome.lock.display(),
        outcome.packages
    ))
}
