//! Packages that are quick to read: the slow decoding of Debian's archives is done once, by the digest of the package.
//!
//! ```text
//! the package with another compression (a .deb) · SHA-256 of the digest of the package and all before (32)
//! ```
//!
//! It refuses to be needed: whatever cannot be kept, or went bad, is read from the package itself. Old ones go when all
//! are above [`MOST`], but none that a build which runs may be about to open.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use deb_archive::deb::{self, RecompressError, Recompressed};
use image_manifest::{Digest, Hasher};

use crate::fetch::FetchedPackage;
use crate::{cache, gc};

/// Bytes of all that is kept: about ten hosts with a kernel, if they have nothing in common.
const MOST: u64 = 2 << 30;
/// What was used more recently stays: another build looks a package up once and opens it again until its scripts have run.
const IN_USE: Duration = Duration::from_hours(1);
/// Bytes of the digest at the end.
const SEAL: u64 = 32;

/// Where packages that are quick to read are kept, in a cache.
#[must_use]
pub fn directory(cache: &Path) -> PathBuf {
    cache.join(gc::DECODED)
}

/// Packages that are quick to read, as one build uses them; each is decoded once, whoever asks first.
#[derive(Debug)]
pub(crate) struct Decoded {
    directory: PathBuf,
    places: Mutex<HashMap<Digest, Arc<OnceLock<PathBuf>>>>,
}

impl Decoded {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            places: Mutex::default(),
        }
    }

    /// Returns the file in which a package is read quickest: a package with the same control files and entries.
    pub(crate) fn place(&self, package: &FetchedPackage) -> PathBuf {
        let digest = package.entry.sha256;
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(places.entry(digest).or_default())
        };
        let found = || {
            self.find(&digest)
                .or_else(|| self.keep(&digest, &package.path))
                .unwrap_or_else(|| package.path.clone())
        };
        place.get_or_init(found).clone()
    }

    /// Returns the places of several packages, in their order; those that are not known yet are decoded side by side.
    pub(crate) fn places(&self, packages: &[&FetchedPackage]) -> Vec<PathBuf> {
        let mut largest_first = packages.to_vec();
        largest_first.sort_by_key(|package| Reverse(package.entry.size));
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(package) = largest_first.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.place(package);
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        packages.iter().map(|package| self.place(package)).collect()
    }

    /// Lets go of old ones, if there are too many.
    pub(crate) fn bound(&self) {
        let before = SystemTime::now().checked_sub(IN_USE);
        let before = before.unwrap_or(SystemTime::UNIX_EPOCH);
        if let Err(error) = gc::bound(&self.directory, MOST, before) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "decoded packages are more than they should be");
        }
    }

    fn path(&self, package: &Digest) -> PathBuf {
        self.directory.join(package.hex())
    }

    fn find(&self, package: &Digest) -> Option<PathBuf> {
        let path = self.path(package);
        let file = File::open(&path).ok()?;
        let is_whole = is_sealed(&file, package).unwrap_or(false);
        if !is_whole {
            tracing::warn!(path = %path.display(), "a decoded package is damaged and made again");
            return None;
        }
        // What is used is young: it goes last. A shared cache may not be ours.
        drop(file.set_modified(SystemTime::now()));
        Some(path)
    }

    fn keep(&self, digest: &Digest, package: &Path) -> Option<PathBuf> {
        match self.decode(digest, package) {
            Ok(Recompressed::Written) => Some(self.path(digest)),
            Ok(Recompressed::Needless) => None,
            // Whoever unpacks it says what is wrong with it.
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, path = %package.display(), "a package is not kept decoded");
                None
            }
        }
    }

    fn decode(&self, digest: &Digest, package: &Path) -> Result<Recompressed, RecompressError> {
        fs::create_dir_all(&self.directory)?;
        let from = BufReader::with_capacity(128 << 10, File::open(package)?);
        let file = cache::incoming(&self.directory)?;
        let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
        let done = deb::recompress(from, &mut out)?;
        out.flush()?;
        drop(out);
        if done == Recompressed::Written {
            let mut written = file.as_file();
            let size = written.stream_position()?;
            let seal = seal(written, size, digest)?;
            written.write_all(seal.as_bytes())?;
            // Like packages, it is read by others than its owner when the cache is shared.
            written.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.persist(self.path(digest))
                .map_err(|error| error.error)?;
        }
        Ok(done)
    }
}

/// Computes what stands at the end, over so many bytes.
fn seal(mut file: &File, size: u64, package: &Digest) -> io::Result<Digest> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Hasher::new();
    hasher.update(package.as_bytes());
    io::copy(
        &mut BufReader::with_capacity(128 << 10, file.take(size)),
        &mut hasher,
    )?;
    Ok(hasher.finish())
}

fn is_sealed(mut file: &File, package: &Digest) -> io::Result<bool> {
    let Some(size) = file.metadata()?.len().checked_sub(SEAL) else {
        return Ok(false);
    };
    let expected = seal(file, size, package)?;
    let mut found = Vec::new();
    file.seek(SeekFrom::Start(size))?;
    file.take(SEAL).read_to_end(&mut found)?;
    Ok(found == expected.as_bytes())
}

#[cfg(test)]
mod tests;
