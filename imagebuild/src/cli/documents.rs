//! `imagebuild sbom` and `imagebuild provenance`: what is said about an image, as it was stored with it.
//!
//! It refuses to make them anew: they were made with the image, and its digest covers them.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use image_manifest::Role;
use image_manifest::layout::{self, Layout};
use imagebuild::provenance;
use imagebuild::sbom::Format;

use super::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(super) struct SbomArgs {
    #[command(flatten)]
    document: DocumentArgs,
    /// Which format.
    #[arg(long, value_enum, default_value_t = Word::Spdx)]
    format: Word,
}

#[derive(Debug, Args)]
pub(super) struct ProvenanceArgs {
    #[command(flatten)]
    document: DocumentArgs,
}

#[derive(Debug, Args)]
struct DocumentArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Print as JSON: it always is.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Word {
    /// SPDX 2.3.
    Spdx,
    /// `CycloneDX` 1.6.
    Cyclonedx,
}

/// The image was built without it.
#[derive(Debug, thiserror::Error)]
#[error("image `{image}` has no `{name}`: build it again")]
struct Absent {
    image: String,
    name: &'static str,
}

pub(super) fn sbom(args: &SbomArgs) -> Result<(), Failure> {
    let format = match args.format {
        Word::Spdx => Format::Spdx,
        Word::Cyclonedx => Format::CycloneDx,
    };
    args.document.print(Role::Sbom, format.file_name())
}

pub(super) fn provenance(args: &ProvenanceArgs) -> Result<(), Failure> {
    args.document.print(Role::Provenance, provenance::FILE)
}

impl DocumentArgs {
    fn print(&self, role: Role, name: &'static str) -> Result<(), Failure> {
        let store = Layout::open(&self.store).map_err(Failure::Store)?;
        let found = store.resolve(&self.image).map_err(Failure::Store)?;
        let mut artifacts = found.manifest.artifacts.iter();
        let artifact = artifacts.find(|one| one.role == role && one.name == name);
        let artifact = artifact.ok_or_else(|| {
            let image = self.image.clone();
            Failure::told(Absent { image, name }, Exit::Failed)
        })?;
        store.check(artifact).map_err(Failure::Store)?;
        let path = store.blob(&artifact.digest);
        let bytes = fs::read(&path)
            .map_err(|source| Failure::Store(layout::Error::Read { path, source }))?;
        std::io::stdout().write_all(&bytes).map_err(Failure::Print)
    }
}
