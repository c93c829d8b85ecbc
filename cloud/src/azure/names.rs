//! What things are called in Microsoft's cloud: names, numbers and paths, all made of the content.
//!
//! It refuses names that the cloud would refuse.

use std::collections::BTreeMap;

use image_manifest::{Digest, FormKind};
use time::OffsetDateTime;

use super::target::{Gallery, Target};
use crate::error::Error;
use crate::subject::{Subject, TAG_TARGET};

/// Versions of the interfaces.
pub const COMPUTE: &str = "2024-07-01";
/// Version of the galleries' interface.
pub const GALLERY: &str = "2024-03-03";
/// Version of the resource groups' and providers' interface.
pub const RESOURCES: &str = "2021-04-01";
/// Version of the storage accounts' interface.
pub const STORAGE: &str = "2023-05-01";
/// Version of the permissions' interface.
pub const AUTHORIZATION: &str = "2022-04-01";
/// Version of the blobs' interface.
pub const BLOB: &str = "2023-11-03";

/// What is wanted of one target, made of its words and the image alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The target.
    pub target: Target,
    /// The image that is made.
    pub kind: Kind,
    /// Its resource's path.
    pub path: String,
    /// The page blob's name.
    pub blob: String,
    /// Digest of the VHD.
    pub vhd: Digest,
    /// Size of the VHD, with its footer.
    pub size: u64,
    /// Tags of the image.
    pub tags: BTreeMap<String, String>,
    /// Name of the image, as its definition gives it.
    pub image: String,
    /// Digest of its manifest.
    pub manifest: String,
}

/// What an image is in the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A managed image.
    Image {
        /// Its name.
        name: String,
    },
    /// A version in a gallery.
    Version {
        /// The gallery, as the target has it.
        gallery: Box<Gallery>,
        /// Name of the definition.
        definition: String,
        /// Offer of the definition.
        offer: String,
        /// SKU of the definition.
        sku: String,
        /// The cloud's word for the architecture.
        architecture: &'static str,
        /// Its three numbers.
        version: String,
    },
}

impl Desired {
    /// Composes what is wanted.
    ///
    /// # Errors
    /// When the image cannot be had so.
    pub fn new(target: &Target, subject: &Subject) -> Result<Self, Error> {
        let unfit = |reason: String| Error::Unfit {
            image: subject.name.clone(),
            to: target.name.clone(),
            reason,
        };
        let disk = subject.disk.as_ref();
        let disk = disk.ok_or_else(|| unfit("it has no disk".to_owned()))?;
        let form = disk.form(FormKind::Vhd);
        let (vhd, size) = form.ok_or_else(|| unfit("it has no VHD".to_owned()))?;
        if let Some(reason) = bad_size(disk.blocks().size, size) {
            return Err(unfit(reason));
        }
        let architecture = match subject.architecture.as_str() {
            "amd64" => "x64",
            "arm64" => "Arm64",
            other => return Err(unfit(format!("the cloud has no computers of `{other}`"))),
        };
        let kind = kind(target, subject, architecture).map_err(unfit)?;
        let mut tags = target.tags.clone();
        tags.extend(subject.tags());
        tags.insert(TAG_TARGET.to_owned(), target.name.clone());
        Ok(Self {
            path: path(target, &kind),
            blob: blob(&target.name, &vhd.hex()),
            target: target.clone(),
            kind,
            vhd,
            size,
            tags,
            image: subject.name.clone(),
            manifest: subject.manifest.to_string(),
        })
    }

    /// Path of the target's resource group.
    #[must_use]
    pub fn group(&self) -> String {
        group(&self.target, &self.target.resource_group)
    }

    /// Path of the storage account, which images name as their source.
    #[must_use]
    pub fn account(&self) -> String {
        let target = &self.target;
        let name = target.storage_resource_group.as_ref();
        format!(
            "{}/providers/Microsoft.Storage/storageAccounts/{}",
            group(target, name.unwrap_or(&target.resource_group)),
            target.storage_account
        )
    }

    /// URL of the page blob.
    #[must_use]
    pub fn blob_url(&self) -> String {
        let target = &self.target;
        format!("{}/{}/{}", target.storage(), target.container, self.blob)
    }

