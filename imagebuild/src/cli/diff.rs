//! `imagebuild diff`: what differs between two images or two locks.
//!
//! It refuses to compare an image with a lock.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use image_manifest::layout::Layout;
use imagebuild::insight::difference::{self, Change, Difference};
use imagebuild::lock::{self, Lock};

use super::failure::{Exit, Failure};
use super::update::delta;
use super::{print, print_json};

/// Files and modules that are told unless all are asked for.
const MOST: usize = 40;

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// An image of the store, a lock, or a directory with one.
    #[arg(value_name = "A")]
    first: String,
    /// Another.
    #[arg(value_name = "B")]
    second: String,
    /// The store that has the images.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The store that has B, when it is another one.
    #[arg(long, value_name = "DIR")]
    other_store: Option<PathBuf>,
    /// Tell all files and modules.
    #[arg(long)]
    all: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DiffArgs) -> Result<(), Failure> {
    let difference = match &args.store {
        None => {
            let (one, other) = (load(&args.first)?, load(&args.second)?);
            let names = [args.first.clone(), args.second.clone()];
            difference::locks(names, &one, &other)
        }
        Some(store) => {
            let first = Layout::open(store).map_err(Failure::Store)?;
            let second = args.other_store.as_ref().unwrap_or(store);
            let second = Layout::open(second).map_err(Failure::Store)?;
            difference::images((&first, &args.first), (&second, &args.second))
                .map_err(|error| Failure::told(error, Exit::Failed))?
        }
    };
    if args.json {
        return print_json(&difference);
    }
    let most = if args.all { usize::MAX } else { MOST };
    text(&difference, most)
        .iter()
        .try_for_each(|line| print(line))
}

fn load(name: &str) -> Result<Lock, Failure> {
    let path = Path::new(name);
    let path = if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        path.join(lock::FILE)
    } else {
        path.to_owned()
    };
    Lock::load(&path).map_err(Failure::Lock)
}

fn text(difference: &Difference, most: usize) -> Vec<String> {
    let [from, to] = &difference.between;
    let mut lines = vec![format!("--- {from}"), format!("+++ {to}")];
    if difference.same {
        lines.push("nothing differs".to_owned());
        return lines;
    }
    section("packages", &difference.packages, usize::MAX, &mut lines);
    section("facts", &difference.facts, usize::MAX, &mut lines);
    section("modules", &difference.modules, most, &mut lines);
    if !difference.sizes.is_empty() {
        lines.push("sizes".to_owned());
        for size in &difference.sizes {
            let (from, to) = (size.from, size.to);
            let told = delta(from, to);
            lines.push(format!("  ~ {} {from} -> {to}, {told}", size.name));
        }
    }
    if !difference.files.is_empty() {
        lines.push("files".to_owned());
        for file in difference.files.iter().take(most) {
            let line = match (&file.from, &file.to) {
                (None, _) => format!("  + {}", file.path),
                (_, None) => format!("  - {}", file.path),
                _ => format!("  ~ {} ({})", file.path, file.what.join(", ")),
            };
            lines.push(line);
        }
        rest(difference.files.len(), most, &mut lines);
    }
    lines
}

fn section(name: &str, changes: &[Change], most: usize, lines: &mut Vec<String>) {
    if changes.is_empty() {
        return;
    }
    lines.push(name.to_owned());
    for change in changes.iter().take(most) {
        let name = &change.name;
        lines.push(match (&change.from, &change.to) {
            (Some(from), Some(to)) => format!("  ~ {name} {from} -> {to}"),
            (None, Some(to)) => format!("  + {name} {to}"),
            (from, _) => format!("  - {name} {}", from.as_deref().unwrap_or_default()),
        });
    }
    rest(changes.len(), most, lines);
}

fn rest(count: usize, most: usize, lines: &mut Vec<String>) {
    if count > most {
        lines.push(format!("  and {} more; `--all` tells them", count - most));
    }
}
