//! Every image of a target, who keeps each, and how one is deprecated or removed.

use std::collections::BTreeMap;

use super::client::Client;
use super::desired::Desired;
use super::ec2::Image;
use super::plan::{Region, Step, minute};
use super::publisher::{Publisher, now};
use super::target::fill;
use super::together::all;
use super::waiting::Waiting;
use crate::error::Error;
use crate::provider::{Kind, Pending, Published, Receipt, Stage};
use crate::subject::{TAG_ARCHITECTURE, TAG_IMAGE, TAG_MANIFEST, TAG_VERSION};

/// What there is of an image.
pub(super) fn receipts(
    desired: &Desired,
    observed: &BTreeMap<String, Region>,
    steps: &[Step],
) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for (place, region) in observed {
        let Some(image) = region.image() else {
            continue;
        };
        let left = steps
            .iter()
            // One instance judges the image of every region.
            .filter(|step| step.region() == place || matches!(step, Step::Launch { .. }))
            .map(Step::stage)
            .min();
        let stage = match left {
            Some(Stage::Private | Stage::Verified | Stage::Shared) => Stage::Private,
            Some(Stage::Current) => Stage::Shared,
            None => Stage::Current,
        };
        let receipt = |kind: &str, id: &str| Receipt {
            target: desired.target.clone(),
            provider: "aws".to_owned(),
            kind: kind.to_owned(),
            place: place.clone(),
            id: id.to_owned(),
            name: image.name.clone(),
            stage,
        };
        receipts.push(receipt("ami", &image.id));
        let snapshots = image.mappings.iter().map(|mapping| &mapping.snapshot);
        receipts.extend(snapshots.map(|id| receipt("snapshot", id)));
        let named = region
            .parameters
            .iter()
            .filter(|(_, names)| **names == image.id);
        receipts.extend(named.map(|(parameter, _)| receipt("parameter", parameter)));
    }
    receipts
}

impl Publisher {
    /// Every image of this name that the target has.
    pub(super) async fn published(&self) -> Result<Vec<Published>, Error> {
        let regions = self.clients.iter().map(|client| -> Pending<'_, _> {
            Box::pin(async move {
                let mut found = Vec::new();
                let snapshots = client.snapshots(&self.desired.kin()).await?;
                for image in client.images(&self.desired.kin()).await? {
                    let mut bytes = 0;
                    for mapping in &image.mappings {
                        let snapshot = snapshots
                            .iter()
                            .find(|snapshot| snapshot.id == mapping.snapshot);
                        let full = snapshot.and_then(|snapshot| snapshot.bytes);
                        bytes += full.unwrap_or(mapping.size << 30);
                    }
                    found.push(self.one(client, &image, bytes).await?);
                }
                Ok(found)
            })
        });
        let found = all(regions.collect()).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn one(&self, client: &Client, image: &Image, bytes: u64) -> Result<Published, Error> {
        Ok(Published {
            target: self.desired.target.clone(),
            place: client.region.clone(),
            id: image.id.clone(),
            name: image.name.clone(),
            kind: Kind::Image,
            architecture: image
                .tags
                .get(TAG_ARCHITECTURE)
                .cloned()
                .unwrap_or_default(),
            manifest: image.tags.get(TAG_MANIFEST).cloned().unwrap_or_default(),
            created: image.created,
            bytes,
            kept_by: self.kept_by(client, image).await?,
            deprecated: image.deprecated.clone(),
            deprecated_from: image.deprecated.as_deref().map(super::ec2::seconds),
        })
    }

    /// Who keeps an image: what uses it, whom it was given to, what names it, protection.
    async fn kept_by(&self, client: &Client, image: &Image) -> Result<Vec<String>, Error> {
        let mut kept_by = client.references(&image.id).await?;
        let grants = client.grants(&image.id).await?;
        kept_by.extend(
            grants
                .names()
                .into_iter()
                .map(|name| format!("shared with {name}")),
        );
        if image.protected {
            kept_by.push("deregistration protection".to_owned());
        }
        if image.created <= 0 {
            // It may be the newest.
            kept_by.push("its age is not known".to_owned());
        }
        if image.is_disabled() {
            kept_by.push("somebody disabled it".to_owned());
        }
        let tag = |key| image.tags.get(key).map_or("", String::as_str);
        let names = self.target.parameters.iter().filter_map(|name| {
            fill(
                name,
                tag(TAG_IMAGE),
                tag(TAG_VERSION),
                tag(TAG_ARCHITECTURE),
            )
        });
        let names: Vec<_> = names.collect();
        let pointers = client.parameters(&names).await?.into_iter();
        let pointers = pointers.filter(|(_, points_to)| *points_to == image.id);
        kept_by.extend(pointers.map(|(name, _)| format!("parameter {name}")));
        Ok(kept_by)
    }

    fn client(&self, published: &Published) -> Result<&Client, Error> {
        let client = self
            .clients
            .iter()
            .find(|client| client.region == published.place);
        client.ok_or_else(|| Error::Unfit {
            image: published.name.clone(),
            to: self.desired.target.clone(),
            reason: format!("`{}` is not one of its regions", published.place),
        })
    }

    async fn find(&self, client: &Client, id: &str) -> Result<Option<Image>, Error> {
        let images = client.images(&self.desired.kin()).await?;
        Ok(images.into_iter().find(|image| image.id == id))
    }

    pub(super) async fn deprecate_one(
        &self,
        published: &Published,
        from: i64,
    ) -> Result<(), Error> {
        let client = self.client(published)?;
        // Whole minutes, and not in the past when the call arrives.
        let at = (from.max(now() + 60) + 59) / 60 * 60;
        client.deprecate(&published.id, &minute(at)).await?;
        let what = format!("for {} in {} to be deprecated", published.id, client.region);
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.visible));
        loop {
            let image = self.find(client, &published.id).await?;
            let found = image.and_then(|image| image.deprecated);
            let seen = found.as_deref().map(super::ec2::seconds);
            if seen == Some(at) {
                return Ok(());
            }
            waiting
                .again(found.unwrap_or_else(|| "not deprecated".to_owned()))
                .await?;
        }
    }

    pub(super) async fn remove_one(&self, published: &Published) -> Result<(), Error> {
        let client = self.client(published)?;
        let Some(image) = self.find(client, &published.id).await? else {
            return Ok(());
        };
        let kept_by = self.kept_by(client, &image).await?;
        if !kept_by.is_empty() {
            return Err(Error::Kept {
                what: format!("{} in {}", image.id, client.region),
                by: kept_by,
            });
        }
        client.deregister(&image.id).await?;
        let what = format!("for {} in {} to be gone", image.id, client.region);
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.visible));
        while self.find(client, &image.id).await?.is_some() {
            waiting.again("it is still there").await?;
        }
        for mapping in &image.mappings {
            client.delete_snapshot(&mapping.snapshot).await?;
        }
        Ok(())
    }
}
