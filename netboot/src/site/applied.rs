//! The copy of the site that was applied: numbered versions under `<data>/site`, one of them current.
//!
//! It refuses to be half: a version is written under another name, reaches the disk, is renamed,
//! and becomes current by one rename of a link. A crash at any instant leaves the old or the new.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use image_manifest::Digest;

use super::Files;

/// Versions that are kept to look back at: months of changes in most places.
const KEPT: usize = 20;

/// The directory of the data directory that holds the copy.
const DIRECTORY: &str = "site";
const VERSIONS: &str = "versions";
const CURRENT: &str = "current";
/// Names that begin so are unfinished; they are removed at the next start.
const UNFINISHED: &str = ".unfinished-";

/// Why the applied copy cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum AppliedError {
    /// It could not be read.
    #[error("failed to read the applied site `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be written.
    #[error("failed to write the applied site `{}`", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold what was applied.
    #[error(
        "the applied site `{}` was changed on the disk; remove the link `current` beside `versions` to serve the site directory again",
        path.display()
    )]
    Changed {
        /// The version's directory.
        path: PathBuf,
    },
}

/// The copy of the site that was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    root: PathBuf,
}

impl Applied {
    /// Returns where the files of the current version stand, if there is one.
    #[must_use]
    pub fn current(data: &Path) -> PathBuf {
        data.join(DIRECTORY).join(CURRENT)
    }

    /// Makes room for the copy and removes what a crash left.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub fn open(data: &Path) -> Result<Self, AppliedError> {
        let root = data.join(DIRECTORY);
        let versions = root.join(VERSIONS);
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(&versions).map_err(writing(&versions))?;
        for directory in [&root, &versions] {
            for name in names(directory)? {
                let path = directory.join(&name);
                if name.starts_with(UNFINISHED) {
                    remove(&path).map_err(writing(&path))?;
                }
            }
        }
        Ok(Self { root })
    }

    /// Reads the current version, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was applied.
    pub fn load(&self) -> Result<Option<Files>, AppliedError> {
        let link = self.root.join(CURRENT);
        let target = match fs::read_link(&link) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(AppliedError::Read { path: link, source }),
        };
        let path = self.root.join(&target);
        let mut files = Files::default();
        collect(&path, "", &mut files).map_err(|source| AppliedError::Read {
            path: path.clone(),
            source,
        })?;
        let name = target.file_name().map(|name| name.to_string_lossy());
        let expected = name.as_deref().and_then(digest_of);
        if expected != Some(files.digest()) {
            return Err(AppliedError::Changed { path });
        }
        Ok(Some(files))
    }

    /// Keeps files as the current version; when this returns they are on disk.
    ///
    /// # Errors
    /// When they cannot be written; the version before is then still current.
    pub fn keep(&self, files: &Files) -> Result<(), AppliedError> {
        let versions = self.root.join(VERSIONS);
        let mut names = names(&versions)?;
        names.retain(|name| number_of(name).is_some());
        let number = names.iter().filter_map(|name| number_of(name)).max();
        let name = format!("{:08}-{}", number.unwrap_or(0) + 1, files.digest().hex());
        let unfinished = versions.join(format!("{UNFINISHED}{name}"));
        let path = versions.join(&name);
        let written = write_version(&unfinished, files)
            .and_then(|()| fs::rename(&unfinished, &path))
            .and_then(|()| File::open(&versions)?.sync_all())
            .and_then(|()| self.point_to(&name));
        if let Err(source) = written {
            // What is left of it goes now, or at the next start.
            remove(&unfinished).ok();
            return Err(AppliedError::Write { path, source });
        }
        names.sort();
        for old in names.iter().rev().skip(KEPT - 1) {
            self.forget(old);
        }
        Ok(())
    }

    /// Makes a version current.
    fn point_to(&self, name: &str) -> io::Result<()> {
        let unfinished = self.root.join(format!("{UNFINISHED}{CURRENT}"));
        remove(&unfinished)?;
        std::os::unix::fs::symlink(Path::new(VERSIONS).join(name), &unfinished)?;
        fs::rename(&unfinished, self.root.join(CURRENT))?;
        File::open(&self.root)?.sync_all()
    }

    /// Removes an old version; where that fails, it is tried again at the next start.
    fn forget(&self, name: &str) {
        let versions = self.root.join(VERSIONS);
        let gone = versions.join(format!("{UNFINISHED}{name}"));
        let removed =
            fs::rename(versions.join(name), &gone).and_then(|()| fs::remove_dir_all(&gone));
        if let Err(error) = removed {
            tracing::warn!(error = %error, version = name, "an old version of the site stays");
        }
    }
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> AppliedError {
    let path = path.to_owned();
    |source| AppliedError::Write { path, source }
}

fn number_of(name: &str) -> Option<u64> {
    name.split_once('-')?.0.parse().ok()
}

fn digest_of(name: &str) -> Option<Digest> {
    Digest::from_hex(name.split_once('-')?.1).ok()
}

fn names(directory: &Path) -> Result<Vec<String>, AppliedError> {
    let failed = |source| AppliedError::Read {
        path: directory.to_owned(),
        source,
    };
    let entries = fs::read_dir(directory).map_err(failed)?;
    entries
        .map(|entry| {
            let name = entry.map_err(failed)?.file_name();
            Ok(name.to_string_lossy().into_owned())
        })
        .collect()
}

