//! What the cloud has, read from its answers.
//!
//! It refuses to guess: what an answer does not say is absent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::blob;
use crate::subject::{TAG_IMAGE, TAG_MANIFEST, TAG_TARGET};

/// What is there of one target and image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The page blob of our name.
    pub blob: Option<blob::Seen>,
    /// The image or version of our name.
    pub object: Option<Object>,
    /// The definition that versions belong to.
    pub definition: Option<Object>,
    /// Other versions of this image that are offered as the latest.
    pub latest: Vec<Object>,
    /// Who may use the gallery.
    pub groups: BTreeSet<(Group, String)>,
    /// Whether everybody may.
    pub community: bool,
}

/// Whom a gallery is shared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A subscription.
    Subscription,
    /// A tenant.
    Tenant,
}

impl Group {
    /// The cloud's word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Subscription => "Subscriptions",
            Self::Tenant => "AADTenants",
        }
    }
}

/// What is done with a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It is as it was asked for.
    #[default]
    Ready,
    /// It is being made or changed.
    Working,
    /// It is being removed.
    Leaving,
    /// Making or changing it went wrong.
    Failed,
}

/// How far copies are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Copies {
    /// All are there.
    #[default]
    Whole,
    /// Some are being made.
    Coming,
    /// Some could not be made.
    Failed,
}

/// An image, a definition or a version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// Its path.
    pub path: String,
    /// Its name.
    pub name: String,
    /// What is done with it.
    pub state: State,
    /// Why it failed, or what its copies do.
    pub detail: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Copies and their storage in regions.
    pub regions: BTreeMap<String, (u64, String)>,
    /// How far they are.
    pub copies: Copies,
    /// Whether it is passed over when the latest is asked for.
    pub excluded: bool,
    /// From when on it should not be used any more.
    pub end_of_life: Option<String>,
    /// Whether it may not be removed before.
    pub protected: bool,
    /// When it was made.
    pub published: Option<String>,
    /// Its size in GB.
    pub gigabytes: u64,
    /// Its firmware.
    pub generation: String,
    /// All that was answered, to be sent back when a part of it changes.
    pub value: Value,
}

impl Object {
    /// Reads an answer.
    #[must_use]
    pub fn read(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let properties = &value["properties"];
        let profile = &properties["publishingProfile"];
        let disk = &properties["storageProfile"];
        let (copies, told) = copies(&properties["replicationStatus"]);
        let size = disk["osDiskImage"]["sizeInGB"].as_u64();
        let generation = text(&properties["hyperVGeneration"]);
        Self {
            path: text(&value["id"]).unwrap_or_default(),
            name: text(&value["name"]).unwrap_or_default(),
            state: state(properties["provisioningState"].as_str().unwrap_or_default()),
            detail: told,
            tags: tags(&value["tags"]),
            regions: regions(&profile["targetRegions"]),
            copies,
            excluded: profile["excludeFromLatest"].as_bool().unwrap_or(false),
            end_of_life: text(&profile["endOfLifeDate"]),
            protected: properties["safetyProfile"]["blockDeletionBeforeEndOfLife"]
                .as_bool()
                .unwrap_or(false),
            published: text(&profile["publishedDate"]),
            gigabytes: size.or(disk["osDisk"]["diskSizeGB"].as_u64()).unwrap_or(0),
            generation: generation.unwrap_or_default(),
            value: value.clone(),
        }
    }

    /// The manifest's digest that its tags name.
    #[must_use]
    pub fn manifest(&self) -> Option<&str> {
        self.tags.get(TAG_MANIFEST).map(String::as_str)
    }

    /// Whether its tags say that a target made it of an image of this name.
    #[must_use]
    pub fn is_of(&self, image: &str, target: &str) -> bool {
        let named = self.tags.get(TAG_IMAGE).is_some_and(|name| name == image);
        named && self.manifest().is_some() && self.is_of_target(target)
    }

    /// Whether no other target made it; what has no such tag was made before there was one.
    #[must_use]
    pub fn is_of_target(&self, target: &str) -> bool {
        self.tags.get(TAG_TARGET).is_none_or(|name| name == target)
    }
}

fn state(word: &str) -> State {
    match word {
        "Succeeded" | "Migrating" => State::Ready,
        "Failed" | "Canceled" => State::Failed,
        "Deleting" => State::Leaving,
        _ => State::Working,
    }
}

fn tags(value: &Value) -> BTreeMap<String, String> {
    let tags = value.as_object().into_iter().flatten();
    let tags = tags.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    tags.collect()
}

/// A region as targets name it; answers say `West Europe` for `westeurope`.
#[must_use]
pub fn region(name: &str) -> String {
    name.replace(' ', "").to_lowercase()
}

fn regions(value: &Value) -> BTreeMap<String, (u64, String)> {
    let all = value.as_array().into_iter().flatten();
    let all = all.filter_map(|entry| {
        let replicas = entry["regionalReplicaCount"].as_u64().unwrap_or(1);
        let storage = entry["storageAccountType"]
            .as_str()
            .unwrap_or("Standard_LRS");
        Some((
            region(entry["name"].as_str()?),
            (replicas, storage.to_owned()),
        ))
    });
    all.collect()
}

fn copies(status: &Value) -> (Copies, String) {
    let summary = status["summary"].as_array().into_iter().flatten();
    let summary = summary.map(|entry| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let details = text("details");
        let details = if details.is_empty() {
            String::new()
        } else {
            format!(" ({details})")
        };
        format!(
            "{} {} {} %{details}",
            region(text("region")),
            text("state"),
            entry["progress"].as_u64().unwrap_or_default()
        )
    });
    let summary: Vec<String> = summary.collect();
    let copies = match status["aggregatedState"].as_str() {
        Some("Failed") => Copies::Failed,
        Some("InProgress" | "Unknown") => Copies::Coming,
        _ => Copies::Whole,
    };
    (copies, summary.join(", "))
}

/// Reads whom a gallery is shared with.
#[must_use]
pub fn sharing(gallery: &Value) -> (BTreeSet<(Group, String)>, bool) {
    let profile = &gallery["properties"]["sharingProfile"];
    let mut found = BTreeSet::new();
    for group in profile["groups"].as_array().into_iter().flatten() {
        let kind = match group["type"].as_str() {
            Some("Subscriptions") => Group::Subscription,
            Some("AADTenants") => Group::Tenant,
            _ => continue,
        };
        let ids = group["ids"].as_array().into_iter().flatten();
        found.extend(ids.filter_map(|id| Some((kind, id.as_str()?.to_lowercase()))));
    }
    let community = profile["communityGalleryInfo"]["communityGalleryEnabled"].as_bool();
    (found, community.unwrap_or(false))
}
