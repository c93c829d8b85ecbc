//! An image out of a registry into a store: all of it is fetched and looked at before it has a name there.
//!
//! It refuses images that are not what they say: manifests that list other files than they describe, layers that would not
//! unpack to what their configuration says, or not below the root, and whatever passes a limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use image_manifest::layout::{Entry, Layout, parse_reference};
use image_manifest::{Digest, Manifest};
use image_oci::archive::read::Limits;
use image_oci::flatten::{self, Progress};
use image_oci::image::TREE;
use image_oci::spec::{self, Config, Descriptor, Document};
use image_tree::Tree;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::download::Fetched;
use super::reference::Remote;
use super::session::{Access, Session};
use super::{Error, Options, Things, packages, referrers};
use crate::layers;

/// Media type of our manifest, the configuration of every image of ours.
const OURS: &str = "application/vnd.firstboot.manifest.v1+json";
/// Largest file that is fetched.
const FILE: u64 = 64 << 30;
/// Largest sum of all files that one manifest names.
const ALL: u64 = 256 << 30;
/// Attachments of one document at most.
const ATTACHMENTS: usize = 256;

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pulled {
    /// Names in the store, and the documents that they name.
    pub names: BTreeMap<String, Digest>,
    /// Documents that are attached to those.
    pub attachments: usize,
    /// Files that came over the network.
    pub downloaded_files: usize,
    /// Their bytes.
    pub downloaded_bytes: u64,
    /// Files that the store had.
    pub present_files: usize,
}

struct Pull<'a> {
    session: Session,
    store: &'a Layout,
    pulled: Pulled,
    /// Container images whose layers are to be looked at.
    containers: Vec<spec::Manifest>,
    documents: Vec<Digest>,
    attached: Vec<(Digest, Option<String>)>,
}

/// Fetches an image into a store.
///
/// # Errors
/// When the registry does not have it, or what it has is refused; the store is left with files that no name leads to.
pub async fn pull(
    store: &Layout,
    remote: &Remote,
    things: Things,
    options: &Options,
) -> Result<Pulled, Error> {
    let mut pull = Pull {
        session: Session::new(&remote.repository, Access::Pull, options)?,
        store,
        pulled: Pulled {
            names: BTreeMap::new(),
            attachments: 0,
            downloaded_files: 0,
            downloaded_bytes: 0,
            present_files: 0,
        },
        containers: Vec::new(),
        documents: Vec::new(),
        attached: Vec::new(),
    };
    let reference = remote
        .digest
        .map_or_else(|| remote.tag.clone(), |digest| digest.to_string());
    let root = pull.session.document(&reference).await?;
    let root = root.ok_or_else(|| absent(remote))?;
    let mut entries = vec![pull.root(remote, root).await?];
    let mut beside = vec![layers::name_of(&remote.tag)];
    if things == Things::ImageAndPackages {
        beside.push(packages::name_of(&remote.tag));
    }
    for tag in beside {
        if let Some(found) = pull.session.document(&tag).await? {
            let beside = Remote {
                tag,
                digest: None,
                ..remote.clone()
            };
            let entry = pull.root(&beside, found).await?;
            let name = entries[0].name.clone().unwrap_or_default();
            let own = [layers::name_of(&name), packages::name_of(&name)];
            // A tag that ends like ours may be anybody's.
            if entry.name.as_ref().is_some_and(|name| own.contains(name)) {
                entries.push(entry);
            }
        } else if tag == packages::name_of(&remote.tag) {
            return Err(Error::Refused {
                what: format!("get the packages of `{remote}`"),
                status: hyper::StatusCode::NOT_FOUND,
                details: "they were not pushed".to_owned(),
            });
        }
    }
    pull.attachments().await?;
    pull.check_containers().await?;
    pull.name(entries)
}

fn absent(remote: &Remote) -> Error {
    Error::Refused {
        what: format!("get `{remote}`"),
        status: hyper::StatusCode::NOT_FOUND,
        details: "there is no such image".to_owned(),
    }
}

