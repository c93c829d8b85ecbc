//! All images of one name, who keeps each, and their end.
//!
//! It refuses to remove what somebody uses, what it may not ask about, and what may be young.

use hyper::Method;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use super::Publisher;
use super::bodies;
use super::names::{COMPUTE, Kind};
use super::observed::{Object, State};
use super::upload;
use super::users::Users;
use crate::error::Error;
use crate::provider::{self, Progress, Published, Step};
use crate::subject::TAG_ARCHITECTURE;

/// Tag of a managed image: from when on it should not be used any more. Versions in galleries have a field for it.
const TAG_END: &str = "firstboot:end-of-life";
const GB: u64 = 1 << 30;

/// Nobody listens: removing takes minutes at most.
struct Silent;

impl Progress for Silent {
    fn begins(&self, _: &Step) {}
    fn bytes(&self, _: &str, _: u64, _: u64) {}
    fn waits(&self, _: &str, _: &str) {}
}

impl Publisher {
    /// Every image of this name, and disks that an upload left.
    pub(super) async fn all(&mut self) -> Result<Vec<Published>, Error> {
        let objects = self.objects().await?;
        let users = self.users().await?;
        let images = objects.iter().map(|object| self.published(object, &users));
        let mut found: Vec<Published> = images.collect();
        found.extend(self.disks(&objects).await?);
        Ok(found)
    }

    /// Every image of this name that this target made, and nobody removes.
    async fn objects(&self) -> Result<Vec<Object>, Error> {
        let (image, target) = (&self.desired.image, &self.desired.target.name);
        let mut objects = match &self.desired.kind {
            Kind::Image { .. } => {
                let path = format!(
                    "{}/providers/Microsoft.Compute/images",
                    self.desired.group()
                );
                let query = format!("api-version={COMPUTE}");
                let listed = self.arm.list("the images", &path, &query).await?;
                listed.iter().map(Object::read).collect()
            }
            Kind::Version { .. } => self.versions().await?,
        };
        objects.retain(|object| object.is_of(image, target) && object.state != State::Leaving);
        Ok(objects)
    }

    fn published(&self, object: &Object, users: &Users) -> Published {
        let copies: u64 = object.regions.values().map(|(count, _)| count).sum();
        let tag = object.tags.get(TAG_END);
        let end = object.end_of_life.as_ref().or(tag).cloned();
        // A managed image may not tell its size: others of its name are about as large as this one.
        let bytes = match object.gigabytes {
            0 => self.desired.size,
            gigabytes => gigabytes * GB,
        };
        Published {
            target: self.desired.target.name.clone(),
            place: self.desired.target.location.clone(),
            id: object.path.clone(),
            name: object.name.clone(),
            kind: provider::Kind::Image,
            architecture: object
                .tags
                .get(TAG_ARCHITECTURE)
                .cloned()
                .unwrap_or_default(),
            manifest: object.manifest().unwrap_or_default().to_owned(),
            created: created(object).unwrap_or_default(),
            bytes: bytes * copies.max(1),
            kept_by: keepers(object, users),
            deprecated_from: end
                .as_deref()
                .and_then(parse)
                .map(OffsetDateTime::unix_timestamp),
            deprecated: end,
        }
    }

    /// Uploaded disks of this image that no run finished with, or that the target keeps. They have a place of their own: as
    /// images they do not count.
    async fn disks(&self, images: &[Object]) -> Result<Vec<Published>, Error> {
        let target = &self.desired.target;
        let container = format!("{}/{}", target.storage(), target.container);
        let blobs = self.blob.at(container.clone());
        let listed = blobs.list(&format!("{}-", target.name)).await?;
        let mut found = Vec::new();
        for (name, seen) in listed {
            let Some(manifest) = upload::manifest(&self.desired, &name, &seen) else {
                continue;
            };
            let created = seen.created.as_deref().and_then(rfc1123);
            let mut kept_by = Vec::from_iter(unknown_age(created));
            let whole = images.iter().any(|one| one.manifest() == Some(manifest));
            if target.keep_blob && whole {
                kept_by.push("`keep-blob` of the target".to_owned());
            }
            found.push(Published {
                target: target.name.clone(),
                place: format!("{} (upload)", target.container),
                id: format!("{container}/{name}"),
                name: name.clone(),
                kind: provider::Kind::Disk,
                architecture: String::new(),
                manifest: manifest.to_owned(),
                created: created.unwrap_or_default(),
                bytes: seen.size,
                kept_by,
                deprecated: None,
                deprecated_from: None,
            });
        }
        Ok(found)
    }

