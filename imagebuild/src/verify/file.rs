//! Files that were exported, or came back from somewhere: are they the image?
//!
//! It refuses to stop at "the digest differs": it says which byte is the first, what stands there,
//! and which path of the tree it belongs to.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image_disk::{OpenFile, ReadAt, Sink, Window, gce, qcow2};
use image_manifest::layout::{Found, Layout};
use image_manifest::{FormKind, Manifest, Role};

use super::form::{self, Fault};
use super::{Error, Verified, check_artifacts, compare_rootfs, find, pieces};
use crate::forms::{Disk, file_name};
use crate::secure_boot::Signer;

/// Who signed the programs on the disks that are verified.
#[derive(Clone, Copy, Debug)]
pub enum Signed<'a> {
    /// Nobody: they are as they were built.
    Nobody,
    /// The owner of this key, whose signatures are made again.
    By(&'a Signer),
}

/// Verifies files that each hold a form of an image.
///
/// # Errors
/// The first thing in which one differs from the image, or why that could not be found out.
pub fn verify_files(
    store: &Layout,
    reference: &str,
    paths: &[PathBuf],
    signed: Signed<'_>,
) -> Result<Verified, Error> {
    let Found { digest, manifest } = find(store, reference)?;
    let listed = check_artifacts(store, &manifest)?;
    for rootfs in &manifest.artifacts {
        if rootfs.role == Role::Rootfs {
            compare_rootfs(store, rootfs, &listed)?;
        }
    }
    let disk = pieces::check(store, &manifest)?;
    let disk = match signed {
        Signed::Nobody => disk,
        Signed::By(owner) => Disk::signed(store, &manifest, owner)?,
    };
    let mut files = Vec::new();
    for path in paths {
        check_file(&manifest, &disk, path, &listed)?;
        files.push(path.display().to_string());
    }
    let Manifest { name, tree, .. } = manifest;
    Ok(Verified {
        name,
        manifest: digest,
        tree,
        artifacts: Vec::new(),
        trees: files.clone(),
        forms: files,
        layers: Vec::new(),
        container: None,
    })
}

fn check_file(manifest: &Manifest, disk: &Disk, path: &Path, listed: &[u8]) -> Result<(), Error> {
    let shown = path.display().to_string();
    let fault = |source| Error::Form {
        form: shown.clone(),
        source,
    };
    let file = File::open(path).and_then(OpenFile::new);
    let file = file.map_err(|error| fault(Fault::Read(error)))?;
    let kind = detect(&file).map_err(|error| fault(Fault::Read(error)))?;
    if manifest.form(kind).is_none() {
        return Err(fault(Fault::NoForm));
    }
    let name = file_name(&manifest.name, kind);
    tracing::info!(form = name, bytes = file.size(), "comparing");
    compare(disk, kind, &file, listed).map_err(fault)?;
    form::read_back(disk, kind, &file, manifest).map_err(fault)
}

/// Tells which form a file is: what is nothing else is a raw disk.
fn detect(file: &dyn ReadAt) -> io::Result<FormKind> {
    let mut start = [0; 4];
    if file.size() >= 4 {
        file.read_exact_at(0, &mut start)?;
    }
    if &start == b"QFI\xfb" {
        return Ok(FormKind::Qcow2);
    }
    if start[..2] == [0x1f, 0x8b] {
        return Ok(FormKind::Gce);
    }
    // Whatever is left of the footer: a damaged one must not make it a raw disk.
    let is_whole = file.size().is_multiple_of(image_disk::MIB);
    Ok(if is_whole {
        FormKind::Raw
    } else {
        FormKind::Vhd
    })
}

/// Compares a file with the form as it is composed.
pub(super) fn compare(
    disk: &Disk,
    kind: FormKind,
    file: &dyn ReadAt,
    listed: &[u8],
) -> Result<(), Fault> {
    let mut comparison = Comparison {
        file,
        at: 0,
        region: "".into(),
        differs: None,
        buffer: Vec::new(),
    };
    let written = disk.write(kind, &mut comparison);
    if let Some((at, region)) = comparison.differs {
        let inner = (&*region == "root-a").then(|| inside(disk, kind, file, listed));
        return Err(Fault::Differs {
            at,
            region: format!("`{region}`"),
            inner,
        });
    }
    written?;
    if comparison.at != file.size() {
        return Err(Fault::Size {
            found: file.size(),
            expected: comparison.at,
        });
    }
    Ok(())
}

/// Compares what is composed with a file, and ends at the first difference.
struct Comparison<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    region: Arc<str>,
    differs: Option<(u64, Arc<str>)>,
    buffer: Vec<u8>,
}

impl Sink for Comparison<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.file.size().saturating_sub(self.at);
        let length = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.buffer.resize(length, 0);
        self.file.read_exact_at(self.at, &mut self.buffer)?;
        let both = self.buffer.iter().zip(bytes);
        let different = if self.buffer == bytes[..length] {
            (length < bytes.len()).then_some(length)
        } else {
            both.into_iter().position(|(found, known)| found != known)
        };
        if let Some(byte) = different {
            self.differs = Some((self.at + byte as u64, self.region.clone()));
            return Err(io::Error::other("the file differs"));
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn enter(&mut self, region: &Arc<str>) {
        self.region = region.clone();
    }
}

/// Says what a difference in the root partition means for the tree.
fn inside(disk: &Disk, kind: FormKind, file: &dyn ReadAt, listed: &[u8]) -> String {
    let Some(root) = disk.plan().partition("root-a") else {
        return "there is none".to_owned();
    };
    let (at, size) = (root.at, root.size);
    match kind {
        FormKind::Raw | FormKind::Vhd => pieces::damage(Window::new(file, at, size), listed),
        FormKind::Qcow2 => match qcow2::open(file) {
            Ok(found) => pieces::damage(Window::new(&found, at, size), listed),
            Err(error) => error.to_string(),
        },
        FormKind::Gce => match spool(file, at, size) {
            Ok(found) => pieces::damage(found, listed),
            Err(error) => format!("the archive cannot be unpacked: {error}"),
        },
    }
}

/// Unpacks the root partition of an archive into a file that nobody sees.
fn spool(file: &dyn ReadAt, at: u64, size: u64) -> io::Result<File> {
    let archive = Window::new(file, 0, file.size());
    let mut found = gce::open(archive).map_err(io::Error::other)?;
    io::copy(&mut (&mut found).take(at), &mut io::sink())?;
    let mut out = tempfile::tempfile()?;
    io::copy(&mut found.take(size), &mut out)?;
    out.seek(SeekFrom::Start(0))?;
    Ok(out)
}
