//! What is still to be done for one image: a function of what is wanted and what is there.
//!
//! It refuses to change an image that somebody withdrew, and one that is not ours.

use std::collections::{BTreeMap, BTreeSet};

use crate::provider::{Stage, Step};

/// Label that an image of ours is found by.
pub(super) const LABEL_MANIFEST: &str = "firstboot-manifest";
/// Label with its architecture.
pub(super) const LABEL_ARCHITECTURE: &str = "firstboot-architecture";
/// Label with the name of the image.
pub(super) const LABEL_IMAGE: &str = "firstboot-image";
/// Milliseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Name of the target.
    pub target: String,
    /// The project.
    pub project: String,
    /// The bucket.
    pub bucket: String,
    /// Name of the object in it.
    pub object: String,
    /// Whether the object stays.
    pub keep_object: bool,
    /// Digest of the archive.
    pub digest: String,
    /// Size of the archive in bytes.
    pub size: u64,
    /// Tags of the object.
    pub tags: Vec<(String, String)>,
    /// Name of the image.
    pub name: String,
    /// Text about it, for people.
    pub description: String,
    /// `X86_64` or `ARM64`.
    pub architecture: String,
    /// What the guest can do.
    pub features: BTreeSet<String>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Size of the disk in GiB.
    pub disk_gib: u64,
    /// Where it is kept.
    pub location: Option<String>,
    /// The key that it is encrypted with.
    pub kms_key: Option<String>,
    /// Who may use it.
    pub members: BTreeSet<String>,
    /// The family that points to it.
    pub family: Option<String>,
    /// Days after which it says that it should not be used any more.
    pub deprecate_after: Option<u32>,
}

/// An object in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Which of the objects that had this name.
    pub generation: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum.
    pub crc32c: u32,
    /// The digest that its metadata names.
    pub digest: Option<String>,
}

/// An image of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// `PENDING`, `READY`, `FAILED` or `DELETING`.
    pub status: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What a change of labels must name.
    pub fingerprint: String,
    /// Its architecture.
    pub architecture: String,
    /// What the guest can do.
    pub features: BTreeSet<String>,
    /// Size of the disk in GiB.
    pub disk_gib: u64,
    /// Where it is kept.
    pub locations: Vec<String>,
    /// The version of the key that it is encrypted with.
    pub kms_key: Option<String>,
    /// Its family.
    pub family: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created: i64,
    /// Bytes that are paid for.
    pub bytes: u64,
    /// Whether it should still be used.
    pub deprecated: Option<Deprecated>,
}

/// Whether an image should still be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deprecated {
    /// `ACTIVE`, `DEPRECATED`, `OBSOLETE` or `DELETED`.
    pub state: String,
    /// What is to be used instead.
    pub replacement: Option<String>,
    /// From when on, in milliseconds since 1970.
    pub from: Option<i64>,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The object.
    pub object: Option<Object>,
    /// The image of the wanted name.
    pub image: Option<Image>,
    /// Who may use it.
    pub members: BTreeSet<String>,
    /// All images of the family.
    pub family: Vec<Image>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Removes an image that the cloud failed to make.
    RemoveFailed,
    /// Sends the archive to the bucket.
    Upload,
    /// Makes the image.
    Insert,
    /// Sets the labels.
    SetLabels,
    /// Removes the archive from the bucket.
    RemoveObject,
    /// Lets somebody use the image.
    Share(BTreeSet<String>),
    /// Sets from when on it should not be used any more, in milliseconds since 1970; and that it should until then.
    Activate(Option<i64>),
    /// Puts it into its family.
    SetFamily(String),
    /// Says of a newer image of the family that ours is to be used instead.
    Supersede(String),
}

impl Image {
    /// Whether it is of the wanted build.
    #[must_use]
    pub fn is_of(&self, desired: &Desired) -> bool {
        let label = |key: &str| self.labels.get(key);
        label(LABEL_MANIFEST).is_some()
            && label(LABEL_MANIFEST) == desired.labels.get(LABEL_MANIFEST)
    }

    /// Whether a family points past it.
    #[must_use]
    pub fn is_deprecated(&self) -> bool {
        let state = self.deprecated.as_ref().map(|found| found.state.as_str());
        !matches!(state, None | Some("" | "ACTIVE"))
    }

    /// Whether somebody said that it should not be used, other than by publishing another.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        let replaced = self
            .deprecated
            .as_ref()
            .is_some_and(|found| found.replacement.is_some());
        self.is_deprecated() && !replaced
    }
}

impl Observed {
    /// The image, when it is of the wanted build.
    #[must_use]
    pub fn ours(&self, desired: &Desired) -> Option<&Image> {
        self.image.as_ref().filter(|image| image.is_of(desired))
    }

