//! `imagebuild vendor`: the packages of a lock are kept in a store.
//!
//! It refuses to resolve: what is not in the lock is not kept.

use std::path::PathBuf;

use clap::Args;
use image_manifest::layout::Layout;
use imagebuild::definition;
use imagebuild::fetch::{self, Network, Sources};
use imagebuild::layers;
use imagebuild::lock::Lock;
use imagebuild::registry;
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::push::failed;
use super::{SourceArgs, print, print_json};

#[derive(Debug, Args)]
pub(super) struct VendorArgs {
    /// Directory of the definition.
    #[arg(value_name = "DIR")]
    definition: PathBuf,
    /// The lock [default: `image.lock` beside the definition].
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// The store that takes the packages; it is made when it is absent.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    sources: SourceArgs,
    /// Use no network: every package must be in the cache or the store.
    #[arg(long)]
    offline: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VendorArgs) -> Result<(), Failure> {
    let definition = definition::load(&args.definition).map_err(Failure::Problems)?;
    let path = args.lock.clone().unwrap_or_else(|| definition.lock_path());
    let lock = Lock::load(&path).map_err(Failure::Lock)?;
    let locked = definition.lock(lock).map_err(Failure::Stale)?;
    let store = Layout::create(&args.store).map_err(Failure::Store)?;
    let sources = Sources {
        cache: args.sources.cache()?,
        files: Some(store.root().join("blobs/sha256")),
        mirrors: args.sources.mirrors()?,
        network: if args.offline {
            Network::Offline
        } else {
            Network::Online
        },
    };
    let runtime = Runtime::new().map_err(Failure::Start)?;
    // Layers of parents are built from the parents' own locks.
    let mut all = layers::parents(locked.definition());
    all.push(locked);
    let mut packages = Vec::new();
    for locked in &all {
        let fetched = runtime
            .block_on(fetch::fetch(locked, &sources))
            .map_err(Failure::Fetch)?;
        fetch::identify(&fetched.packages).map_err(Failure::Fetch)?;
        packages.extend(fetched.packages);
    }
    let image = all.last().map_or("", |locked| &locked.definition().name);
    let vendored = registry::vendor(&store, image, &packages).map_err(failed)?;
    if args.json {
        return print_json(&vendored);
    }
    print(&format!("{}@{}", vendored.name, vendored.digest))?;
    print(&format!(
        "{} packages, {} bytes",
        vendored.packages, vendored.bytes
    ))
}