    /// Path of the image definition, when there is one.
    #[must_use]
    pub fn definition_path(&self) -> Option<String> {
        let parts = self.path.rsplit_once("/versions/")?;
        Some(parts.0.to_owned())
    }

    /// Path of the gallery, when there is one.
    #[must_use]
    pub fn gallery_path(&self) -> Option<String> {
        let definition = self.definition_path()?;
        Some(definition.rsplit_once("/images/")?.0.to_owned())
    }

    /// Name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::Image { name } => name,
            Kind::Version { version, .. } => version,
        }
    }
}

/// Name of the blob that a target puts a VHD of this digest into.
#[must_use]
pub fn blob(target: &str, vhd: &str) -> String {
    format!("{target}-{vhd}.vhd")
}

/// Why a disk of a size, and of another as VHD, would be refused.
fn bad_size(raw: u64, vhd: u64) -> Option<String> {
    const MIB: u64 = 1 << 20;
    if vhd != raw + 512 {
        return Some(format!(
            "its VHD has {vhd} bytes, a disk of {raw} has 512 more than itself"
        ));
    }
    if !raw.is_multiple_of(MIB) {
        return Some(format!("its disk of {raw} bytes is not whole MiB"));
    }
    let sizes = 20 * MIB..=32 * MIB * MIB;
    (!sizes.contains(&raw)).then(|| format!("its disk of {raw} bytes is not 20 MiB to 32 TiB"))
}

fn kind(target: &Target, subject: &Subject, architecture: &'static str) -> Result<Kind, String> {
    if let Some(gallery) = &target.gallery {
        let definition = fill(&gallery.definition, subject);
        check_name(&definition, "definition")?;
        return Ok(Kind::Version {
            gallery: Box::new(gallery.clone()),
            definition,
            offer: fill(&gallery.offer, subject),
            sku: fill(&gallery.sku, subject),
            architecture,
            version: version(subject.source_date, &subject.manifest),
        });
    }
    if architecture == "Arm64" {
        return Err("managed images of Arm64 do not exist; use a `gallery`".to_owned());
    }
    let name = fill(target.image_name.as_deref().unwrap_or_default(), subject);
    check_name(&name, "image")?;
    Ok(Kind::Image { name })
}

fn check_name(name: &str, what: &str) -> Result<(), String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let first = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    let last = name.chars().last();
    let last = last.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    if first && last && name.len() <= 80 && name.chars().all(letters) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is no name of an {what}: 1 to 80 letters, digits, `-`, `_` and `.`"
    ))
}

fn fill(template: &str, subject: &Subject) -> String {
    template
        .replace("{image}", &subject.name)
        .replace("{version}", &subject.version)
        .replace("{architecture}", &subject.architecture)
}

fn group(target: &Target, name: &str) -> String {
    format!(
        "/subscriptions/{}/resourceGroups/{name}",
        target.subscription
    )
}

fn path(target: &Target, kind: &Kind) -> String {
    let compute = format!(
        "{}/providers/Microsoft.Compute",
        group(target, &target.resource_group)
    );
    match kind {
        Kind::Image { name } => format!("{compute}/images/{name}"),
        Kind::Version {
            gallery,
            definition,
            version,
            ..
        } => format!(
            "{compute}/galleries/{}/images/{definition}/versions/{version}",
            gallery.name
        ),
    }
}

/// Three numbers of 31 bits: year, month and day, and the first bits of the digest. Whoever publishes the same gets the
/// same numbers; which of two of one day is greater says nothing.
#[must_use]
pub fn version(source_date: i64, manifest: &Digest) -> String {
    let day = OffsetDateTime::from_unix_timestamp(source_date);
    let day = day.unwrap_or(OffsetDateTime::UNIX_EPOCH).date();
    let month = u32::from(u8::from(day.month()));
    let bytes = manifest.as_bytes();
    let bits = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) >> 1;
    format!(
        "{}.{}.{bits}",
        day.year().max(0),
        month * 100 + u32::from(day.day())
    )
}
