//! Reads the files of a site directory from disk.
//!
//! It refuses to understand them: that is `netboot_core::site`'s part.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use netboot_core::site::{Problem, Site, SourceFile};

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
    Site::check(&files).map_err(|problems| SiteError::Wrong { files, problems })
}

fn paths(directory: &Path) -> Result<Vec<PathBuf>, SiteError> {
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
    let mut text = String::new();
    let read = File::open(path)?
        .take(FILE_MAX + 1)
        .read_to_string(&mut text)?;
    if read as u64 > FILE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {FILE_MAX} bytes"),
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_site_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".hidden.toml"), "x").unwrap();
        std::fs::write(directory.path().join("notes.txt"), "x").unwrap();
        assert!(matches!(
            load(directory.path()),
            Err(SiteError::Empty { .. })
        ));
        let missing = directory.path().join("missing");
        assert!(matches!(load(&missing), Err(SiteError::List { .. })));
        std::fs::write(directory.path().join("a.toml"), b"\xff").unwrap();
        assert!(matches!(
            load(directory.path()),
            Err(SiteError::Read { .. })
        ));
    }
}
