//! What is wanted of a target: the same values for everybody who publishes this image to it.

use std::collections::BTreeMap;

use image_manifest::Digest;

use super::ec2::Grants;
use super::target::{Launch, Target, fill};
use crate::error::Error;
use crate::subject::{Subject, TAG_IMAGE, TAG_MANIFEST, TAG_TARGET};

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the target")]
pub struct Desired {
    /// Name of the target.
    pub target: String,
    /// Name of the image, as its definition gives it.
    pub subject: String,
    /// Digest of the manifest, in words.
    pub manifest: String,
    /// The tree that every instance runs.
    pub tree: Digest,
    /// Name of the image in every region.
    pub name: String,
    /// Its description.
    pub description: String,
    /// `x86_64` or `arm64`.
    pub architecture: &'static str,
    /// How it boots.
    pub boot_mode: &'static str,
    /// Whether it has a TPM.
    pub tpm: bool,
    /// Whether metadata needs a token.
    pub imdsv2: bool,
    /// Whether it has the enhanced network adapter.
    pub ena: bool,
    /// Size of its disk in GiB.
    pub size: u64,
    /// Regions; bytes go to the first.
    pub regions: Vec<String>,
    /// The key that encrypts it, by region.
    pub keys: BTreeMap<String, String>,
    /// Tags of images and snapshots.
    pub tags: Vec<(String, String)>,
    /// Who may use it.
    pub grants: Grants,
    /// Parameters that name the newest.
    pub parameters: Vec<String>,
    /// Seconds after its creation from which on it is deprecated.
    pub deprecate_after: Option<i64>,
    /// Whether it cannot be deregistered.
    pub protected: bool,
    /// How an instance is launched before anybody may use it.
    pub launch: Option<Launch>,
}

impl Desired {
    /// What a target wants of an image.
    pub(super) fn of(target: &Target, subject: &Subject) -> Result<Self, Error> {
        let unfit = |reason: String| Error::Unfit {
            image: subject.name.clone(),
            to: target.name.clone(),
            reason,
        };
        let architecture = match subject.architecture.as_str() {
            "amd64" => "x86_64",
            "arm64" => "arm64",
            other => return Err(unfit(format!("there are no instances of `{other}`"))),
        };
        if architecture == "arm64" && target.boot_mode.label() != "uefi" {
            return Err(unfit(
                "`arm64` boots by UEFI only: `boot-mode = \"uefi\"`".to_owned(),
            ));
        }
        let disk = subject
            .disk
            .as_ref()
            .ok_or_else(|| unfit("it has no disk".to_owned()))?;
        if !disk.blocks().is_whole() {
            return Err(unfit("its block map does not cover its disk".to_owned()));
        }
        let filled = |text: &str| {
            let filled = fill(text, &subject.name, &subject.version, &subject.architecture);
            filled.ok_or_else(|| unfit(format!("`{text}` has an unknown placeholder")))
        };
        let name = filled(&target.image_name)?;
        if name.len() > 128 {
            return Err(unfit(format!("the name `{name}` is longer than 128")));
        }
        let parameters = target.parameters.iter().map(|name| filled(name));
        let set = |list: &[String]| list.iter().cloned().collect();
        Ok(Self {
            target: target.name.clone(),
            subject: subject.name.clone(),
            manifest: subject.manifest.to_string(),
            tree: subject.tree,
            description: format!(
                "{} {} {}",
                subject.name, subject.version, subject.distribution
            ),
            architecture,
            boot_mode: target.boot_mode.label(),
            tpm: target.tpm,
            imdsv2: target.imdsv2,
            ena: target.ena,
            size: super::upload::gibibytes(disk.blocks().size),
            regions: target.regions.clone(),
            keys: target.kms_keys.clone(),
            tags: tags(target, subject, &name),
            grants: Grants {
                accounts: set(&target.accounts),
                organisations: set(&target.organisations),
                units: set(&target.organisational_units),
                everybody: target.public,
            },
            parameters: parameters.collect::<Result<_, _>>()?,
            deprecate_after: target
                .deprecate_after
                .map(|days| i64::from(days) * 24 * 60 * 60),
            protected: target.deregistration_protection,
            launch: target.launch.clone(),
            name,
        })
    }

    /// The region that bytes go to.
    #[must_use]
    pub fn home(&self) -> &str {
        self.regions.first().map_or("", String::as_str)
    }

    /// Tags that only objects of this image and target have.
    pub(super) fn own(&self) -> [(&str, &str); 2] {
        [(TAG_MANIFEST, &self.manifest), (TAG_TARGET, &self.target)]
    }

    /// Tags that only objects of this target have, of whatever build of the image.
    pub(super) fn kin(&self) -> [(&str, &str); 2] {
        [(TAG_IMAGE, &self.subject), (TAG_TARGET, &self.target)]
    }

    /// What makes a second launch of an image the same as the first, until that instance is terminated.
    pub(super) fn launch_token(
        &self,
        region: &str,
        image: &str,
        kind: &str,
        attempt: u32,
    ) -> String {
        let (target, tags) = (&self.target, &self.tags);
        let subnet = self
            .launch
            .as_ref()
            .and_then(|launch| launch.subnet.as_deref());
        let asked = format!(
            "launch\n{target}\n{region}\n{image}\n{kind}\n{subnet:?}\n{}\n{tags:?}\n{attempt}",
            self.imdsv2
        );
        Digest::of(asked.as_bytes()).hex()
    }

    /// What makes a second copy to a region the same as the first.
    pub(super) fn copy_token(&self, region: &str, source: &str) -> String {
        let key = self.keys.get(region).map_or("", String::as_str);
        let (name, tags) = (&self.name, &self.tags);
        let asked = format!(
            "copy\n{name}\n{region}\n{source}\n{key}\n{tags:?}\n{}",
            self.description
        );
        Digest::of(asked.as_bytes()).hex()
    }
}

fn tags(target: &Target, subject: &Subject, name: &str) -> Vec<(String, String)> {
    let mut tags = subject.tags();
    tags.push((TAG_TARGET.to_owned(), target.name.clone()));
    if !target.tags.contains_key("Name") {
        tags.push(("Name".to_owned(), name.to_owned()));
    }
    tags.extend(target.tags.clone());
    tags
}
