//! What a store no longer needs: old generations of images, and bytes that nothing leads to.
//!
//! It refuses to remove what it does not understand: a manifest that is kept and cannot be read stops all of it. It
//! works under the writers' lock, takes entries out of the index before their bytes, and leaves alone what is younger
//! than the rules say: a build that runs, or a program that has just read the index, may need it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::oci::{ARTIFACT_TYPE, Descriptor};
use super::{Error, Layout, ingest};
use crate::Digest;

/// Manifests within manifests that are followed: an index leads to manifests, those to files.
const DEPTH: usize = 4;

/// What may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Generations that are kept of each image, the one that has the name among them.
    pub keep: usize,
    /// Only what was written before goes.
    pub before: SystemTime,
}

/// Whether anything is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is only told what would go.
    Tell,
    /// It goes.
    Remove,
}

/// What goes, and what stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Collected {
    /// What the index no longer names.
    pub entries: Vec<Gone>,
    /// Files that go.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that stay.
    pub kept_files: usize,
    /// Their bytes.
    pub kept_bytes: u64,
}

/// An entry of the index that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Gone {
    /// What it was: the name of its image, or what it says that it is.
    pub what: String,
    /// Digest of its manifest.
    pub digest: Digest,
}

/// As much of a manifest or index as leads on.
#[derive(Deserialize)]
struct Leads {
    #[serde(default)]
    config: Option<Link>,
    #[serde(default)]
    layers: Vec<Link>,
    #[serde(default)]
    blobs: Vec<Link>,
    #[serde(default)]
    manifests: Vec<Link>,
    #[serde(default)]
    subject: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    digest: Digest,
}

impl Layout {
    /// Finds what is no longer needed, and removes it if that is asked for.
    ///
    /// # Errors
    /// When something that is kept cannot be read, or something cannot be removed; then it can be done again.
    pub fn collect(&self, rules: Rules, action: Action) -> Result<Collected, Error> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let kept = self.kept(&index.manifests, rules)?;
        let mut needed = BTreeSet::new();
        for digest in &kept {
            self.mark(digest, DEPTH, &mut needed)?;
        }
        let mut collected = Collected::default();
        for entry in &index.manifests {
            if !kept.contains(&entry.digest) {
                let what = self.describe(entry);
                let digest = entry.digest;
                collected.entries.push(Gone { what, digest });
            }
        }
        if action == Action::Remove && !collected.entries.is_empty() {
            index.manifests.retain(|one| kept.contains(&one.digest));
            self.replace(&self.index_path(), &super::to_json(&index))?;
        }
        self.sweep_blobs(rules, action, &needed, &mut collected)?;
        if action == Action::Remove {
            ingest::sweep(&self.ingest_path());
        }
        Ok(collected)
    }

    /// Finds the entries that stay: what has a name, the newest generations, what is young, and what is attached to any
    /// of these.
    fn kept(&self, entries: &[Descriptor], rules: Rules) -> Result<BTreeSet<Digest>, Error> {
        let mut kept = BTreeSet::new();
        let mut generations: BTreeMap<String, usize> = BTreeMap::new();
        let mut attached = Vec::new();
        // The newest stand last.
        for entry in entries.iter().rev() {
            let named = entry.reference();
            if named.is_some_and(|name| subject_of_name(name).is_some()) {
                attached.push(entry);
                continue;
            }
            let subject = match self.leads(&entry.digest) {
                Ok(leads) => leads.subject,
                Err(error) if named.is_some() => return Err(error),
                // Nothing that can be read is lost with it.
                Err(_) => continue,
            };
            if subject.is_some() {
                attached.push(entry);
                continue;
            }
            let mut stays = named.is_some() || self.is_young(&entry.digest, rules)?;
            if entry.artifact_type.as_deref() == Some(ARTIFACT_TYPE)
                && let Ok(found) = self.load(&entry.digest)
            {
                let seen = generations.entry(found.manifest.name).or_default();
                *seen += 1;
                stays |= *seen <= rules.keep;
            }
            if stays {
                kept.insert(entry.digest);
            }
        }
        self.keep_attached(&attached, &mut kept, rules)?;
        Ok(kept)
    }

    /// What is said about something that stays, stays; also what is said about that.
    fn keep_attached(
        &self,
        attached: &[&Descriptor],
        kept: &mut BTreeSet<Digest>,
        rules: Rules,
    ) -> Result<(), Error> {
        loop {
            let before = kept.len();
            for entry in attached {
                let name = entry.reference().and_then(subject_of_name);
                let subject = match name {
                    Some(digest) => Some(digest),
                    None => self.leads(&entry.digest)?.subject.map(|link| link.digest),
                };
                let about = subject.is_some_and(|digest| kept.contains(&digest));
                if about || self.is_young(&entry.digest, rules)? {
                    kept.insert(entry.digest);
                }
            }
            if kept.len() == before {
                return Ok(());
            }
        }
    }

    /// Follows a manifest to all that it leads to.
    fn mark(
        &self,
        digest: &Digest,
        depth: usize,
        needed: &mut BTreeSet<Digest>,
    ) -> Result<(), Error> {
        if !needed.insert(*digest) || depth == 0 {
            return Ok(());
        }
        let leads = self.leads(digest)?;
        for link in &leads.manifests {
            // An index may name what was never fetched.
            if self.blob(&link.digest).exists() {
                self.mark(&link.digest, depth - 1, needed)?;
            }
        }
        let files = leads.layers.iter().chain(&leads.blobs).chain(&leads.config);
        needed.extend(files.map(|link| link.digest));
        // What an image can be composed into, and the layers of its container, are in its own manifest.
        if let Ok(found) = self.load(digest) {
            for layer in &found.manifest.layers {
                needed.extend([layer.gzip.digest, layer.zstd.digest]);
            }
        }
        Ok(())
    }

    fn leads(&self, digest: &Digest) -> Result<Leads, Error> {
        self.read_blob(digest)
    }

    fn is_young(&self, digest: &Digest, rules: Rules) -> Result<bool, Error> {
        let path = self.blob(digest);
        let written = fs::metadata(&path).and_then(|found| found.modified());
        let written = written.map_err(|source| Error::Read { path, source })?;
        Ok(written >= rules.before)
    }

    fn describe(&self, entry: &Descriptor) -> String {
        let image = self.load(&entry.digest).map(|found| found.manifest.name);
        let named = entry.reference().map(str::to_owned);
        let kind = entry.artifact_type.clone();
        let what = image.ok().or(named).or(kind);
        what.unwrap_or_else(|| entry.media_type.clone())
    }

    fn sweep_blobs(
        &self,
        rules: Rules,
        action: Action,
        needed: &BTreeSet<Digest>,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        let directory = self.root().join("blobs/sha256");
        let read = |source| Error::Read {
            path: directory.clone(),
            source,
        };
        let entries = fs::read_dir(&directory).map_err(read)?;
        for entry in entries {
            let entry = entry.map_err(read)?;
            let found = entry.metadata().map_err(read)?;
            let digest = entry.file_name().to_str().map(Digest::from_hex);
            let is_needed = match digest {
                Some(Ok(digest)) => needed.contains(&digest),
                // Not one of ours.
                _ => true,
            };
            if is_needed || found.modified().map_err(read)? >= rules.before {
                collected.kept_files += 1;
                collected.kept_bytes += found.len();
                continue;
            }
            collected.files += 1;
            collected.bytes += found.len();
            if action == Action::Remove {
                let path = entry.path();
                fs::remove_file(&path).map_err(|source| Error::Write { path, source })?;
            }
        }
        Ok(())
    }
}

