//! Bytes on their way into a store.
//!
//! It refuses to give a file its name before all of it is on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, Layout};
use crate::{Digest, Hasher};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file that is being written into a store; dropped before [`Ingest::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Ingest {
    layout: Layout,
    file: File,
    path: PathBuf,
    hasher: Hasher,
}

impl Ingest {
    pub(super) fn start(layout: &Layout) -> Result<Self, Error> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            let path = layout.ingest_path().join(name);
            match locked_file(&path) {
                Ok(Some(file)) => {
                    return Ok(Self {
                        layout: layout.clone(),
                        file,
                        path,
                        hasher: Hasher::new(),
                    });
                }
                // A sweeper was faster, or the number is that of a dead process with our id.
                Ok(None) => {}
                Err(source) => return Err(Error::Write { path, source }),
            }
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.write_all(bytes).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })
    }

    /// Puts the file in its place and returns its digest and size.
    ///
    /// # Errors
    /// When it cannot be written to the end.
    pub fn finish(mut self) -> Result<(Digest, u64), Error> {
        let hasher = std::mem::take(&mut self.hasher);
        let size = hasher.bytes();
        let digest = hasher.finish();
        let path = self.layout.blob(&digest);
        self.place(&path)?;
        Ok((digest, size))
    }

    pub(super) fn finish_as(self, path: &Path) -> Result<(), Error> {
        self.place(path)
    }

    /// Gives the file a name that may be taken already, by an equal file.
    pub(super) fn finish_new(self, path: &Path) -> Result<(), Error> {
        let write = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        self.file.sync_all().map_err(write)?;
        match fs::hard_link(&self.path, path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(write(source)),
            _ => Ok(()),
        }
    }

    fn place(&self, path: &Path) -> Result<(), Error> {
        let write = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        self.file.sync_all().map_err(write)?;
        fs::rename(&self.path, path).map_err(write)?;
        let directory = path.parent().unwrap_or(self.layout.root());
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(write)
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // After `place` the name is gone, which is as it should be.
        drop(fs::remove_file(&self.path));
    }
}

/// Makes a file that no sweeper removes, or says that one did.
fn locked_file(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o644);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    file.lock()?;
    let linked = file.metadata()?.nlink() > 0;
    Ok(linked.then_some(file))
}

/// Removes what writers left that are gone. What cannot be removed is in nobody's way.
pub(super) fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            drop(fs::remove_file(&path));
        }
    }
}