impl Pull<'_> {
    /// Fetches a document that has a tag, with all that it names, and finds out what it is called.
    async fn root(&mut self, remote: &Remote, found: Fetched) -> Result<Entry, Error> {
        let what = remote.to_string();
        let hostile = |reason: String| Error::Hostile {
            what: what.clone(),
            reason,
        };
        let kind = match &found.document {
            Document::Manifest(manifest) => manifest.artifact_type.clone(),
            Document::Index(_) => None,
        };
        let base = remote
            .repository
            .path
            .rsplit('/')
            .next()
            .unwrap_or_default();
        let name = match &found.document {
            Document::Manifest(manifest) if manifest.config.media_type == OURS => {
                let bytes = self.small(&manifest.config).await?;
                ours(&bytes, &manifest.layers).map_err(hostile)?
            }
            Document::Manifest(manifest)
                if manifest.artifact_type.as_deref() == Some(packages::TYPE) =>
            {
                packages::named(manifest)
                    .ok_or_else(|| hostile("its packages have no name".to_owned()))?
            }
            Document::Index(index) => match index.annotations.get("org.opencontainers.image.title")
            {
                Some(title) => layers::name_of(title),
                None => layers::name_of(base),
            },
            Document::Manifest(_) => layers::name_of(base),
        };
        parse_reference(&name)?;
        let entry = Entry {
            media_type: found.media_type().to_owned(),
            digest: found.digest,
            size: found.bytes.len() as u64,
            artifact_type: kind,
            name: Some(name),
        };
        self.document(found, &what, 0).await?;
        Ok(entry)
    }

    /// Fetches all that a document names, and keeps it.
    async fn document(&mut self, found: Fetched, what: &str, depth: u32) -> Result<(), Error> {
        match found.document {
            Document::Index(index) => {
                if depth > 1 {
                    return Err(Error::Hostile {
                        what: what.to_owned(),
                        reason: "indexes in indexes in indexes".to_owned(),
                    });
                }
                for child in &index.manifests {
                    let next = self.session.document(&child.digest.to_string()).await?;
                    let next = next.ok_or_else(|| Error::Hostile {
                        what: what.to_owned(),
                        reason: format!("it names {}, which is not there", child.digest),
                    })?;
                    if next.bytes.len() as u64 != child.size {
                        return Err(Error::Hostile {
                            what: what.to_owned(),
                            reason: format!("{} has not the size that it says", child.digest),
                        });
                    }
                    Box::pin(self.document(next, what, depth + 1)).await?;
                }
            }
            Document::Manifest(manifest) => {
                let files: Vec<_> = manifest
                    .layers
                    .iter()
                    .chain([&manifest.config])
                    .cloned()
                    .collect();
                check_sizes(&files, what)?;
                self.files(files).await?;
                if manifest.is_container() {
                    self.containers.push(manifest);
                }
            }
        }
        self.store.put(&found.bytes)?;
        self.documents.push(found.digest);
        Ok(())
    }

    /// Fetches files, several at a time.
    async fn files(&mut self, files: Vec<Descriptor>) -> Result<(), Error> {
        let places = Arc::new(Semaphore::new(self.session.options.parallel.max(1)));
        let mut running = JoinSet::new();
        for file in files {
            let (session, store, places) = (
                self.session.clone(),
                self.store.clone(),
                Arc::clone(&places),
            );
            running.spawn(async move {
                // It is never closed.
                let _place = places.acquire_owned().await.ok();
                session.download(&file, &store).await
            });
        }
        while let Some(done) = running.join_next().await {
            match done {
                Ok(Ok(0)) => self.pulled.present_files += 1,
                Ok(Ok(bytes)) => {
                    self.pulled.downloaded_files += 1;
                    self.pulled.downloaded_bytes += bytes;
                }
                Ok(Err(error)) => return Err(error),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        Ok(())
    }

    /// Fetches a file that is not large, and reads it.
    async fn small(&mut self, file: &Descriptor) -> Result<Vec<u8>, Error> {
        if file.size > spec::LIMIT {
            return Err(Error::TooLarge {
                what: file.digest.to_string(),
                limit: spec::LIMIT,
            });
        }
        self.files(vec![file.clone()]).await?;
        Ok(self.store.read(&file.digest)?)
    }

    /// Fetches what is attached to the documents, and to their attachments.
    async fn attachments(&mut self) -> Result<(), Error> {
        let mut at = 0;
        while at < self.documents.len() {
            let subject = self.documents[at];
            at += 1;
            let found = self.session.referrers(&subject).await?;
            for descriptor in found.into_iter().take(ATTACHMENTS) {
                self.attachment(&descriptor.digest.to_string(), Some(subject), None)
                    .await?;
            }
            let signature = format!("{}.sig", referrers::tag(&subject));
            self.attachment(&signature.clone(), None, Some(signature))
                .await?;
        }
        Ok(())
    }

    async fn attachment(
        &mut self,
        reference: &str,
        subject: Option<Digest>,
        name: Option<String>,
    ) -> Result<(), Error> {
        let Some(found) = self.session.document(reference).await? else {
            return Ok(());
        };
        // What a list names that is about something else is nobody's attachment here.
        let about = found.document.subject().map(|subject| subject.digest);
        if self.documents.contains(&found.digest) || subject.is_some() && about != subject {
            return Ok(());
        }
        let digest = found.digest;
        self.document(found, reference, 0).await?;
        self.attached.push((digest, name));
        self.pulled.attachments += 1;
        Ok(())
    }

    /// Unpacks the layers of container images, in memory and only to look at them.
    async fn check_containers(&mut self) -> Result<(), Error> {
        for manifest in std::mem::take(&mut self.containers) {
            let store = self.store.clone();
            let checked = tokio::task::spawn_blocking(move || check_container(&store, &manifest));
            match checked.await {
                Ok(checked) => checked?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        Ok(())
    }

    /// Gives names, now that all is there.
    fn name(mut self, entries: Vec<Entry>) -> Result<Pulled, Error> {
        for (digest, name) in &self.attached {
            let bytes = self.store.read(digest)?;
            let document = Document::parse(&bytes, None).map_err(|source| Error::Document {
                what: digest.to_string(),
                source,
            })?;
            let (media_type, kind) = match document {
                Document::Manifest(manifest) => (spec::MANIFEST, manifest.artifact_type),
                Document::Index(index) => (spec::INDEX, index.artifact_type),
            };
            self.store.enter(&Entry {
                media_type: media_type.to_owned(),
                digest: *digest,
                size: bytes.len() as u64,
                artifact_type: kind,
                name: name.clone(),
            })?;
        }
        // The image itself comes last: who finds it finds all the rest.
        for entry in entries.into_iter().rev() {
            self.store.enter(&entry)?;
            self.pulled
                .names
                .insert(entry.name.unwrap_or_default(), entry.digest);
        }
        Ok(self.pulled)
    }
}

/// Reads our manifest, and says what the image is called; its files must be the layers of the OCI manifest.
fn ours(bytes: &[u8], layers: &[Descriptor]) -> Result<String, String> {
    let schema: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let version = schema.get("schema").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(Manifest::SCHEMA)) {
        return Err(format!(
            "its manifest is not of schema {}: rebuild it",
            Manifest::SCHEMA
        ));
    }
    let manifest: Manifest = serde_json::from_value(schema).map_err(|error| error.to_string())?;
    let listed = layers.iter().map(|layer| (layer.digest, layer.size));
    if listed.eq(manifest.artifacts.iter().map(|one| (one.digest, one.size))) {
        return Ok(manifest.name);
    }
    Err("its layers are not its artifacts".to_owned())
}

fn check_sizes(files: &[Descriptor], what: &str) -> Result<(), Error> {
    let limit = |limit| Error::TooLarge {
        what: what.to_owned(),
        limit,
    };
    let mut all = 0_u64;
    for file in files {
        all = all.saturating_add(file.size);
        if file.size > FILE {
            return Err(limit(FILE));
        }
    }
    if all > ALL { Err(limit(ALL)) } else { Ok(()) }
}

fn check_container(store: &Layout, manifest: &spec::Manifest) -> Result<(), Error> {
    let digest = manifest.config.digest;
    let hostile = |reason: String| Error::Hostile {
        what: format!("container image with configuration {digest}"),
        reason,
    };
    let config = Config::parse(&store.read(&digest)?).map_err(|source| Error::Document {
        what: digest.to_string(),
        source,
    })?;
    if config.platform.os == "unknown" {
        // So are statements about other manifests said to be by builders of Docker's; nothing unpacks them.
        return Ok(());
    }
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(hostile("its configuration is of other layers".to_owned()));
    }
    let mut tree = Tree::new();
    for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        if ![spec::LAYER, spec::LAYER_GZIP, spec::LAYER_ZSTD].contains(&layer.media_type.as_str()) {
            let kind: String = layer.media_type.chars().take(100).collect();
            return Err(hostile(format!("a layer is a `{kind}`")));
        }
        let path = store.blob(&layer.digest);
        let file = File::open(&path).map_err(|source| Error::File { path, source })?;
        let bytes = BufReader::with_capacity(256 << 10, file);
        let laid = flatten::lay(
            &mut tree,
            bytes,
            diff_id,
            Limits::default(),
            &mut Progress::default(),
        );
        laid.map_err(|source| Error::Layer {
            digest: layer.digest,
            source,
        })?;
    }
    match config.config.labels.get(TREE) {
        Some(said) if *said != tree.digest().to_string() => Err(hostile(format!(
            "its layers are the tree {}, it says {said}",
            tree.digest()
        ))),
        _ => Ok(()),
    }
}