    /// Images that the family would name instead of ours.
    #[must_use]
    pub fn ahead(&self, image: &Image) -> Vec<&Image> {
        let ahead = |other: &&Image| {
            other.name != image.name && !other.is_deprecated() && other.created >= image.created
        };
        self.family.iter().filter(ahead).collect()
    }
}

/// What is still to be done, in this order.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    if observed.image.is_some() && observed.ours(desired).is_none() {
        return actions;
    }
    let image = observed.image.as_ref();
    let failed = image.is_some_and(|image| image.status == "FAILED");
    let gone = image.is_none_or(|image| failed || image.status == "DELETING");
    if failed {
        actions.push(Action::RemoveFailed);
    }
    if gone {
        if observed.object.is_none() {
            actions.push(Action::Upload);
        }
        actions.push(Action::Insert);
    }
    let image = image.filter(|_| !gone);
    let labelled = |image: &Image| {
        let mut wanted = desired.labels.iter();
        wanted.all(|(key, value)| image.labels.get(key) == Some(value))
    };
    if image.is_some_and(|image| !labelled(image)) {
        actions.push(Action::SetLabels);
    }
    if !desired.keep_object && (observed.object.is_some() || gone) {
        actions.push(Action::RemoveObject);
    }
    if image.is_some_and(Image::is_withdrawn) {
        return actions;
    }
    let missing = desired
        .members
        .iter()
        .filter(|member| gone || !observed.members.contains(*member));
    let missing: BTreeSet<String> = missing.cloned().collect();
    if !missing.is_empty() {
        actions.push(Action::Share(missing));
    }
    point(desired, observed, image, &mut actions);
    actions
}

/// What moves the pointers.
fn point(desired: &Desired, observed: &Observed, image: Option<&Image>, actions: &mut Vec<Action>) {
    let days = desired.deprecate_after.map(|days| i64::from(days) * DAY);
    let Some(image) = image else {
        if days.is_some() {
            actions.push(Action::Activate(None));
        }
        if let Some(family) = &desired.family {
            actions.push(Action::SetFamily(family.clone()));
        }
        return;
    };
    // Whole seconds are what the cloud is told.
    let wanted = days.map(|days| (image.created + days) / 1000 * 1000);
    let found = image.deprecated.as_ref().and_then(|found| found.from);
    if image.is_deprecated() || wanted.is_some() && wanted != found {
        actions.push(Action::Activate(wanted));
    }
    let Some(family) = &desired.family else {
        return;
    };
    if image.family.as_ref() != Some(family) {
        actions.push(Action::SetFamily(family.clone()));
    }
    let same = |other: &&Image| other.labels.get(LABEL_IMAGE) == desired.labels.get(LABEL_IMAGE);
    let ahead = observed.ahead(image).into_iter().filter(same);
    actions.extend(ahead.map(|other| Action::Supersede(other.name.clone())));
}

impl Action {
    /// When it is done.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::RemoveFailed
            | Self::Upload
            | Self::Insert
            | Self::SetLabels
            | Self::RemoveObject => Stage::Private,
            Self::Share(_) => Stage::Shared,
            Self::Activate(_) | Self::SetFamily(_) | Self::Supersede(_) => Stage::Current,
        }
    }

    /// As a plan prints it.
    #[must_use]
    pub fn step(&self, desired: &Desired) -> Step {
        let bucket = format!("gs://{}", desired.bucket);
        let image = (desired.project.clone(), desired.name.clone());
        let object = (bucket, desired.object.clone());
        let (action, (place, object), detail) = match self {
            Self::RemoveFailed => (
                "remove-image",
                image,
                "the cloud failed to make it".to_owned(),
            ),
            Self::Upload => ("upload", object, format!("{} bytes", desired.size)),
            Self::Insert => (
                "insert-image",
                image,
                format!("{} GiB, {}", desired.disk_gib, desired.architecture),
            ),
            Self::SetLabels => ("set-labels", image, list(desired.labels.keys())),
            Self::RemoveObject => (
                "remove-object",
                object,
                "once the image is there".to_owned(),
            ),
            Self::Share(members) => ("share-image", image, list(members)),
            Self::Activate(_) => {
                let days = desired
                    .deprecate_after
                    .map(|days| format!("for {days} days after it was made"));
                ("activate-image", image, days.unwrap_or_default())
            }
            Self::SetFamily(family) => ("set-family", image, format!("family `{family}`")),
            Self::Supersede(name) => (
                "deprecate-image",
                (desired.project.clone(), name.clone()),
                format!("replaced by `{}`", desired.name),
            ),
        };
        Step {
            target: desired.target.clone(),
            stage: self.stage(),
            action,
            place,
            object,
            detail,
        }
    }
}

fn list<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    let words: Vec<&str> = words.into_iter().map(String::as_str).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests;
