//! The archive: a tar with the manifest first.
//!
//! It refuses entries that the manifest does not name, in another order, or with paths that lead out.

use std::io::{self, Read, Write};
use std::path::{Component, Path};

use image_manifest::Hasher;

use super::{BackupError, Entry, FILES_MAX, FORMAT, MANIFEST, Manifest, What};

/// Largest manifest that is read.
const MANIFEST_MAX: u64 = 16 << 20;

/// Writes an archive; `open` returns the bytes of a file.
pub(super) fn write<R: Read>(
    to: impl Write,
    manifest: &Manifest,
    mut open: impl FnMut(&str) -> io::Result<R>,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    let seconds = manifest.taken_ms / 1_000;
    let head = |size, mode| {
        let mut head = tar::Header::new_gnu();
        head.set_size(size);
        head.set_mode(mode);
        head.set_mtime(seconds);
        head
    };
    let text = serde_json::to_vec_pretty(manifest)?;
    tar.append_data(&mut head(text.len() as u64, 0o600), MANIFEST, &*text)?;
    for entry in &manifest.entries {
        match &entry.what {
            What::File { size, mode, .. } => {
                let bytes = open(&entry.path)?.take(*size);
                tar.append_data(&mut head(*size, *mode), &entry.path, bytes)?;
            }
            What::Link { target } => {
                let mut head = head(0, 0o777);
                head.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut head, &entry.path, target)?;
            }
        }
    }
    tar.into_inner()?.flush()
}

/// Reads an archive; `make` takes each entry, and files with their bytes, checked while they are read.
pub(super) fn read(
    from: impl Read,
    mut make: impl FnMut(&Entry, Option<&mut dyn Read>) -> Result<(), BackupError>,
) -> Result<Manifest, BackupError> {
    let mut tar = tar::Archive::new(from);
    let mut entries = tar.entries().map_err(BackupError::Archive)?;
    let unusable = |why: &str| BackupError::Unusable(why.to_owned());
    let mut next = || match entries.next() {
        None => Ok(None),
        Some(Ok(entry)) => Ok(Some(entry)),
        Some(Err(error)) => Err(BackupError::Archive(error)),
    };
    let first = next()?.filter(|first| first.path_bytes() == MANIFEST.as_bytes());
    let first = first.ok_or_else(|| unusable("it does not begin with a manifest"))?;
    let manifest: Manifest = serde_json::from_reader(first.take(MANIFEST_MAX))
        .map_err(|_| unusable("its manifest cannot be read"))?;
    check(&manifest)?;
    for entry in &manifest.entries {
        let damaged = || BackupError::Damaged {
            path: entry.path.clone(),
        };
        let mut found = next()?.ok_or_else(damaged)?;
        if found.path_bytes() != entry.path.as_bytes() {
            return Err(damaged());
        }
        match &entry.what {
            What::File { size, digest, .. } => {
                if found.size() != *size || !found.header().entry_type().is_file() {
                    return Err(damaged());
                }
                let mut hashed = Hashed(&mut found, Hasher::new());
                make(entry, Some(&mut hashed))?;
                io::copy(&mut hashed, &mut io::sink()).map_err(BackupError::Archive)?;
                if hashed.1.finish() != *digest {
                    return Err(damaged());
                }
            }
            What::Link { target } => {
                if found.link_name_bytes().as_deref() != Some(target.as_bytes()) {
                    return Err(damaged());
                }
                make(entry, None)?;
            }
        }
    }
    match next()? {
        None => Ok(manifest),
        Some(_) => Err(unusable("it holds more than its manifest names")),
    }
}

fn check(manifest: &Manifest) -> Result<(), BackupError> {
    let unusable = |why: String| Err(BackupError::Unusable(why));
    if manifest.format != FORMAT {
        return unusable(format!(
            "its form is {}, and this program knows {FORMAT}; it was written by version {}",
            manifest.format, manifest.version
        ));
    }
    if manifest.entries.len() > FILES_MAX {
        return unusable(format!("it holds more than {FILES_MAX} files"));
    }
    for entry in &manifest.entries {
        let target = match &entry.what {
            What::Link { target } => target,
            What::File { .. } => &entry.path,
        };
        if !stays(&entry.path) || !stays(target) {
            return unusable(format!("`{}` leads out of the directory", entry.path));
        }
    }
    Ok(())
}

/// Tells whether a path goes down only.
fn stays(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Hashes what is read.
struct Hashed<R>(R, Hasher);

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(into)?;
        self.1.update(&into[..read]);
        Ok(read)
    }
}
