//! What a target wants of an image, and whether an image of the cloud is that.
//!
//! It refuses disks that the cloud would refuse after they were sent.

use std::sync::Arc;

use image_manifest::{Digest, FormKind};

use super::plan::{Desired, Image};
use super::target::Target;
use crate::error::Error;
use crate::subject::{Disk, Subject};

pub(super) fn desired(
    target: &Target,
    subject: &Subject,
) -> Result<(Arc<dyn Disk>, Desired), Error> {
    let unfit = |reason: String| Error::Unfit {
        image: subject.name.clone(),
        to: target.name.clone(),
        reason,
    };
    let disk = subject
        .disk
        .as_ref()
        .ok_or_else(|| unfit("it has no disk".to_owned()))?;
    let form = disk.form(FormKind::Gce);
    let (digest, size): (Digest, u64) =
        form.ok_or_else(|| unfit("its disk has no form `gce`".to_owned()))?;
    let architecture = match subject.architecture.as_str() {
        "amd64" => "X86_64",
        "arm64" => "ARM64",
        other => {
            return Err(unfit(format!(
                "Google's cloud has no architecture `{other}`"
            )));
        }
    };
    let raw = disk.blocks().size;
    if raw == 0 || raw % (1 << 30) != 0 {
        return Err(unfit(format!(
            "its disk has {raw} bytes, which are no whole GiB"
        )));
    }
    let desired = Desired {
        target: target.name.clone(),
        project: target.project.clone(),
        bucket: target.bucket.clone(),
        object: target.object_name(subject, &digest),
        keep_object: target.keep_object,
        digest: digest.to_string(),
        size,
        tags: subject.tags(),
        name: target.image_name(subject),
        description: format!(
            "{} {} ({}), manifest {}, tree {}",
            subject.name, subject.version, subject.distribution, subject.manifest, subject.tree
        ),
        architecture: architecture.to_owned(),
        features: target.features(architecture),
        labels: target.all_labels(subject),
        disk_gib: raw >> 30,
        location: target.storage_locations.first().cloned(),
        kms_key: target.kms_key.clone(),
        members: target.share_with.clone(),
        family: target.family(subject),
        deprecate_after: target.deprecate_after,
    };
    Ok((Arc::clone(disk), desired))
}

/// Compares an image with what was asked for. Features and locations that the cloud added are no matter.
pub(super) fn verify(desired: &Desired, image: &Image) -> Result<(), Error> {
    let list = |all: &std::collections::BTreeSet<String>| {
        all.iter().cloned().collect::<Vec<_>>().join(" ")
    };
    let key = image.kms_key.as_deref().unwrap_or_default();
    let key = key.split("/cryptoKeyVersions/").next().unwrap_or_default();
    let compared = [
        (
            "status",
            image.status.clone(),
            "READY".to_owned(),
            image.status == "READY",
        ),
        (
            "architecture",
            image.architecture.clone(),
            desired.architecture.clone(),
            image.architecture == desired.architecture,
        ),
        (
            "disk size in GiB",
            image.disk_gib.to_string(),
            desired.disk_gib.to_string(),
            image.disk_gib == desired.disk_gib,
        ),
        (
            "features",
            list(&image.features),
            list(&desired.features),
            desired.features.is_subset(&image.features),
        ),
        (
            "location",
            image.locations.join(" "),
            desired.location.clone().unwrap_or_default(),
            desired.location.as_ref().is_none_or(|wanted| {
                image
                    .locations
                    .iter()
                    .any(|found| found.eq_ignore_ascii_case(wanted))
            }),
        ),
        (
            "key",
            key.to_owned(),
            desired.kms_key.clone().unwrap_or_default(),
            desired.kms_key.as_ref().is_none_or(|wanted| wanted == key),
        ),
    ];
    let wrong = compared.into_iter().find(|(_, _, _, same)| !same);
    wrong.map_or(Ok(()), |(what, found, expected, _)| {
        Err(Error::Mismatch {
            what: format!("{what} of image `{}`", image.name),
            found,
            expected,
        })
    })
}
