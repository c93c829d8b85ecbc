//! The images of the lab, built by `imagebuild` into the lab's own store.
//!
//! It refuses to build anything itself, and never changes a committed lock: a lock whose packages
//! have left every source is resolved again into the lab's state directory, in the open.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use image_manifest::Digest;
use serde::Deserialize;

/// The images that a rack needs.
pub const NEEDED: [&str; 2] = ["loaders", "host"];

/// What `imagebuild build --json` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Built {
    /// Name of the image.
    pub name: String,
    /// Its tree digest.
    pub tree: Digest,
    /// Whether the store held it already.
    pub cached: bool,
    /// Packages that had to be downloaded.
    pub downloaded_packages: u64,
}

/// Where images come from and go to.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// The program `imagebuild`.
    pub imagebuild: PathBuf,
    /// The directory of definitions.
    pub definitions: PathBuf,
    /// The store that is built into.
    pub store: PathBuf,
    /// Where locks of the lab's own are kept.
    pub locks: PathBuf,
    /// The committed lock of all its images; each definition has its own without one.
    pub lock: Option<PathBuf>,
    /// Which of the architectures of its images; the first of each without one.
    pub architecture: Option<&'static str>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be run.
    #[error("failed to run `imagebuild`")]
    Run(#[source] io::Error),
    /// It ran and failed; it has said why.
    #[error("`imagebuild {verb}` failed for image `{name}` ({status})")]
    Failed {
        /// What it was asked for.
        verb: &'static str,
        /// The image.
        name: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It printed something unexpected.
    #[error("`imagebuild build --json` printed something unexpected")]
    Answer(#[source] serde_json::Error),
    /// A directory could not be made.
    #[error("failed to write `{path}`")]
    Write {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Exit code of `imagebuild` when every source was asked and does not have a package any more. A source that is out of
/// reach or lies gives another one: then the committed lock stays the only one that counts.
const GONE: i32 = 5;

impl Workshop {
    /// Builds an image unless the store holds it; resolves its lock again where the archive has moved on.
    ///
    /// # Errors
    /// When it cannot be built with the committed lock nor with a new one.
    pub fn build(&self, name: &str) -> Result<Built, Error> {
        let committed = self.try_build(name, self.lock.as_deref())?;
        let status = match committed {
            Ok(built) => return Ok(built),
            Err(status) if status.code() != Some(GONE) => {
                return Err(failed("build", name, status));
            }
            Err(status) => status,
        };
        let lock = self.own_lock(name);
        if lock.is_file()
            && let Ok(built) = self.try_build(name, Some(&lock))?
        {
            eprintln!(
                "lab: image `{name}` is built with the lab's own lock `{}`",
                lock.display()
            );
            return Ok(built);
        }
        eprintln!(
            "lab: image `{name}` cannot be built with its committed lock: resolving it again for the lab"
        );
        if self.relock(name, &lock).is_err() {
            // The archive itself is out of reach: then the first error is the true one.
            return Err(failed("build", name, status));
        }
        eprintln!(
            "lab: image `{name}` differs from its committed lock as shown above; the new lock is `{}`",
            lock.display()
        );
        self.try_build(name, Some(&lock))?
            .map_err(|status| failed("build", name, status))
    }

    /// Runs `imagebuild build`; the inner result is its exit status when it failed.
    fn try_build(
        &self,
        name: &str,
        lock: Option<&Path>,
    ) -> Result<Result<Built, ExitStatus>, Error> {
        let mut build = Command::new(&self.imagebuild);
        build
            .arg("build")
            .arg(self.definitions.join(name))
            .arg("--store")
            .arg(&self.store)
            .arg("--json");
        if let Some(lock) = lock {
            build.arg("--lock").arg(lock);
        }
        if let Some(architecture) = self.architecture {
            build.args(["--architecture", architecture]);
        }
        let output = build
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(Error::Run)?;
        if !output.status.success() {
            return Ok(Err(output.status));
        }
        serde_json::from_slice(&output.stdout)
            .map(Ok)
            .map_err(Error::Answer)
    }

    /// Where a lock of the lab's own is kept.
    fn own_lock(&self, name: &str) -> PathBuf {
        self.locks.join(name).join(self.lock_name())
    }

    fn lock_name(&self) -> String {
        match self.architecture {
            Some(architecture) => format!("image.{architecture}.lock"),
            None => "image.lock".to_owned(),
        }
    }

    fn relock(&self, name: &str, lock: &Path) -> Result<(), Error> {
        let folder = self.locks.join(name);
        let write = |source| Error::Write {
            path: folder.clone(),
            source,
        };
        fs::create_dir_all(&folder).map_err(write)?;
        // The difference is told to whatever lock stands where the new one goes.
        let own = self.definitions.join(name).join(self.lock_name());
        let committed = self.lock.clone().unwrap_or(own);
        fs::copy(committed, lock).map_err(write)?;
        let architecture = self.architecture.map(|name| ["--architecture", name]);
        let status = Command::new(&self.imagebuild)
            .arg("lock")
            .arg(self.definitions.join(name))
            .args(architecture.into_iter().flatten())
            .arg("--output")
            .arg(lock)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(Error::Run)?;
        if status.success() {
            return Ok(());
        }
        fs::remove_file(lock).map_err(write)?;
        Err(failed("lock", name, status))
    }
}

fn failed(verb: &'static str, name: &str, status: ExitStatus) -> Error {
    Error::Failed {
        verb,
        name: name.to_owned(),
        status,
    }
}

/// Says in one line what making the images took.
#[must_use]
pub fn summary(built: &[Built]) -> String {
    let packages: u64 = built.iter().map(|image| image.downloaded_packages).sum();
    let new: Vec<_> = built
        .iter()
        .filter(|image| !image.cached)
        .map(|image| image.name.as_str())
        .collect();
    let made = if new.is_empty() {
        "nothing built".to_owned()
    } else {
        format!("built {}", new.join(", "))
    };
    format!("{packages} packages downloaded, {made}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(name: &str, cached: bool, downloaded_packages: u64) -> Built {
        Built {
            name: name.to_owned(),
            tree: Digest::of(b""),
            cached,
            downloaded_packages,
        }
    }

    #[test]
    fn the_summary_says_what_was_done() {
        let cases = [
            (
                "warm",
                vec![built("host", true, 0)],
                "0 packages downloaded, nothing built",
            ),
            (
                "cold",
                vec![built("loaders", false, 1), built("host", false, 180)],
                "181 packages downloaded, built loaders, host",
            ),
        ];
        for (name, images, expected) in cases {
            assert_eq!(summary(&images), expected, "{name}");
        }
    }
}
