//! What is still to be done: a function of what is wanted and what is there.

use std::collections::BTreeMap;

use super::names::{Desired, Kind};
use super::observed::{Copies, Group, Object, Observed, State};
use super::upload;
use crate::provider::{Stage, Step};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Waits for what somebody, maybe we, began.
    Await,
    /// Removes what failed, to make it anew.
    RemoveFailed,
    /// Uploads the disk, or what is missing of it, and verifies it.
    Upload,
    /// Makes the definition that versions belong to.
    CreateDefinition,
    /// Makes the image or version.
    Create,
    /// Changes tags, regions and protection to what is wanted.
    Update(Vec<String>),
    /// Removes the uploaded disk.
    RemoveBlob,
    /// Shares the gallery with some more.
    Share(Group, String),
    /// Shares the gallery with everybody.
    ShareWithAll,
    /// Offers the version as the latest.
    Include,
    /// Offers another version no longer as the latest.
    Exclude(Box<Object>),
}

/// What is to be done, in order.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<(Stage, Act)> {
    let mut acts = private(desired, observed);
    let mut add = |stage, act| acts.push((stage, act));
    let Kind::Version { gallery, .. } = &desired.kind else {
        return acts;
    };
    let share = &gallery.share;
    let subscriptions = share
        .subscriptions
        .iter()
        .map(|id| (Group::Subscription, id));
    let tenants = share.tenants.iter().map(|id| (Group::Tenant, id));
    for (group, id) in subscriptions.chain(tenants) {
        let id = id.to_lowercase();
        if !observed.groups.contains(&(group, id.clone())) {
            add(Stage::Shared, Act::Share(group, id));
        }
    }
    if share.community && !observed.community {
        add(Stage::Shared, Act::ShareWithAll);
    }
    if observed
        .object
        .as_ref()
        .is_none_or(|version| version.excluded)
    {
        add(Stage::Current, Act::Include);
    }
    for other in &observed.latest {
        add(Stage::Current, Act::Exclude(Box::new(other.clone())));
    }
    acts
}

fn private(desired: &Desired, observed: &Observed) -> Vec<(Stage, Act)> {
    let mut acts = Vec::new();
    let mut blob = observed.blob.is_some();
    let mut create = |acts: &mut Vec<Act>| {
        if observed.definition.is_none() && matches!(desired.kind, Kind::Version { .. }) {
            acts.push(Act::CreateDefinition);
        }
        let verified = observed.blob.as_ref();
        if !verified.is_some_and(|seen| upload::is_verified(desired, seen)) {
            acts.push(Act::Upload);
            blob = true;
        }
        acts.push(Act::Create);
    };
    match observed
        .object
        .as_ref()
        .map(|object| (object, object.state))
    {
        None => create(&mut acts),
        Some((_, State::Working)) => acts.push(Act::Await),
        Some((_, State::Leaving)) => {
            acts.push(Act::Await);
            create(&mut acts);
        }
        Some((_, State::Failed)) => {
            acts.push(Act::RemoveFailed);
            create(&mut acts);
        }
        Some((object, State::Ready)) => {
            let differences = differences(desired, object);
            if !differences.is_empty() {
                acts.push(Act::Update(differences));
            } else if object.copies == Copies::Coming {
                acts.push(Act::Await);
            }
        }
    }
    if blob && !desired.target.keep_blob {
        acts.push(Act::RemoveBlob);
    }
    acts.into_iter().map(|act| (Stage::Private, act)).collect()
}

/// What differs between what is wanted and what is there, and can be changed. More regions than are wanted, and copies in
/// them, are somebody's who needs them.
#[must_use]
pub fn differences(desired: &Desired, object: &Object) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in &desired.tags {
        if object.tags.get(name) != Some(value) {
            found.push(format!("tag {name}"));
        }
    }
    let Kind::Version { gallery, .. } = &desired.kind else {
        return found;
    };
    for region in &gallery.regions {
        let there = object.regions.get(&region.name);
        if there.is_none_or(|(replicas, _)| *replicas < u64::from(region.replicas)) {
            found.push(format!("region {}", region.name));
        }
    }
    if object.copies == Copies::Failed {
        found.push(format!("copies: {}", object.detail));
    }
    if gallery.end_of_life_after.is_some() && object.end_of_life.is_none() {
        found.push("end of life".to_owned());
    }
    if gallery.protect && !object.protected {
        found.push("protection".to_owned());
    }
    found
}

/// Regions with copies and their storage: all that are there, and all that are wanted.
#[must_use]
pub fn regions(desired: &Desired, object: Option<&Object>) -> BTreeMap<String, (u64, String)> {
    let mut all = object.map_or_else(BTreeMap::new, |object| object.regions.clone());
    if let Kind::Version { gallery, .. } = &desired.kind {
        for region in &gallery.regions {
            let wanted = || (0, region.storage.label().to_owned());
            let entry = all.entry(region.name.clone()).or_insert_with(wanted);
            entry.0 = entry.0.max(u64::from(region.replicas));
        }
    }
    all
}

impl Act {
    /// Itself, as a plan prints it.
    #[must_use]
    pub fn step(&self, desired: &Desired, stage: Stage) -> Step {
        let location = &desired.target.location;
        let (action, object, detail) = self.words(desired);
        Step {
            target: desired.target.name.clone(),
            stage,
            action,
            place: location.clone(),
            object,
            detail,
        }
    }

    fn words(&self, desired: &Desired) -> (&'static str, String, String) {
        let path = || desired.path.clone();
        let blob = || format!("{}/{}", desired.target.container, desired.blob);
        let gallery = || desired.gallery_path().unwrap_or_default();
        let definition = || desired.definition_path().unwrap_or_default();
        let version = matches!(desired.kind, Kind::Version { .. });
        match self {
            Self::Await => (
                "wait",
                path(),
                "until what was begun is finished".to_owned(),
            ),
            Self::RemoveFailed => ("remove-failed", path(), String::new()),
            Self::Upload => (
                "upload-page-blob",
                blob(),
                format!(
                    "a fixed VHD of {} bytes, of which data is sent",
                    desired.size
                ),
            ),
            Self::CreateDefinition => ("create-image-definition", definition(), String::new()),
            Self::Create if version => (
                "create-image-version",
                path(),
                format!(
                    "in {}",
                    regions(desired, None)
                        .into_keys()
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            ),
            Self::Create => ("create-image", path(), String::new()),
            Self::Update(what) => ("update-image", path(), what.join(", ")),
            Self::RemoveBlob => ("remove-page-blob", blob(), String::new()),
            Self::Share(group, id) => (
                "share-gallery",
                gallery(),
                format!("with {} {id}", group.label()),
            ),
            Self::ShareWithAll => ("share-gallery", gallery(), "with the community".to_owned()),
            Self::Include => ("include-in-latest", path(), String::new()),
            Self::Exclude(other) => ("exclude-from-latest", other.path.clone(), String::new()),
        }
    }
}

#[cfg(test)]
mod tests;
