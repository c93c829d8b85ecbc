//! The cache's bound: the files that were not used for longest go first.
//!
//! It refuses to touch what is young, since a build that runs may use it, and what is no file of the cache's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use image_manifest::Digest;
use image_manifest::layout::Action;
use serde::Serialize;

/// Where a cache keeps files by digest.
pub(crate) const SHELVES: [&str; 6] = [
    "packages/sha256",
    "indexes/sha256",
    "facts/1",
    DECODED,
    MODULES,
    CONFIGURED,
];
/// Where a cache keeps packages that are quick to read, by the digest of the package.
pub(crate) const DECODED: &str = "decoded/1";
/// Where a cache keeps what modules of kernels say, by the sources of this program and the digests of the kernels' packages.
pub(crate) const MODULES: &str = "modules/1";
/// Where a cache keeps configured trees, by key.
pub(crate) const CONFIGURED: &str = "configured/1";

/// What goes from a cache, and what stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trimmed {
    /// Files that go.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that stay.
    pub kept_files: usize,
    /// Their bytes.
    pub kept_bytes: u64,
}

/// The cache could not be trimmed.
#[derive(Debug, thiserror::Error)]
#[error("failed to trim `{}`", path.display())]
pub struct Error {
    /// The file or directory.
    path: PathBuf,
    /// Why.
    source: io::Error,
}

/// Brings a cache below a size, as far as there are files that were last used before a time.
///
/// # Errors
/// When it cannot be read, or a file cannot be removed; then it can be done again.
pub fn trim(root: &Path, most: u64, before: SystemTime, action: Action) -> Result<Trimmed, Error> {
    let mut files = Vec::new();
    for shelf in SHELVES {
        collect(&root.join(shelf), &mut files)?;
    }
    go(files, most, before, action)
}

/// Keeps one shelf below a size, as its writers do: what they just wrote goes last, and what was used at that time or later
/// stays.
pub(crate) fn bound(shelf: &Path, most: u64, before: SystemTime) -> Result<Trimmed, Error> {
    let mut files = Vec::new();
    collect(shelf, &mut files)?;
    go(files, most, before, Action::Remove)
}

fn go(
    mut files: Vec<(SystemTime, u64, PathBuf)>,
    most: u64,
    before: SystemTime,
    action: Action,
) -> Result<Trimmed, Error> {
    files.sort();
    let mut trimmed = Trimmed {
        kept_files: files.len(),
        kept_bytes: files.iter().map(|(_, size, _)| size).sum(),
        ..Trimmed::default()
    };
    for (used, size, path) in files {
        if trimmed.kept_bytes <= most || used >= before {
            break;
        }
        if action == Action::Remove
            && let Err(source) = fs::remove_file(&path)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(Error { path, source });
        }
        trimmed.files += 1;
        trimmed.bytes += size;
        trimmed.kept_files -= 1;
        trimmed.kept_bytes -= size;
    }
    Ok(trimmed)
}

fn collect(shelf: &Path, files: &mut Vec<(SystemTime, u64, PathBuf)>) -> Result<(), Error> {
    let failed = |source| Error {
        path: shelf.to_owned(),
        source,
    };
    let entries = match fs::read_dir(shelf) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let is_ours = name
            .to_str()
            .is_some_and(|name| Digest::from_hex(name).is_ok());
        // Another one may trim too.
        let Some(found) = entry
            .metadata()
            .ok()
            .filter(|found| is_ours && found.is_file())
        else {
            continue;
        };
        let used = found.modified().map_err(failed)?;
        files.push((used, found.len(), entry.path()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_go_until_the_rest_fits_and_the_young_stay() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = directory.path().join(SHELVES[0]);
        fs::create_dir_all(&shelf).unwrap();
        let now = SystemTime::now();
        let mut places = Vec::new();
        for age in [4_u64, 3, 2, 1] {
            let place = shelf.join(Digest::of(&age.to_be_bytes()).hex());
            fs::write(&place, [0; 100]).unwrap();
            let file = fs::File::options().write(true).open(&place).unwrap();
            file.set_modified(now - Duration::from_hours(age)).unwrap();
            places.push(place);
        }
        fs::write(shelf.join(".incoming-x"), [0; 100]).unwrap();
        let root = directory.path();
        let run = |most, hours, action| {
            trim(root, most, now - Duration::from_hours(hours), action).unwrap()
        };
        let told = run(200, 0, Action::Tell);
        assert_eq!((told.files, told.kept_bytes), (2, 200));
        assert!(places[0].exists());
        assert_eq!(run(0, 3, Action::Remove).files, 1, "only one is older");
        assert_eq!(run(200, 0, Action::Remove).files, 1);
        let left: Vec<_> = places.iter().map(|place| place.exists()).collect();
        assert_eq!(left, [false, false, true, true]);
        assert!(shelf.join(".incoming-x").exists());
        assert_eq!(run(200, 0, Action::Remove).files, 0);
    }
}
