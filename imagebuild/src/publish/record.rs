//! Publish records in a store: written after every publish, read to answer what is one build.

use std::collections::BTreeMap;
use std::io;

use cloud::record::{ENVELOPE_TYPE, Envelope, Record, TYPE};
use cloud::{Receipt, Stage};
use image_manifest::Digest;
use image_manifest::layout::{self, Attachment, Layout};

use super::{Error, Image};
use crate::gather;
use crate::sign::{PrivateKey, PublicKey};

/// Whether a record is trusted.
#[derive(Debug)]
pub enum Trust<'a> {
    /// Whoever wrote it.
    Anybody,
    /// Only what one of these keys signed.
    Keys(&'a [PublicKey]),
}

/// What a publish came to.
#[derive(Clone, Debug)]
pub struct Came {
    /// The stage that all targets finished.
    pub stage: Stage,
    /// Names of the targets that were asked.
    pub asked: Vec<String>,
    /// Names of those that are not finished.
    pub unfinished: Vec<String>,
    /// What there is.
    pub receipts: Vec<Receipt>,
}

/// Finds out whether a record can be written to the store, before anything is published that it should tell of.
///
/// # Errors
/// When the store cannot be written.
pub fn prepare(image: &Image) -> Result<(), Error> {
    // Every statement has this as its configuration.
    image.store.put(b"{}")?;
    Ok(())
}

/// The bytes of a statement of the store; none when they are damaged: whoever wrote it can say it again.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn statement(store: &Layout, digest: &Digest) -> Result<Option<Vec<u8>>, layout::Error> {
    match store.attached(digest) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_damage(&error) => {
            tracing::warn!(statement = %digest, %error, "left out a damaged statement");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn is_damage(error: &layout::Error) -> bool {
    match error {
        layout::Error::Corrupt { .. } | layout::Error::TooLarge { .. } => true,
        layout::Error::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Writes what is published of an image, beside what earlier records say of other targets; returns the record.
///
/// # Errors
/// When the store cannot be read or written.
pub fn write(image: &Image, came: Came, key: Option<&PrivateKey>) -> Result<Record, Error> {
    let manifest = &image.found.manifest;
    let container = gather::container(&image.store, manifest)?;
    let rootfs = manifest.artifact(image_manifest::Role::Rootfs);
    let mut record = Record {
        schema: Record::SCHEMA,
        image: manifest.name.clone(),
        version: image.subject.version.clone(),
        architecture: manifest.architecture.clone(),
        distribution: manifest.distribution.clone(),
        manifest: image.found.digest,
        tree: manifest.tree,
        lock: manifest.lock,
        source_date: manifest.source_date,
        rootfs: rootfs.map(|rootfs| rootfs.digest),
        container: container.map(|container| container.digest),
        forms: manifest.forms.clone(),
        stage: came.stage,
        unfinished: came.unfinished,
        receipts: came.receipts,
    };
    // What is signed here is vouched for here: only what the same key signed before is taken over.
    let own = key.map(|key| [key.public()]);
    let trust = own.as_ref().map_or(Trust::Anybody, |own| Trust::Keys(own));
    // Somebody may publish the same image to other targets at this moment.
    let _turn = image.store.turn(&image.found.digest)?;
    if let Some(earlier) = of(&image.store, &image.found.digest, &trust)? {
        record = record.with_others_of(&earlier, &came.asked);
    }
    let sign = key.map(|key| |bytes: &[u8]| key.sign(bytes));
    let envelope = match &sign {
        Some(sign) => Envelope::seal(&record, Some(sign)),
        None => Envelope::seal(&record, None),
    };
    let attachment = Attachment {
        artifact_type: TYPE,
        media_type: ENVELOPE_TYPE,
        file: image.store.put(&envelope.to_bytes())?,
        annotations: BTreeMap::new(),
    };
    image.store.attach_only(&image.found.digest, &attachment)?;
    Ok(record)
}

/// The record of an image, when there is one.
///
/// # Errors
/// When the store cannot be read.
pub fn of(store: &Layout, manifest: &Digest, trust: &Trust<'_>) -> Result<Option<Record>, Error> {
    let records = all(store, trust)?.into_iter();
    let mut records = records.filter(|record| record.manifest == *manifest);
    Ok(records.next())
}

/// Finds every record of a store that knows a digest, an id or a name, and as what.
///
/// # Errors
/// When the store cannot be read.
pub fn find(
    store: &Layout,
    what: &str,
    trust: &Trust<'_>,
) -> Result<Vec<(Record, &'static str)>, Error> {
    let known = all(store, trust)?.into_iter().filter_map(|record| {
        let kind = record.knows(what);
        let kind = kind.or_else(|| (record.image == what).then_some("image"))?;
        Some((record, kind))
    });
    Ok(known.collect())
}

/// All records of a store that are trusted, one for each image: the one that says most, where a registry gave several.
fn all(store: &Layout, trust: &Trust<'_>) -> Result<Vec<Record>, Error> {
    let mut best: BTreeMap<Digest, Record> = BTreeMap::new();
    for entry in store.entries()? {
        if entry.artifact_type.as_deref() != Some(TYPE) {
            continue;
        }
        let Some(bytes) = statement(store, &entry.digest)? else {
            continue;
        };
        let envelope = Envelope::parse(&bytes);
        let record = envelope.and_then(|envelope| match trust {
            Trust::Anybody => envelope.open(),
            Trust::Keys(keys) => envelope.open_signed(&|bytes, signature| {
                keys.iter().any(|key| key.verify(bytes, signature))
            }),
        });
        let record = match record {
            Ok(record) => record,
            // One that somebody else left there is no reason to know nothing of the others.
            Err(error) => {
                tracing::warn!(statement = %entry.digest, %error, "left out a publish record");
                continue;
            }
        };
        let says = |record: &Record| (record.stage, record.receipts.len());
        match best.get(&record.manifest) {
            Some(other) if says(other) >= says(&record) => {}
            _ => drop(best.insert(record.manifest, record)),
        }
    }
    Ok(best.into_values().collect())
}
