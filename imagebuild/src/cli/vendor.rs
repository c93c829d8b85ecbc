//! `imagebuild vendor`: the packages of a lock are kept in a store.
//!
//! It refuses to resolve: what is not in the lock is not kept.

use std::path::PathBuf;

use clap::Args;
use image_manifest::layout::Layout;
use imagebuild::layers;
use imagebuild::registry;
use tokio::runtime::Runtime;

use super::describe::{LockedArgs, bring};
use super::failure::Failure;
use super::push::failed;
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct VendorArgs {
    #[command(flatten)]
    locked: LockedArgs,
    /// The store that takes the packages; it is made when it is absent.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VendorArgs) -> Result<(), Failure> {
    let locked = args.locked.locked()?;
    let store = Layout::create(&args.store).map_err(Failure::Store)?;
    let sources = args.locked.sources(Some(store.root()))?;
    let runtime = Runtime::new().map_err(Failure::Start)?;
    // Layers of parents are built from the parents' own locks.
    let mut all = layers::parents(locked.definition());
    all.push(locked);
    let mut packages = Vec::new();
    for locked in &all {
        packages.extend(bring(&runtime, locked, &sources)?.packages);
    }
    let image = all.last().map(|locked| locked.definition().image_name());
    let image = image.unwrap_or_default();
    let vendored = registry::vendor(&store, &image, &packages).map_err(failed)?;
    if args.json {
        return print_json(&vendored);
    }
    print(&format!("{}@{}", vendored.name, vendored.digest))?;
    print(&format!(
        "{} packages, {} bytes",
        vendored.packages, vendored.bytes
    ))
}
