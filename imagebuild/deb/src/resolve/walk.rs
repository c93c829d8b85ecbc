//! apt's own way through dependencies: each package brings what it needs as it is met, the first alternative first.
//!
//! It refuses to search: where the first way does not work out it gives up, and the solver takes over.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::catalogue::Catalogue;
use crate::relation;

/// Packages that were taken, and what they refuse.
struct Walk<'c, 'u, 'a> {
    catalogue: &'c Catalogue<'u, 'a>,
    taken: BTreeMap<&'a str, usize>,
    refused: BTreeSet<usize>,
}

/// Why the walk ended early.
enum Halt {
    /// It met what only a search can answer.
    DeadEnd,
    /// It met malformed relations.
    Malformed(Error),
}

/// Takes all roots and what they need, or nothing when there is no straight way.
pub(super) fn walk(
    catalogue: &Catalogue<'_, '_>,
    roots: &[&str],
) -> Result<Option<Vec<usize>>, Error> {
    let mut walk = Walk {
        catalogue,
        taken: BTreeMap::new(),
        refused: BTreeSet::new(),
    };
    match walk.take_all(roots) {
        Ok(()) => Ok(Some(walk.taken.into_values().collect())),
        Err(Halt::DeadEnd) => Ok(None),
        Err(Halt::Malformed(error)) => Err(error),
    }
}

impl<'a> Walk<'_, '_, 'a> {
    fn take_all(&mut self, roots: &[&str]) -> Result<(), Halt> {
        let mut wanted = Vec::new();
        for root in roots {
            let at = *self.catalogue.named(root).first().ok_or(Halt::DeadEnd)?;
            // What is asked for is there before anything that needs one of several.
            if self.mark(at)? {
                wanted.push(at);
            }
        }
        for at in wanted {
            self.follow(at)?;
        }
        Ok(())
    }

    /// Takes a package itself; `false` when it is taken already.
    fn mark(&mut self, at: usize) -> Result<bool, Halt> {
        let package = self.catalogue.package(at);
        if let Some(other) = self.taken.get(package.name) {
            return if *other == at {
                Ok(false)
            } else {
                Err(Halt::DeadEnd)
            };
        }
        if self.refused.contains(&at) {
            return Err(Halt::DeadEnd);
        }
        for other in self.refusals(at)? {
            if self.taken.get(self.catalogue.package(other).name) == Some(&other) {
                return Err(Halt::DeadEnd);
            }
            self.refused.insert(other);
        }
        self.taken.insert(package.name, at);
        Ok(true)
    }

    /// What cannot stand beside a package.
    fn refusals(&self, at: usize) -> Result<Vec<usize>, Halt> {
        let package = self.catalogue.package(at);
        let mut refused = Vec::new();
        for text in [package.conflicts, package.breaks] {
            for relation in self.read(at, text)?.iter().flatten() {
                let others = self.catalogue.satisfying(relation);
                refused.extend(
                    others
                        .into_iter()
                        .filter(|other| self.catalogue.package(*other).name != package.name),
                );
            }
        }
        Ok(refused)
    }

    /// Takes what a package needs, in the order in which it says so.
    fn follow(&mut self, from: usize) -> Result<(), Halt> {
        // A stack of our own: chains of dependencies are longer than a thread's stack likes.
        let mut stack = vec![self.needs(from)?.into_iter()];
        while let Some(needs) = stack.last_mut() {
            let Some(alternatives) = needs.next() else {
                stack.pop();
                continue;
            };
            let taken = |at: &usize| self.taken.get(self.catalogue.package(*at).name) == Some(at);
            if alternatives.iter().any(taken) {
                continue;
            }
            let first = alternatives
                .iter()
                .copied()
                .find(|at| !self.refused.contains(at));
            let at = first.ok_or(Halt::DeadEnd)?;
            if self.mark(at)? {
                stack.push(self.needs(at)?.into_iter());
            }
        }
        Ok(())
    }

    /// The alternatives of each need, best first.
    fn needs(&self, at: usize) -> Result<Vec<Vec<usize>>, Halt> {
        let package = self.catalogue.package(at);
        let mut needs = Vec::new();
        for text in [package.depends, package.pre_depends] {
            for group in self.read(at, text)? {
                needs.push(
                    group
                        .iter()
                        .flat_map(|one| self.catalogue.satisfying(one))
                        .collect(),
                );
            }
        }
        Ok(needs)
    }

    fn read(&self, at: usize, text: &'a str) -> Result<Vec<Vec<relation::Relation<'a>>>, Halt> {
        relation::parse(text).map_err(|source| {
            Halt::Malformed(Error::Relation {
                package: self.catalogue.package(at).name.to_owned(),
                source,
            })
        })
    }
}
