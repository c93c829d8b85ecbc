//! Paths in a root directory, followed as the image itself would follow them.
//!
//! It refuses to leave the root: an absolute link leads to the root's own path, and `..` at the
//! root stays there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use image_sandbox::{Owner, Ownership};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Links followed on one path at most, as Linux has it.
const LINKS: usize = 40;

/// A root directory and who owns what in it.
#[derive(Debug)]
pub(super) struct Root<'a> {
    path: PathBuf,
    owners: &'a mut Ownership,
}

impl<'a> Root<'a> {
    pub(super) fn new(path: &Path, owners: &'a mut Ownership) -> Self {
        Self {
            path: path.to_owned(),
            owners,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn owners(&mut self) -> &mut Ownership {
        self.owners
    }

    /// Where a path stands on disk once the links in its directories are followed; its last name
    /// is left as it is.
    pub(super) fn locate(&self, path: &str) -> io::Result<PathBuf> {
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut names: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    names.pop();
                    continue;
                }
                _ => names.push(name),
            }
            if rest.iter().all(String::is_empty) {
                break;
            }
            let here = self.path.join(names.join("/"));
            let Ok(target) = fs::read_link(&here) else {
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(io::Error::other("too many symbolic links"));
            }
            let target = target.to_string_lossy().into_owned();
            names.pop();
            if target.starts_with('/') {
                names.clear();
            }
            rest.extend(target.split('/').rev().map(str::to_owned));
        }
        Ok(self.path.join(names.join("/")))
    }

    /// Makes a directory and those that lead to it, where they are missing.
    pub(super) fn make_directory(&self, path: &str) -> io::Result<PathBuf> {
        let ends = path
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        let mut place = self.path.clone();
        for end in ends {
            // The `.` makes a link at the end be followed too.
            place = self.locate(&format!("{}/.", &path[..end]))?;
            match fs::create_dir(&place) {
                Ok(()) => fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(place)
    }

    /// Finds where a file really stands, with every link followed, also one at the end.
    pub(super) fn find(&self, path: &str) -> io::Result<PathBuf> {
        let file = self.open(path)?;
        fs::read_link(magic(&file))
    }

    /// Opens a regular file, neither to read nor to write it. The kernel follows the links, and
    /// takes the root for `/`.
    fn open(&self, path: &str) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = File::from(openat2(File::open(&self.path)?, path, how)?);
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        let said = "not a regular file";
        Err(io::Error::new(io::ErrorKind::InvalidInput, said))
    }

    /// Writes a file in place of what was there.
    pub(super) fn write(
        &mut self,
        path: &str,
        bytes: &mut dyn Read,
        mode: u32,
        owner: (u32, u32),
    ) -> io::Result<()> {
        let place = self.clear(path)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&place)?;
        io::copy(bytes, &mut file)?;
        file.flush()?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        let owner = Owner::of(owner.0, owner.1);
        self.owners.record_path(&place, owner)
    }

    /// Makes a symbolic link in place of what was there.
    pub(super) fn link(&mut self, path: &str, target: &str, owner: (u32, u32)) -> io::Result<()> {
        let place = self.clear(path)?;
        symlink(target, &place)?;
        self.owners.record_path(&place, Owner::of(owner.0, owner.1))
    }

    /// Makes place for a path: its directory is there, and itself is not.
    fn clear(&mut self, path: &str) -> io::Result<PathBuf> {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.make_directory(directory)?;
        }
        let place = self.locate(path)?;
        if place.symlink_metadata().is_ok() {
            forget(self.owners, &place)?;
            fs::remove_file(&place)?;
        }
        Ok(place)
    }
}

/// A path to an open file, which leads to it whatever its name leads to.
fn magic(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn forget(owners: &mut Ownership, place: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let found = place.symlink_metadata()?;
    if found.nlink() == 1 {
        owners.forget(found.dev(), found.ino());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_leads_out_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root");
        fs::create_dir_all(path.join("usr/lib")).unwrap();
        symlink("usr/lib", path.join("lib")).unwrap();
        symlink("/run", path.join("usr/run")).unwrap();
        symlink("../../../..", path.join("usr/up")).unwrap();
        symlink("loop", path.join("loop")).unwrap();
        let mut owners = Ownership::new();
        let mut root = Root::new(&path, &mut owners);
        let cases = [
            ("lib/x", "usr/lib/x"),
            ("usr/run/x", "run/x"),
            ("usr/up/x", "x"),
            ("../../etc/x", "etc/x"),
            ("lib", "lib"),
        ];
        for (given, expected) in cases {
            assert_eq!(root.locate(given).unwrap(), path.join(expected), "{given}");
        }
        assert!(root.locate("loop/x").is_err());
        root.write("usr/run/a/b", &mut &b"text"[..], 0o640, (1, 2))
            .unwrap();
        assert_eq!(fs::read(path.join("run/a/b")).unwrap(), b"text");
        let outside = directory.path().join("outside");
        fs::write(&outside, "outside").unwrap();
        symlink(&outside, path.join("absolute")).unwrap();
        symlink("../outside", path.join("relative")).unwrap();
        symlink("/run/a/b", path.join("inside")).unwrap();
        symlink("/", path.join("top")).unwrap();
        for given in ["absolute", "relative", "top/../relative", "run"] {
            assert!(root.find(given).is_err(), "{given}");
        }
        assert_eq!(fs::read(&outside).unwrap(), b"outside");
        let found = path.canonicalize().unwrap().join("run/a/b");
        assert_eq!(root.find("top/inside").unwrap(), found);
        root.link("run/a/b", "c", (0, 0)).unwrap();
        assert!(root.owners().is_empty() || root.path().join("run/a/b").is_symlink());
    }
}
