//! `imagebuild export`: writes a disk of an image, in the form that somebody takes, or its container image.
//!
//! It refuses to store it: it is composed from the artifacts, the same bytes each time.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use image_manifest::layout::Layout;
use image_manifest::{Digest, Form, FormKind, Manifest};
use imagebuild::export;
use imagebuild::forms::{Disk, file_name};
use imagebuild::layers;
use imagebuild::secure_boot::Signer;
use serde::Serialize;

use super::failure::Failure;
use super::machine::SigningArgs;
use super::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The image: its name, or `NAME@sha256:…`.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// File or block device to write, or `-` for standard output; for a container image a directory [default: the
    /// image's name with the form's extension, or `-oci`].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The store that has it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The form to write.
    #[arg(long = "as", value_name = "FORM", value_enum)]
    form: FormWord,
    #[command(flatten)]
    signing: SigningArgs,
    /// Print digest and size as JSON.
    #[arg(long)]
    json: bool,
}

/// What an image can be written as.
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
    /// The container image, as an OCI image layout: a directory.
    Oci,
}

impl FormWord {
    /// The form of the disk; a container image is none.
    fn kind(self) -> Option<FormKind> {
        match self {
            Self::Raw => Some(FormKind::Raw),
            Self::Qcow2 => Some(FormKind::Qcow2),
            Self::Vhd => Some(FormKind::Vhd),
            Self::Gce => Some(FormKind::Gce),
            Self::Oci => None,
        }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    file: &'a Path,
    digest: Digest,
    size: u64,
    /// The names in a layout.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
}

impl Exported<'_> {
    fn print(&self, args: &ExportArgs) -> Result<(), Failure> {
        if args.json {
            return print_json(self);
        }
        let (file, size, digest) = (self.file.display(), self.size, self.digest);
        print(&format!("{file} {size} {digest}"))?;
        let mut names = self.names.iter();
        names.try_for_each(|name| print(&format!("oci:{file}:{name}")))
    }
}

pub(super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let store = Layout::open(&args.store).map_err(Failure::Store)?;
    let found = store.resolve(&args.image).map_err(Failure::Store)?;
    let manifest = found.manifest;
    let Some(kind) = args.form.kind() else {
        return container(args, &store, &manifest);
    };
    let form = export::promised(&manifest, kind).map_err(Failure::Export)?;
    let signer = args.signing.signer()?;
    let disk = compose(&store, &manifest, signer.as_ref())?;
    let promise = promise(form, signer.as_ref());
    let default = PathBuf::from(file_name(&manifest.name, kind));
    let file = args.file.as_ref().unwrap_or(&default);
    if file == Path::new("-") {
        let mut out = io::stdout().lock();
        let written = export::to_stream(&disk, kind, &mut out, promise);
        written.map_err(Failure::Export)?;
        return out.flush().map_err(Failure::Print);
    }
    let (digest, size) = export::to_file(&disk, kind, file, promise).map_err(Failure::Export)?;
    let exported = Exported {
        file,
        digest,
        size,
        names: Vec::new(),
    };
    exported.print(args)
}

fn compose(store: &Layout, manifest: &Manifest, signer: Option<&Signer>) -> Result<Disk, Failure> {
    let disk = match signer {
        Some(signer) => Disk::signed(store, manifest, signer),
        None => Disk::of(store, manifest),
    };
    disk.map_err(Failure::Forms)
}

/// What was promised of a form; of one with signatures nothing was.
fn promise<'a>(form: &'a Form, signer: Option<&Signer>) -> Option<&'a Form> {
    signer.is_none().then_some(form)
}

fn container(args: &ExportArgs, store: &Layout, manifest: &Manifest) -> Result<(), Failure> {
    let default = PathBuf::from(layers::name_of(&manifest.name));
    let file = args.file.as_ref().unwrap_or(&default);
    let written = export::container::to_layout(store, manifest, file);
    let written = written.map_err(Failure::Container)?;
    let exported = Exported {
        file,
        digest: written.digest,
        size: written.size,
        names: written.names,
    };
    exported.print(args)
}

/// Writes all forms of an image into a directory, and its container image into one below.
pub(super) fn all(
    store: &Layout,
    manifest: &Manifest,
    directory: &Path,
    signing: &SigningArgs,
) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).map_err(|source| {
        let path = directory.to_owned();
        Failure::Export(export::Error::Write { path, source })
    })?;
    if !manifest.forms.is_empty() {
        let signer = signing.signer()?;
        let disk = compose(store, manifest, signer.as_ref())?;
        for form in &manifest.forms {
            let path = directory.join(&form.name);
            tracing::info!(file = %path.display(), bytes = form.size, "exporting");
            let promise = promise(form, signer.as_ref());
            let written = export::to_file(&disk, form.kind, &path, promise);
            written.map_err(Failure::Export)?;
        }
    }
    if manifest.layers.is_empty() {
        return Ok(());
    }
    let path = directory.join(layers::name_of(&manifest.name));
    tracing::info!(directory = %path.display(), "exporting the container image");
    let written = export::container::to_layout(store, manifest, &path);
    written.map(drop).map_err(Failure::Container)
}
