//! Which images of this name a project has, who keeps each, and their end.
//!
//! It refuses to remove what is current, protected, in use, or shared with more than the target says.

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::images::Change;
use super::plan::{ARCHITECTURE, DEPRECATED, IMAGE, Image, MANIFEST};
use super::publisher::Publisher;
use super::target::CURRENT;
use crate::error::Error;
use crate::provider::{Kind, Published};

impl Publisher {
    /// One image, and who keeps it.
    async fn published(&self, image: &Image) -> Result<Published, Error> {
        let mut kept_by = Vec::new();
        if image.tags.contains(CURRENT) {
            kept_by.push(format!("tagged `{CURRENT}`"));
        }
        if image.protected {
            kept_by.push("it is protected".to_owned());
        }
        if image.visibility == "shared" {
            let members = self.images.members(&image.id).await?;
            // Whom every image is shared with says nothing about this one.
            let others = members
                .into_iter()
                .filter(|member| !self.desired.members.contains(member));
            kept_by.extend(others.map(|member| format!("shared with project `{member}`")));
        }
        if matches!(image.visibility.as_str(), "community" | "public")
            && image.visibility != self.desired.visibility.label()
        {
            kept_by.push(format!("it is {}", image.visibility));
        }
        let property = |name: &str| image.properties.get(name).cloned();
        Ok(Published {
            target: self.desired.target.clone(),
            place: self.observed.project.clone(),
            id: image.id.clone(),
            name: image.name.clone(),
            kind: Kind::Image,
            architecture: property(ARCHITECTURE).unwrap_or_default(),
            manifest: property(MANIFEST).unwrap_or_default(),
            created: image.created,
            bytes: image.size,
            kept_by,
            deprecated_from: property(DEPRECATED).as_deref().map(moment),
            deprecated: property(DEPRECATED).map(|from| format!("from {from} on")),
        })
    }

    pub(super) async fn all(&mut self) -> Result<Vec<Published>, Error> {
        self.observed.project = self.images.project().await?;
        let mut all = Vec::new();
        for image in self.line().await? {
            all.push(self.published(&image).await?);
        }
        Ok(all)
    }

    pub(super) async fn outdate(&self, published: &Published, from: i64) -> Result<(), Error> {
        let time = OffsetDateTime::from_unix_timestamp(from).ok();
        let time = time
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_default();
        let mut changes =
            vec![json!({ "op": "add", "path": format!("/{DEPRECATED}"), "value": time })];
        let begins = from <= OffsetDateTime::now_utc().unix_timestamp();
        if begins {
            changes.push(json!({ "op": "replace", "path": "/os_hidden", "value": true }));
        }
        let what = format!("deprecate image `{}`", published.id);
        self.images.patch(what, &published.id, &changes).await?;
        if begins {
            // Nothing points to what should not be used.
            self.images.untag(&published.id, CURRENT).await?;
        }
        Ok(())
    }

    pub(super) async fn drop_image(&self, published: &Published) -> Result<(), Error> {
        let Some(image) = self.images.image(&published.id).await? else {
            return Ok(());
        };
        if image.properties.get(IMAGE).map(String::as_str) != Some(self.property(IMAGE)) {
            return Err(Error::Foreign {
                what: format!("image `{}`", image.id),
            });
        }
        let now = self.published(&image).await?;
        if !now.kept_by.is_empty() {
            return Err(Error::Kept {
                what: format!("image `{}`", image.id),
                by: now.kept_by,
            });
        }
        match self.images.delete(&image.id).await? {
            Change::Conflict if self.images.image(&image.id).await?.is_some() => Err(Error::Kept {
                what: format!("image `{}`", image.id),
                by: vec!["it is in use".to_owned()],
            }),
            _ => Ok(()),
        }
    }
}

/// Seconds since 1970 of a time that we wrote; 0 when somebody else did.
fn moment(text: &str) -> i64 {
    OffsetDateTime::parse(text, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp)
}
