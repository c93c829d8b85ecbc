//! `imagebuild gc`: removes what no image of a store needs, and brings a cache below a size.
//!
//! It refuses to remove anything unless `--delete` is said.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use image_manifest::layout::{Action, Collected, Layout, Rules};
use imagebuild::cache::Cache;
use imagebuild::definition::size;
use imagebuild::gc::{self, Trimmed};
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct GcArgs {
    /// The store.
    #[arg(long, value_name = "DIR", required_unless_present = "cache_size")]
    store: Option<PathBuf>,
    /// Generations that are kept of each image.
    #[arg(long, value_name = "N", default_value_t = 3)]
    keep: usize,
    /// Only what is older goes: a number with `s`, `m`, `h` or `d`.
    #[arg(long, value_name = "AGE", default_value = "1d", value_parser = age)]
    min_age: Duration,
    /// Bring the cache, packages and what was made of them, below this size, such as `5 GB`.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    cache_size: Option<u64>,
    /// Where packages are kept by digest [default: the user's cache directory].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Remove what is told; without it nothing is changed.
    #[arg(long)]
    delete: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome {
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<Collected>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Trimmed>,
}

pub(super) fn age(text: &str) -> Result<Duration, String> {
    let unit = text.chars().next_back().unwrap_or_default();
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err("it does not end in `s`, `m`, `h` or `d`".to_owned()),
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    let number: Option<u64> = digits.parse().ok();
    let seconds = number.and_then(|number| number.checked_mul(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "it does not begin with a number".to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    size::parse(text).ok_or_else(|| "it is no size such as `5 GB`".to_owned())
}

pub(super) fn run(args: &GcArgs) -> Result<(), Failure> {
    let action = if args.delete {
        Action::Remove
    } else {
        Action::Tell
    };
    let now = SystemTime::now();
    let before = now.checked_sub(args.min_age);
    let before = before.unwrap_or(SystemTime::UNIX_EPOCH);
    let mut outcome = Outcome {
        deleted: args.delete,
        store: None,
        cache: None,
    };
    if let Some(store) = &args.store {
        let store = Layout::open(store).map_err(Failure::Store)?;
        let rules = Rules {
            keep: args.keep,
            before,
        };
        outcome.store = Some(store.collect(rules, action).map_err(Failure::Store)?);
    }
    if let Some(most) = args.cache_size {
        let cache = Cache::open(args.cache.as_deref()).map_err(Failure::Cache)?;
        let trimmed = gc::trim(cache.root(), most, before, action);
        outcome.cache = Some(trimmed.map_err(|error| Failure::told(error, Exit::Failed))?);
    }
    if args.json {
        return print_json(&outcome);
    }
    tell(&outcome)
}

fn tell(outcome: &Outcome) -> Result<(), Failure> {
    let verb = if outcome.deleted {
        "removed"
    } else {
        "would go"
    };
    let megabytes = size::megabytes;
    if let Some(store) = &outcome.store {
        for gone in &store.entries {
            print(&format!("{verb}: {}@{}", gone.what, gone.digest))?;
        }
        print(&format!(
            "store: {} files of {} {verb}, {} of {} stay",
            store.files,
            megabytes(store.bytes),
            store.kept_files,
            megabytes(store.kept_bytes)
        ))?;
    }
    if let Some(cache) = &outcome.cache {
        print(&format!(
            "cache: {} files of {} {verb}, {} of {} stay",
            cache.files,
            megabytes(cache.bytes),
            cache.kept_files,
            megabytes(cache.kept_bytes)
        ))?;
    }
    if !outcome.deleted {
        print("nothing was changed; `--delete` does it")?;
    }
    Ok(())
}
