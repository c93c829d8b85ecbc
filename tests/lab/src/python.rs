//! Test peers that come from the Python index: a virtual environment below the lab's state.
//!
//! It refuses to install what is not pinned, and to touch the machine's own Python.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::state::State;

/// Why the environment is not there.
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
    /// A program could not be run.
    #[error("failed to run `{0}`")]
    Run(String, #[source] io::Error),
    /// A program failed; it has said why.
    #[error(
        "`{0}` failed\n  help: without python's venv, run `apt-get install --no-install-recommends python3-venv`"
    )]
    Failed(String),
}

/// The virtual environment.
#[derive(Clone, Debug)]
pub struct Environment(PathBuf);

impl Environment {
    /// The environment of a lab, whether it is there or not.
    #[must_use]
    pub fn of(state: &State) -> Self {
        Self(state.path().join("python"))
    }

    /// Returns one of its programs, if it is installed.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.0.join("bin").join(name);
        path.is_file().then_some(path)
    }

    /// Makes it hold exactly what `requirements` pins; nothing is done when it does.
    ///
    /// # Errors
    /// When Python cannot make it, or the index does not have a pinned package.
    pub fn ensure(&self, requirements: &Path) -> Result<(), Error> {
        let file = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::File { path, source }
        };
        let wanted = fs::read(requirements).map_err(file(requirements))?;
        // Written last: an environment that was cut short has none.
        let stamp = self.0.join("requirements.txt");
        if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        eprintln!("lab: installing python packages");
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&self.0))?;
        run(Command::new(self.0.join("bin/pip"))
            .args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "-r",
            ])
            .arg(requirements))?;
        fs::write(&stamp, &wanted).map_err(file(&stamp))
    }
}

fn run(command: &mut Command) -> Result<(), Error> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let name = words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|source| Error::Run(name.clone(), source))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Failed(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_already_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let environment = Environment::of(&state);
        let requirements = folder.path().join("wanted.txt");
        assert!(matches!(
            environment.ensure(&requirements),
            Err(Error::File { .. })
        ));
        fs::write(&requirements, "peer==1\n").unwrap();
        let bin = folder.path().join("python/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(folder.path().join("python/requirements.txt"), "peer==1\n").unwrap();
        fs::write(bin.join("peer"), "").unwrap();
        environment.ensure(&requirements).unwrap();
        assert_eq!(
            environment.program("peer"),
            Some(state.path().join("python/bin/peer"))
        );
        assert_eq!(environment.program("other"), None);
    }
}
