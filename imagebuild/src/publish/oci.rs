//! A registry as a target: the image, its container form and what is attached to them, then the tags that move.
//!
//! It refuses to send what is there, and to move a tag before all that it names is there.

use std::collections::{BTreeMap, BTreeSet};

use cloud::oci::Target;
use cloud::provider::{
    Finding, Pending, Progress, Provider, Published, Receipt, Severity, Stage, Step,
};
use image_manifest::Digest;

use super::{Error, Image};
use crate::gather::{self, Load};
use crate::layers;
use crate::registry::session::{Access, Session};
use crate::registry::upload::Blob;
use crate::registry::{self, Options, Remote};

/// One registry that an image goes to.
#[derive(Debug)]
pub struct Publisher {
    target: String,
    session: Session,
    load: Load,
    files: Vec<Blob>,
    /// Tags of this image alone, and those that move to it last.
    own: BTreeMap<String, Digest>,
    moving: BTreeMap<String, Digest>,
    seen: Seen,
}

/// What the registry has of it.
#[derive(Debug, Default)]
struct Seen {
    files: BTreeSet<Digest>,
    sheets: BTreeSet<Digest>,
    attached: BTreeSet<Digest>,
    tags: BTreeMap<String, Digest>,
}

impl Publisher {
    /// Gathers what goes to a registry.
    ///
    /// # Errors
    /// When the store does not have it all, or the target names no repository.
    pub fn new(target: &Target, image: &Image, options: &Options) -> Result<Self, Error> {
        let unfit = |reason: String| {
            Error::Cloud(cloud::Error::Unfit {
                image: image.subject.name.clone(),
                to: target.name.clone(),
                reason,
            })
        };
        let parse = |text: &str| Remote::parse(text).map_err(|error| unfit(error.to_string()));
        let remote = parse(&target.repository)?;
        let mut options = options.clone();
        if let Some(from) = &target.mount_from {
            options.mount_from = Some(parse(from)?.repository);
        }
        let session = Session::new(&remote.repository, Access::Push, &options)?;
        let subject = &image.subject;
        let mut load = Load::default();
        load.root(&image.store, subject.manifest, subject.version.clone())?;
        let container = gather::container(&image.store, &image.found.manifest)?;
        if let Some(container) = &container {
            let name = layers::name_of(&subject.version);
            load.root(&image.store, container.digest, name)?;
        }
        load.attachments(&image.store)?;
        let moves = |tags: &[String], digest: Digest| -> Vec<(String, Digest)> {
            let named = tags.iter().map(|tag| subject.fill(tag));
            named.map(|tag| (tag, digest)).collect()
        };
        let mut moving: BTreeMap<_, _> = moves(&target.netboot_tags, subject.manifest)
            .into_iter()
            .collect();
        match container {
            Some(container) => moving.extend(moves(&target.tags, container.digest)),
            None if target.tags.is_empty() => {}
            None => {
                let reason = "it has no container form: `outputs` does not list `oci`";
                return Err(unfit(reason.to_owned()));
            }
        }
        let files = load.files.iter().map(|(digest, size)| Blob {
            path: image.store.blob(digest),
            digest: *digest,
            size: *size,
        });
        Ok(Self {
            target: target.name.clone(),
            files: files.collect(),
            own: std::mem::take(&mut load.names),
            load,
            session,
            moving,
            seen: Seen::default(),
        })
    }

    async fn look(&mut self) -> Result<(), registry::Error> {
        let mut seen = Seen::default();
        for blob in &self.files {
            if self.session.has(blob).await? {
                seen.files.insert(blob.digest);
            }
        }
        for sheet in &self.load.sheets {
            let there = self.session.document(&sheet.digest.to_string()).await?;
            if there.is_some() {
                seen.sheets.insert(sheet.digest);
            }
            if let Some(subject) = &sheet.subject {
                let listed = self.session.referrers(subject).await?;
                if listed.iter().any(|one| one.digest == sheet.digest) {
                    seen.attached.insert(sheet.digest);
                }
            }
        }
        for tag in self.own.keys().chain(self.moving.keys()) {
            if let Some(there) = self.session.document(tag).await? {
                seen.tags.insert(tag.clone(), there.digest);
            }
        }
        self.seen = seen;
        Ok(())
    }

