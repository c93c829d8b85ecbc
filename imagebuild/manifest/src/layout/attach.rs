//! What stands in a store beside images: container images, and what is attached to a manifest (signatures, lists of parts).
//!
//! It refuses to know what any of it says: it keeps bytes by digest, and who is attached to whom.

use std::collections::BTreeMap;
use std::fs::File;

use serde::{Deserialize, Serialize};

use super::oci::{Descriptor, MANIFEST_TYPE};
use super::{Error, Layout, MANIFEST_LIMIT, read_bounded, to_json};
use crate::Digest;

/// The configuration of what has none.
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// One line of a store's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Media type of the manifest.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it says that it is, when it is no plain container image.
    pub artifact_type: Option<String>,
    /// The name that it is found by, if it has one.
    pub name: Option<String>,
}

/// Something that is said about a manifest: one file, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment<'a> {
    /// What kind of statement it is, such as `application/spdx+json`.
    pub artifact_type: &'a str,
    /// Media type of the file.
    pub media_type: &'a str,
    /// The file's digest and size; the store has it.
    pub file: (Digest, u64),
    /// More about it, for people and other tools.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    subject: Descriptor,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// As much of a manifest as says what it is about.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    subject: Option<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

impl Layout {
    /// Keeps bytes, and returns the digest and the size that they are found by.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<(Digest, u64), Error> {
        self.store(bytes)
    }

    /// Waits for the turn of who reads what is said about a manifest and says something else; dropping it ends the turn.
    ///
    /// Others may read meanwhile, and write what is about other manifests.
    ///
    /// # Errors
    /// When the store does not have the manifest, or it cannot be locked.
    pub fn turn(&self, manifest: &Digest) -> Result<File, Error> {
        let path = self.blob(manifest);
        let lock = |source| Error::Lock {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(lock)?;
        file.lock().map_err(lock)?;
        Ok(file)
    }

    /// Reads bytes that are not many: a manifest or a configuration, whose digest is checked.
    ///
    /// # Errors
    /// When the store does not have them, or they are more than 4 MiB or not those of the digest.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let path = self.blob(digest);
        let bytes = read_bounded(&path, MANIFEST_LIMIT)?;
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(Error::Corrupt { path, found }),
        }
    }

    /// Lists all that the index names, in its order.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let index = self.index()?;
        Ok(index.manifests.iter().map(entry).collect())
    }

    /// Finds what has a name.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn named(&self, name: &str) -> Result<Option<Entry>, Error> {
        let index = self.index()?;
        let mut named = index.manifests.iter();
        Ok(named.find(|one| one.reference() == Some(name)).map(entry))
    }

    /// Puts a manifest into the index: with a name, which it takes from what had it, or without one.
    ///
    /// # Errors
    /// When the store does not have the manifest, or its index cannot be written.
    pub fn enter(&self, entry: &Entry) -> Result<(), Error> {
        if let Some(name) = &entry.name {
            super::check_name(name, name)?;
        }
        self.read(&entry.digest)?;
        let descriptor = Descriptor::entry(entry);
        self.update_index(|index| match descriptor.reference() {
            Some(_) => index.tag(descriptor),
            None => index.add(descriptor),
        })
    }

    /// Attaches a file to a manifest of the store, and returns the digest of the statement that says so.
    ///
    /// # Errors
    /// When the store has no such manifest, or cannot be written.
    pub fn attach(&self, subject: &Digest, attachment: &Attachment<'_>) -> Result<Digest, Error> {
        let about = self.read(subject)?;
        let media_type = serde_json::from_slice::<Typed>(&about).ok();
        let media_type = media_type.map_or_else(|| MANIFEST_TYPE.to_owned(), |it| it.media_type);
        let (empty, size) = self.store(EMPTY)?;
        let (file, bytes) = attachment.file;
        let statement = to_json(&Statement {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: attachment.artifact_type.to_owned(),
            config: Descriptor::new(EMPTY_TYPE, empty, size),
            layers: vec![Descriptor::new(attachment.media_type, file, bytes)],
            subject: Descriptor::new(&media_type, *subject, about.len() as u64),
            annotations: attachment.annotations.clone(),
        });
        let (digest, size) = self.store(&statement)?;
        self.enter(&Entry {
            media_type: MANIFEST_TYPE.to_owned(),
            digest,
            size,
            artifact_type: Some(attachment.artifact_type.to_owned()),
            name: None,
        })?;
        Ok(digest)
    }

    /// Attaches a file to a manifest in place of all that is attached to it of the same kind.
    ///
    /// # Errors
    /// When the store has no such manifest, or cannot be written.
    pub fn attach_only(
        &self,
        subject: &Digest,
        attachment: &Attachment<'_>,
    ) -> Result<Digest, Error> {
        let digest = self.attach(subject, attachment)?;
        let kind = Some(attachment.artifact_type);
        let others = self.referrers(subject)?.into_iter();
        let others = others.filter(|one| one.artifact_type.as_deref() == kind);
        let others: Vec<_> = others.map(|one| one.digest).collect();
        self.update_index(|index| {
            let gone = |one: &Digest| *one != digest && others.contains(one);
            index.manifests.retain(|one| !gone(&one.digest));
        })?;
        Ok(digest)
    }

    /// Reads the one file of an attachment, when it is not large.
    ///
    /// # Errors
    /// When the store does not have it, or what it has is no attachment.
    pub fn attached(&self, statement: &Digest) -> Result<Vec<u8>, Error> {
        let path = self.blob(statement);
        let read: Option<Statement> = serde_json::from_slice(&self.read(statement)?).ok();
        let layer = read.and_then(|statement| statement.layers.into_iter().next());
        let layer = layer.ok_or(Error::Corrupt {
            path,
            found: *statement,
        })?;
        self.read(&layer.digest)
    }

    /// Lists what is attached to a manifest.
    ///
    /// # Errors
    /// When the index, or a manifest that it names, cannot be read.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        for entry in self.entries()? {
            if entry.media_type != MANIFEST_TYPE || entry.digest == *subject {
                continue;
            }
            let about: Option<About> = serde_json::from_slice(&self.read(&entry.digest)?).ok();
            if about.and_then(|about| about.subject).map(|of| of.digest) == Some(*subject) {
                found.push(entry);
            }
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: String,
}

