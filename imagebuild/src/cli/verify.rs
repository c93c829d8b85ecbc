//! `imagebuild verify`: is an image what its manifest says?
//!
//! It refuses to change the store.

use std::path::PathBuf;

use clap::Args;
use image_manifest::layout::Layout;
use imagebuild::verify;

use super::failure::Failure;
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let store = Layout::open(&args.store).map_err(Failure::Store)?;
    let verified = verify::verify(&store, &args.image).map_err(Failure::Verify)?;
    if args.json {
        return print_json(&verified);
    }
    print(&format!("{}@{}", verified.name, verified.manifest))?;
    print(&format!("tree     {}", verified.tree))?;
    for name in &verified.artifacts {
        let how = if verified.trees.contains(name) {
            "has its digest and holds the tree"
        } else {
            "has its digest"
        };
        print(&format!("{name:<16} {how}"))?;
    }
    Ok(())
}
