//! Glance's answers: images as its interface writes them.
//!
//! It refuses nothing: what is missing is empty, and is then found to be other than wanted.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::plan::Image;

/// One image; what is no field of every image is a property.
#[derive(Debug, Deserialize)]
pub(super) struct Resource {
    id: String,
    name: Option<String>,
    #[serde(default)]
    status: String,
    #[serde(default)]
    visibility: String,
    #[serde(default)]
    protected: bool,
    #[serde(default)]
    os_hidden: bool,
    #[serde(default)]
    tags: BTreeSet<String>,
    os_hash_algo: Option<String>,
    os_hash_value: Option<String>,
    size: Option<u64>,
    #[serde(default)]
    min_disk: u64,
    disk_format: Option<String>,
    #[serde(default)]
    created_at: String,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) images: Vec<Resource>,
    pub(super) next: Option<String>,
}

/// Projects that an image is shared with.
#[derive(Debug, Deserialize)]
pub(super) struct Members {
    #[serde(default)]
    pub(super) members: Vec<Member>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub(super) struct Member {
    pub(super) member_id: String,
}

impl Resource {
    pub(super) fn image(self) -> Image {
        let created = OffsetDateTime::parse(&self.created_at, &Rfc3339);
        let properties = self.more.into_iter();
        let properties =
            properties.filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
        Image {
            id: self.id,
            name: self.name.unwrap_or_default(),
            status: self.status,
            visibility: self.visibility,
            protected: self.protected,
            hidden: self.os_hidden,
            tags: self.tags,
            properties: properties.collect(),
            hash_algo: self.os_hash_algo.unwrap_or_default(),
            hash: self.os_hash_value.unwrap_or_default(),
            size: self.size.unwrap_or_default(),
            min_disk: self.min_disk,
            format: self.disk_format.unwrap_or_default(),
            created: created
                .map(OffsetDateTime::unix_timestamp)
                .unwrap_or_default(),
        }
    }
}
