//! Looking: what one region has of this build and target.

use super::client::Client;
use super::desired::Desired;
use super::ec2::Image;
use super::left::leave;
use super::plan::Region;
use crate::error::Error;

/// What one region has.
pub(super) async fn observe(client: &Client, desired: &Desired) -> Result<Region, Error> {
    let mut region = Region {
        images: client.images(&desired.own()).await?,
        snapshots: client.snapshots(&desired.own()).await?,
        parameters: client.parameters(&desired.parameters).await?,
        ..Region::default()
    };
    if region.images.is_empty() {
        let named = client.images_named(&desired.name).await?;
        let own = |image: &&Image| {
            desired
                .own()
                .iter()
                .all(|(key, value)| image.tags.get(*key).is_some_and(|has| has == value))
        };
        region.foreign = named
            .iter()
            .find(|image| !own(image))
            .map(|image| image.id.clone());
    }
    leave(client, desired, &mut region).await?;
    if let Some(image) = region.available().cloned() {
        region.grants = known(client.grants(&image.id).await)?;
        if let Some(mapping) = image.mappings.first() {
            region.snapshot_grants = known(client.snapshot_grants(&mapping.snapshot).await)?;
        }
    }
    Ok(region)
}

/// What is not known everywhere yet was not given to anybody.
pub(super) fn known<T: Default>(answer: Result<T, Error>) -> Result<T, Error> {
    match answer {
        Err(error) if is_unknown(&error) => Ok(T::default()),
        answer => answer,
    }
}

/// Whether the cloud says that there is no such object, or not yet one that can be used.
pub(super) fn is_unknown(error: &Error) -> bool {
    let codes = [
        "InvalidAMIID.NotFound",
        "InvalidAMIID.Unavailable",
        "InvalidSnapshot.NotFound",
        "InvalidID",
        "IncorrectState",
    ];
    matches!(error, Error::Refused { code, .. } if codes.contains(&code.as_str()))
}
