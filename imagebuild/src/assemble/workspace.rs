//! The workspace: a directory for one build, gone when the build is over, however it ends.
//!
//! It refuses to remove a directory of a builder that lives: every workspace is locked by its own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A directory for one build.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
    /// Holds the lock that says that somebody works here.
    _lock: File,
}

impl Workspace {
    /// Makes a workspace below a directory, and removes those there whose builders are gone.
    pub(super) fn make(below: &Path) -> io::Result<Self> {
        fs::create_dir_all(below)?;
        sweep(below)?;
        loop {
            let directory = tempfile::Builder::new()
                .prefix("build-")
                .tempdir_in(below)?;
            let path = directory.keep();
            // Another builder may sweep between the making and the locking.
            let lock = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            if lock.try_lock().is_ok() && path.exists() {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "left a workspace behind");
        }
    }
}

fn sweep(below: &Path) -> io::Result<()> {
    for entry in fs::read_dir(below)? {
        let path = entry?.path();
        let ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("build-"));
        if !ours {
            continue;
        }
        // The lock is held until the directory is gone: between the two, its builder could lock it.
        if let Ok(lock) = File::open(&path)
            && lock.try_lock().is_ok()
        {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes a directory, also when something in it may not be entered by its owner.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_goes_with_its_builder_and_a_dead_ones_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("work");
        fs::create_dir_all(below.join("build-dead/root/closed/inner")).unwrap();
        fs::create_dir_all(below.join("notes")).unwrap();
        let closed = fs::Permissions::from_mode(0o000);
        fs::set_permissions(below.join("build-dead/root/closed"), closed).unwrap();
        let first = Workspace::make(&below).unwrap();
        fs::write(first.path().join("file"), "x").unwrap();
        let second = Workspace::make(&below).unwrap();
        assert!(first.path().join("file").exists(), "its builder lives");
        assert!(!below.join("build-dead").exists());
        drop((first, second));
        let left: Vec<_> = fs::read_dir(&below).unwrap().collect();
        assert_eq!(left.len(), 1, "only what is not ours");
    }
}
