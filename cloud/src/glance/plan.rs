//! What is still to be done for one image: a function of what is wanted and what is there.
//!
//! It refuses to point to an image that somebody withdrew.

use std::collections::{BTreeMap, BTreeSet};

use super::target::{CURRENT, Visibility};
use crate::provider::{Stage, Step};

/// Property with the digest of the manifest: what an image is found by.
pub(super) const MANIFEST: &str = "firstboot_manifest";
/// Property with the name of the image.
pub(super) const IMAGE: &str = "firstboot_image";
/// Property with its architecture.
pub(super) const ARCHITECTURE: &str = "firstboot_architecture";
/// Property with the SHA-512 that was compared.
pub(super) const COMPARED: &str = "firstboot_compared";
/// Property that says from when on it should not be used.
pub(super) const DEPRECATED: &str = "firstboot_deprecated";

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Name of the target.
    pub target: String,
    /// Name of the image.
    pub name: String,
    /// Digest of the qcow2.
    pub digest: String,
    /// Size of the qcow2 in bytes.
    pub size: u64,
    /// Size of the disk in GiB, rounded up.
    pub min_disk: u64,
    /// All properties.
    pub properties: BTreeMap<String, String>,
    /// Tags beside `current`.
    pub tags: BTreeSet<String>,
    /// Whether it is protected.
    pub protected: bool,
    /// Who sees it.
    pub visibility: Visibility,
    /// Projects that may use it.
    pub members: BTreeSet<String>,
    /// Whether older images are hidden.
    pub hide_older: bool,
}

/// An image of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `queued`, `saving`, `active`, `killed`, `deactivated`, …
    pub status: String,
    /// Who sees it.
    pub visibility: String,
    /// Whether it is protected.
    pub protected: bool,
    /// Whether lists leave it out.
    pub hidden: bool,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its properties.
    pub properties: BTreeMap<String, String>,
    /// What its hash is made by.
    pub hash_algo: String,
    /// Its hash.
    pub hash: String,
    /// Its size in bytes.
    pub size: u64,
    /// The least disk that it fits on, in GiB.
    pub min_disk: u64,
    /// Its format.
    pub format: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Id of the project.
    pub project: String,
    /// The image of this build.
    pub image: Option<Image>,
    /// Projects that it is shared with.
    pub members: BTreeSet<String>,
    /// Images of other builds of the same name and architecture.
    pub others: Vec<Image>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Removes an image whose upload failed for good.
    RemoveFailed(String),
    /// Makes an image without bytes.
    Create,
    /// Streams the bytes.
    Upload,
    /// Compares the hash of what is there, and notes that.
    Compare,
    /// Sets properties, tags and the like that differ.
    Describe,
    /// Says who sees it.
    Show(Visibility),
    /// Lets a project use it.
    Share(String),
    /// Takes it into lists again.
    Unhide,
    /// Tags it as the current one.
    Tag,
    /// Takes the tag from another.
    Untag(String),
    /// Leaves another out of lists.
    Hide(String),
}

impl Image {
    /// Whether somebody said that it should not be used.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.status == "deactivated" || self.hidden && self.properties.contains_key(DEPRECATED)
    }

    /// Whether its bytes were compared with those that were sent.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        !self.hash.is_empty() && self.properties.get(COMPARED) == Some(&self.hash)
    }

    fn is_described(&self, desired: &Desired) -> bool {
        let mut properties = desired.properties.iter();
        properties.all(|(name, value)| self.properties.get(name) == Some(value))
            && desired.tags.is_subset(&self.tags)
            && self.protected == desired.protected
            && self.min_disk == desired.min_disk
    }
}

/// What is still to be done, in this order.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    let image = observed.image.as_ref();
    let failed =
        image.filter(|image| matches!(image.status.as_str(), "killed" | "uploading" | "importing"));
    if let Some(image) = failed {
        actions.push(Action::RemoveFailed(image.id.clone()));
    }
    let image = image.filter(|_| failed.is_none());
    let status = image.map_or("", |image| image.status.as_str());
    if image.is_none() {
        actions.push(Action::Create);
    }
    if matches!(status, "" | "queued") {
        actions.push(Action::Upload);
    }
    if status != "deactivated" && !image.is_some_and(Image::is_compared) {
        actions.push(Action::Compare);
    }
    // What is protected cannot be removed when its hash is wrong.
    if image.map_or(desired.protected, |image| !image.is_described(desired)) {
        actions.push(Action::Describe);
    }
    if image.is_some_and(Image::is_withdrawn) {
        return actions;
    }
    if image.is_none_or(|image| image.visibility != desired.visibility.label())
        && (image.is_some() || desired.visibility != Visibility::Private)
    {
        actions.push(Action::Show(desired.visibility));
    }
    let known = |member: &&String| image.is_some() && observed.members.contains(*member);
    let missing = desired.members.iter().filter(|member| !known(member));
    actions.extend(missing.cloned().map(Action::Share));
    if image.is_some_and(|image| image.hidden) {
        actions.push(Action::Unhide);
    }
    if image.is_none_or(|image| !image.tags.contains(CURRENT)) {
        actions.push(Action::Tag);
    }
    for other in &observed.others {
        if other.tags.contains(CURRENT) {
            actions.push(Action::Untag(other.id.clone()));
        }
        if desired.hide_older && !other.hidden && other.status == "active" {
            actions.push(Action::Hide(other.id.clone()));
        }
    }
    actions
}

impl Action {
    /// When it is done.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::RemoveFailed(_)
            | Self::Create
            | Self::Upload
            | Self::Compare
            | Self::Describe => Stage::Private,
            Self::Show(_) | Self::Share(_) => Stage::Shared,
            Self::Unhide | Self::Tag | Self::Untag(_) | Self::Hide(_) => Stage::Current,
        }
    }

    /// As a plan prints it.
    #[must_use]
    pub fn step(&self, desired: &Desired, observed: &Observed) -> Step {
        let ours = observed
            .image
            .as_ref()
            .map_or(&desired.name, |image| &image.id)
            .clone();
        let (action, object, detail) = match self {
            Self::RemoveFailed(id) => ("remove-image", id.clone(), "its upload failed".to_owned()),
            Self::Create => (
                "create-image",
                desired.name.clone(),
                format!("at least {} GiB of disk", desired.min_disk),
            ),
            Self::Upload => ("upload", ours, format!("{} bytes", desired.size)),
            Self::Compare => ("compare-hash", ours, "SHA-512 of what is there".to_owned()),
            Self::Describe => (
                "set-properties",
                ours,
                desired
                    .properties
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
            Self::Show(visibility) => ("set-visibility", ours, visibility.label().to_owned()),
            Self::Share(member) => ("share-image", ours, format!("with project `{member}`")),
            Self::Unhide => ("unhide-image", ours, String::new()),
            Self::Tag => ("tag-image", ours, format!("`{CURRENT}`")),
            Self::Untag(id) => ("untag-image", id.clone(), format!("no longer `{CURRENT}`")),
            Self::Hide(id) => ("hide-image", id.clone(), "left out of lists".to_owned()),
        };
        Step {
            target: desired.target.clone(),
            stage: self.stage(),
            action,
            place: observed.project.clone(),
            object,
            detail,
        }
    }
}

#[cfg(test)]
mod tests;
