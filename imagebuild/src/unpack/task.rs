//! Takes one package apart: each entry is placed, claimed and written.
//!
//! It decides nothing about other packages: claims do.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;

use deb_archive::deb::{Deb, Kind};
use nix::errno::Errno;

use super::claims::{Claims, Ruling};
use super::diversions::Diversions;
use super::place::{Attributes, Found, Links, Owned, Place, shown};
use super::{Error, Unpacked, open};

/// Why one package stopped.
pub(crate) enum Stop {
    Failed(Error),
    /// The result would depend on the order.
    Order,
}

/// What one package left.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) list: Vec<Vec<u8>>,
    pub(crate) owned: Vec<Owned>,
}

/// Unpacking of packages, as one thread sees it.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) tree: &'a Unpacked,
    pub(crate) claims: &'a Mutex<Claims>,
    pub(crate) diversions: &'a Diversions,
    pub(crate) links: Links,
}

impl Task<'_> {
    /// Unpacks one package; with `only`, just those paths, over whatever is there.
    pub(crate) fn package(
        &self,
        index: usize,
        only: Option<&HashSet<Vec<u8>>>,
    ) -> Result<Written, Stop> {
        let package = &self.tree.packages[index];
        let read = |source| {
            Stop::Failed(Error::Refused {
                package: package.name.clone(),
                source,
            })
        };
        let conffiles: HashSet<&[u8]> = package
            .control
            .conffiles()
            .into_iter()
            .map(str::as_bytes)
            .collect();
        let deb = Deb::open(open(&package.file).map_err(Stop::Failed)?).map_err(read)?;
        let mut data = deb.into_data();
        let mut written = Written::default();
        let mut place = Place::open(&self.tree.root, self.links)
            .map_err(|source| Stop::Failed(self.tree.broken(source)))?;
        for entry in data.entries().map_err(read)? {
            let mut entry = entry.map_err(read)?;
            let path = entry.path().to_vec();
            let listed = if path.is_empty() { b"." } else { &path[..] };
            written.list.push([b"/", listed].concat());
            if self.tree.excludes.matches(&path) && !path.is_empty() {
                continue;
            }
            let attributes = Attributes {
                mode: entry.mode(),
                uid: entry.uid(),
                gid: entry.gid(),
                modified: entry.modified(),
            };
            let place_of = |path: &[u8], file: bool| {
                let mut at = self
                    .diversions
                    .target(path, &package.name)
                    .unwrap_or(path)
                    .to_vec();
                if file && conffiles.contains(path) {
                    at.extend_from_slice(b".dpkg-new");
                }
                self.tree.aliases.resolve(at)
            };
            let mut kind = entry.kind().clone();
            let at = place_of(&path, matches!(kind, Kind::File { .. }));
            if let Kind::HardLink { target } = &mut kind {
                *target = place_of(target, true);
            }
            let failed = |source: io::Error| {
                if self.links == Links::Refused && is_order(&source) {
                    return Stop::Order;
                }
                let (package, path) = (package.name.clone(), shown(&path));
                Stop::Failed(Error::Write {
                    package,
                    path,
                    source,
                })
            };
            if kind == Kind::Directory {
                if only.is_none() {
                    self.directory(&mut place, &at, index, attributes, &failed)?;
                }
                continue;
            }
            match only {
                Some(paths) if !paths.contains(&at) => continue,
                Some(_) => place.remove(&at).map_err(&failed)?,
                None => match self.claim(|claims| claims.other(&at, index, &self.tree.packages)) {
                    Ruling::Write => {
                        if self.links == Links::Followed {
                            place.remove(&at).map_err(&failed)?;
                        }
                    }
                    Ruling::Again => place.remove(&at).map_err(&failed)?,
                    Ruling::Leave | Ruling::Take => continue,
                    Ruling::Order => return Err(failed(Errno::ENOTDIR.into())),
                    Ruling::Conflict(other) => {
                        return Err(Stop::Failed(Error::Conflict {
                            path: shown(&path),
                            first: self.tree.packages[other].name.clone(),
                            second: package.name.clone(),
                        }));
                    }
                },
            }
            let owned = place
                .write(&at, &kind, attributes, &mut entry)
                .map_err(&failed)?;
            written.owned.extend(owned);
        }
        Ok(written)
    }

    fn directory(
        &self,
        place: &mut Place,
        at: &[u8],
        index: usize,
        attributes: Attributes,
        failed: &dyn Fn(io::Error) -> Stop,
    ) -> Result<(), Stop> {
        if self.links == Links::Followed
            && !at.is_empty()
            && place.directory(at).map_err(failed)? == Found::Old
        {
            return Ok(());
        }
        let rank = self
            .tree
            .order
            .sequence
            .iter()
            .position(|ranked| *ranked == index);
        let rank = rank.unwrap_or(usize::MAX);
        match self.claim(|claims| claims.directory(at, index, rank, attributes)) {
            Ruling::Order => return Err(failed(Errno::ENOTDIR.into())),
            _ if at.is_empty() => {}
            _ => {
                place.directory(at).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn claim<T>(&self, decide: impl FnOnce(&mut Claims) -> T) -> T {
        let mut claims = self
            .claims
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        decide(&mut claims)
    }
}

/// Errors that mean a link stands where another package has a directory.
fn is_order(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ELOOP | Errno::ENOTDIR | Errno::EEXIST))
}
