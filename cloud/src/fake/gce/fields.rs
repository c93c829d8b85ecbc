//! What Compute Engine takes as names, labels and settings of an image.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error;
use crate::fake::server::Reply;

/// What a guest can do, as the interface lists it.
const FEATURES: [&str; 13] = [
    "CCA_CAPABLE",
    "GVNIC",
    "IDPF",
    "MULTI_IP_SUBNET",
    "SEV_CAPABLE",
    "SEV_LIVE_MIGRATABLE_V2",
    "SEV_SNP_CAPABLE",
    "SNP_SVSM_CAPABLE",
    "SUSPEND_RESUME_COMPATIBLE",
    "TDX_CAPABLE",
    "UEFI_COMPATIBLE",
    "VIRTIO_SCSI_MULTIQUEUE",
    "WINDOWS",
];
pub(super) fn fields(body: &Value) -> Result<(), Reply> {
    let invalid = |field: &str| {
        Err(error(
            400,
            "invalid",
            &format!("Invalid value for field 'resource.{field}'."),
        ))
    };
    if !is_name(body["name"].as_str().unwrap_or_default()) {
        return invalid("name");
    }
    if !matches!(
        body["architecture"].as_str(),
        None | Some("X86_64" | "ARM64")
    ) {
        return invalid("architecture");
    }
    if body["description"]
        .as_str()
        .is_some_and(|text| text.len() > 2048)
    {
        return invalid("description");
    }
    let mut features = body["guestOsFeatures"].as_array().into_iter().flatten();
    if !features.all(|feature| {
        feature["type"]
            .as_str()
            .is_some_and(|kind| FEATURES.contains(&kind))
    }) {
        return invalid("guestOsFeatures");
    }
    if !body["family"].is_null() && !is_name(body["family"].as_str().unwrap_or_default()) {
        return invalid("family");
    }
    if body["rawDisk"]["source"]
        .as_str()
        .is_none_or(|source| !source.starts_with("http"))
    {
        return invalid("rawDisk.source");
    }
    if body["storageLocations"]
        .as_array()
        .is_some_and(|all| all.len() > 1)
    {
        return invalid("storageLocations");
    }
    labels(&body["labels"])
}

pub(super) fn labels(labels: &Value) -> Result<(), Reply> {
    let labels: BTreeMap<String, String> =
        serde_json::from_value(labels.clone()).unwrap_or_default();
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let fits = |text: &str| text.len() <= 63 && text.chars().all(letters);
    let begins = |key: &str| key.starts_with(|c: char| c.is_ascii_lowercase());
    let good = labels.len() <= 64
        && labels
            .iter()
            .all(|(key, value)| begins(key) && fits(key) && fits(value));
    good.then_some(())
        .ok_or_else(|| error(400, "invalid", "Invalid value for field 'resource.labels'."))
}

pub(super) fn deprecation(body: &Value) -> Result<(), Reply> {
    let state = matches!(
        body["state"].as_str(),
        Some("ACTIVE" | "DEPRECATED" | "OBSOLETE" | "DELETED")
    );
    let date = |field: &str| match &body[field] {
        Value::Null => true,
        date => date
            .as_str()
            .is_some_and(|date| OffsetDateTime::parse(date, &Rfc3339).is_ok()),
    };
    let replacement = body["replacement"].is_null()
        || body["replacement"]
            .as_str()
            .is_some_and(|url| url.contains("/global/images/"));
    let good = state && replacement && ["deprecated", "obsolete", "deleted"].into_iter().all(date);
    good.then_some(())
        .ok_or_else(|| error(400, "invalid", "Invalid value for field 'resource'."))
}

pub(super) fn is_name(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(letters)
}

pub(super) fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12]
        && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
        && text != "00000000-0000-0000-0000-000000000000"
}
