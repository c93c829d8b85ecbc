//! Virtual media: an image that the host sees as a CD.
//!
//! It refuses to guess which slot is meant: the first that takes CDs or DVDs is.

use hyper::Method;
use serde_json::json;

use super::chain::{Chain, refusal};
use super::link::Lost;
use super::resource::{self, Resource};
use crate::bmc::Error;

/// Shows the image at `uri` to the host as a CD, and reads back that it is there.
///
/// # Errors
/// When the BMC has no slot, or does not take the image.
pub async fn insert_media(chain: &mut Chain, uri: &str) -> Result<(), Error> {
    let (path, slot) = chain.slot().await?;
    if slot.text("/Image") == Some(uri) && is_inserted(&slot) {
        return Ok(());
    }
    let body = json!({ "Image": uri, "Inserted": true, "WriteProtected": true });
    let properties = json!({ "Image": uri, "Inserted": true });
    chain
        .act(&path, &slot, "InsertMedia", body, &properties)
        .await?;
    let (_, slot) = chain.slot().await?;
    if is_inserted(&slot) {
        return Ok(());
    }
    Err(Error::NotVerified {
        wanted: format!("media {uri}"),
        found: "an empty slot".to_owned(),
    })
}

/// Takes the image away, if there is one, and reads back that it is gone.
///
/// # Errors
/// When the BMC has no slot, or keeps the image.
pub async fn eject_media(chain: &mut Chain) -> Result<(), Error> {
    let (path, slot) = chain.slot().await?;
    if !is_inserted(&slot) {
        return Ok(());
    }
    let properties = json!({ "Image": null, "Inserted": false });
    chain
        .act(&path, &slot, "EjectMedia", json!({}), &properties)
        .await?;
    let (_, slot) = chain.slot().await?;
    if !is_inserted(&slot) {
        return Ok(());
    }
    Err(Error::NotVerified {
        wanted: "an empty slot".to_owned(),
        found: slot.text("/Image").map_or_else(
            || "media".to_owned(),
            |image| format!("media {}", resource::printable(image)),
        ),
    })
}

/// Newer services say so; older ones only name an image.
fn is_inserted(slot: &Resource) -> bool {
    let told = slot.at("/Inserted").and_then(serde_json::Value::as_bool);
    told.unwrap_or_else(|| slot.text("/Image").is_some())
}

impl Chain {
    /// Finds the slot for CDs, at the system or at who manages it.
    async fn slot(&mut self) -> Result<(String, Resource), Error> {
        let path = self.system.clone();
        let system = self.get(&path).await?.0;
        let mut collections: Vec<_> = system.link("/VirtualMedia").into_iter().collect();
        if collections.is_empty() {
            let managers = self.managers(&system).await?;
            let links = managers.iter();
            collections.extend(links.filter_map(|manager| manager.link("/VirtualMedia")));
        }
        for collection in collections {
            for path in self.members(&collection).await? {
                let slot = self.get(&path).await?.0;
                let kinds = slot.texts("/MediaTypes").unwrap_or_default();
                if kinds.iter().any(|kind| matches!(*kind, "CD" | "DVD")) {
                    return Ok((path, slot));
                }
            }
        }
        Err(Error::Unsupported {
            detail: "virtual media".to_owned(),
        })
    }

    /// Acts on a slot: by its action, or by its properties where it has none.
    async fn act(
        &mut self,
        path: &str,
        slot: &Resource,
        action: &str,
        body: serde_json::Value,
        properties: &serde_json::Value,
    ) -> Result<(), Error> {
        let target = slot.text(&format!("/Actions/#VirtualMedia.{action}/target"));
        let answer = match target.and_then(resource::path) {
            Some(target) => self
                .send(Method::POST, &target, Some(body), None)
                .await
                .map_err(|lost| match lost {
                    Lost::Before(error) => error,
                    Lost::After(read) => Error::Unknown {
                        sent: action.to_owned(),
                        read,
                    },
                })?,
            None => self.patch(path, properties).await?,
        };
        if !(200..300).contains(&answer.status) {
            return Err(refusal(&answer, action));
        }
        self.settle(&answer).await
    }
}