/// Removes a file, a link or a whole directory; none is fine.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Writes all files of a version and waits until they are on disk.
fn write_version(root: &Path, files: &Files) -> io::Result<()> {
    remove(root)?;
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(root)?;
    let mut directories = vec![root.to_owned()];
    for (path, content) in files.iter() {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            private.create(parent)?;
            // Each directory up to the root holds a name that must not be lost.
            let within = parent.ancestors().take_while(|one| *one != root);
            directories.extend(within.map(Path::to_owned));
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(content)?;
        file.sync_all()?;
    }
    directories.sort();
    directories.dedup();
    directories
        .iter()
        .try_for_each(|directory| File::open(directory)?.sync_all())
}

/// Reads all files of a version.
fn collect(directory: &Path, prefix: &str, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{prefix}{}", name.to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else {
            let most = super::TOTAL_MAX as u64;
            files.insert(&path, super::read_at_most(&entry.path(), most)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::super::{Upload, UploadedFile};
    use super::*;

    fn files(name: &str, size: usize) -> Files {
        let file = |path: &str, text: String| UploadedFile {
            path: path.to_owned(),
            text: Some(text),
            base64: None,
        };
        let upload = Upload {
            files: vec![
                file("a.toml", format!("[site]\nname = \"{name}\"\n")),
                file("hosts.toml", format!("# {name}{}", "x".repeat(size))),
                file("deep/er/ca.pem", name.repeat(9)),
            ],
        };
        Files::receive(&upload).unwrap()
    }

    #[test]
    fn what_is_kept_is_read_back_and_old_versions_end() {
        let data = tempfile::tempdir().unwrap();
        let applied = Applied::open(data.path()).unwrap();
        assert_eq!(applied.load().unwrap(), None);
        for round in 0..KEPT + 5 {
            let files = files(&format!("round{round}"), 10);
            applied.keep(&files).unwrap();
            assert_eq!(applied.load().unwrap(), Some(files));
        }
        let versions = data.path().join("site/versions");
        assert_eq!(names(&versions).unwrap().len(), KEPT);
        let mode = fs::metadata(&versions).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let current = Applied::current(data.path());
        assert!(current.join("deep/er/ca.pem").is_file());
    }

    #[test]
    fn an_edited_or_damaged_copy_is_not_served() {
        let data = tempfile::tempdir().unwrap();
        let applied = Applied::open(data.path()).unwrap();
        applied.keep(&files("lab", 10)).unwrap();
        let file = Applied::current(data.path()).join("a.toml");
        fs::write(file, "[site]\nname = \"other\"\n").unwrap();
        let error = applied.load().unwrap_err();
        assert!(matches!(error, AppliedError::Changed { .. }), "{error}");
    }

    #[test]
    fn what_a_crash_left_is_removed_at_the_next_start() {
        let data = tempfile::tempdir().unwrap();
        let applied = Applied::open(data.path()).unwrap();
        let kept = files("lab", 10);
        applied.keep(&kept).unwrap();
        let root = data.path().join("site");
        let left = [
            root.join(format!("versions/{UNFINISHED}00000002-ab/sub")),
            root.join(format!("versions/{UNFINISHED}00000001-cd")),
        ];
        for path in &left {
            fs::create_dir_all(path).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", root.join(format!("{UNFINISHED}current"))).unwrap();
        let applied = Applied::open(data.path()).unwrap();
        assert_eq!(names(&root.join(VERSIONS)).unwrap().len(), 1);
        assert_eq!(names(&root).unwrap().len(), 2);
        assert_eq!(applied.load().unwrap(), Some(kept));
    }

    const CHILD: &str = "NETBOOT_TEST_KEEPS_SITES_IN";

    /// The process that the next test kills: it applies two sites in turn, as fast as it can.
    #[test]
    fn a_child_applies_two_sites_in_turn() {
        let Some(data) = std::env::var_os(CHILD) else {
            return;
        };
        let applied = Applied::open(Path::new(&data)).unwrap();
        let sites = [files("old", 200_000), files("new", 100_000)];
        for site in sites.iter().cycle() {
            applied.keep(site).unwrap();
        }
    }

    #[test]
    fn killed_at_any_instant_the_old_or_the_new_site_is_there() {
        let data = tempfile::tempdir().unwrap();
        let sites = [files("old", 200_000), files("new", 100_000)];
        Applied::open(data.path()).unwrap().keep(&sites[0]).unwrap();
        let link = Applied::current(data.path());
        for round in 0..30 {
            let before = fs::read_link(&link).unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "site::applied::tests::a_child_applies_two_sites_in_turn",
                ])
                .env(CHILD, data.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // Once it works, it is killed at another instant each time.
            let patience = Instant::now() + Duration::from_mins(1);
            while fs::read_link(&link).unwrap() == before && Instant::now() < patience {
                std::thread::yield_now();
            }
            let instant = Instant::now() + Duration::from_micros(round * 337);
            while Instant::now() < instant {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            assert_ne!(
                fs::read_link(&link).unwrap(),
                before,
                "the child did nothing"
            );
            let applied = Applied::open(data.path()).unwrap();
            let found = applied.load().unwrap().expect("one of the two is current");
            assert!(sites.contains(&found), "round {round}");
            let left = names(&data.path().join("site/versions")).unwrap();
            assert!(left.len() <= KEPT + 1, "{left:?}");
            assert!(
                left.iter().all(|name| number_of(name).is_some()),
                "{left:?}"
            );
        }
    }
}
