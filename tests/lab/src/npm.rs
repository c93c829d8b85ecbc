//! Test peers that come from npm: modules below the lab's state.
//!
//! It refuses to install what its lock file does not pin, and to run what packages would run while they are installed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::state::State;

/// Why the modules are not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("failed to access `{path}`")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// npm could not be run.
    #[error("failed to run `npm`")]
    Run(#[source] io::Error),
    /// npm failed; it has said why.
    #[error("`npm ci` failed in `{0}`")]
    Failed(PathBuf),
}

/// The modules.
#[derive(Clone, Debug)]
pub struct Peers(PathBuf);

impl Peers {
    /// The modules of a lab, whether they are there or not.
    #[must_use]
    pub fn of(state: &State) -> Self {
        Self(state.path().join("npm"))
    }

    /// Returns one of their programs, if it is installed.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.0.join("node_modules/.bin").join(name);
        path.is_file().then_some(path)
    }

    /// Makes them exactly what a folder's `package-lock.json` pins; nothing is done when they are.
    ///
    /// # Errors
    /// When npm cannot install them.
    pub fn ensure(&self, folder: &Path) -> Result<(), Error> {
        let file = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::File { path, source }
        };
        let lock = folder.join("package-lock.json");
        let wanted = fs::read(&lock).map_err(file(&lock))?;
        // Written last: what was cut short has none.
        let stamp = self.0.join("installed.json");
        if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        eprintln!("lab: installing npm packages");
        fs::create_dir_all(&self.0).map_err(file(&self.0))?;
        for name in ["package.json", "package-lock.json"] {
            let (from, to) = (folder.join(name), self.0.join(name));
            fs::copy(&from, &to).map_err(file(&from))?;
        }
        let status = Command::new("npm")
            .current_dir(&self.0)
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .arg("--loglevel=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(Error::Run)?;
        if !status.success() {
            return Err(Error::Failed(self.0.clone()));
        }
        fs::write(&stamp, &wanted).map_err(file(&stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_already_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let peers = Peers::of(&state);
        let wanted = folder.path().join("wanted");
        assert!(matches!(peers.ensure(&wanted), Err(Error::File { .. })));
        fs::create_dir_all(&wanted).unwrap();
        fs::write(wanted.join("package-lock.json"), "{}").unwrap();
        let bin = folder.path().join("npm/node_modules/.bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(folder.path().join("npm/installed.json"), "{}").unwrap();
        fs::write(bin.join("peer"), "").unwrap();
        peers.ensure(&wanted).unwrap();
        assert_eq!(
            peers.program("peer"),
            Some(state.path().join("npm/node_modules/.bin/peer"))
        );
        assert_eq!(peers.program("other"), None);
    }
}
