//! Takes a backup of a running appliance.
//!
//! It refuses to stop anything: the database copies itself in one read transaction, and all other files are written
//! whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use image_manifest::{Digest, Hasher};
use netboot_core::Timestamp;

use super::{BYTES_MAX, BackupError, Entry, FILES_MAX, FORMAT, Manifest, What, archive};
use crate::api::client::URL_FILE;
use crate::api::verify_store;
use crate::store::{self, Reader};

/// Directories of the data directory that begin so are being written, and are no part of a backup.
const UNFINISHED: &str = ".backup-";

/// How often files are copied again that changed meanwhile.
const TRIES: usize = 5;

/// A backup that is ready to be written out; its copy of the database goes when this is dropped.
#[derive(Debug)]
pub struct Taken {
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
    scratch: Scratch,
}

impl Taken {
    /// Returns what is in it.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When the other end has gone, or the copy cannot be read.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        archive::write(
            to,
            &self.manifest,
            |path| -> io::Result<Box<dyn Read + '_>> {
                Ok(match self.files.get(path) {
                    Some(bytes) => Box::new(&**bytes),
                    None => Box::new(File::open(self.scratch.0.join(store::FILE))?),
                })
            },
        )
    }
}

/// A directory that is removed when it is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Removes what backups left that were cut off by a crash.
pub fn sweep(data: &Path) {
    let Ok(entries) = fs::read_dir(data) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED.as_bytes())
        {
            drop(Scratch(entry.path()));
        }
    }
}

/// Takes a backup of a data directory while an appliance may be using it.
///
/// # Errors
/// When files cannot be copied, or the audit log in the copy does not hold together.
pub async fn take(data: &Path, now: Timestamp) -> Result<Taken, BackupError> {
    let scratch = scratch(data)?;
    let reader = Reader::open(data).await?;
    let mut reader =
        reader.ok_or_else(|| BackupError::Unusable("there is no store yet".to_owned()))?;
    reader.copy_to(&scratch.0.join(store::FILE)).await?;
    let verified = verify_store(&scratch.0, None).await?;
    if let Some(broken) = verified.broken {
        return Err(BackupError::Audit(broken));
    }
    let audit = verified.anchor.unwrap_or_default();
    let data = data.to_owned();
    let gathered = tokio::task::spawn_blocking(move || gather(&data, scratch, audit, now)).await;
    gathered.map_err(|error| BackupError::Unusable(error.to_string()))?
}

fn scratch(data: &Path) -> Result<Scratch, BackupError> {
    let mut random = [0; 8];
    let failed = |path: &Path, source| BackupError::Write {
        path: path.to_owned(),
        source,
    };
    getrandom::fill(&mut random).map_err(|error| failed(data, io::Error::other(error)))?;
    let path = data.join(format!("{UNFINISHED}{:016x}", u64::from_ne_bytes(random)));
    let made = fs::DirBuilder::new().mode(0o700).create(&path);
    made.map_err(|source| failed(&path, source))?;
    Ok(Scratch(path))
}

fn gather(
    data: &Path,
    scratch: Scratch,
    audit: String,
    now: Timestamp,
) -> Result<Taken, BackupError> {
    let (mut entries, files) = settled(data)?;
    let path = scratch.0.join(store::FILE);
    let (size, digest) = hash(&path).map_err(|source| BackupError::Read { path, source })?;
    let what = What::File {
        size,
        digest,
        mode: 0o600,
    };
    entries.push(Entry {
        path: store::FILE.to_owned(),
        what,
    });
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        taken_ms: now.0,
        audit,
        entries,
    };
    Ok(Taken {
        manifest,
        files,
        scratch,
    })
}

type Gathered = (Vec<Entry>, BTreeMap<String, Vec<u8>>);

/// Copies all small files; where they changed meanwhile, again.
fn settled(data: &Path) -> Result<Gathered, BackupError> {
    let mut before = None;
    for _ in 0..TRIES {
        let mut found: Gathered = Default::default();
        match walk(data, "", &mut found, &mut 0) {
            Ok(()) if before.as_ref() == Some(&found.0) => return Ok(found),
            Ok(()) => before = Some(found.0),
            // A version of the site went while it was looked at.
            Err(BackupError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(BackupError::Unsteady)
}

fn walk(
    directory: &Path,
    under: &str,
    found: &mut Gathered,
    bytes: &mut u64,
) -> Result<(), BackupError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Read { path, source }
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let name = entry.map_err(failed(directory))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    for name in names.into_iter().filter(|name| is_kept(under, name)) {
        let (path, at) = (directory.join(&name), format!("{under}{name}"));
        let about = fs::symlink_metadata(&path).map_err(failed(&path))?;
        let what = if about.is_dir() {
            walk(&path, &format!("{at}/"), found, bytes)?;
            continue;
        } else if about.is_symlink() {
            let target = fs::read_link(&path).map_err(failed(&path))?;
            What::Link {
                target: target.to_string_lossy().into_owned(),
            }
        } else if about.is_file() {
            *bytes = bytes.saturating_add(about.len());
            if *bytes > BYTES_MAX {
                return Err(BackupError::TooLarge);
            }
            let contents = fs::read(&path).map_err(failed(&path))?;
            let what = What::File {
                size: contents.len() as u64,
                digest: Digest::of(&contents),
                mode: about.mode() & 0o777,
            };
            found.1.insert(at.clone(), contents);
            what
        } else {
            continue;
        };
        if found.0.len() >= FILES_MAX {
            return Err(BackupError::TooLarge);
        }
        found.0.push(Entry { path: at, what });
    }
    Ok(())
}

/// Leaves out what belongs to the running process, what is unfinished, and the live database.
fn is_kept(under: &str, name: &str) -> bool {
    let of_the_process =
        under.is_empty() && (matches!(name, "lock" | URL_FILE) || name.starts_with(store::FILE));
    !(of_the_process || name.starts_with('.') || is_unfinished(name))
}

/// Tells whether a file is being written: see `durable`.
fn is_unfinished(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "new")
}

fn hash(path: &Path) -> io::Result<(u64, Digest)> {
    let (mut file, mut hasher) = (File::open(path)?, Hasher::new());
    let (mut size, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size, hasher.finish()));
        }
        size += read as u64;
        hasher.update(&buffer[..read]);
    }
}
