//! The lab's state directory: what runs, what was built, the hosts' consoles.
//!
//! It refuses to keep anything elsewhere: removing the directory after `down` removes the lab.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::namespace::Namespace;
use crate::process::Recorded;

/// Everything of a rack that runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Running {
    /// The network that all of it is in.
    pub namespace: Option<Namespace>,
    /// The appliance.
    pub appliance: Option<Recorded>,
    /// The BMCs, whose children the hosts are.
    pub bmcs: Option<Recorded>,
}

impl Running {
    /// Lists every process of the rack, BMCs (and with them the hosts) first, the network's holder last.
    pub fn processes(&self) -> impl Iterator<Item = &Recorded> {
        let holder = self.namespace.as_ref().map(|namespace| &namespace.holder);
        self.bmcs.iter().chain(&self.appliance).chain(holder)
    }
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be written.
    #[error("failed to write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("`{path}` is not what the lab wrote; `cargo lab down` removes it")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct State(PathBuf);

impl State {
    /// Opens the directory, making it first where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write {
            path: path.to_path_buf(),
            source,
        };
        fs::create_dir_all(path).map_err(failed)?;
        path.canonicalize().map(Self).map_err(failed)
    }

    /// Its absolute path, which is also the mark that the lab's processes carry.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The images that the lab built.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// The appliance's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// The copy of the site that is served.
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.0.join("site")
    }

    /// What the appliance says.
    #[must_use]
    pub fn appliance_log(&self) -> PathBuf {
        self.0.join("netboot.log")
    }

    /// What the BMCs say.
    #[must_use]
    pub fn bmcs_log(&self) -> PathBuf {
        self.0.join("bmcs.log")
    }

    /// The password of all BMCs, as the site names it.
    #[must_use]
    pub fn bmc_password(&self) -> PathBuf {
        self.site().join("secrets").join("bmc")
    }

    /// The key that opens the lab's hosts.
    #[must_use]
    pub fn ssh_key(&self) -> PathBuf {
        self.0.join("ssh").join("id_ed25519")
    }

    /// Reads what runs; nothing when there is no record.
    ///
    /// # Errors
    /// When the record cannot be read or is not ours.
    pub fn running(&self) -> Result<Running, Error> {
        let path = self.record();
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| Error::Malformed { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Running::default()),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Writes what runs; readers see the old record or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_running(&self, running: &Running) -> Result<(), Error> {
        let path = self.record();
        let text = serde_json::to_vec_pretty(running).map_err(|source| Error::Malformed {
            path: path.clone(),
            source,
        })?;
        let draft = path.with_extension("new");
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(|source| Error::Write { path, source })
    }

    /// Removes what one run of the rack left: its record, sockets, logs, data and site. Images,
    /// locks and the key stay.
    ///
    /// # Errors
    /// When something is there and cannot be removed.
    pub fn clear_run(&self) -> Result<(), Error> {
        for path in [self.0.join("hosts"), self.data(), self.site()] {
            forgive_missing(fs::remove_dir_all(&path), &path)?;
        }
        for path in [self.record(), self.appliance_log(), self.bmcs_log()] {
            forgive_missing(fs::remove_file(&path), &path)?;
        }
        Ok(())
    }

    /// Removes only the record of what runs.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn forget_running(&self) -> Result<(), Error> {
        let path = self.record();
        forgive_missing(fs::remove_file(&path), &path)
    }

    fn record(&self) -> PathBuf {
        self.0.join("running.json")
    }
}

fn forgive_missing(result: io::Result<()>, path: &Path) -> Result<(), Error> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Write {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        assert_eq!(state.running().unwrap().processes().count(), 0);
        let bmcs = Recorded {
            name: "bmcs".to_owned(),
            pid: 4,
            started: 9,
        };
        state
            .record_running(&Running {
                bmcs: Some(bmcs.clone()),
                ..Running::default()
            })
            .unwrap();
        assert_eq!(state.running().unwrap().bmcs, Some(bmcs));
        state.clear_run().unwrap();
        state.clear_run().unwrap();
        assert_eq!(state.running().unwrap().bmcs, None);
    }
}
