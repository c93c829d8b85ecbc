//! Writes entries of packages below a root directory, and never outside of it.
//!
//! Paths are resolved by the kernel, relative to the root's descriptor. Owners are returned, not
//! applied.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deb_archive::deb::Kind;
use image_sandbox::{Inode, Owner};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, mkfifoat, symlinkat, unlinkat};

/// How symbolic links on the way to a file are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// They are refused: what is written must not depend on which package came first.
    Refused,
    /// They are followed, as dpkg does, but never out of the root.
    Followed,
}

/// Whether a directory was made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    New,
    Old,
}

/// What of an entry is written beside its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: i64,
}

/// An inode that is not simply root's, held open.
pub(crate) type Owned = (Inode, Owner, File);

/// A root directory to write into.
#[derive(Debug)]
pub(crate) struct Place {
    root: OwnedFd,
    links: Links,
    /// The directory that the last entry was written to: the next is mostly beside it.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Place {
    /// Opens a root directory.
    pub(crate) fn open(root: &Path, links: Links) -> io::Result<Self> {
        let root = File::open(root)?.into();
        Ok(Self {
            root,
            links,
            last: None,
        })
    }

    /// Writes one entry that must not be there yet.
    pub(crate) fn write(
        &mut self,
        path: &[u8],
        kind: &Kind,
        attributes: Attributes,
        content: &mut impl Read,
    ) -> io::Result<Option<Owned>> {
        let owner = Owner::of(attributes.uid, attributes.gid);
        let name = OsStr::from_bytes(name_of(path)).to_owned();
        if let Kind::HardLink { target } = kind {
            self.link(target, path, &name)?;
            return Ok(None);
        }
        let parent = self.parent(path)?;
        match kind {
            Kind::File { .. } => return file(parent, &name, attributes, owner, content),
            Kind::Symlink { target } => {
                symlinkat(OsStr::from_bytes(target), parent, name.as_os_str())?;
            }
            Kind::Fifo => {
                mkfifoat(parent, name.as_os_str(), Mode::from_bits_truncate(0o600))?;
                let mode = Mode::from_bits_truncate(attributes.mode);
                fchmodat(parent, name.as_os_str(), mode, FchmodatFlags::FollowSymlink)?;
            }
            Kind::Directory | Kind::HardLink { .. } => {
                return Err(io::Error::other("not written here"));
            }
        }
        own(parent, &name, owner)
    }

