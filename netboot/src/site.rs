//! Reads the files of a site from disk, and keeps the copy that was applied.
//!
//! It refuses to understand them: that is `netboot_core::site`'s part.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use netboot_core::site::{Problem, Site, SourceFile};

mod applied;
mod change;
mod files;
mod source;
#[cfg(test)]
mod tests;

pub use applied::{Applied, AppliedError};
pub(crate) use change::{ChangeError, Ready, Reloaded, Sites};
pub use files::{Files, TOTAL_MAX, Upload, UploadError, UploadedFile};
pub use source::{ApplyError, ApplyRequest, Beside, Candidate, Origin, Plan, Served, Source};

/// Largest file that is read: 10,000 hosts take about 2 MiB.
const FILE_MAX: u64 = 16 << 20;

/// Most files that are read.
const FILES_MAX: usize = 10_000;

/// Why there is no site.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The directory could not be listed.
    #[error("failed to list the site directory `{}`", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to read.
    #[error("the site directory `{}` holds no `*.toml` file", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// There are too many files.
    #[error("the site directory `{}` holds more than {FILES_MAX} files", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The applied copy could not be read or kept.
    #[error(transparent)]
    Applied(#[from] AppliedError),
    /// What was sent is no site.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The files are wrong.
    #[error("the site has {}", count(problems.len()))]
    Wrong {
        /// The files, as they were read.
        files: Vec<SourceFile>,
        /// All that is wrong with them.
        problems: Vec<Problem>,
    },
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 problem".to_owned(),
        _ => format!("{problems} problems"),
    }
}

/// Reads a site directory: all its `*.toml` files, in the order of their names.
///
/// # Errors
/// When a file cannot be read, or with everything that is wrong with the files.
pub fn load(directory: &Path) -> Result<Site, SiteError> {
    Files::read(directory).map(|(_, site)| site)
}

pub(crate) fn sources(directory: &Path) -> Result<Vec<SourceFile>, SiteError> {
    let mut files = Vec::new();
    for path in paths(directory)? {
        match read(&path) {
            Ok(text) => files.push(SourceFile {
                path: path.display().to_string().into(),
                text: text.into(),
            }),
            Err(source) => return Err(SiteError::Read { path, source }),
        }
    }
    Ok(files)
}

pub(crate) fn check(files: &[SourceFile]) -> Result<Site, SiteError> {
    Site::check(files).map_err(|problems| SiteError::Wrong {
        files: files.to_vec(),
        problems,
    })
}

pub(crate) fn paths(directory: &Path) -> Result<Vec<PathBuf>, SiteError> {
    let failed = |source| SiteError::List {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        if paths.len() == FILES_MAX {
            let path = directory.to_owned();
            return Err(SiteError::TooMany { path });
        }
        paths.push(path);
    }
    if paths.is_empty() {
        let path = directory.to_owned();
        return Err(SiteError::Empty { path });
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = read_at_most(path, FILE_MAX)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Reads a file that is not larger than it may be.
fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if read as u64 > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {most} bytes"),
        ));
    }
    Ok(bytes)
}
