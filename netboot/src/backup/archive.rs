//! The archive: a tar with the manifest first.
//!
//! It refuses entries that the manifest does not name, in another order, or with paths that lead out.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::path::{Component, Path};

use image_manifest::Hasher;

use super::{BackupError, Entry, FILES_MAX, FORMAT, MANIFEST, Manifest, What};

/// Largest manifest that is read.
const MANIFEST_MAX: u64 = 16 << 20;

/// Most that is read of an archive between two files: a head and the long name before it, which stand in memory.
const HEADS_MAX: u64 = 1 << 20;

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
    let left = Cell::new(0);
    let mut tar = tar::Archive::new(Bounded(from, &left));
    left.set(HEADS_MAX);
    let mut entries = tar.entries().map_err(BackupError::Archive)?;
    let unusable = |why: &str| BackupError::Unusable(why.to_owned());
    let mut next = || {
        left.set(HEADS_MAX);
        match entries.next() {
            None => Ok(None),
            Some(Ok(entry)) => {
                left.set(entry.size().saturating_add(HEADS_MAX));
                Ok(Some(entry))
            }
            Some(Err(error)) => Err(BackupError::Archive(error)),
        }
    };
    let first = next()?.filter(|first| first.path_bytes() == MANIFEST.as_bytes());
    let first = first.ok_or_else(|| unusable("it does not begin with a manifest"))?;
    let first = io::BufReader::new(first.take(MANIFEST_MAX));
    let manifest: Manifest =
        serde_json::from_reader(first).map_err(|_| unusable("its manifest cannot be read"))?;
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
            manifest.format,
            manifest.version.escape_debug()
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
            return unusable(format!(
                "`{}` leads out of the directory",
                entry.path.escape_debug()
            ));
        }
    }
    Ok(())
}

/// Tells whether a path goes down only, and can be shown.
fn stays(path: &str) -> bool {
    if path.contains(char::is_control) {
        return false;
    }
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Reads no more than is left, and ends an archive that goes on.
struct Bounded<'a, R>(R, &'a Cell<u64>);

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.1.get();
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 && !into.is_empty() {
            let why = "a name in it is too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let read = self.0.read(&mut into[..most])?;
        self.1.set(left.saturating_sub(read as u64));
        Ok(read)
    }
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
