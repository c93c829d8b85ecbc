//! The user as whom scripts run when root builds, and how a tree is handed to it.
//!
//! It never lets a script be the root of this computer: whoever that is may write all of
//! `/proc/sys`, whatever namespace surrounds it. Anybody else who builds runs scripts as itself.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use nix::unistd::geteuid;

/// A number that no distribution gives to a user (systemd's list has 65520 to 65533 as unused),
/// and that containers with a map of 65536 users have. It is nobody's, so that no daemon of this
/// computer that runs as `nobody` owns the processes and the files of a build.
const WORKER: u32 = 65_533;

/// Bits that the kernel takes from a file that changes hands.
const SET_ID: u32 = 0o6000;

/// Finds the user, and the group of the same number, as whom scripts run; `None` is the caller.
pub(crate) fn find() -> io::Result<Option<u32>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/proc/self/uid_map")?;
    let groups = fs::read_to_string("/proc/self/gid_map")?;
    choose(&users, &groups)
}

fn choose(users: &str, groups: &str) -> io::Result<Option<u32>> {
    if outer(users, WORKER).is_some() && outer(groups, WORKER).is_some() {
        return Ok(Some(WORKER));
    }
    // The root of a container that maps few users is somebody else outside of it.
    if outer(users, 0).is_some_and(|user| user != 0) {
        return Ok(None);
    }
    let said = format!("no user {WORKER} in this user namespace");
    Err(io::Error::new(io::ErrorKind::Unsupported, said))
}

/// Finds the number outside of a user namespace in its map.
fn outer(map: &str, inner: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line
            .split_whitespace()
            .map_while(|number| number.parse::<u32>().ok());
        let (first, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let step = inner.checked_sub(first).filter(|step| *step < count)?;
        outside.checked_add(step)
    })
}

/// Hands a tree to the user as whom scripts run; for a builder that is not root, does nothing.
///
/// It follows no link and enters no other file system. Modes stay as they are.
///
/// # Errors
/// When a path of the tree cannot be read or given away.
pub fn hand_over(tree: &Path) -> io::Result<()> {
    let Some(worker) = find()? else {
        return Ok(());
    };
    let top = fs::symlink_metadata(tree)?;
    give(tree, &top, worker)?;
    let mut pending = Vec::new();
    if top.is_dir() {
        pending.push(tree.to_path_buf());
    }
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, found) = (entry.path(), entry.metadata()?);
            if found.dev() != top.dev() {
                continue;
            }
            give(&path, &found, worker)?;
            if found.is_dir() {
                pending.push(path);
            }
        }
    }
    Ok(())
}

fn give(path: &Path, found: &Metadata, worker: u32) -> io::Result<()> {
    if (found.uid(), found.gid()) == (worker, worker) {
        return Ok(());
    }
    lchown(path, Some(worker), Some(worker))?;
    if !found.is_symlink() && found.mode() & SET_ID != 0 {
        let mode = found.mode() & 0o7777;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_this_computer_never_runs_scripts() {
        let cases = [
            ("a host", "0 0 4294967295\n", Some(Some(WORKER))),
            ("a container", "0 100000 65536\n", Some(Some(WORKER))),
            (
                "its own map",
                "0 1000 1\n1 100000 65536\n",
                Some(Some(WORKER)),
            ),
            (
                "a container of one user",
                "         0       1000          1\n",
                Some(None),
            ),
            ("root in a namespace of one user", "0 0 1\n", None),
            ("no map", "", None),
        ];
        for (name, map, expected) in cases {
            assert_eq!(choose(map, map).ok(), expected, "{name}");
        }
    }

    #[test]
    fn a_tree_changes_hands_and_keeps_its_modes() {
        let outer = tempfile::tempdir().unwrap();
        let (tree, other) = (outer.path().join("tree"), outer.path().join("other"));
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(&other, "").unwrap();
        fs::write(tree.join("bin/su"), "").unwrap();
        std::os::unix::fs::symlink(&other, tree.join("link")).unwrap();
        let set = |path: &str, mode| {
            fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        set("bin/su", 0o6755);
        set("bin", 0o2750);
        let before = fs::metadata(&other).unwrap().uid();
        hand_over(&tree).unwrap();
        let worker = find().unwrap().unwrap_or(before);
        for (path, mode) in [("", None), ("bin", Some(0o2750)), ("bin/su", Some(0o6755))] {
            let found = fs::symlink_metadata(tree.join(path)).unwrap();
            assert_eq!(found.uid(), worker, "{path}");
            assert!(
                mode.is_none_or(|mode| found.mode() & 0o7777 == mode),
                "{path}"
            );
        }
        let link = fs::symlink_metadata(tree.join("link")).unwrap();
        assert_eq!(link.uid(), worker);
        assert_eq!(fs::metadata(&other).unwrap().uid(), before);
    }
}
