//! Compute Engine's answers: images and operations as its interface writes them.
//!
//! It refuses nothing: what is missing is empty, and is then found to be other than wanted.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::compute::Change;
use super::plan::{Deprecated, Image};
use crate::error::Error;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) status: String,
    #[serde(default)]
    http_error_status_code: u16,
    error: Option<Errors>,
}

#[derive(Debug, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Debug, Default, Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Operation {
    /// What it came to, when it is done.
    pub(super) fn outcome(self, what: &str) -> Result<Change, Error> {
        let Some(error) = self.error else {
            return Ok(Change::Done);
        };
        let Reason { code, message } = error.errors.into_iter().next().unwrap_or_default();
        let plain = |text: &str, most| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(most)
                .collect()
        };
        let error = Error::Refused {
            what: what.to_owned(),
            status: self.http_error_status_code,
            code: plain(&code, 100),
            message: plain(&message, 400),
        };
        match code.as_str() {
            "RESOURCE_ALREADY_EXISTS" | "RESOURCE_NOT_FOUND" | "CONDITION_NOT_MET" => {
                Ok(Change::Conflict(error.to_string()))
            }
            _ => Err(error),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource {
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    label_fingerprint: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    guest_os_features: Vec<Feature>,
    #[serde(default)]
    disk_size_gb: String,
    #[serde(default)]
    storage_locations: Vec<String>,
    image_encryption_key: Option<Key>,
    family: Option<String>,
    #[serde(default)]
    creation_timestamp: String,
    #[serde(default)]
    archive_size_bytes: String,
    deprecated: Option<Deprecation>,
}

#[derive(Debug, Deserialize)]
struct Feature {
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    kms_key_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Deprecation {
    #[serde(default)]
    state: String,
    replacement: Option<String>,
    deprecated: Option<String>,
}

impl Resource {
    pub(super) fn image(self) -> Image {
        let deprecated = self.deprecated.map(|found| Deprecated {
            state: found.state,
            replacement: found.replacement,
            from: found.deprecated.as_deref().and_then(millis),
        });
        Image {
            name: self.name,
            status: self.status,
            labels: self.labels,
            fingerprint: self.label_fingerprint,
            architecture: self.architecture,
            features: self
                .guest_os_features
                .into_iter()
                .map(|feature| feature.kind)
                .collect(),
            disk_gib: self.disk_size_gb.parse().unwrap_or_default(),
            locations: self.storage_locations,
            kms_key: self.image_encryption_key.and_then(|key| key.kms_key_name),
            family: self.family.filter(|family| !family.is_empty()),
            created: millis(&self.creation_timestamp).unwrap_or_default(),
            bytes: self.archive_size_bytes.parse().unwrap_or_default(),
            deprecated,
        }
    }
}

fn millis(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}
