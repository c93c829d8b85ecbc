//! Writes a form of an image to a file, a device or a stream.
//!
//! It refuses to leave half of one under its name: a file gets its name when it is whole and has the
//! digest that the manifest promises.

pub mod container;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image_disk::{HashSink, Sink, SparseSink, WriteSink};
use image_manifest::{Digest, Form, FormKind, Manifest};

use crate::forms::{self, Disk, file_name};

/// Why a form could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk could not be composed.
    #[error(transparent)]
    Compose(#[from] forms::Error),
    /// The image has no such form.
    #[error(
        "image `{image}` has no form `{form}`: its definition does not list it among its `outputs`"
    )]
    NoForm {
        /// The image.
        image: String,
        /// File name of the form.
        form: String,
    },
    /// The file could not be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was composed is not what the manifest promises.
    #[error("`{form}` was composed with digest {found}, the manifest says {expected}")]
    Digest {
        /// File name of the form.
        form: String,
        /// What it has.
        found: Digest,
        /// What the manifest promises.
        expected: Digest,
    },
}

/// What is to be known of an image's form before it is written.
///
/// # Errors
/// When the image does not have it.
pub fn promised(manifest: &Manifest, kind: FormKind) -> Result<&Form, Error> {
    manifest.form(kind).ok_or_else(|| Error::NoForm {
        image: manifest.name.clone(),
        form: file_name(&manifest.name, kind),
    })
}

/// Writes a form to a file, which is sparse, or to a device; returns its digest and size.
///
/// Without a promise, as for a disk whose programs were signed since, any digest will do.
///
/// # Errors
/// When it cannot be composed or written, or is not what was promised.
pub fn to_file(
    disk: &Disk,
    kind: FormKind,
    path: &Path,
    promise: Option<&Form>,
) -> Result<(Digest, u64), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let known = fs::metadata(path);
    if known.is_ok_and(|known| known.file_type().is_block_device()) {
        let device = OpenOptions::new().write(true).open(path).map_err(failed)?;
        let mut out = BufWriter::with_capacity(1 << 20, &device);
        let written = to_stream(disk, kind, &mut out, promise)?;
        out.flush().map_err(failed)?;
        device.sync_all().map_err(failed)?;
        return Ok(written);
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let part = tempfile::Builder::new()
        .prefix(".export-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory);
    let part = part.map_err(failed)?;
    let file = part.as_file().try_clone().map_err(failed)?;
    let mut out = Tee::new(SparseSink::new(file));
    disk.write(kind, &mut out)?;
    let written = out.hash.finish();
    let file: File = out.out.finish().map_err(failed)?;
    keep_promise(disk, kind, written, promise)?;
    file.sync_all().map_err(failed)?;
    part.persist(path).map_err(|error| failed(error.error))?;
    Ok(written)
}

/// Writes a form to a stream, and says at the end whether it was what was promised.
///
/// # Errors
/// When it cannot be composed or written, or is not what was promised.
pub fn to_stream(
    disk: &Disk,
    kind: FormKind,
    out: &mut dyn Write,
    promise: Option<&Form>,
) -> Result<(Digest, u64), Error> {
    let mut out = Tee::new(WriteSink::new(out));
    disk.write(kind, &mut out)?;
    let written = out.hash.finish();
    keep_promise(disk, kind, written, promise)?;
    Ok(written)
}

fn keep_promise(
    disk: &Disk,
    kind: FormKind,
    (found, _): (Digest, u64),
    promise: Option<&Form>,
) -> Result<(), Error> {
    match promise {
        Some(promise) if promise.digest != found => Err(Error::Digest {
            form: file_name(disk.name(), kind),
            found,
            expected: promise.digest,
        }),
        _ => Ok(()),
    }
}

/// Digests what it passes on.
struct Tee<S> {
    out: S,
    hash: HashSink,
}

impl<S> Tee<S> {
    fn new(out: S) -> Self {
        let hash = HashSink::default();
        Self { out, hash }
    }
}

impl<S: Sink> Sink for Tee<S> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.data(bytes)?;
        self.out.data(bytes)
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        self.hash.zeros(count)?;
        self.out.zeros(count)
    }

    fn enter(&mut self, region: &Arc<str>) {
        self.out.enter(region);
    }
}