fn entry(descriptor: &Descriptor) -> Entry {
    Entry {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest,
        size: descriptor.size,
        artifact_type: descriptor.artifact_type.clone(),
        name: descriptor.reference().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_attached_is_found_by_what_it_is_about() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let image = br#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#;
        let (subject, size) = layout.put(image).unwrap();
        let named = Entry {
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            digest: subject,
            size,
            artifact_type: None,
            name: Some("host-oci".to_owned()),
        };
        layout.enter(&named).unwrap();
        assert_eq!(layout.named("host-oci").unwrap(), Some(named));
        let attachment = Attachment {
            artifact_type: "application/spdx+json",
            media_type: "application/spdx+json",
            file: layout.put(b"{\"spdx\":1}").unwrap(),
            annotations: BTreeMap::new(),
        };
        let first = layout.attach(&subject, &attachment).unwrap();
        let again = layout.attach(&subject, &attachment).unwrap();
        assert_eq!(first, again, "attaching twice changes nothing");
        let found = layout.referrers(&subject).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].digest, found[0].artifact_type.as_deref()),
            (first, Some("application/spdx+json"))
        );
        let statement = String::from_utf8(layout.read(&first).unwrap()).unwrap();
        for part in [
            r#""subject":{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:"#,
            r#""config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#,
        ] {
            assert!(statement.contains(part), "{part} in {statement}");
        }
        assert_eq!(layout.attached(&first).unwrap(), b"{\"spdx\":1}");
        assert!(layout.attached(&subject).is_err());
        let newer = Attachment {
            file: layout.put(b"{\"spdx\":2}").unwrap(),
            ..attachment.clone()
        };
        let second = layout.attach_only(&subject, &newer).unwrap();
        let found = layout.referrers(&subject).unwrap();
        assert_eq!(found.len(), 1, "the newer one took its place");
        assert_eq!(found[0].digest, second);
        assert_eq!(layout.attach_only(&subject, &attachment).unwrap(), first);
        assert_eq!(layout.referrers(&first).unwrap(), []);
        assert!(layout.attach(&Digest::of(b"absent"), &attachment).is_err());
        assert_eq!(layout.entries().unwrap().len(), 2);
        assert!(layout.images().unwrap().is_empty());
    }

    #[test]
    fn one_at_a_time_says_something_of_a_manifest() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let (one, _) = layout.put(b"one").unwrap();
        let (other, _) = layout.put(b"other").unwrap();
        let turn = layout.turn(&one).unwrap();
        let next = std::fs::File::open(layout.blob(&one)).unwrap();
        assert!(next.try_lock().is_err(), "it is somebody's turn");
        layout.turn(&other).unwrap();
        drop(turn);
        next.try_lock().unwrap();
        assert!(layout.turn(&Digest::of(b"absent")).is_err());
    }
}