    /// Says from when on an image should not be used.
    pub(super) async fn end(&mut self, published: &Published, from: i64) -> Result<(), Error> {
        let path = &published.id;
        let when = OffsetDateTime::from_unix_timestamp(from);
        let when = bodies::instant(when.unwrap_or(OffsetDateTime::UNIX_EPOCH));
        let Some(object) = self.same(published).await? else {
            return Ok(());
        };
        let mut body = bodies::change(&object);
        if path.contains("/versions/") {
            body["properties"]["publishingProfile"]["endOfLifeDate"] = json!(when);
        } else {
            body["tags"][TAG_END] = json!(when);
        }
        self.write(Method::PATCH, path, &body, &Silent).await
    }

    /// Removes an image that nobody keeps, or a disk.
    pub(super) async fn drop_object(&mut self, published: &Published) -> Result<(), Error> {
        if !published.id.starts_with('/') {
            return self.drop_disk(published).await;
        }
        let Some(object) = self.same(published).await? else {
            return Ok(());
        };
        let users = self.users().await?;
        unkept(&published.id, keepers(&object, &users))?;
        self.delete(&object.path, &Silent).await
    }

    async fn drop_disk(&self, published: &Published) -> Result<(), Error> {
        let disks = self.disks(&self.objects().await?).await?;
        let disk = disks.into_iter().find(|disk| disk.id == published.id);
        let Some(disk) = disk else {
            return Ok(());
        };
        unkept(&disk.id, disk.kept_by)?;
        self.blob.at(disk.id).remove().await
    }

    /// What is there of something that was listed; it may have become another's.
    async fn same(&self, published: &Published) -> Result<Option<Object>, Error> {
        let Some(object) = self.state(&published.id).await? else {
            return Ok(None);
        };
        let ours = object.is_of_target(&self.desired.target.name);
        if ours && object.manifest() == Some(published.manifest.as_str()) {
            return Ok(Some(object));
        }
        Err(Error::Foreign {
            what: format!("`{}`", published.id),
        })
    }
}

/// Refuses to remove what somebody keeps.
fn unkept(id: &str, by: Vec<String>) -> Result<(), Error> {
    if by.is_empty() {
        return Ok(());
    }
    Err(Error::Kept {
        what: format!("`{id}`"),
        by,
    })
}

fn keepers(object: &Object, users: &Users) -> Vec<String> {
    let mut keepers = Vec::from_iter(unknown_age(created(object)));
    if object.path.to_lowercase().contains("/versions/") && !object.excluded {
        keepers.push("the latest of its definition".to_owned());
    }
    let end = object.end_of_life.as_deref();
    let now = OffsetDateTime::now_utc();
    if object.protected && end.is_some_and(|end| parse(end).is_none_or(|end| end > now)) {
        keepers.push(format!("protection until {}", end.unwrap_or_default()));
    }
    keepers.extend(users.of(object));
    keepers
}

/// Why something is kept of which nobody can say that it is old.
fn unknown_age(created: Option<i64>) -> Option<String> {
    created.is_none().then(|| "its age is not known".to_owned())
}

/// When an image was made, in seconds since 1970.
fn created(object: &Object) -> Option<i64> {
    let tag = object.tags.get(bodies::TAG_PUBLISHED);
    let found = object.published.as_ref().or(tag)?;
    parse(found).map(OffsetDateTime::unix_timestamp)
}

fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Seconds since 1970 of a time as blobs have it.
fn rfc1123(text: &str) -> Option<i64> {
    let text = text.replace("GMT", "+0000");
    let found = OffsetDateTime::parse(&text, &Rfc2822).ok()?;
    Some(found.unix_timestamp())
}
