//! `imagebuild pull`: an image comes out of a registry into a store.
//!
//! It refuses to give anything a name before all of it was looked at.

use std::path::PathBuf;

use clap::Args;
use image_manifest::layout::Layout;
use imagebuild::registry::{self, Remote};
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::push::{RegistryArgs, failed};
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// The image; its container form, with the tag `TAG-oci`, comes with it.
    #[arg(value_name = "HOST/PATH[:TAG][@sha256:…]")]
    remote: String,
    /// The store that takes it; it is made when it is absent.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PullArgs) -> Result<(), Failure> {
    let remote = Remote::parse(&args.remote).map_err(failed)?;
    let options = args.registry.options(None)?;
    let things = args.registry.things();
    let store = Layout::create(&args.store).map_err(Failure::Store)?;
    let runtime = Runtime::new().map_err(Failure::Start)?;
    let pulled = runtime.block_on(registry::pull(&store, &remote, things, &options));
    let pulled = pulled.map_err(failed)?;
    if args.json {
        return print_json(&pulled);
    }
    print(&format!(
        "fetched  {} files, {} bytes",
        pulled.downloaded_files, pulled.downloaded_bytes
    ))?;
    print(&format!("present  {} files", pulled.present_files))?;
    print(&format!("attached {}", pulled.attachments))?;
    pulled
        .names
        .iter()
        .try_for_each(|(name, digest)| print(&format!("{name}@{digest}")))
}
