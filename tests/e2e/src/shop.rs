//! The images that tests work with: built once into the lab's own store.
//!
//! It refuses to change that store: a test that damages something works on a copy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use image_manifest::layout::Layout;
use image_manifest::{Artifact, Manifest};
use lab::images::{Built, Workshop};
use lab::state::State;
use lab::up;
use lab::workspace::Workspace;

/// One build at a time, whatever the number of test threads.
static BUILDING: Mutex<()> = Mutex::new(());

/// Finds the work tree.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn workspace() -> Workspace {
    Workspace::find().expect("the work tree is found")
}

/// Opens the lab's state: where `LAB_STATE` points, or `.lab` in the work tree.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn state() -> State {
    let path =
        std::env::var_os("LAB_STATE").map_or_else(|| workspace().root.join(".lab"), PathBuf::from);
    State::open(&path).expect("the lab's state opens")
}

/// Returns the lab's workshop.
#[must_use]
pub fn workshop() -> Workshop {
    up::workshop(&workspace(), &state())
}

/// Builds one image where the lab's store does not hold it.
///
/// # Panics
/// When it cannot be built.
pub fn image(name: &str) -> Built {
    let _guard = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    workshop()
        .build(name)
        .unwrap_or_else(|error| panic!("image `{name}`: {error}"))
}

/// Reads the manifest of an image in a store.
///
/// # Panics
/// When the store does not hold it.
#[must_use]
pub fn manifest(store: &Path, name: &str) -> Manifest {
    let layout = Layout::open(store).expect("the store opens");
    layout
        .resolve(name)
        .expect("the store holds the image")
        .manifest
}

/// Returns the path of an artifact's bytes in a store.
#[must_use]
pub fn artifact(store: &Path, artifact: &Artifact) -> PathBuf {
    store
        .join("blobs")
        .join("sha256")
        .join(artifact.digest.hex())
}

/// Returns the user's own cache, which the lab's builds have filled.
///
/// # Panics
/// When the environment names none.
#[must_use]
pub fn cache() -> PathBuf {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("IMAGEBUILD_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("imagebuild")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/imagebuild")))
        .expect("there is a cache")
}

/// Copies a directory with all that is in it.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