/// The digest in the name of what is attached to something, such as `sha256-<hex>.sig`; or `sha256-<hex>`, as
/// registries without referrers have it.
fn subject_of_name(name: &str) -> Option<Digest> {
    let hex = name.strip_prefix("sha256-")?;
    let hex = hex.split_once('.').map_or(hex, |(hex, _)| hex);
    Digest::from_hex(hex).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::layout::tests::manifest;
    use crate::{Signature, layout};

    fn far() -> SystemTime {
        SystemTime::now() + Duration::from_hours(1)
    }

    /// Three generations of one image and one of another, the first and the last signed.
    fn store(directory: &std::path::Path) -> (Layout, Vec<Digest>) {
        let layout = Layout::create(directory).unwrap();
        let mut digests = Vec::new();
        for (name, content) in [("host", "1"), ("host", "2"), ("web", "1"), ("host", "3")] {
            let made = manifest(&layout, name, content.repeat(9).as_bytes());
            digests.push(layout.publish(&made).unwrap());
        }
        for at in [0, 3] {
            let signature = Signature {
                payload: "{}".to_owned(),
                signature: "Zm9v".to_owned(),
            };
            layout.add_signature(&digests[at], &signature).unwrap();
        }
        layout.put(b"nobody wants this").unwrap();
        (layout, digests)
    }

    #[test]
    fn old_generations_go_with_their_signatures_and_what_has_a_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (layout, digests) = store(directory.path());
        let rules = |keep| Rules {
            keep,
            before: far(),
        };
        let told = layout.collect(rules(2), Action::Tell).unwrap();
        let gone: Vec<_> = told.entries.iter().map(|gone| gone.digest).collect();
        assert!(gone.contains(&digests[0]) && gone.len() == 2, "{told:?}");
        let names = layout.entries().unwrap().len();
        assert_eq!(names, 6, "telling changes nothing");
        let removed = layout.collect(rules(2), Action::Remove).unwrap();
        assert_eq!(removed, told);
        let again = layout.collect(rules(2), Action::Remove).unwrap();
        assert_eq!((again.entries.len(), again.files), (0, 0));
        assert_eq!(again.kept_files, told.kept_files);
        for digest in [&digests[1], &digests[3]] {
            let found = layout.resolve(&format!("host@{digest}")).unwrap();
            found
                .manifest
                .artifacts
                .iter()
                .for_each(|artifact| layout.check(artifact).unwrap());
        }
        assert!(layout.resolve(&format!("host@{}", digests[0])).is_err());
        assert_eq!(layout.signatures(&digests[3]).unwrap().len(), 1);
        assert_eq!(layout.images().unwrap().len(), 2);
        layout.collect(rules(0), Action::Remove).unwrap();
        assert!(layout.resolve("host").is_ok() && layout.resolve("web").is_ok());
    }

    #[test]
    fn what_is_young_stays_and_what_cannot_be_read_stops_all() {
        let directory = tempfile::tempdir().unwrap();
        let (layout, digests) = store(directory.path());
        let young = Rules {
            keep: 0,
            before: SystemTime::now() - Duration::from_hours(1),
        };
        let collected = layout.collect(young, Action::Remove).unwrap();
        assert_eq!((collected.entries.len(), collected.files), (0, 0));
        std::fs::write(layout.blob(&digests[3]), "{").unwrap();
        let before = layout.entries().unwrap();
        let rules = Rules {
            keep: 1,
            before: far(),
        };
        let error = layout.collect(rules, Action::Remove).unwrap_err();
        assert!(matches!(error, layout::Error::Corrupt { .. }), "{error}");
        assert_eq!(layout.entries().unwrap(), before);
        assert!(layout.resolve(&format!("host@{}", digests[0])).is_ok());
    }
}
