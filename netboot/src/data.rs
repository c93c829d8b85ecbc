//! The data directory: who may write to it, and one of them at a time.
//!
//! It refuses to let a verb write beside a running appliance, or as another user than the appliance's own: files that
//! belong to somebody else keep it from starting.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, User};

/// Name of the file that is locked.
const FILE: &str = "lock";

/// Why a data directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It could not be made, or read.
    #[error("failed to open the data directory `{}`", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another appliance uses it.
    #[error("another appliance uses the data directory `{}`", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("the data directory `{}` belongs to {owner}, and what is written as {user} could not be read by it", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who asks.
        user: String,
    },
}

impl DataError {
    /// Returns what may help.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Open { .. } => None,
            Self::InUse { .. } => Some("stop the appliance first".to_owned()),
            Self::Foreign { owner, .. } => Some(format!("do it as {owner}: `sudo -u {owner} …`")),
        }
    }
}

/// A data directory that nobody else writes to while this lives.
#[derive(Debug)]
pub(crate) struct Held {
    _lock: Flock<File>,
}

impl Held {
    /// Keeps others out of a data directory, which is made where there is none.
    ///
    /// # Errors
    /// When an appliance runs on it, or it cannot be made.
    pub(crate) fn take(data: &Path) -> Result<Self, DataError> {
        let path = || data.to_owned();
        let failed = |source| DataError::Open {
            path: path(),
            source,
        };
        std::fs::create_dir_all(data).map_err(failed)?;
        let file = File::create(data.join(FILE)).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err((_, _)) => Err(DataError::InUse { path: path() }),
        }
    }

    /// The same for a verb, which must be the user that the directory belongs to.
    ///
    /// # Errors
    /// As [`Held::take`], and when it belongs to somebody else.
    pub(crate) fn take_as_owner(data: &Path) -> Result<Self, DataError> {
        let me = nix::unistd::geteuid();
        match std::fs::metadata(data) {
            Ok(about) if about.uid() != me.as_raw() => Err(DataError::Foreign {
                path: data.to_owned(),
                owner: name_of(Uid::from_raw(about.uid())),
                user: name_of(me),
            }),
            _ => Self::take(data),
        }
    }
}

/// Returns the name of a local user; its number where there is none.
pub(crate) fn name_of(user: Uid) -> String {
    match User::from_uid(user) {
        Ok(Some(found)) => found.name,
        _ => format!("#{user}"),
    }
}
