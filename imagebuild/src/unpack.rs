//! Unpacks packages into a root directory, several at a time, with the same result as one by one.
//!
//! It runs no script and changes no owner: what is not root's is recorded. Where only the order of
//! packages could tell what stands at a path, it starts again and takes them one by one.

mod aliases;
mod claims;
pub(crate) mod database;
mod diversions;
mod excludes;
pub(crate) mod package;
mod place;
mod task;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use deb_archive::deb::{self, Deb};
use image_sandbox::{Owner, Ownership};

use aliases::Aliases;
use claims::Claims;
pub(crate) use diversions::{Diversion, Diversions};
pub use excludes::Excludes;
use package::{Order, Package};
pub(crate) use place::inside;
use place::{Links, Place};
use task::{Stop, Task, Written};

/// Threads at most; more than this wait for the disk.
const THREADS_MAX: usize = 8;

/// Why packages could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A package's file cannot be opened.
    #[error("failed to open package `{file}`")]
    Open {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A package is damaged.
    #[error("failed to read package `{file}`")]
    Read {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: deb::Error,
    },
    /// A package holds what is not unpacked.
    #[error("package `{package}` is refused")]
    Refused {
        /// The package.
        package: String,
        /// What is wrong with it.
        source: deb::Error,
    },
    /// A package lacks its name, version or architecture.
    #[error("package `{file}` has no usable `{field}`")]
    Field {
        /// The file.
        file: PathBuf,
        /// The field.
        field: &'static str,
    },
    /// Two packages of the set have the same name.
    #[error("package `{name}` is there twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// An entry cannot be written.
    #[error("failed to unpack `{path}` of package `{package}`")]
    Write {
        /// The package.
        package: String,
        /// The path in the tree.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Two packages have the same file, and neither may replace the other's.
    #[error("packages `{first}` and `{second}` both have `{path}`, and neither replaces the other")]
    Conflict {
        /// The path in the tree.
        path: String,
        /// One package.
        first: String,
        /// The other.
        second: String,
    },
    /// The root directory cannot be used.
    #[error("failed to prepare the root directory `{root}`")]
    Root {
        /// The directory.
        root: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The database of dpkg cannot be written.
    #[error("failed to write the package database in `{root}`")]
    Database {
        /// The root directory.
        root: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A tree with all packages unpacked and none configured.
#[derive(Debug)]
pub struct Unpacked {
    /// Who owns what in it.
    pub owners: Ownership,
    pub(crate) root: PathBuf,
    pub(crate) packages: Vec<Package>,
    pub(crate) order: Order,
    /// Packages that divert files of others: dpkg lets them speak before they are unpacked, and so
    /// do we. They are unpacked while the tree is configured.
    pub(crate) waiting: HashSet<usize>,
    excludes: Excludes,
    aliases: Aliases,
    lists: BTreeMap<usize, Vec<Vec<u8>>>,
    claims: Claims,
}

/// Unpacks packages into `root`, which must be empty or absent.
///
/// # Errors
/// When a package is damaged, two packages have the same file, or the tree cannot be written.
pub fn unpack(files: &[PathBuf], root: &Path, excludes: &Excludes) -> Result<Unpacked, Error> {
    let packages = read(files)?;
    let order = package::order(&packages);
    let waiting = (0..packages.len())
        .filter(|index| !order.foundation.contains(index))
        .filter(|index| {
            packages[*index]
                .text("preinst")
                .is_some_and(|s| s.contains("dpkg-divert"))
        })
        .collect();
    let prepare = |source| Error::Root {
        root: root.to_path_buf(),
        source,
    };
    fs::create_dir_all(root).map_err(prepare)?;
    if fs::read_dir(root).map_err(prepare)?.next().is_some() {
        return Err(prepare(io::ErrorKind::DirectoryNotEmpty.into()));
    }
    let mut unpacked = Unpacked {
        owners: Ownership::new(),
        root: root.to_path_buf(),
        packages,
        order,
        waiting,
        excludes: excludes.clone(),
        aliases: Aliases::default(),
        lists: BTreeMap::new(),
        claims: Claims::default(),
    };
    match unpacked.unpack_all(Links::Refused) {
        Ok(()) => {}
        Err(Stop::Failed(error)) => return Err(error),
        Err(Stop::Order) => {
            tracing::info!("unpacking again in order");
            unpacked.clear().map_err(prepare)?;
            match unpacked.unpack_all(Links::Followed) {
                Ok(()) => {}
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Order) => return Err(prepare(io::ErrorKind::DirectoryNotEmpty.into())),
            }
        }
    }
    unpacked.finish_directories().map_err(prepare)?;
    unpacked.owners.claim_setgid(root).map_err(prepare)?;
    unpacked.write_database()?;
    Ok(unpacked)
}

/// Reads the control files of packages.
fn read(files: &[PathBuf]) -> Result<Vec<Package>, Error> {
    let mut packages = Vec::new();
    let mut names = HashSet::new();
    for file in files {
        let opened = open(file)?;
        let size = opened.get_ref().metadata().map_or(0, |found| found.len());
        let deb = Deb::open(opened).map_err(|source| Error::Read {
            file: file.clone(),
            source,
        })?;
        let control = deb.control().clone();
        let field = |name: &'static str| {
            control
                .field(name)
                .filter(|value| {
                    !value.is_empty() && !value.contains(['/', '\n']) && !value.starts_with('.')
                })
                .map(str::to_owned)
                .ok_or_else(|| Error::Field {
                    file: file.clone(),
                    field: name,
                })
        };
        let (name, version, architecture) =
            (field("Package")?, field("Version")?, field("Architecture")?);
        if !names.insert(name.clone()) {
            return Err(Error::Twice { name });
        }
        packages.push(Package {
            file: file.clone(),
            size,
            control,
            name,
            version,
            architecture,
        });
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

fn open(file: &Path) -> Result<BufReader<File>, Error> {
    let opened = File::open(file).map_err(|source| Error::Open {
        file: file.to_path_buf(),
        source,
    })?;
    Ok(BufReader::with_capacity(128 << 10, opened))
}

impl Unpacked {
    /// Returns the root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Unpacks one package that waited, with the diversions that hold now.
    pub(crate) fn unpack_waiting(
        &mut self,
        index: usize,
        diversions: &Diversions,
    ) -> Result<(), Error> {
        self.waiting.remove(&index);
        for Diversion { path, to, package } in &diversions.0 {
            let inside = |path: &str| {
                let path = path.strip_prefix('/').unwrap_or(path);
                self.aliases.resolve(path.as_bytes().to_vec())
            };
            let diverter = self.packages.iter().position(|p| p.name == *package);
            self.claims.divert(&inside(path), &inside(to), diverter);
        }
        let claims = Mutex::new(std::mem::take(&mut self.claims));
        let task = Task {
            tree: self,
            claims: &claims,
            diversions,
            links: Links::Followed,
        };
        let result = task.package(index, None);
        self.claims = claims
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match result {
            Ok(written) => self.keep(index, written),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Order) => return Err(self.broken(io::ErrorKind::DirectoryNotEmpty.into())),
        }
        self.settle_contests(diversions)
            .map_err(|stop| match stop {
                Stop::Failed(error) => error,
                Stop::Order => self.broken(io::ErrorKind::DirectoryNotEmpty.into()),
            })?;
        self.finish_directories()
            .map_err(|source| self.broken(source))
    }

    /// Writes the database of dpkg for all packages that are unpacked by now.
    pub(crate) fn write_database(&self) -> Result<(), Error> {
        let listed: Vec<_> = self
            .lists
            .iter()
            .filter_map(|(index, paths)| {
                Some(database::Listed {
                    package: self.packages.get(*index)?,
                    paths,
                })
            })
            .collect();
        database::write(&self.root, &listed).map_err(|source| Error::Database {
            root: self.root.clone(),
            source,
        })
    }

    /// Finds the packages that have a path, which is written with a leading slash.
    pub(crate) fn holders(&self, path: &[u8]) -> impl Iterator<Item = &Package> {
        self.lists
            .iter()
            .filter(move |(_, paths)| paths.iter().any(|listed| listed == path))
            .filter_map(|(index, _)| self.packages.get(*index))
    }

    /// Says whether a package is part of the tree.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.packages.iter().any(|package| package.name == name)
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Root {
            root: self.root.clone(),
            source,
        }
    }

    fn clear(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        self.owners = Ownership::new();
        self.aliases = Aliases::default();
        self.lists.clear();
        self.claims = Claims::default();
        Ok(())
    }

    /// Unpacks what does not wait: side by side, or one by one where links are followed.
    fn unpack_all(&mut self, links: Links) -> Result<(), Stop> {
        let mut rest: Vec<usize> = self.order.sequence.clone();
        rest.retain(|index| !self.waiting.contains(index));
        // `base-files` brings the links that merge `/bin` into `/usr/bin` and the like.
        let base = rest
            .iter()
            .position(|index| self.packages[*index].name == "base-files");
        if let Some(at) = base {
            let base = rest.remove(at);
            self.unpack_some(&[base], links, 1)?;
            self.aliases = Aliases::read(&self.root);
        }
        let threads = match links {
            Links::Followed => 1,
            Links::Refused => {
                // The largest first, so that no thread is left with it at the end.
                rest.sort_by_key(|index| std::cmp::Reverse(self.packages[*index].size));
                std::thread::available_parallelism()
                    .map_or(1, usize::from)
                    .min(THREADS_MAX)
            }
        };
        self.unpack_some(&rest, links, threads)?;
        self.settle_contests(&Diversions::default())
    }

    fn unpack_some(&mut self, some: &[usize], links: Links, threads: usize) -> Result<(), Stop> {
        let claims = Mutex::new(std::mem::take(&mut self.claims));
        let next = AtomicUsize::new(0);
        let stopped = AtomicUsize::new(0);
        let task = Task {
            tree: self,
            claims: &claims,
            diversions: &Diversions::default(),
            links,
        };
        let work = || {
            let mut done = Vec::new();
            while stopped.load(Ordering::Relaxed) == 0
                && let Some(index) = some.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let result = task.package(*index, None);
                if result.is_err() {
                    stopped.store(1, Ordering::Relaxed);
                }
                done.push((*index, result));
            }
            done
        };
        let mut done = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for thread in threads {
                match thread.join() {
                    Ok(more) => done.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            done
        });
        self.claims = claims
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        let mut order = false;
        for (index, result) in done {
            match result {
                Ok(written) => self.keep(index, written),
                Err(Stop::Order) => order = true,
                Err(failed) => return Err(failed),
            }
        }
        if order { Err(Stop::Order) } else { Ok(()) }
    }

    fn keep(&mut self, index: usize, written: Written) {
        for (inode, owner, file) in written.owned {
            self.owners.record(inode, owner, Some(file));
        }
        self.lists.insert(index, written.list);
    }

    /// Gives paths that two packages have to the one that replaces the other.
    fn settle_contests(&mut self, diversions: &Diversions) -> Result<(), Stop> {
        for (loser, path) in std::mem::take(&mut self.claims.lost) {
            if let Some(list) = self.lists.get_mut(&loser) {
                let lost = |listed: &Vec<u8>| listed.get(1..) == Some(&path[..]);
                list.retain(|listed| !lost(listed));
            }
        }
        let mut by_package: BTreeMap<usize, HashSet<Vec<u8>>> = BTreeMap::new();
        for (path, winner) in std::mem::take(&mut self.claims.taken) {
            by_package.entry(winner).or_default().insert(path);
        }
        let claims = Mutex::new(Claims::default());
        for (winner, paths) in by_package {
            let task = Task {
                tree: self,
                claims: &claims,
                diversions,
                links: Links::Followed,
            };
            let written = task.package(winner, Some(&paths))?;
            for (inode, owner, file) in written.owned {
                self.owners.record(inode, owner, Some(file));
            }
        }
        Ok(())
    }

    /// Gives directories their attributes, when nothing is written into them any more.
    fn finish_directories(&mut self) -> io::Result<()> {
        let place = Place::open(&self.root, Links::Followed)?;
        // The deepest first: a directory may be closed to us once it has its mode.
        for (path, (_, attributes)) in std::mem::take(&mut self.claims.directories).iter().rev() {
            let owner = Owner::of(attributes.uid, attributes.gid);
            if let Some((inode, owner, file)) =
                place.finish_directory(path, attributes.mode, owner)?
            {
                self.owners.record(inode, owner, Some(file));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
