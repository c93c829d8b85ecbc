//! Where things stand: the work tree, the product's binaries, the lab's state directory.
//!
//! It refuses to guess outside the work tree: a state directory elsewhere is asked for by name.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The work tree that the lab runs in.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its top directory.
    pub root: PathBuf,
    /// Where cargo puts the binaries that the lab runs.
    pub binaries: PathBuf,
}

/// Why the product's binaries are not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lab's own program was not found.
    #[error("failed to find the lab's own program")]
    Own(#[source] io::Error),
    /// Cargo did not start.
    #[error("failed to run `{program}`")]
    Cargo {
        /// The program that was tried.
        program: String,
        /// Why it did not start.
        source: io::Error,
    },
    /// Cargo started and failed.
    #[error("cargo failed to build netboot and imagebuild")]
    Build,
}

impl Workspace {
    /// Finds the work tree from the environment that `cargo run` gives, or from where the lab was built.
    ///
    /// # Errors
    /// When the lab's own program cannot be found.
    pub fn find() -> Result<Self, Error> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.ancestors().nth(2).unwrap_or(&package).to_path_buf();
        let own = env::current_exe().map_err(Error::Own)?;
        let mut binaries = own.parent().unwrap_or(Path::new(".")).to_path_buf();
        if binaries.ends_with("deps") {
            binaries.pop();
        }
        Ok(Self { root, binaries })
    }

    /// Returns the path of one of the product's binaries.
    #[must_use]
    pub fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// Builds the product's binaries beside the lab's own.
    ///
    /// All of the workspace is named, as it is by the tests: cargo compiles what a package needs once for each set
    /// of features, and a smaller selection has smaller sets. The lab itself runs already, and its program stays
    /// where it is: the rack enters namespaces with it.
    ///
    /// # Errors
    /// When cargo cannot be run or fails.
    pub fn build(&self) -> Result<(), Error> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--workspace", "--exclude", "lab", "--bins"]);
        if self.binaries.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo
            .stdin(Stdio::null())
            .status()
            .map_err(|source| Error::Cargo {
                program: cargo_program().to_string_lossy().into_owned(),
                source,
            })?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::Build)
        }
    }

    /// Starts a cargo command in the work tree.
    #[must_use]
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(cargo_program());
        cargo.current_dir(&self.root);
        // What `cargo run` told us about our own package is not meant for others.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST") {
                cargo.env_remove(name);
            }
        }
        cargo
    }
}

fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}
