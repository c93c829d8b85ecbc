//! Whether what the cloud has is what was asked for: it takes some settings and forgets them.

use std::collections::BTreeMap;

use super::desired::Desired;
use super::ec2::Image;
use super::plan::Region;
use crate::error::Error;
use crate::provider::Stage;

/// Compares every image with what is wanted.
pub(super) fn verify(
    desired: &Desired,
    observed: &BTreeMap<String, Region>,
    stage: Stage,
) -> Result<(), Error> {
    if stage != Stage::Private {
        // Later stages are planned until nothing is left, which is their verification.
        return Ok(());
    }
    for name in &desired.regions {
        let image = observed.get(name).and_then(Region::available);
        let image = image.ok_or_else(|| Error::Mismatch {
            what: format!("image `{}` in {name}", desired.name),
            found: "not there".to_owned(),
            expected: "available".to_owned(),
        })?;
        if let Some((what, found, expected)) = difference(desired, name, image) {
            return Err(Error::Mismatch {
                what: format!("{what} of {} in {name}", image.id),
                found,
                expected,
            });
        }
    }
    Ok(())
}

/// The first thing in which an image is not what is wanted.
pub(super) fn difference(
    desired: &Desired,
    region: &str,
    image: &Image,
) -> Option<(&'static str, String, String)> {
    let mapping = image.mappings.first().cloned().unwrap_or_default();
    let version = |wanted: bool| if wanted { "v2.0" } else { "" };
    let encrypted = desired.keys.contains_key(region);
    let pairs = [
        ("the name", image.name.clone(), desired.name.clone()),
        (
            "the architecture",
            image.architecture.clone(),
            desired.architecture.to_owned(),
        ),
        (
            "the boot mode",
            image.boot_mode.clone(),
            desired.boot_mode.to_owned(),
        ),
        (
            "the TPM",
            image.tpm.clone(),
            version(desired.tpm).to_owned(),
        ),
        (
            "the metadata version",
            image.imds.clone(),
            version(desired.imdsv2).to_owned(),
        ),
        (
            "the network adapter",
            image.ena.to_string(),
            desired.ena.to_string(),
        ),
        ("the root device", image.root.clone(), mapping.device),
        (
            "the number of disks",
            image.mappings.len().to_string(),
            "1".to_owned(),
        ),
        (
            "the size in GiB",
            mapping.size.to_string(),
            desired.size.to_string(),
        ),
        (
            "the encryption",
            mapping.encrypted.to_string(),
            encrypted.to_string(),
        ),
    ];
    let mut wrong = pairs
        .into_iter()
        .filter(|(_, found, expected)| found != expected);
    wrong.next().map(|(what, found, expected)| {
        let found = if found.is_empty() {
            "not set".to_owned()
        } else {
            found
        };
        let expected = if expected.is_empty() {
            "not set".to_owned()
        } else {
            expected
        };
        (what, found, expected)
    })
}
