//! What was changed on a running host that is to stay as its image is.
//!
//! The overlay's upper directory holds the changes and nothing else, so finding them costs as much as there are. It
//! repairs nothing, follows no link, and looks at a bounded number of files: what it cannot compare counts as changed.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What every host changes: state and logs, homes, what is mounted, and what stage1 and systemd write at boot.
///
/// A name that ends in `*` stands for all that begin with it.
const EXPECTED: [&str; 21] = [
    "dev",
    "etc/.pwd.lock",
    "etc/.updated",
    "etc/adjtime",
    "etc/hostname",
    "etc/hosts",
    "etc/machine-id",
    "etc/mtab",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_*",
    "home",
    "lost+found",
    "media",
    "mnt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "var",
];
/// Paths that a report names.
const NAMED: usize = 64;
/// Files that are looked at: a host that changed more has changed.
const LOOKED_AT: usize = 20_000;
/// Files up to this size are compared byte by byte: opened for writing is not changed.
const COMPARED: u64 = 1024 * 1024;
/// Bytes that are compared in all.
const COMPARED_IN_ALL: u64 = 32 * 1024 * 1024;

/// What differs from the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Paths without leading slash, sorted; a directory that the image does not have ends in a slash.
    pub(crate) paths: Vec<String>,
    /// How many more there are.
    pub(crate) omitted: u64,
}

/// Lists what an overlay's upper directory changes in the image below it.
pub(crate) fn changes(upper: &Path, image: &Path) -> Changes {
    let mut walk = Walk {
        upper,
        image,
        found: BTreeSet::new(),
        left: LOOKED_AT,
        bytes: COMPARED_IN_ALL,
    };
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        walk.directory(&directory, &mut open);
    }
    let omitted = walk.found.len().saturating_sub(NAMED) as u64;
    let named = walk.found.into_iter().take(NAMED);
    Changes {
        paths: named.collect(),
        omitted,
    }
}

struct Walk<'a> {
    upper: &'a Path,
    image: &'a Path,
    found: BTreeSet<String>,
    left: usize,
    bytes: u64,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path, open: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(self.upper.join(directory)) else {
            return;
        };
        for entry in entries.flatten() {
            let path = directory.join(entry.file_name());
            if is_expected(&path) {
                continue;
            }
            if self.left == 0 {
                open.clear();
                return;
            }
            self.left -= 1;
            // What is gone meanwhile is no change any more.
            let Ok(now) = fs::symlink_metadata(self.upper.join(&path)) else {
                continue;
            };
            let before = fs::symlink_metadata(self.image.join(&path)).ok();
            let before = before.as_ref();
            if now.is_dir() && before.is_some_and(Metadata::is_dir) {
                // A directory is copied up when something in it changes.
                open.push(path.clone());
            }
            if !before.is_some_and(|before| self.is_same(&path, before, &now)) {
                self.note(&path, &now, before);
            }
        }
    }

    fn note(&mut self, path: &Path, now: &Metadata, before: Option<&Metadata>) {
        // A whiteout over nothing: what was made and removed again.
        if before.is_none() && is_whiteout(now) {
            return;
        }
        let mut text = path.to_string_lossy().into_owned();
        if now.is_dir() {
            text.push('/');
        }
        self.found.insert(text);
    }

    fn is_same(&mut self, path: &Path, before: &Metadata, now: &Metadata) -> bool {
        let inode = |of: &Metadata| (of.mode(), of.uid(), of.gid(), of.rdev());
        if inode(before) != inode(now) {
            return false;
        }
        let (old, new) = (self.image.join(path), self.upper.join(path));
        if now.is_symlink() {
            return fs::read_link(old).ok() == fs::read_link(new).ok();
        }
        if !now.is_file() {
            return true;
        }
        let size = now.len();
        if before.len() != size || size > COMPARED.min(self.bytes) {
            return false;
        }
        self.bytes -= size;
        let content = |path: PathBuf| {
            let mut bytes = Vec::new();
            let file = File::open(path).ok()?;
            file.take(COMPARED).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let (old, new) = (content(old), content(new));
        old.is_some() && old == new
    }
}

/// Tells whether a file stands for one of the image that was removed.
fn is_whiteout(file: &Metadata) -> bool {
    file.file_type().is_char_device() && file.rdev() == 0
}

fn is_expected(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    EXPECTED
        .iter()
        .any(|expected| match expected.strip_suffix('*') {
            Some(start) => path.starts_with(start.as_bytes()),
            None => path == expected.as_bytes(),
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Makes a file with its directories.
    fn file(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn changes_are_what_differs_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (upper, image) = (root.path().join("upper"), root.path().join("image"));
        for path in [
            "etc/same",
            "etc/other",
            "etc/longer",
            "etc/mode",
            "usr/bin/tool",
            "etc/was-file",
        ] {
            file(&image, path, "old");
        }
        symlink("a", image.join("etc/link")).unwrap();
        for (path, content) in [
            ("etc/same", "old"),
            ("etc/other", "new"),
            ("etc/longer", "old and new"),
            ("etc/mode", "old"),
            ("etc/new", ""),
            ("etc/was-file/x", ""),
            ("opt/app/bin/x", ""),
            // Expected.
            ("etc/hostname", "web1"),
            ("etc/ssh/ssh_host_rsa_key", "x"),
            ("var/log/x", ""),
            ("root/.bash_history", ""),
        ] {
            file(&upper, path, content);
        }
        file(&image, "etc/ssh/sshd_config", "");
        fs::create_dir_all(upper.join("usr/bin")).unwrap();
        symlink("b", upper.join("etc/link")).unwrap();
        fs::set_permissions(upper.join("etc/mode"), fs::Permissions::from_mode(0o600)).unwrap();
        let found = changes(&upper, &image);
        let expected = [
            "etc/link",
            "etc/longer",
            "etc/mode",
            "etc/new",
            "etc/other",
            "etc/was-file/",
            "opt/",
        ];
        assert_eq!(found.paths, expected);
        assert_eq!(found.omitted, 0);
    }

    #[test]
    fn many_changes_are_counted_and_not_all_named() {
        let root = tempfile::tempdir().unwrap();
        let (upper, image) = (root.path().join("upper"), root.path().join("image"));
        fs::create_dir_all(image.join("etc")).unwrap();
        for number in 0..100 {
            file(&upper, &format!("etc/{number:03}"), "");
        }
        let found = changes(&upper, &image);
        assert_eq!((found.paths.len(), found.omitted), (64, 36));
        assert_eq!(found.paths[0], "etc/000");
    }

    #[test]
    fn a_host_without_overlay_has_no_changes() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(changes(nowhere, nowhere), Changes::default());
    }
}
