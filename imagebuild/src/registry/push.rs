//! An image of a store into a registry: files first, then documents, the names last.
//!
//! It refuses to send what the registry has, and to name an image before all of it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use image_manifest::layout::Layout;
use image_manifest::{Digest, Role};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::reference::Remote;
use super::session::{Access, Session};
use super::upload::{Blob, Sent};
use super::{Error, Options, packages};
use crate::gather::{self, Load};
use crate::layers;

/// What of an image is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Things {
    /// The image, its container form, and what is attached to them.
    Image,
    /// Its packages too.
    ImageAndPackages,
}

/// What is to be sent; printed by `--dry-run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Tags, and the documents that they name.
    pub tags: BTreeMap<String, Digest>,
    /// How many documents there are.
    pub documents: usize,
    /// How many of them are attached to others.
    pub attachments: usize,
    /// How many files they name.
    pub files: usize,
    /// Bytes of those files.
    pub bytes: u64,
    /// How many of the files the registry does not have yet.
    pub missing_files: usize,
    /// Bytes of those.
    pub missing_bytes: u64,
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pushed {
    /// Tags, and the documents that they name.
    pub tags: BTreeMap<String, Digest>,
    /// How many documents are attached to others.
    pub attachments: usize,
    /// Files that were sent.
    pub uploaded_files: usize,
    /// Their bytes, as far as they were sent now.
    pub uploaded_bytes: u64,
    /// Files that another repository of the registry had.
    pub mounted_files: usize,
    /// Files that were there.
    pub present_files: usize,
}

/// Sends an image of a store; with `Err(plan)` in place of sending when only the plan is wanted.
///
/// # Errors
/// When the store does not have it all, or the registry refuses.
pub async fn push(
    store: &Layout,
    image: &str,
    remote: &Remote,
    things: Things,
    options: &Options,
) -> Result<Pushed, Error> {
    let load = load(store, image, remote, things)?;
    let session = Session::new(&remote.repository, Access::Push, options)?;
    let mut pushed = send_files(&session, files(store, &load)).await?;
    let named: BTreeSet<_> = load.names.values().collect();
    for sheet in load
        .sheets
        .iter()
        .filter(|sheet| !named.contains(&sheet.digest))
    {
        session
            .put(&sheet.digest.to_string(), &sheet.media_type, &sheet.bytes)
            .await?;
        if let Some(subject) = &sheet.subject {
            session.attach(subject, &sheet.descriptor).await?;
            pushed.attachments += 1;
        }
    }
    for (tag, digest) in &load.names {
        let sheet = load.sheets.iter().find(|sheet| sheet.digest == *digest);
        if let Some(sheet) = sheet {
            session.put(tag, &sheet.media_type, &sheet.bytes).await?;
            tracing::info!(tag, digest = %digest, "pushed");
        }
    }
    pushed.tags = load.names;
    Ok(pushed)
}

impl Plan {
    /// Plans to send an image: asks the registry what it has, and sends nothing.
    ///
    /// # Errors
    /// When the store does not have it all, or the registry refuses.
    pub async fn make(
        store: &Layout,
        image: &str,
        remote: &Remote,
        things: Things,
        options: &Options,
    ) -> Result<Self, Error> {
        let load = load(store, image, remote, things)?;
        let session = Session::new(&remote.repository, Access::Pull, options)?;
        let mut plan = Self {
            documents: load.sheets.len(),
            attachments: load
                .sheets
                .iter()
                .filter(|sheet| sheet.subject.is_some())
                .count(),
            files: load.files.len(),
            bytes: load.files.values().sum(),
            tags: load.names.clone(),
            missing_files: 0,
            missing_bytes: 0,
        };
        for blob in files(store, &load) {
            if !session.has(&blob).await? {
                plan.missing_files += 1;
                plan.missing_bytes += blob.size;
            }
        }
        Ok(plan)
    }
}

/// Sends files, several at a time, without those that are there.
pub(crate) async fn send_files(session: &Session, files: Vec<Blob>) -> Result<Pushed, Error> {
    let mut pushed = Pushed {
        tags: BTreeMap::new(),
        attachments: 0,
        uploaded_files: 0,
        uploaded_bytes: 0,
        mounted_files: 0,
        present_files: 0,
    };
    let places = Arc::new(Semaphore::new(session.options.parallel.max(1)));
    let mut running = JoinSet::new();
    for blob in files {
        let (session, places) = (session.clone(), Arc::clone(&places));
        running.spawn(async move {
            // It is never closed.
            let _place = places.acquire_owned().await.ok();
            let sent = session.upload(&blob).await?;
            if matches!(sent, Sent::Uploaded(_)) {
                tracing::info!(digest = %blob.digest.short(), bytes = blob.size, "uploaded");
            }
            Ok::<_, Error>(sent)
        });
    }
    while let Some(done) = running.join_next().await {
        match done {
            Ok(Ok(Sent::Uploaded(bytes))) => {
                pushed.uploaded_files += 1;
                pushed.uploaded_bytes += bytes;
            }
            Ok(Ok(Sent::Mounted)) => pushed.mounted_files += 1,
            Ok(Ok(Sent::There)) => pushed.present_files += 1,
            // Those that run are dropped with the set.
            Ok(Err(error)) => return Err(error),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok(pushed)
}

fn files(store: &Layout, load: &Load) -> Vec<Blob> {
    let files = load.files.iter().map(|(digest, size)| Blob {
        path: store.blob(digest),
        digest: *digest,
        size: *size,
    });
    files.collect()
}

fn load(store: &Layout, image: &str, remote: &Remote, things: Things) -> Result<Load, Error> {
    let found = store.resolve(image)?;
    let name = &found.manifest.name;
    let mut load = Load::default();
    load.root(store, found.digest, remote.tag.clone())?;
    if let Some(container) = gather::container(store, &found.manifest)? {
        load.root(store, container.digest, layers::name_of(&remote.tag))?;
    }
    if things == Things::ImageAndPackages {
        let kept = store.named(&packages::name_of(name))?;
        let kept = kept.ok_or_else(|| Error::NoPackages(name.clone()))?;
        load.root(store, kept.digest, packages::name_of(&remote.tag))?;
    }
    load.attachments(store)?;
    let roles = found
        .manifest
        .artifacts
        .iter()
        .map(|artifact| artifact.role);
    tracing::debug!(
        image,
        listing = roles.clone().any(|role| role == Role::Listing),
        documents = load.sheets.len(),
        "gathered"
    );
    Ok(load)
}
