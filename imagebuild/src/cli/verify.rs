//! `imagebuild verify`: is an image what its manifest says?
//!
//! It refuses to change the store.

use std::path::PathBuf;

use clap::Args;
use image_manifest::layout::Layout;
use imagebuild::verify::{self, Signed, Verified};

use super::failure::Failure;
use super::machine::SigningArgs;
use super::{print, print_json, sign};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Verify files or devices that hold the image's disk in some form, instead of the store; give
    /// it once for each.
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// File of a public key that must have signed the image; of several, one.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    #[command(flatten)]
    signing: SigningArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let store = Layout::open(&args.store).map_err(Failure::Store)?;
    sign::check(&store, &args.image, &args.keys)?;
    let verified = if args.files.is_empty() {
        verify::verify(&store, &args.image)
    } else {
        let owner = args.signing.signer()?;
        let signed = owner.as_ref().map_or(Signed::Nobody, Signed::By);
        verify::verify_files(&store, &args.image, &args.files, signed)
    };
    let verified = verified.map_err(Failure::Verify)?;
    if args.json {
        return print_json(&verified);
    }
    let Verified {
        name,
        manifest,
        tree,
        artifacts,
        trees,
        forms,
        layers,
        container,
    } = &verified;
    print(&format!("{name}@{manifest}"))?;
    print(&format!("tree     {tree}"))?;
    for name in artifacts {
        let how = if trees.contains(name) {
            "has its digest and holds the tree"
        } else {
            "has its digest"
        };
        print(&format!("{name:<24} {how}"))?;
    }
    for name in forms {
        print(&format!("{name:<24} has its digest and holds the tree"))?;
    }
    for name in layers {
        print(&format!("{name:<24} holds the tree"))?;
    }
    if let Some(name) = container {
        print(&format!("{name:<24} names these layers and this tree"))?;
    }
    Ok(())
}
