//! Which package a path belongs to, decided while packages are unpacked side by side.
//!
//! It decides as dpkg does when packages come one after another, or says that it cannot.

use std::collections::{BTreeMap, HashMap};

use super::package::Package;
use super::place::Attributes;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Directory,
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    package: usize,
    sort: Sort,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It is written.
    Write,
    /// The same package wrote the path before; the last wins.
    Again,
    /// Another package keeps the path.
    Leave,
    /// It takes the path from another package, once all is written.
    Take,
    /// Neither package replaces the other, which is this one.
    Conflict(usize),
    /// A directory here, something else there: only the order of packages could tell.
    Order,
}

/// All claims on paths.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    paths: HashMap<Vec<u8>, Claim>,
    /// Directories: the attributes of the package that comes first.
    pub(crate) directories: BTreeMap<Vec<u8>, (usize, Attributes)>,
    /// Paths that went from one package to another.
    pub(crate) taken: BTreeMap<Vec<u8>, usize>,
    /// Paths that packages lost, by package.
    pub(crate) lost: Vec<(usize, Vec<u8>)>,
}

impl Claims {
    /// Claims a directory; `rank` is the package's place in the order.
    pub(crate) fn directory(
        &mut self,
        path: &[u8],
        package: usize,
        rank: usize,
        attributes: Attributes,
    ) -> Ruling {
        match self.paths.get(path) {
            Some(Claim {
                sort: Sort::Other, ..
            }) => return Ruling::Order,
            Some(_) => {}
            None => {
                self.paths.insert(
                    path.to_vec(),
                    Claim {
                        package,
                        sort: Sort::Directory,
                    },
                );
            }
        }
        let first = self
            .directories
            .entry(path.to_vec())
            .or_insert((rank, attributes));
        if rank < first.0 {
            *first = (rank, attributes);
        }
        Ruling::Write
    }

    /// Follows files that a diversion has moved away from another package's path.
    pub(crate) fn divert(&mut self, from: &[u8], to: &[u8], diverter: Option<usize>) {
        let moved = |claim: &Claim| claim.sort == Sort::Other && Some(claim.package) != diverter;
        if self.paths.get(from).is_some_and(moved)
            && let Some(claim) = self.paths.remove(from)
        {
            self.paths.insert(to.to_vec(), claim);
        }
    }

    /// Claims anything else.
    pub(crate) fn other(&mut self, path: &[u8], me: usize, packages: &[Package]) -> Ruling {
        let Some(claim) = self.paths.get_mut(path) else {
            self.paths.insert(
                path.to_vec(),
                Claim {
                    package: me,
                    sort: Sort::Other,
                },
            );
            return Ruling::Write;
        };
        let holder = claim.package;
        if claim.sort == Sort::Directory {
            return Ruling::Order;
        }
        if holder == me {
            return Ruling::Again;
        }
        let (Some(mine), Some(theirs)) = (packages.get(me), packages.get(holder)) else {
            return Ruling::Conflict(holder);
        };
        // When each replaces the other, dpkg lets the later win; the name decides here.
        let take = mine.replaces(theirs) && (!theirs.replaces(mine) || mine.name > theirs.name);
        if take {
            claim.package = me;
            self.taken.insert(path.to_vec(), me);
            self.lost.push((holder, path.to_vec()));
            Ruling::Take
        } else if theirs.replaces(mine) {
            self.lost.push((me, path.to_vec()));
            Ruling::Leave
        } else {
            Ruling::Conflict(holder)
        }
    }
}