    async fn send(&mut self, progress: &dyn Progress) -> Result<(), registry::Error> {
        let missing = self.files.iter();
        let missing: Vec<_> = missing
            .filter(|blob| !self.seen.files.contains(&blob.digest))
            .cloned()
            .collect();
        let of: u64 = missing.iter().map(|blob| blob.size).sum();
        if of > 0 {
            progress.bytes(&self.target, 0, of);
            registry::send_files(&self.session, missing).await?;
            progress.bytes(&self.target, of, of);
        }
        let named: BTreeSet<_> = self.own.values().collect();
        for sheet in &self.load.sheets {
            if !self.seen.sheets.contains(&sheet.digest) && !named.contains(&sheet.digest) {
                let name = sheet.digest.to_string();
                self.session
                    .put(&name, &sheet.media_type, &sheet.bytes)
                    .await?;
            }
        }
        let own = self.own.clone();
        self.tag(&own).await?;
        for sheet in &self.load.sheets {
            match &sheet.subject {
                Some(subject) if !self.seen.attached.contains(&sheet.digest) => {
                    self.session.attach(subject, &sheet.descriptor).await?;
                }
                _ => {}
            }
        }
        self.look().await
    }

    async fn tag(&self, tags: &BTreeMap<String, Digest>) -> Result<(), registry::Error> {
        for (tag, digest) in tags {
            if self.seen.tags.get(tag) == Some(digest) {
                continue;
            }
            let mut sheets = self.load.sheets.iter();
            if let Some(sheet) = sheets.find(|sheet| sheet.digest == *digest) {
                self.session
                    .put(tag, &sheet.media_type, &sheet.bytes)
                    .await?;
                tracing::info!(provider = "oci", tag, %digest, "tagged");
            }
        }
        Ok(())
    }

    fn step(&self, stage: Stage, action: &'static str, object: String, detail: String) -> Step {
        Step {
            target: self.target.clone(),
            stage,
            action,
            place: self.session.repository.to_string(),
            object,
            detail,
        }
    }

    fn tagged(&self, stage: Stage, tags: &BTreeMap<String, Digest>) -> Vec<Step> {
        let missing = tags
            .iter()
            .filter(|(tag, digest)| self.seen.tags.get(*tag) != Some(*digest));
        let steps = missing.map(|(tag, digest)| {
            let detail = match self.seen.tags.get(tag) {
                Some(before) => format!("{}, was {}", digest.short(), before.short()),
                None => digest.short(),
            };
            self.step(stage, "tag", tag.clone(), detail)
        });
        steps.collect()
    }
}

impl Provider for Publisher {
    fn target(&self) -> &str {
        &self.target
    }

