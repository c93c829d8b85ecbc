//! Who owns what in a tree that is really owned by one user: a table keyed by inode.
//!
//! It changes nothing on disk. Whoever writes the tree into an artifact asks the table, and
//! takes `root:root` for whatever it does not hold.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Pinned inodes at most, each of which costs a descriptor of the 1024 that a program may have. A
/// tree has about fifty entries that are not `root:root`; beyond, inodes are held by number alone.
const PINS_MAX: usize = 400;

/// An inode on this computer: device and number, as `stat` tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Inode {
    /// The device number that holds the inode.
    pub dev: u64,
    /// The inode's number on that device.
    pub ino: u64,
}

/// Whether a device node stands for bytes or for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
}

/// A device node, which on disk is an empty regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What sort of device it is.
    pub kind: DeviceKind,
    /// The driver's number.
    pub major: u32,
    /// The device's number within its driver.
    pub minor: u32,
}

/// What an inode would carry if an administrator had written it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Set when the file on disk stands for a device node.
    pub device: Option<Device>,
    /// Extended attributes: file capabilities and what programs stored under `user.`.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Owner {
    /// An ordinary owner, without device or attributes.
    #[must_use]
    pub fn of(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            ..Self::default()
        }
    }

    fn is_plain_root(&self) -> bool {
        *self == Self::default()
    }
}

/// The table: every inode that is not simply `root:root`.
///
/// Entries that differ from `root:root` hold their inode open, so that its number cannot be
/// given to another file while the table lives.
#[derive(Debug)]
pub struct Ownership {
    entries: HashMap<Inode, Owner>,
    pins: HashMap<Inode, File>,
    pins_max: usize,
}

impl Default for Ownership {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            pins: HashMap::new(),
            pins_max: PINS_MAX,
        }
    }
}

impl Ownership {
    /// Starts empty: everything is `root:root`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what was recorded for an inode.
    #[must_use]
    pub fn of(&self, dev: u64, ino: u64) -> Option<&Owner> {
        self.entries.get(&Inode { dev, ino })
    }

    /// Returns how many inodes are recorded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether nothing is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Goes through the table in the order of inode numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Inode, &Owner)> {
        let sorted: BTreeMap<_, _> = self.entries.iter().map(|(k, v)| (*k, v)).collect();
        sorted.into_iter()
    }

    /// Records an owner for the file at `path`, a symbolic link itself included.
    ///
    /// # Errors
    /// When the path cannot be opened.
    pub fn record_path(&mut self, path: &Path, owner: Owner) -> io::Result<()> {
        let file = open_path(path)?;
        let found = file.metadata()?;
        self.record(
            Inode {
                dev: found.dev(),
                ino: found.ino(),
            },
            owner,
            Some(file),
        );
        Ok(())
    }

    /// Records an owner for an inode; `pin` is any descriptor of it.
    pub fn record(&mut self, inode: Inode, owner: Owner, pin: Option<File>) {
        if owner.is_plain_root() {
            self.pins.remove(&inode);
        } else if let Some(file) = pin
            && self.pins.len() < self.pins_max
        {
            self.pins.insert(inode, file);
        }
        self.entries.insert(inode, owner);
    }

    /// Drops what is known about an inode, because its file was removed.
    pub fn forget(&mut self, dev: u64, ino: u64) {
        let inode = Inode { dev, ino };
        self.entries.remove(&inode);
        self.pins.remove(&inode);
    }

    /// Allows more inodes to be pinned, for a process that raised its limit of descriptors.
    pub(crate) fn allow_pins(&mut self, pins_max: usize) {
        self.pins_max = pins_max;
    }

    /// Lets go of inodes that have no name left, when many are held.
    pub(crate) fn prune(&mut self) {
        if self.pins.len() < self.pins_max / 2 {
            return;
        }
        let gone: Vec<Inode> = self
            .pins
            .iter()
            .filter(|(_, file)| file.metadata().is_ok_and(|found| found.nlink() == 0))
            .map(|(inode, _)| *inode)
            .collect();
        for inode in gone {
            self.forget(inode.dev, inode.ino);
        }
    }

    /// Compares the table with the tree: forgets inodes that are gone, pins those that stay, and
    /// gives files in setgid directories the directory's group, as the kernel would have done.
    ///
    /// # Errors
    /// When a directory of the tree cannot be read.
    pub fn settle(&mut self, root: &Path) -> io::Result<()> {
        let mut old = std::mem::take(&mut self.entries);
        self.pins.clear();
        let top = std::fs::symlink_metadata(root)?;
        self.keep(root, &top, None, &mut old);
        let mut pending = vec![(root.to_path_buf(), self.group_below(&top))];
        while let Some((directory, inherited)) = pending.pop() {
            for entry in std::fs::read_dir(&directory)? {
                let path = entry?.path();
                let found = std::fs::symlink_metadata(&path)?;
                self.keep(&path, &found, inherited, &mut old);
                if found.is_dir() && found.dev() == top.dev() {
                    pending.push((path, self.group_below(&found)));
                }
            }
        }
        Ok(())
    }

    /// Records `root:root` by name for what lies in setgid directories now, so that it does not
    /// pass for something that was created there later.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn claim_setgid(&mut self, root: &Path) -> io::Result<()> {
        let mut pending = vec![root.to_path_buf()];
        while let Some(directory) = pending.pop() {
            let setgid = std::fs::symlink_metadata(&directory)?.mode() & 0o2000 != 0;
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                if setgid {
                    let found = std::fs::symlink_metadata(entry.path())?;
                    let inode = Inode {
                        dev: found.dev(),
                        ino: found.ino(),
                    };
                    self.entries.entry(inode).or_default();
                }
                if entry.file_type()?.is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        path: &Path,
        found: &std::fs::Metadata,
        inherited: Option<u32>,
        old: &mut HashMap<Inode, Owner>,
    ) {
        let inode = Inode {
            dev: found.dev(),
            ino: found.ino(),
        };
        if self.entries.contains_key(&inode) {
            return;
        }
        let owner = match (old.remove(&inode), inherited) {
            (Some(owner), _) => owner,
            (None, Some(gid)) => Owner::of(0, gid),
            (None, None) => return,
        };
        self.record(inode, owner, open_path(path).ok());
    }

    fn group_below(&self, directory: &std::fs::Metadata) -> Option<u32> {
        let gid = self
            .of(directory.dev(), directory.ino())
            .map_or(0, |owner| owner.gid);
        (gid != 0 && directory.mode() & 0o2000 != 0).then_some(gid)
    }
}

