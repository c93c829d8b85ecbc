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
    for arguments in args.arguments.each().map_err(failed)? {
        let outcome = runtime.block_on(lock::run(&arguments)).map_err(failed)?;
        if args.json {
            print_json(&outcome)?;
            continue;
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
        ))?;
    }
    Ok(())
}

fn failed(error: lock::RunError) -> Failure {
    match error {
        lock::RunError::Definition(problems) => Failure::Problems(problems),
        error => Failure::Resolve(error),
    }
}