    /// Makes a directory, or finds it there; its attributes come later, when all is in it.
    pub(crate) fn directory(&mut self, path: &[u8]) -> io::Result<Found> {
        let links = self.links;
        let name = OsStr::from_bytes(name_of(path)).to_owned();
        let parent = self.parent(path)?;
        match mkdirat(parent, name.as_os_str(), Mode::from_bits_truncate(0o700)) {
            Ok(()) => Ok(Found::New),
            // A link to a directory may stand for it, but only inside of the root.
            Err(Errno::EEXIST) if links == Links::Followed => {
                self.open_directory(path).map(|_| Found::Old)
            }
            Err(Errno::EEXIST) => {
                let found = fstatat(parent, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
                    Ok(Found::Old)
                } else {
                    Err(Errno::ENOTDIR.into())
                }
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives a directory its mode, and returns its owner.
    pub(crate) fn finish_directory(
        &self,
        path: &[u8],
        mode: u32,
        owner: Owner,
    ) -> io::Result<Option<Owned>> {
        let directory = self.open_directory(path)?;
        fchmod(&directory, Mode::from_bits_truncate(mode))?;
        owned(File::from(directory), owner)
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        let name = OsStr::from_bytes(name_of(path)).to_owned();
        match unlinkat(
            self.parent(path)?,
            name.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        ) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn link(&mut self, target: &[u8], path: &[u8], name: &OsStr) -> io::Result<()> {
        let target_name = OsStr::from_bytes(name_of(target)).to_owned();
        let from = self.parent(target)?.as_fd().try_clone_to_owned()?;
        let parent = self.parent(path)?;
        Ok(linkat(
            &from,
            target_name.as_os_str(),
            parent,
            name,
            LinkatFlags::empty(),
        )?)
    }

    /// Opens the directory that holds `path`, making it where a package forgot to name it.
    fn parent(&mut self, path: &[u8]) -> io::Result<&OwnedFd> {
        let parent = parent_of(path);
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            let opened = match self.open_directory(parent) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.directory(parent)?;
                    let made = self.open_directory(parent)?;
                    fchmod(&made, Mode::from_bits_truncate(0o755))?;
                    made
                }
                other => other?,
            };
            self.last = Some((parent.to_vec(), opened));
        }
        match &self.last {
            Some((_, directory)) => Ok(directory),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open_directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let resolve = match self.links {
            Links::Refused => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
            Links::Followed => ResolveFlag::RESOLVE_IN_ROOT,
        };
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.is_empty() { b"." } else { path };
        Ok(openat2(&self.root, OsStr::from_bytes(path), how)?)
    }
}

fn file(
    parent: &OwnedFd,
    name: &OsString,
    attributes: Attributes,
    owner: Owner,
    content: &mut impl Read,
) -> io::Result<Option<Owned>> {
    let flags =
        OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = openat(
        parent,
        name.as_os_str(),
        flags,
        Mode::from_bits_truncate(0o600),
    )?;
    let mut file = File::from(opened);
    copy(content, &mut file)?;
    fchmod(&file, Mode::from_bits_truncate(attributes.mode))?;
    let modified = TimeSpec::new(attributes.modified, 0);
    futimens(&file, &modified, &modified)?;
    owned(file, owner)
}

/// Copies in steps large enough for a disk; `io::copy` takes 8 KiB.
fn copy(from: &mut impl Read, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn own(parent: &OwnedFd, name: &OsString, owner: Owner) -> io::Result<Option<Owned>> {
    if owner == Owner::default() {
        return Ok(None);
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    owned(
        File::from(openat(parent, name.as_os_str(), flags, Mode::empty())?),
        owner,
    )
}

fn owned(file: File, owner: Owner) -> io::Result<Option<Owned>> {
    if owner == Owner::default() {
        return Ok(None);
    }
    let found = file.metadata()?;
    Ok(Some((
        Inode {
            dev: found.dev(),
            ino: found.ino(),
        },
        owner,
        file,
    )))
}

/// Finds a path of ours below a root for the calls that take plain paths: links on the way are
/// followed, but not out of the root. What is not there yet is only joined.
pub(crate) fn inside(root: &Path, path: &str) -> io::Result<PathBuf> {
    let top = root.canonicalize()?;
    let mut at = top.clone();
    for name in path.split('/') {
        at.push(name);
        if at.is_symlink() {
            at = at.canonicalize()?;
            if !at.starts_with(&top) {
                let said = format!("`{path}` leads out of the tree");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, said));
            }
        }
    }
    Ok(at)
}

/// Everything before the last slash.
pub(crate) fn parent_of(path: &[u8]) -> &[u8] {
    path.iter()
        .rposition(|byte| *byte == b'/')
        .map_or(&[], |at| &path[..at])
}

fn name_of(path: &[u8]) -> &[u8] {
    path.iter()
        .rposition(|byte| *byte == b'/')
        .map_or(path, |at| &path[at + 1..])
}

/// A path as text for people.
pub(crate) fn shown(path: &[u8]) -> String {
    OsString::from_vec(path.to_vec())
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Attributes = Attributes {
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified: 1,
    };

    fn put(place: &mut Place, path: &str) -> io::Result<()> {
        let kind = Kind::File { size: 1 };
        place
            .write(path.as_bytes(), &kind, PLAIN, &mut b"x".as_slice())
            .map(drop)
    }

    #[test]
    fn a_link_never_leads_out_of_the_root() {
        for links in [Links::Refused, Links::Followed] {
            let outer = tempfile::tempdir().unwrap();
            let root = outer.path().join("root");
            std::fs::create_dir_all(root.join("usr/bin")).unwrap();
            std::fs::create_dir(outer.path().join("out")).unwrap();
            for (name, target) in [("up", "../out"), ("top", "/out"), ("bin", "usr/bin")] {
                std::os::unix::fs::symlink(target, root.join(name)).unwrap();
            }
            let mut place = Place::open(&root, links).unwrap();
            assert!(put(&mut place, "up/file").is_err() || links == Links::Followed);
            assert!(put(&mut place, "top/file").is_err() || links == Links::Followed);
            assert_eq!(
                put(&mut place, "bin/file").is_ok(),
                links == Links::Followed
            );
            assert_eq!(root.join("usr/bin/file").exists(), links == Links::Followed);
            assert_eq!(
                std::fs::read_dir(outer.path().join("out")).unwrap().count(),
                0
            );
        }
    }

    #[test]
    fn a_path_of_ours_stays_inside() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        for (name, target) in [("bin", "usr/bin"), ("etc", "/etc"), ("var", "../..")] {
            std::os::unix::fs::symlink(target, root.path().join(name)).unwrap();
        }
        let top = root.path().canonicalize().unwrap();
        let cases = [
            ("bin/policy", Some("usr/bin/policy")),
            ("new/deep/file", Some("new/deep/file")),
            ("etc/shadow", None),
            ("var/lib", None),
        ];
        for (path, expected) in cases {
            let found = inside(root.path(), path).ok();
            assert_eq!(found, expected.map(|path| top.join(path)), "{path}");
        }
    }

    #[test]
    fn entries_carry_their_mode_and_tell_their_owner() {
        let root = tempfile::tempdir().unwrap();
        let mut into = Place::open(root.path(), Links::Refused).unwrap();
        let group = Attributes {
            mode: 0o2755,
            gid: 42,
            ..PLAIN
        };
        let kind = Kind::File { size: 1 };
        let found = into
            .write(b"a/b/chage", &kind, group, &mut b"x".as_slice())
            .unwrap();
        let (inode, owner, _) = found.unwrap();
        let status = std::fs::metadata(root.path().join("a/b/chage")).unwrap();
        assert_eq!(
            (inode.ino, owner.gid, status.mode() & 0o7777),
            (status.ino(), 42, 0o2755)
        );
        assert_eq!(status.mtime(), 1);
        let link = Kind::HardLink {
            target: b"a/b/chage".to_vec(),
        };
        into.write(b"a/other", &link, PLAIN, &mut io::empty())
            .unwrap();
        assert_eq!(
            std::fs::metadata(root.path().join("a/other"))
                .unwrap()
                .nlink(),
            2
        );
        into.write(b"run/pipe", &Kind::Fifo, PLAIN, &mut io::empty())
            .unwrap();
        into.directory(b"a").unwrap();
        assert!(put(&mut into, "a/b/chage").is_err());
    }
}