    fn observe(&mut self) -> Pending<'_, Result<(), cloud::Error>> {
        Box::pin(async move { self.look().await.map_err(told) })
    }

    fn check(&mut self) -> Pending<'_, Result<Vec<Finding>, cloud::Error>> {
        // A tag of a version names one image for ever; one that names another is somebody's mistake.
        let foreign = self.own.iter().filter(|(tag, digest)| {
            let is_version = !tag.starts_with("sha256-");
            let there = self.seen.tags.get(*tag);
            // A container image gets the platforms that are built later.
            is_version && !tag.ends_with("-oci") && there.is_some_and(|there| there != *digest)
        });
        let findings = foreign.map(|(tag, _)| Finding {
            target: self.target.clone(),
            place: self.session.repository.to_string(),
            severity: Severity::Error,
            message: format!("tag `{tag}` names another image: give this one another `--version`"),
        });
        let findings = findings.collect();
        Box::pin(async move { Ok(findings) })
    }

    fn plan(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let missing = self
            .files
            .iter()
            .filter(|blob| !self.seen.files.contains(&blob.digest));
        for blob in missing {
            let detail = format!("{} bytes", blob.size);
            steps.push(self.step(Stage::Private, "upload", blob.digest.to_string(), detail));
        }
        for sheet in &self.load.sheets {
            let (digest, kind) = (sheet.digest.to_string(), sheet.media_type.clone());
            if !self.seen.sheets.contains(&sheet.digest) {
                steps.push(self.step(Stage::Private, "put", digest, kind));
            } else if sheet.subject.is_some() && !self.seen.attached.contains(&sheet.digest) {
                steps.push(self.step(Stage::Private, "attach", digest, kind));
            }
        }
        steps.extend(self.tagged(Stage::Private, &self.own));
        steps.extend(self.tagged(Stage::Current, &self.moving));
        steps
    }

    fn advance<'a>(
        &'a mut self,
        stage: Stage,
        progress: &'a dyn Progress,
    ) -> Pending<'a, Result<(), cloud::Error>> {
        Box::pin(async move {
            match stage {
                Stage::Private if self.plan().iter().any(|step| step.stage == stage) => {
                    self.send(progress).await.map_err(told)?;
                    let plan = self.plan();
                    match plan.iter().find(|step| step.stage == stage) {
                        None => Ok(()),
                        Some(step) => Err(cloud::Error::Mismatch {
                            what: format!("`{}`", self.session.repository),
                            found: format!("without `{}`", step.object),
                            expected: "all that was sent".to_owned(),
                        }),
                    }
                }
                Stage::Current => {
                    let moving = self.moving.clone();
                    self.tag(&moving).await.map_err(told)?;
                    self.look().await.map_err(told)
                }
                _ => Ok(()),
            }
        })
    }

    fn receipts(&self) -> Vec<Receipt> {
        let there = |tags: &BTreeMap<String, Digest>, stage| -> Vec<Receipt> {
            let tags = tags
                .iter()
                .filter(|(tag, digest)| self.seen.tags.get(*tag) == Some(*digest));
            let tags = tags.filter(|(tag, _)| !tag.starts_with("sha256-"));
            let receipts = tags.map(|(tag, digest)| Receipt {
                target: self.target.clone(),
                provider: "oci".to_owned(),
                kind: "tag".to_owned(),
                place: self.session.repository.to_string(),
                id: format!("{}@{digest}", self.session.repository),
                name: format!("{}:{tag}", self.session.repository),
                stage,
            });
            receipts.collect()
        };
        let mut receipts = there(&self.own, Stage::Current);
        receipts.extend(there(&self.moving, Stage::Current));
        receipts
    }

    fn inventory(&mut self) -> Pending<'_, Result<Vec<Published>, cloud::Error>> {
        // Registries have retention rules of their own, and know what is pulled; a tag says too little to decide by.
        Box::pin(async { Ok(Vec::new()) })
    }

    fn deprecate<'a>(
        &'a mut self,
        published: &'a Published,
        _: i64,
    ) -> Pending<'a, Result<(), cloud::Error>> {
        Box::pin(async move { Err(unheard(&self.target, published)) })
    }

    fn remove<'a>(&'a mut self, published: &'a Published) -> Pending<'a, Result<(), cloud::Error>> {
        Box::pin(async move { Err(unheard(&self.target, published)) })
    }
}

/// Nothing of a registry is ever listed, so nothing of it is asked for.
fn unheard(target: &str, published: &Published) -> cloud::Error {
    cloud::Error::Unfit {
        image: published.name.clone(),
        to: target.to_owned(),
        reason: "what a registry keeps is decided by its own retention rules".to_owned(),
    }
}

/// Says what a registry said, as the clouds say it.
fn told(error: registry::Error) -> cloud::Error {
    match error {
        registry::Error::Transport { what, source } => cloud::Error::Transport { what, source },
        registry::Error::Refused {
            what,
            status,
            details,
        } if matches!(status.as_u16(), 401 | 403) => cloud::Error::Denied {
            what,
            permission: "push".to_owned(),
            message: details,
        },
        registry::Error::Refused {
            what,
            status,
            details,
        } => cloud::Error::Refused {
            what,
            status: status.as_u16(),
            code: String::new(),
            message: details,
        },
        other => cloud::Error::Protocol {
            what: "use the registry".to_owned(),
            reason: cloud::http::chain(&other),
        },
    }
}
