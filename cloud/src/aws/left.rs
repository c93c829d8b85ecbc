//! What has our tags and stays all the same: others copy images with their tags, and use what they made.
//!
//! It refuses to judge by tags alone that something may go.

use std::collections::BTreeMap;

use super::client::Client;
use super::desired::Desired;
use super::ec2::Image;
use super::observe::known;
use super::plan::Region;
use crate::error::Error;

/// Sets aside what has our tags and may be somebody else's: tags are copied along by tools and people.
pub(super) async fn leave(
    client: &Client,
    desired: &Desired,
    region: &mut Region,
) -> Result<(), Error> {
    let mut left = BTreeMap::new();
    let is_named = region.images.iter().any(|image| image.name == desired.name);
    for image in &region.images {
        if image.name != desired.name && (is_named || image.has_failed()) {
            left.insert(image.id.clone(), format!("its name is `{}`", image.name));
        }
    }
    region.left = left;
    let used = region.used();
    let foreign = region.snapshots.iter().filter(|snapshot| {
        let ours = snapshot.description == desired.description || snapshot.state == "error";
        !ours && !used.contains(snapshot.id.as_str())
    });
    let why = |id: &String| (id.clone(), "it is no upload of this target".to_owned());
    let mut left: BTreeMap<_, _> = foreign.map(|snapshot| why(&snapshot.id)).collect();
    let kept = region.image().map(|image| &image.id);
    let twice = region.images.iter().filter(|image| {
        Some(&image.id) != kept && !image.has_failed() && !region.left.contains_key(&image.id)
    });
    for image in twice {
        let kept_by = keepers(client, image, &region.parameters).await?;
        if !kept_by.is_empty() {
            left.insert(image.id.clone(), format!("kept by {}", kept_by.join(", ")));
        }
    }
    region.left.extend(left);
    Ok(())
}

/// Who keeps an image that is there twice. Where that cannot be asked, it is kept.
async fn keepers(
    client: &Client,
    image: &Image,
    parameters: &BTreeMap<String, String>,
) -> Result<Vec<String>, Error> {
    let asked = async {
        let mut kept_by = known(client.references(&image.id).await)?;
        kept_by.extend(known(client.grants(&image.id).await)?.names());
        Ok(kept_by)
    };
    let mut kept_by = match asked.await {
        Err(error @ (Error::Denied { .. } | Error::Refused { .. })) => {
            vec![format!("whoever ({})", crate::http::chain(&error))]
        }
        asked => asked?,
    };
    if image.protected {
        kept_by.push("deregistration protection".to_owned());
    }
    let pointers = parameters.iter().filter(|(_, names)| **names == image.id);
    kept_by.extend(pointers.map(|(name, _)| format!("parameter {name}")));
    Ok(kept_by)
}
