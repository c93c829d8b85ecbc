//! What goes wrong with a file, and with which one.
//!
//! It refuses to say why a file was wanted: whoever wanted it does.

use std::io;
use std::path::{Path, PathBuf};

/// A file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Says that a file could not be read.
pub(crate) fn unread(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Read {
        path: path.clone(),
        source,
    }
}

/// Says that a file could not be written.
pub(crate) fn unwritten(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Write {
        path: path.clone(),
        source,
    }
}
