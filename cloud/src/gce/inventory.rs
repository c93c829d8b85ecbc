//! Which images of this name a project has, who keeps each, and their removal.
//!
//! It refuses to remove what a family points to, what an instance template names, and what is shared with more than the target
//! says. Disks that were made of an image do not need it any more.

use std::time::Instant;

use time::OffsetDateTime;

use super::plan::{Deprecated, Image, LABEL_ARCHITECTURE, LABEL_IMAGE, LABEL_MANIFEST};
use super::publisher::{Publisher, READY};
use super::templates::Templates;
use crate::error::Error;
use crate::patience::chance;
use crate::provider::{Kind, Published};
use crate::subject::manifest_of;

impl Publisher {
    async fn published(&self, image: &Image, templates: &Templates) -> Result<Published, Error> {
        let mut kept_by = templates.keepers(&self.desired.project, &image.name);
        if let Some(family) = &image.family
            && self.head(family).await?.as_ref() == Some(&image.name)
        {
            kept_by.push(format!("family `{family}` points to it"));
        }
        let policy = self.compute.policy(&image.name).await?.unwrap_or_default();
        // Whom every image is shared with says nothing about this one.
        let others = policy
            .everybody()
            .into_iter()
            .filter(|member| !self.desired.members.contains(member));
        kept_by.extend(others.map(|member| format!("shared with `{member}`")));
        let manifest = image
            .labels
            .get(LABEL_MANIFEST)
            .and_then(|key| manifest_of(key));
        Ok(Published {
            target: self.desired.target.clone(),
            place: self.desired.project.clone(),
            id: format!(
                "projects/{}/global/images/{}",
                self.desired.project, image.name
            ),
            name: image.name.clone(),
            kind: Kind::Image,
            architecture: image
                .labels
                .get(LABEL_ARCHITECTURE)
                .cloned()
                .unwrap_or_default(),
            manifest: manifest
                .map(|digest| digest.to_string())
                .unwrap_or_default(),
            created: image.created / 1000,
            bytes: image.bytes,
            kept_by,
            deprecated: image.deprecated.as_ref().and_then(words),
            deprecated_from: image.deprecated.as_ref().and_then(moment),
        })
    }

    /// The image that a family points to.
    async fn head(&self, family: &str) -> Result<Option<String>, Error> {
        let all = self
            .compute
            .images(&format!("family = \"{family}\""))
            .await?;
        let active = all.into_iter().filter(|image| !image.is_deprecated());
        Ok(active
            .max_by_key(|image| image.created)
            .map(|image| image.name))
    }

    pub(super) async fn all(&self) -> Result<Vec<Published>, Error> {
        let name = self
            .desired
            .labels
            .get(LABEL_IMAGE)
            .cloned()
            .unwrap_or_default();
        let found = self
            .compute
            .images(&format!("labels.{LABEL_IMAGE} = \"{name}\""))
            .await?;
        let templates = self.compute.templates().await?;
        let mut published = Vec::new();
        for image in &found {
            published.push(self.published(image, &templates).await?);
        }
        Ok(published)
    }

    pub(super) async fn drop_image(&self, published: &Published) -> Result<(), Error> {
        let Some(image) = self.compute.image(&published.name).await? else {
            return Ok(());
        };
        if image.labels.get(LABEL_IMAGE) != self.desired.labels.get(LABEL_IMAGE) {
            return Err(Error::Foreign {
                what: format!("image `{}`", published.name),
            });
        }
        let templates = self.compute.templates().await?;
        let now = self.published(&image, &templates).await?;
        if !now.kept_by.is_empty() {
            return Err(Error::Kept {
                what: format!("image `{}`", now.name),
                by: now.kept_by,
            });
        }
        self.compute.delete(&now.name).await?;
        let (begun, mut attempt) = (Instant::now(), 0);
        while self.compute.image(&now.name).await?.is_some() {
            let wait = READY.wait(attempt, begun.elapsed(), None, chance());
            let Some(wait) = wait else {
                return Err(Error::Deadline {
                    what: format!("for image `{}` to be gone", now.name),
                    waited: begun.elapsed(),
                    last: "it is still there".to_owned(),
                });
            };
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
        Ok(())
    }
}

/// From when on it is deprecated, in seconds since 1970.
fn moment(deprecated: &Deprecated) -> Option<i64> {
    let from = deprecated.from.map(|from| from / 1000);
    match deprecated.state.as_str() {
        "" | "ACTIVE" => from,
        _ => Some(from.unwrap_or(0)),
    }
}

fn words(deprecated: &Deprecated) -> Option<String> {
    let day = deprecated
        .from
        .and_then(|from| OffsetDateTime::from_unix_timestamp(from / 1000).ok());
    let day = day.map(|day| day.date().to_string());
    match (deprecated.state.as_str(), day) {
        ("" | "ACTIVE", None) => None,
        ("" | "ACTIVE", Some(day)) => Some(format!("from {day} on")),
        (state, None) => Some(state.to_owned()),
        (state, Some(day)) => Some(format!("{state} since {day}")),
    }
}
