//! The cache: packages and indexes by digest, in one directory that may be deleted at any time.
//!
//! It refuses wrong bytes in both directions: a file enters under its digest only after it was hashed, and is hashed
//! again before it is handed out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use image_manifest::{Digest, Hasher};
use tempfile::NamedTempFile;

use crate::{file, gc};

/// Variable that names the directory.
pub const VARIABLE: &str = "IMAGEBUILD_CACHE";

/// How the name of a file begins that is being taken in.
const INCOMING: &str = ".incoming-";

/// A directory of files named by digest.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// What kind of file is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Packages.
    Packages,
    /// Indexes of archives, as they are compressed there.
    Indexes,
}

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No variable says where it is.
    #[error("neither `--cache`, `{VARIABLE}`, `XDG_CACHE_HOME` nor `HOME` says where the cache is")]
    NoDirectory,
    /// A directory could not be made.
    #[error("failed to make the cache directory `{path}`")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] file::Error),
}

/// Why bytes did not enter.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// They have another digest.
    #[error("the digest is {got}, expected {expected}")]
    Digest {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        got: Digest,
    },
    /// They are more or fewer than expected.
    #[error("the size is {got} bytes, expected {expected}")]
    Size {
        /// The size asked for.
        expected: u64,
        /// How many came; when there are too many, how many were taken.
        got: u64,
    },
    /// The cache itself failed.
    #[error(transparent)]
    Cache(#[from] Error),
}

impl Shelf {
    fn directory(self) -> &'static str {
        match self {
            Self::Packages => "packages/sha256",
            Self::Indexes => "indexes/sha256",
        }
    }
}

impl Cache {
    /// Opens the cache in the given directory, or else where the environment says.
    ///
    /// # Errors
    /// When no directory is known, or it cannot be made.
    pub fn open(given: Option<&Path>) -> Result<Self, Error> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = given
            .map(Path::to_path_buf)
            .or_else(|| variable(VARIABLE))
            .or_else(|| variable("XDG_CACHE_HOME").map(|home| home.join("imagebuild")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/imagebuild")))
            .ok_or(Error::NoDirectory)?;
        for shelf in [Shelf::Packages, Shelf::Indexes] {
            let path = root.join(shelf.directory());
            std::fs::create_dir_all(&path).map_err(|source| Error::Create {
                path: path.clone(),
                source,
            })?;
        }
        for shelf in gc::SHELVES {
            sweep(&root.join(shelf));
        }
        Ok(Self { root })
    }

    /// Returns the directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where a file of that digest is kept, whether it is there or not.
    #[must_use]
    pub fn path(&self, on: Shelf, digest: &Digest) -> PathBuf {
        self.root.join(on.directory()).join(digest.hex())
    }

    /// Finds a file and checks its bytes. One that has gone bad is removed, and so absent.
    ///
    /// # Errors
    /// When it is there and cannot be read, or is bad and cannot be removed.
    pub fn find(&self, on: Shelf, digest: &Digest) -> Result<Option<PathBuf>, Error> {
        let path = self.path(on, digest);
        match hash(&path) {
            Ok((found, file)) if found == *digest => {
                // What is used is young: it goes last when the cache is trimmed. A shared cache may not be ours.
                drop(file.set_modified(SystemTime::now()));
                Ok(Some(path))
            }
            Ok((_, file)) => {
                let removed = remove(&path, &file);
                removed.map_err(file::unwritten(&path))?;
                Ok(None)
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(file::unread(&path)(source).into()),
        }
    }

    /// Begins to take a file in.
    ///
    /// # Errors
    /// When no temporary file can be made in the cache.
    pub fn begin(&self, on: Shelf, digest: Digest, size: u64) -> Result<Incoming, Error> {
        let directory = self.root.join(on.directory());
        let file = incoming(&directory).map_err(file::unwritten(&directory))?;
        Ok(Incoming {
            path: self.path(on, &digest),
            file,
            hasher: Hasher::new(),
            digest,
            size,
        })
    }
}

/// A file that is being taken in; dropping it forgets it.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
    file: NamedTempFile,
    hasher: Hasher,
    digest: Digest,
    size: u64,
}

impl Incoming {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they are more than expected, or cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.hasher.update(bytes);
        if self.hasher.bytes() > self.size {
            return Err(Refused::Size {
                expected: self.size,
                got: self.hasher.bytes(),
            });
        }
        self.file
            .write_all(bytes)
            .map_err(|source| self.failed(source))?;
        Ok(())
    }

