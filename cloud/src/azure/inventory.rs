//! All images of one name, who keeps each, and their end.
//!
//! It refuses to remove what somebody uses, and what it may not ask about.

use hyper::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use super::Publisher;
use super::bodies;
use super::names::{COMPUTE, Kind};
use super::observed::{Object, State};
use super::upload;
use crate::error::Error;
use crate::provider::{Progress, Published, Step};

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
        let image = self.desired.image.clone();
        let objects = match &self.desired.kind {
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
        let users = self.users().await?;
        let mut found = Vec::new();
        for object in objects.iter().filter(|object| object.is_of(&image)) {
            if object.state != State::Leaving {
                found.push(self.published(object, &users));
            }
        }
        found.extend(self.disks(&found).await?);
        Ok(found)
    }

    fn published(&self, object: &Object, users: &Users) -> Published {
        let copies: u64 = object.regions.values().map(|(count, _)| count).sum();
        let end = object.end_of_life.clone();
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
            manifest: object.manifest().unwrap_or_default().to_owned(),
            created: created(object),
            bytes: bytes * copies.max(1),
            kept_by: keepers(object, users, OffsetDateTime::now_utc()),
            deprecated: end.or_else(|| object.tags.get(TAG_END).cloned()),
        }
    }

    /// Uploaded disks of this image that no run finished with, or that the target keeps.
    async fn disks(&self, images: &[Published]) -> Result<Vec<Published>, Error> {
        let target = &self.desired.target;
        let container = format!("{}/{}", target.storage(), target.container);
        let blobs = self.blob.at(container.clone());
        let listed = blobs.list(&format!("{}-", target.name)).await?;
        let mut found = Vec::new();
        for (name, seen) in listed {
            let Some((image, manifest)) = upload::origin(&seen) else {
                continue;
            };
            if image != self.desired.image {
                continue;
            }
            let mut kept_by = Vec::new();
            if target.keep_blob && images.iter().any(|image| image.manifest == manifest) {
                kept_by.push("`keep-blob` of the target".to_owned());
            }
            found.push(Published {
                target: target.name.clone(),
                place: target.location.clone(),
                id: format!("{container}/{name}"),
                name: name.clone(),
                manifest: manifest.to_owned(),
                created: seen.created.as_deref().map_or(0, rfc1123),
                bytes: seen.size,
                kept_by,
                deprecated: None,
            });
        }
        Ok(found)
    }

    /// Virtual machines and scale sets of the subscription, with what they are made of.
    async fn users(&self) -> Result<Users, Error> {
        let mut users = Users::default();
        let subscription = &self.desired.target.subscription;
        for kind in ["virtualMachines", "virtualMachineScaleSets"] {
            let path = format!("/subscriptions/{subscription}/providers/Microsoft.Compute/{kind}");
            let query = format!("api-version={COMPUTE}");
            match self.arm.list(kind, &path, &query).await {
                Ok(listed) => users.read(kind, &listed),
                Err(Error::Denied { permission, .. }) => users.unknown.push(permission),
                Err(error) => return Err(error),
            }
        }
        Ok(users)
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
        let keepers = keepers(&object, &users, OffsetDateTime::now_utc());
        if !keepers.is_empty() {
            return Err(Error::Kept {
                what: format!("`{}`", published.id),
                by: keepers,
            });
        }
        self.delete(&object.path, &Silent).await
    }

    async fn drop_disk(&self, published: &Published) -> Result<(), Error> {
        let now = self.disks(&[]).await?;
        if now.iter().any(|disk| disk.id == published.id) {
            self.blob.at(published.id.clone()).remove().await?;
        }
        Ok(())
    }

    /// What is there of something that was listed; it may have become another's.
    async fn same(&self, published: &Published) -> Result<Option<Object>, Error> {
        let Some(object) = self.state(&published.id).await? else {
            return Ok(None);
        };
        if object.manifest() == Some(published.manifest.as_str()) {
            return Ok(Some(object));
        }
        Err(Error::Foreign {
            what: format!("`{}`", published.id),
        })
    }
}

/// Who is made of which image.
#[derive(Debug, Default)]
struct Users {
    /// Name of the user, and the path of its image.
    known: Vec<(String, String)>,
    /// Permissions that asking lacked.
    unknown: Vec<String>,
}

impl Users {
    fn read(&mut self, kind: &str, listed: &[Value]) {
        for user in listed {
            let properties = &user["properties"];
            let profile = match kind {
                "virtualMachines" => properties,
                _ => &properties["virtualMachineProfile"],
            };
            let image = &profile["storageProfile"]["imageReference"];
            // A reference to the latest tells which one that was.
            let exact = image["exactVersion"].as_str();
            if let (Some(name), Some(id)) = (user["name"].as_str(), image["id"].as_str()) {
                let id = match exact {
                    Some(version) if !id.contains("/versions/") => {
                        format!("{id}/versions/{version}")
                    }
                    _ => id.to_owned(),
                };
                self.known
                    .push((format!("{kind}/{name}"), id.to_lowercase()));
            }
        }
    }
}

fn keepers(object: &Object, users: &Users, now: OffsetDateTime) -> Vec<String> {
    let mut keepers = Vec::new();
    let path = object.path.to_lowercase();
    if path.contains("/versions/") && !object.excluded {
        keepers.push("the latest of its definition".to_owned());
    }
    let end = object.end_of_life.as_deref();
    if object.protected && end.is_some_and(|end| parse(end).is_none_or(|end| end > now)) {
        keepers.push(format!("protection until {}", end.unwrap_or_default()));
    }
    let by = users.known.iter().filter(|(_, image)| *image == path);
    keepers.extend(by.map(|(name, _)| name.clone()));
    let unknown = users.unknown.iter();
    keepers
        .extend(unknown.map(|permission| format!("maybe somebody: asking needs `{permission}`")));
    keepers
}

fn created(object: &Object) -> i64 {
    let tag = object.tags.get(bodies::TAG_PUBLISHED);
    let found = object.published.as_ref().or(tag);
    let found = found.and_then(|text| parse(text));
    found.map_or(0, OffsetDateTime::unix_timestamp)
}

fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Seconds since 1970 of a time as blobs have it.
fn rfc1123(text: &str) -> i64 {
    let text = text.replace("GMT", "+0000");
    let found = OffsetDateTime::parse(&text, &Rfc2822);
    found.map_or(0, OffsetDateTime::unix_timestamp)
}
