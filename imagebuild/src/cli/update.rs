//! `imagebuild update`: the lock as the archives have it today, told before it is written.
//!
//! It refuses to build.

use clap::Args;
use imagebuild::definition::size::megabytes;
use imagebuild::lock::{self, SourceChange, UpdateArguments, UpdateError, Updated};
use tokio::runtime::Runtime;

use super::failure::{Exit, Failure};
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    arguments: UpdateArguments,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &UpdateArgs) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(Failure::Start)?;
    let each = args.arguments.each().map_err(UpdateError::Lock);
    for arguments in each.map_err(failed)? {
        let updated = runtime.block_on(lock::update(&arguments));
        let updated = updated.map_err(failed)?;
        if args.json {
            print_json(&updated)?;
        } else {
            text(&updated).iter().try_for_each(|line| print(line))?;
        }
    }
    Ok(())
}

fn failed(error: UpdateError) -> Failure {
    match error {
        UpdateError::Lock(lock::RunError::Definition(problems)) => Failure::Problems(problems),
        UpdateError::Lock(error) => Failure::Resolve(error),
        error => {
            let exit = Exit::from(error.fault());
            Failure::told(error, exit)
        }
    }
}

/// Writes what changes for people: what is for security first.
fn text(updated: &Updated) -> Vec<String> {
    let mut lines = Vec::new();
    let (security, others): (Vec<_>, Vec<_>) =
        updated.sources.iter().partition(|source| source.security);
    for source in security.into_iter().chain(others) {
        tell(source, &mut lines);
    }
    let packages = || updated.sources.iter().flat_map(|source| &source.packages);
    let count = |from: bool, to: bool| {
        let those = packages().filter(|one| one.from.is_some() == from && one.to.is_some() == to);
        those.count()
    };
    let holes = updated.sources.iter().filter(|one| one.security).count();
    lines.push(format!(
        "{}: {} added, {} removed, {} changed, of {} source packages ({holes} for security), {}",
        updated.name,
        count(false, true),
        count(true, false),
        count(true, true),
        updated.sources.len(),
        delta(updated.bytes_from, updated.bytes_to),
    ));
    let how = if updated.written {
        "written"
    } else {
        "not written"
    };
    lines.push(format!("{}: {how}", updated.lock.display()));
    lines
}

fn tell(source: &SourceChange, lines: &mut Vec<String>) {
    let suite = source.suite.as_deref().unwrap_or("gone");
    let mark = if source.security { "  SECURITY" } else { "" };
    lines.push(format!("{} ({suite}){mark}", source.source));
    for change in &source.changes {
        lines.push(format!("    {}: {}", change.version, change.headline));
        if !change.vulnerabilities.is_empty() {
            lines.push(format!("        {}", change.vulnerabilities.join(" ")));
        }
    }
    for one in &source.packages {
        let usage = match one.usage {
            "install" => String::new(),
            usage => format!(" ({usage})"),
        };
        let versions = match (&one.from, &one.to) {
            (Some(from), Some(to)) => format!("  ~ {}{usage} {from} -> {to}", one.name),
            (None, Some(to)) => format!("  + {}{usage} {to}", one.name),
            (from, _) => format!(
                "  - {}{usage} {}",
                one.name,
                from.as_deref().unwrap_or_default()
            ),
        };
        lines.push(format!("{versions}, {}", delta(one.size_from, one.size_to)));
    }
}

/// How much larger or smaller something is.
pub(super) fn delta(from: u64, to: u64) -> String {
    if to >= from {
        format!("+{}", megabytes(to - from))
    } else {
        format!("-{}", megabytes(from - to))
    }
}