    /// Checks size and digest, and gives the file its name.
    ///
    /// # Errors
    /// When the bytes are not those expected; a good file of that name stays what it is.
    pub fn finish(self) -> Result<PathBuf, Refused> {
        let got = self.hasher.bytes();
        if got != self.size {
            return Err(Refused::Size {
                expected: self.size,
                got,
            });
        }
        let got = self.hasher.finish();
        if got != self.digest {
            return Err(Refused::Digest {
                expected: self.digest,
                got,
            });
        }
        let path = self.path;
        // The file is read by others than its owner when the cache is shared.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        self.file
            .as_file()
            .set_permissions(permissions)
            .and_then(|()| self.file.persist(&path).map_err(|error| error.error))
            .map_err(|source| Error::from(file::unwritten(&path)(source)))?;
        Ok(path)
    }

    fn failed(&self, source: io::Error) -> Error {
        file::unwritten(&self.path)(source).into()
    }
}

/// Makes a file that no sweeper takes for one that was left: whoever writes holds its lock.
pub(crate) fn incoming(directory: &Path) -> io::Result<NamedTempFile> {
    loop {
        let file = tempfile::Builder::new()
            .prefix(INCOMING)
            .tempfile_in(directory)?;
        file.as_file().lock()?;
        // A sweeper may have come between the two; then the file has no name any more.
        if file.as_file().metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
}

/// Removes what writers left that are gone. What cannot be removed is in nobody's way.
pub(crate) fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(INCOMING.as_bytes())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
            && let Err(error) = remove(&entry.path(), &file)
        {
            tracing::debug!(%error, "a file that was left stays");
        }
    }
}

/// Removes a file that was opened, unless its name is another one's by now.
fn remove(path: &Path, file: &File) -> io::Result<()> {
    let id = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
    match std::fs::symlink_metadata(path) {
        Ok(found) if id(&found) == id(&file.metadata()?) => {
            tracing::warn!(path = %path.display(), "removed a file from the cache that was damaged or not finished");
            std::fs::remove_file(path)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn hash(path: &Path) -> io::Result<(Digest, File)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.finish(), file)),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(cache: &Cache, digest: Digest, size: u64, bytes: &[u8]) -> Result<PathBuf, Refused> {
        let mut incoming = cache.begin(Shelf::Packages, digest, size)?;
        incoming.write(bytes)?;
        incoming.finish()
    }

    #[test]
    fn wrong_bytes_never_enter_and_a_good_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let digest = Digest::of(b"good");
        assert_eq!(cache.find(Shelf::Packages, &digest).unwrap(), None);
        insert(&cache, digest, 4, b"good").unwrap();
        let cases: [(&str, u64, &[u8]); 4] = [
            ("other bytes", 4, b"evil"),
            ("fewer", 4, b"goo"),
            ("more", 4, b"goods"),
            ("size of another", 5, b"good"),
        ];
        for (name, size, bytes) in cases {
            assert!(insert(&cache, digest, size, bytes).is_err(), "{name}");
            let path = cache.find(Shelf::Packages, &digest).unwrap().unwrap();
            assert_eq!(std::fs::read(path).unwrap(), b"good", "{name}");
        }
        let shelf = directory.path().join("packages/sha256");
        assert_eq!(
            std::fs::read_dir(shelf).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }

    #[test]
    fn a_file_that_went_bad_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let digest = Digest::of(b"good");
        let path = insert(&cache, digest, 4, b"good").unwrap();
        std::fs::write(&path, b"rust").unwrap();
        assert_eq!(cache.find(Shelf::Packages, &digest).unwrap(), None);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let left = gc::SHELVES.map(|shelf| directory.path().join(shelf).join(".incoming-left"));
        for left in &left {
            std::fs::create_dir_all(left.parent().unwrap()).unwrap();
            std::fs::write(left, b"half").unwrap();
        }
        let digest = Digest::of(b"good");
        let mut live = cache.begin(Shelf::Packages, digest, 4).unwrap();
        Cache::open(Some(directory.path())).unwrap();
        for left in left {
            assert!(!left.exists(), "{}", left.display());
        }
        live.write(b"good").unwrap();
        live.finish().unwrap();
        assert!(cache.find(Shelf::Packages, &digest).unwrap().is_some());
    }

    #[test]
    fn only_the_file_that_was_hashed_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"bad").unwrap();
        let bad = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"good").unwrap();
        remove(&path, &bad).unwrap();
        assert!(path.exists());
        remove(&path, &File::open(&path).unwrap()).unwrap();
        assert!(!path.exists());
    }
}