impl FromIterator<(Inode, Owner)> for Ownership {
    fn from_iter<I: IntoIterator<Item = (Inode, Owner)>>(entries: I) -> Self {
        Self {
            entries: entries.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// Opens the file itself, whatever it is, without permission to read or write it.
pub(crate) fn open_path(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn inode(path: &Path) -> (u64, u64) {
        let found = std::fs::symlink_metadata(path).unwrap();
        (found.dev(), found.ino())
    }

    #[test]
    fn a_removed_file_is_forgotten_and_others_stay() {
        let tree = tempfile::tempdir().unwrap();
        let (kept, gone) = (tree.path().join("kept"), tree.path().join("gone"));
        let mut table = Ownership::new();
        for path in [&kept, &gone] {
            std::fs::write(path, "").unwrap();
            table.record_path(path, Owner::of(7, 8)).unwrap();
        }
        std::fs::remove_file(&gone).unwrap();
        table.settle(tree.path()).unwrap();
        assert_eq!(table.len(), 1);
        let (dev, ino) = inode(&kept);
        assert_eq!(table.of(dev, ino), Some(&Owner::of(7, 8)));
    }

    #[test]
    fn what_appears_in_a_setgid_directory_takes_its_group() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("mail");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o2775)).unwrap();
        std::fs::write(directory.join("packaged"), "").unwrap();
        let mut table = Ownership::new();
        table.record_path(&directory, Owner::of(0, 8)).unwrap();
        table.claim_setgid(tree.path()).unwrap();
        std::fs::create_dir(directory.join("new")).unwrap();
        table.settle(tree.path()).unwrap();
        let group = |name: &str| {
            let (dev, ino) = inode(&directory.join(name));
            table.of(dev, ino).map(|owner| owner.gid)
        };
        assert_eq!(group("packaged"), Some(0));
        assert_eq!(group("new"), Some(8));
    }

    #[test]
    fn a_recorded_inode_is_not_reused() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("file");
        std::fs::write(&path, "").unwrap();
        let mut table = Ownership::new();
        table.record_path(&path, Owner::of(1, 1)).unwrap();
        std::fs::remove_file(&path).unwrap();
        for index in 0..100 {
            let path = tree.path().join(index.to_string());
            std::fs::write(&path, "").unwrap();
            let (dev, ino) = inode(&path);
            assert_eq!(table.of(dev, ino), None);
        }
    }
}
