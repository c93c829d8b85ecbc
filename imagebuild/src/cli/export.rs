//! `imagebuild export`: writes a disk of an image, in the form that somebody takes.
//!
//! It refuses to store it: it is composed from the artifacts, the same bytes each time.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use image_manifest::layout::Layout;
use image_manifest::{Digest, FormKind, Manifest};
use imagebuild::export;
use imagebuild::forms::{Disk, file_name};
use serde::Serialize;

use super::failure::Failure;
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// File or block device to write, or `-` for standard output [default: the image's name with
    /// the form's extension].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The form to write.
    #[arg(long = "as", value_name = "FORM", value_enum)]
    form: FormWord,
    /// Print digest and size as JSON.
    #[arg(long)]
    json: bool,
}

/// The forms of a disk.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormWord {
    /// The disk itself, byte for byte.
    Raw,
    /// For QEMU, libvirt and `OpenStack`.
    Qcow2,
    /// A fixed VHD, for Azure.
    Vhd,
    /// `disk.raw` in a tar.gz, for Google's cloud.
    Gce,
}

impl From<FormWord> for FormKind {
    fn from(word: FormWord) -> Self {
        match word {
            FormWord::Raw => Self::Raw,
            FormWord::Qcow2 => Self::Qcow2,
            FormWord::Vhd => Self::Vhd,
            FormWord::Gce => Self::Gce,
        }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    file: &'a Path,
    digest: Digest,
    size: u64,
}

pub(super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let store = Layout::open(&args.store).map_err(Failure::Store)?;
    let found = store.resolve(&args.image).map_err(Failure::Store)?;
    let (manifest, kind) = (found.manifest, args.form.into());
    let disk = Disk::of(&store, &manifest).map_err(Failure::Forms)?;
    let promise = Some(export::promised(&manifest, kind).map_err(Failure::Export)?);
    let default = PathBuf::from(file_name(&manifest.name, kind));
    let file = args.file.as_ref().unwrap_or(&default);
    if file == Path::new("-") {
        let mut out = io::stdout().lock();
        let written = export::to_stream(&disk, kind, &mut out, promise);
        written.map_err(Failure::Export)?;
        return out.flush().map_err(Failure::Print);
    }
    let (digest, size) = export::to_file(&disk, kind, file, promise).map_err(Failure::Export)?;
    if args.json {
        return print_json(&Exported { file, digest, size });
    }
    print(&format!("{} {size} {digest}", file.display()))
}

/// Writes all forms of an image into a directory.
pub(super) fn all(store: &Layout, manifest: &Manifest, directory: &Path) -> Result<(), Failure> {
    if manifest.disk.is_none() {
        return Ok(());
    }
    std::fs::create_dir_all(directory).map_err(|source| {
        let path = directory.to_owned();
        Failure::Export(export::Error::Write { path, source })
    })?;
    let disk = Disk::of(store, manifest).map_err(Failure::Forms)?;
    for form in &manifest.forms {
        let path = directory.join(&form.name);
        tracing::info!(file = %path.display(), bytes = form.size, "exporting");
        let written = export::to_file(&disk, form.kind, &path, Some(form));
        written.map_err(Failure::Export)?;
    }
    Ok(())
}
