//! `imagebuild where`: which AMI, GCE image, Azure image, container and netboot image are one build. It asks the store alone.

use std::path::PathBuf;

use clap::Args;
use imagebuild::publish::record::{self, Trust};
use imagebuild::sign::PublicKey;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::publish::show_record;
use super::sign::bad_key;
use super::targets::failed;
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct WhereArgs {
    /// What is asked about: a digest of the manifest, the tree, the lock, a form or the container image; an AMI or another id;
    /// a name.
    #[arg(value_name = "DIGEST|ID|NAME")]
    what: String,
    /// The store with the records.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Believe only records that this public key signed; may be given several times.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// No record knows it.
#[derive(Debug, thiserror::Error)]
#[error("no publish record of this store knows `{0}`")]
struct Unknown(String);

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    /// What the asked thing is to the record.
    is: &'static str,
    record: cloud::Record,
}

pub(super) fn run(args: &WhereArgs) -> Result<(), Failure> {
    let keys = args.key.iter().map(|path| PublicKey::load(path));
    let keys: Vec<_> = keys.collect::<Result<_, _>>().map_err(bad_key)?;
    let store = image_manifest::layout::Layout::open(&args.store).map_err(Failure::Store)?;
    let trust = if keys.is_empty() {
        Trust::Anybody
    } else {
        Trust::Keys(&keys)
    };
    let found = record::find(&store, &args.what, &trust).map_err(failed)?;
    if found.is_empty() {
        return Err(Failure::told(Unknown(args.what.clone()), Exit::Failed));
    }
    let answers: Vec<_> = found
        .into_iter()
        .map(|(record, is)| Answer { is, record })
        .collect();
    if args.json {
        return print_json(&answers);
    }
    for answer in &answers {
        print(&format!("{} is the {} of", args.what, answer.is))?;
        show_record(&answer.record)?;
    }
    Ok(())
}
