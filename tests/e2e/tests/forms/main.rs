//! The forms of one image: all of them are one tree, a changed byte anywhere is named, and tools that no one here wrote
//! take each for what it says that it is.
//!
//! It refuses to find its way around a form with our own readers: offsets come from `sfdisk` and `qemu-img`.

mod flips;
mod judges;
mod signed;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::rig::{printed, run};
use e2e::shop;
use serde_json::Value;
use tempfile::TempDir;

/// Forms are large, and the temporary directory may be in memory.
fn folder() -> TempDir {
    let place = shop::state().path().join("e2e");
    fs::create_dir_all(&place).expect("a directory");
    tempfile::tempdir_in(place).expect("a directory")
}

fn imagebuild(folder: &Path) -> Command {
    let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
    imagebuild.current_dir(folder);
    imagebuild
}

/// Exports `host` from the lab's store, and returns what was said about it.
fn export(folder: &Path, form: &str, file: &str, more: &[&str]) -> Value {
    let mut export = imagebuild(folder);
    export.args(["export", "host", file, "--as", form, "--json"]);
    export.arg("--store").arg(shop::state().store()).args(more);
    json(&run(&mut export))
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&printed(output)).expect("one line of JSON")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Where a partition of a disk starts, and its size, as `sfdisk` sees it.
fn partition(disk: &Path, name: &str) -> (u64, u64) {
    let output = run(Command::new("sfdisk").arg("--json").arg(disk));
    let table = json(&output);
    let table = table["partitiontable"]["partitions"].as_array();
    let mut partitions = table.expect("partitions").iter();
    let found = partitions.find(|partition| partition["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no partition `{name}`"));
    let bytes = |key: &str| 512 * found[key].as_u64().expect("a number");
    (bytes("start"), bytes("size"))
}

/// The lock that the lab built `host` with.
fn lock() -> PathBuf {
    let workshop = shop::workshop();
    let own = workshop.locks.join("host/image.lock");
    let built = shop::manifest(&workshop.store, "host").lock;
    let committed = workshop.definitions.join("host/image.lock");
    let committed = workshop.lock.unwrap_or(committed);
    let is_built = |path: &PathBuf| {
        fs::read(path).is_ok_and(|bytes| image_manifest::Digest::of(&bytes) == built)
    };
    let mut locks = [committed, own].into_iter();
    locks.find(is_built).expect("the lab's lock")
}
