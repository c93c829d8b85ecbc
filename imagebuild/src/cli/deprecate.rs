//! `imagebuild deprecate`: published images of a build, or of all older ones, should not be used any more.
//!
//! It refuses to put off a day that was said before, and to deprecate what nothing newer replaces because it is older.

use std::path::PathBuf;

use clap::Args;
use cloud::Published;
use cloud::publish::{Failed, together};
use imagebuild::publish::retention::{Which, outdated};
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime, macros::format_description};
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::targets::{TargetArgs, failed};
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct DeprecateArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    targets: TargetArgs,
    /// Deprecate the published images of this name that it came after, wherever it is published itself.
    #[arg(long)]
    older: bool,
    /// From when on: a day such as `2026-12-31` or a time such as `2026-12-31T12:00:00Z` [default: now].
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    from: Option<i64>,
    /// Print what would be done; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome<'a> {
    deprecated: bool,
    from: i64,
    images: &'a [Published],
}

fn moment(text: &str) -> Result<i64, String> {
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(moment.unix_timestamp());
    }
    let day = Date::parse(text, format_description!("[year]-[month]-[day]"));
    let day = day.map_err(
        |_| "it is neither a day such as `2026-12-31` nor a time such as `2026-12-31T12:00:00Z`",
    )?;
    Ok(day.midnight().assume_utc().unix_timestamp())
}

pub(super) fn run(args: &DeprecateArgs) -> Result<(), Failure> {
    let list = args.targets.read()?;
    let image = args.targets.image(&args.store, &args.image)?;
    let mut publication = args.targets.publication(&image, &list)?;
    let runtime = Runtime::new().map_err(Failure::Start)?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let from = args.from.unwrap_or(now);
    let manifest = image.found.digest.to_string();
    let which = if args.older {
        Which::Older
    } else {
        Which::Itself
    };
    let all = runtime.block_on(publication.inventory()).whole();
    let all = all.map_err(failed)?.into_iter();
    let all = all.flat_map(|(_, images)| images).collect();
    let mut chosen = outdated(all, &manifest, which, from.max(now));
    let (of, mut failures) = (chosen.len(), Vec::new());
    if !args.dry_run {
        chosen.retain(|one| {
            let Err(error) = runtime.block_on(publication.deprecate(one, from)) else {
                return true;
            };
            let target = one.target.clone();
            failures.push(Failed { target, error });
            false
        });
    }
    tell(args, from, &chosen, of)?;
    // What failed is still as it was; the others are deprecated.
    match together(failures, of) {
        Some(error) => Err(failed(error)),
        None => Ok(()),
    }
}

fn tell(args: &DeprecateArgs, from: i64, images: &[Published], of: usize) -> Result<(), Failure> {
    if args.json {
        return print_json(&Outcome {
            deprecated: !args.dry_run,
            from,
            images,
        });
    }
    let verb = if args.dry_run {
        "would be deprecated"
    } else {
        "deprecated"
    };
    for one in images {
        let Published {
            target,
            place,
            id,
            name,
            ..
        } = one;
        print(&format!("{verb}: {target} {place} {id} {name}"))?;
    }
    if of == 0 {
        print("nothing is to be deprecated")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_days_or_times() {
        let cases = [
            ("1970-01-02", Some(86_400)),
            ("1970-01-01T00:01:00Z", Some(60)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("tomorrow", None),
            ("2026-13-01", None),
        ];
        for (text, expected) in cases {
            assert_eq!(moment(text).ok(), expected, "{text}");
        }
    }
}
