//! What is said about an image with its artifacts: lists of its parts, how it was built, and whether it is too large.
//!
//! It refuses to store an image over its budget.

use std::fmt::Write as _;
use std::path::Path;

use image_manifest::layout::{Attachment, Layout};
use image_manifest::{Artifact, Digest, Manifest, Role};
use image_tree::{Kind, Tree};

use super::Error;
use crate::decoded::Decoded;
use crate::definition::{Budget, Definition, size::megabytes};
use crate::facts::{self, Facts};
use crate::fetch::FetchedPackage;
use crate::insight::inspect;
use crate::lock::{Locked, Package};
use crate::provenance;
use crate::sbom::{self, Component, Format, Subject};
use crate::sign::PublicKey;

/// Packages that a build over its budget names.
const LARGEST: usize = 10;

/// An image is larger than its definition allows.
#[derive(Debug, thiserror::Error)]
#[error("{what} has {}, {} more than its budget of {}{hint}", megabytes(*found), megabytes(found - budget), megabytes(*budget))]
pub struct OverBudget {
    what: &'static str,
    found: u64,
    budget: u64,
    hint: String,
}

/// The keys that a definition is signed for, as stage1 knows them.
pub(super) fn signers(definition: &Definition) -> Result<Vec<String>, Error> {
    let key = definition.key.as_deref().map(PublicKey::load);
    let key = key.transpose().map_err(Error::Key)?;
    Ok(key.iter().map(PublicKey::point).collect())
}

/// What is said about an image beside its artifacts.
pub(super) struct Documents<'a> {
    pub(super) locked: &'a Locked,
    pub(super) packages: &'a [FetchedPackage],
    pub(super) facts: Vec<Facts>,
}

impl<'a> Documents<'a> {
    /// Reads what the packages say about themselves.
    pub(super) fn read(
        locked: &'a Locked,
        packages: &'a [FetchedPackage],
        kept: &Path,
        decoded: &Decoded,
    ) -> Result<Self, Error> {
        let facts = facts::read_all(packages, kept, |package| decoded.place(package));
        let facts = facts.map_err(Error::Facts)?;
        Ok(Self {
            locked,
            packages,
            facts,
        })
    }

    fn pairs(&self) -> Vec<(&Package, &Facts)> {
        let packages = self.packages.iter().map(|package| &package.entry);
        packages.zip(&self.facts).collect()
    }

    /// Refuses what is larger than the definition allows, and says what to look at.
    pub(super) fn check_budget(
        &self,
        tree: &Tree,
        manifest: &Manifest,
        store: &Layout,
    ) -> Result<(), Error> {
        let Budget {
            tree: of_tree,
            rootfs,
            initrd,
        } = self.locked.definition().budget;
        let size = |role| manifest.artifact(role).map_or(0, |artifact| artifact.size);
        let parts = [
            ("the tree", of_tree, bytes(tree)),
            ("the root file system", rootfs, size(Role::Rootfs)),
            ("the initrd", initrd, size(Role::Initrd)),
        ];
        for (what, budget, found) in parts {
            let Some(budget) = budget.filter(|budget| found > *budget) else {
                continue;
            };
            let before = store.resolve(&manifest.name).ok();
            let before =
                before.and_then(|image| inspect::packages(store, &image, &manifest.name).ok());
            return Err(Error::Budget(OverBudget {
                what,
                found,
                budget,
                hint: largest(&self.pairs(), &before.unwrap_or_default()),
            }));
        }
        Ok(())
    }

    /// Adds the documents to the artifacts of a manifest.
    pub(super) fn add(&self, manifest: &mut Manifest, store: &Layout) -> Result<(), Error> {
        let definition = self.locked.definition();
        let pairs = self.pairs();
        let mut made = Vec::new();
        let subject = Subject::of(manifest, &definition.description);
        for format in Format::ALL {
            let bytes = sbom::write(format, &subject, &pairs);
            made.push((Role::Sbom, format.file_name(), format.media_type(), bytes));
        }
        let add = |role, name: &str, media_type: &str, bytes: &[u8], to: &mut Manifest| {
            let (digest, size) = store.put(bytes).map_err(Error::Store)?;
            to.artifacts.push(Artifact {
                role,
                name: name.to_owned(),
                media_type: media_type.to_owned(),
                digest,
                size,
            });
            Ok::<_, Error>(())
        };
        for (role, name, media_type, bytes) in &made {
            add(*role, name, media_type, bytes, manifest)?;
        }
        let statement = provenance::write(manifest, definition, self.locked.as_lock());
        let statement = statement.map_err(Error::Provenance)?;
        let media_type = provenance::MEDIA_TYPE;
        add(
            Role::Provenance,
            provenance::FILE,
            media_type,
            &statement,
            manifest,
        )?;
        manifest
            .artifacts
            .sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
        Ok(())
    }
}

/// Attaches the documents of an image to it, and to the container image that was made with it, where registries and
/// scanners look for them.
pub(super) fn attach(
    manifest: &Manifest,
    subjects: &[Digest],
    store: &Layout,
) -> Result<(), Error> {
    let said = manifest
        .artifacts
        .iter()
        .filter(|one| matches!(one.role, Role::Sbom | Role::Provenance));
    for artifact in said {
        for subject in subjects {
            let attachment = Attachment {
                artifact_type: &artifact.media_type,
                media_type: &artifact.media_type,
                file: (artifact.digest, artifact.size),
                annotations: [(
                    "org.opencontainers.image.title".to_owned(),
                    artifact.name.clone(),
                )]
                .into(),
            };
            store.attach(subject, &attachment).map_err(Error::Store)?;
        }
    }
    Ok(())
}

/// Bytes of all files of a tree; a file with several names counts once.
fn bytes(tree: &Tree) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    let sizes = tree.iter().filter_map(|(_, entry)| match &entry.kind {
        Kind::File(content) => match entry.link {
            Some(link) if !seen.insert(link) => None,
            _ => Some(content.size),
        },
        _ => None,
    });
    sizes.sum()
}

/// Names the largest packages, and how they grew since the image that the store has.
fn largest(packages: &[(&Package, &Facts)], before: &[Component]) -> String {
    let mut sorted: Vec<_> = packages.iter().collect();
    sorted.sort_by(|(a, x), (b, y)| (y.installed, &a.name).cmp(&(x.installed, &b.name)));
    let mut text = "; the largest packages, installed:".to_owned();
    for (package, facts) in sorted.into_iter().take(LARGEST) {
        let mut was = before.iter();
        let was = was.find(|one| one.name == package.name && one.usage == package.usage.word());
        let grew = match was {
            None if before.is_empty() => String::new(),
            None => ", new".to_owned(),
            Some(was) if was.installed == facts.installed => ", as before".to_owned(),
            Some(was) if was.installed < facts.installed => {
                format!(", {} more", megabytes(facts.installed - was.installed))
            }
            Some(was) => format!(", {} less", megabytes(was.installed - facts.installed)),
        };
        // Writing to a string does not fail.
        write!(
            text,
            "\n    {:>10}  {}{grew}",
            megabytes(facts.installed),
            package.name
        )
        .unwrap_or_default();
    }
    text
}
