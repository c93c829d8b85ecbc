//! What a test about publishing works with: a copy of the store with the host's image, a targets file, fakes that listen.
//!
//! It refuses to touch the lab's own store: publishing writes its record into the store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock};

use cloud::fake::{Server, Service};
use e2e::rig::run;
use e2e::shop;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Fakes answer while a test waits for the program.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// A store with one image, and a folder for all else.
pub(crate) struct Desk {
    folder: TempDir,
    image: &'static str,
}

impl Desk {
    /// Takes a copy of an image of the lab.
    pub(crate) fn of(image: &'static str) -> Self {
        shop::image(image);
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (from, store) = (shop::state().store(), folder.path().join("store"));
        link_tree(&from.join("blobs"), &store.join("blobs")).expect("artifacts");
        fs::create_dir(store.join("ingest")).expect("a place for what is not whole");
        for name in ["index.json", "oci-layout"] {
            fs::copy(from.join(name), store.join(name)).expect("the store's own files");
        }
        Self { folder, image }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the targets file.
    pub(crate) fn targets(&self, text: &str) {
        fs::write(self.path("targets.toml"), text).expect("a targets file");
    }

    /// A verb about the image, with credentials that only fakes take.
    pub(crate) fn verb(&self, verb: &str) -> Command {
        let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
        imagebuild
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .args([
                verb,
                self.image,
                "--store",
                "store",
                "--targets",
                "targets.toml",
            ])
            .args(["--cache", "cache", "--json"]);
        imagebuild
    }

    /// Publishes an image that somebody else booted; returns the record.
    pub(crate) fn publish(&self, more: &[&str]) -> Value {
        let mut publish = self.verb("publish");
        json(publish.args(["--boot-check", "skip"]).args(more))
    }
}

/// Artifacts are never written to again, so a copy may share them.
fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            link_tree(&path, &target)?;
        } else if fs::hard_link(&path, &target).is_err() {
            // The temporary directory may be on another disk.
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Runs a verb that must end well, and reads what it printed.
pub(crate) fn json(command: &mut Command) -> Value {
    let output = run(command);
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

/// What a program said to people.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Starts a fake.
pub(crate) fn listen(service: Arc<dyn Service>) -> Server {
    RUNTIME.block_on(Server::start(service)).expect("a port")
}
