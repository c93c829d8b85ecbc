//! Makes one change of a plan.
//!
//! It refuses to keep an image whose hash is not that of what was sent.

use serde_json::{Value, json};

use super::images::Change;
use super::plan::{Action, COMPARED, Image};
use super::publisher::Publisher;
use super::target::CURRENT;
use super::upload::{hash, upload};
use crate::error::Error;
use crate::provider::Progress;
use crate::uuid::uuid;

/// Images of one build that were made and removed at most: an id is never given twice.
const LIVES: u32 = 100;

impl Publisher {
    /// Makes one change.
    pub(super) async fn act(
        &mut self,
        action: &Action,
        progress: &dyn Progress,
    ) -> Result<Change, Error> {
        let image = self.observed.image.clone().unwrap_or_default();
        let id = image.id.as_str();
        match action {
            Action::Create => self.create().await,
            _ if id.is_empty() => Ok(Change::Conflict),
            Action::RemoveFailed(id) => self.images.delete(id).await,
            Action::Upload => {
                let what = (&self.desired, &self.disk);
                self.sent = upload(&self.images, id, what, progress)
                    .await?
                    .map(|hash| (id.to_owned(), hash));
                Ok(if self.sent.is_some() {
                    Change::Done
                } else {
                    Change::Conflict
                })
            }
            Action::Compare => self.compare(&image).await,
            Action::Describe => {
                let what = format!("set properties of image `{id}`");
                self.images.patch(what, id, &self.description(&image)).await
            }
            Action::Show(visibility) => {
                let label = visibility.label();
                let what = format!("make image `{id}` visible to `{label}`");
                let change = json!({ "op": "replace", "path": "/visibility", "value": label });
                self.images.patch(what, id, &[change]).await
            }
            Action::Share(project) => match self.images.share(id, project).await? {
                // It is a member already.
                Change::Conflict | Change::Done => Ok(Change::Done),
            },
            Action::Unhide => self.hide(id, false).await,
            Action::Hide(other) => self.hide(other, true).await,
            Action::Tag => self.images.tag(id, CURRENT).await,
            Action::Untag(other) => match self.images.untag(other, CURRENT).await? {
                // Somebody else took it away.
                Change::Conflict | Change::Done => Ok(Change::Done),
            },
        }
    }

    async fn hide(&self, id: &str, hidden: bool) -> Result<Change, Error> {
        let what = format!("say whether lists have image `{id}`");
        let change = json!({ "op": "replace", "path": "/os_hidden", "value": hidden });
        self.images.patch(what, id, &[change]).await
    }

    /// Makes the image under the first id that was never used: two publishers choose the same.
    async fn create(&self) -> Result<Change, Error> {
        for life in 0..LIVES {
            let desired = &self.desired;
            let id = uuid(&format!(
                "{}\n{}\n{}\n{life}",
                desired.digest, desired.name, self.observed.project
            ));
            match self.images.create(&id, desired).await? {
                Change::Done => return Ok(Change::Done),
                // Another publisher was faster. Without it, it was removed: its id is used up.
                Change::Conflict if self.images.image(&id).await?.is_some() => {
                    return Ok(Change::Conflict);
                }
                Change::Conflict => {}
            }
        }
        Err(Error::Protocol {
            what: format!("make image `{}`", self.desired.name),
            reason: format!("each of {LIVES} ids is used up"),
        })
    }

    async fn compare(&mut self, image: &Image) -> Result<Change, Error> {
        let known = self.sent.as_ref().filter(|(id, _)| *id == image.id);
        let known = known.map(|(_, hash)| hash.clone());
        let expected = match (image.hash_algo.as_str(), known) {
            ("sha512", Some(hash)) => hash,
            // Somebody else sent it, or a run that was killed before it could compare.
            ("sha512", None) => hash(&self.disk, self.desired.size).await?,
            ("sha256", _) => self.desired.digest.trim_start_matches("sha256:").to_owned(),
            (other, _) => {
                return Err(Error::Protocol {
                    what: format!("compare the hash of image `{}`", image.id),
                    reason: format!(
                        "the cloud hashes by `{other}`; it is to be `sha512` or `sha256`"
                    ),
                });
            }
        };
        let same = image.hash == expected && image.size == self.desired.size;
        if !same {
            self.images.delete(&image.id).await?;
            return Err(Error::Mismatch {
                what: format!("hash of image `{}`", image.id),
                found: format!("{} ({} bytes)", image.hash, image.size),
                expected: format!("{expected} ({} bytes)", self.desired.size),
            });
        }
        let what = format!("note the hash of image `{}`", image.id);
        let change = json!({ "op": "add", "path": format!("/{COMPARED}"), "value": expected });
        self.images.patch(what, &image.id, &[change]).await
    }

    /// The changes that make an image what was asked for.
    fn description(&self, image: &Image) -> Vec<Value> {
        let desired = &self.desired;
        let differing = desired.properties.iter();
        let differing =
            differing.filter(|(name, value)| image.properties.get(*name) != Some(value));
        // A pointer of RFC 6901 escapes these two.
        let pointer = |name: &str| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        let mut changes: Vec<Value> = differing
            .map(|(name, value)| json!({ "op": "add", "path": pointer(name), "value": value }))
            .collect();
        let replace =
            |path: &str, value: Value| json!({ "op": "replace", "path": path, "value": value });
        if !desired.tags.is_subset(&image.tags) {
            let all: Vec<&String> = desired.tags.union(&image.tags).collect();
            changes.push(replace("/tags", json!(all)));
        }
        if image.protected != desired.protected {
            changes.push(replace("/protected", desired.protected.into()));
        }
        if image.min_disk != desired.min_disk {
            changes.push(replace("/min_disk", desired.min_disk.into()));
        }
        changes
    }
}
