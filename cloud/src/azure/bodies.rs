//! What is sent to the resource manager: images, definitions, versions.

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::names::{Desired, Kind};
use super::observed::Object;
use super::plan;
use super::target::Controller;

/// Tag of a managed image: when it was made.
pub const TAG_PUBLISHED: &str = "firstboot:published";

/// A managed image, or a version in a gallery that is not yet offered as the latest.
#[must_use]
pub fn object(desired: &Desired, now: OffsetDateTime) -> Value {
    let target = &desired.target;
    let properties = match &desired.kind {
        Kind::Image { .. } => json!({
            "hyperVGeneration": target.hyper_v_generation.label(),
            "storageProfile": {
                "osDisk": {
                    "osType": "Linux",
                    "osState": "Generalized",
                    "blobUri": desired.blob_url(),
                    "caching": "ReadWrite",
                    "storageAccountType": "Standard_LRS",
                },
                "zoneResilient": false,
            },
        }),
        Kind::Version { .. } => {
            let mut properties = json!({
                "publishingProfile": {
                    "excludeFromLatest": true,
                    "replicationMode": "Full",
                },
                "storageProfile": {
                    "osDiskImage": {
                        "hostCaching": "ReadWrite",
                        "source": {
                            "storageAccountId": desired.account(),
                            "uri": desired.blob_url(),
                        },
                    },
                },
                "safetyProfile": { "allowDeletionOfReplicatedLocations": true },
            });
            set(desired, None, now, &mut properties);
            properties
        }
    };
    let mut tags = json!(desired.tags);
    if let Kind::Image { .. } = &desired.kind {
        // The cloud does not tell when a managed image was made.
        tags[TAG_PUBLISHED] = json!(instant(now));
    }
    json!({ "location": target.location, "tags": tags, "properties": properties })
}

/// The definition that versions belong to.
#[must_use]
pub fn definition(desired: &Desired) -> Value {
    let Kind::Version {
        gallery,
        offer,
        sku,
        architecture,
        ..
    } = &desired.kind
    else {
        return Value::Null;
    };
    let controllers = gallery.disk_controllers.iter();
    let controllers: Vec<&str> = controllers
        .map(|controller| Controller::label(*controller))
        .collect();
    let mut features = vec![json!({
        "name": "DiskControllerTypes",
        "value": controllers.join(","),
    })];
    if let Some(security) = gallery.security_type {
        features.push(json!({ "name": "SecurityType", "value": security.label() }));
    }
    json!({
        "location": desired.target.location,
        "tags": desired.target.tags,
        "properties": {
            "osType": "Linux",
            "osState": "Generalized",
            "hyperVGeneration": desired.target.hyper_v_generation.label(),
            "architecture": architecture,
            "identifier": { "publisher": gallery.publisher, "offer": offer, "sku": sku },
            "features": features,
        },
    })
}

/// What is to be changed of an image or version that is there, with what is wanted of it.
#[must_use]
pub fn updated(desired: &Desired, object: &Object, now: OffsetDateTime) -> Value {
    let mut value = change(object);
    for (name, text) in &desired.tags {
        value["tags"][name] = json!(text);
    }
    if let Kind::Version { .. } = &desired.kind {
        set(desired, Some(object), now, &mut value["properties"]);
    }
    value
}

/// A change of nothing. It leaves out what an object was made of, which may be gone: the cloud lets one do that in a change,
/// not when all of an object is sent.
#[must_use]
pub fn change(object: &Object) -> Value {
    let all = &object.value;
    let mut value = json!({
        "tags": if all["tags"].is_object() { all["tags"].clone() } else { json!({}) },
    });
    let properties = &all["properties"];
    if properties["publishingProfile"].is_object() {
        value["properties"] = json!({
            "publishingProfile": properties["publishingProfile"],
            "storageProfile": {},
        });
        if properties["safetyProfile"].is_object() {
            value["properties"]["safetyProfile"] = properties["safetyProfile"].clone();
        }
    }
    if let Some(profile) = value["properties"]["publishingProfile"].as_object_mut() {
        profile.remove("publishedDate");
    }
    value
}

fn set(desired: &Desired, object: Option<&Object>, now: OffsetDateTime, properties: &mut Value) {
    let Kind::Version { gallery, .. } = &desired.kind else {
        return;
    };
    let regions = plan::regions(desired, object).into_iter();
    let regions: Vec<Value> = regions
        .map(|(name, (replicas, storage))| {
            json!({
                "name": name,
                "regionalReplicaCount": replicas,
                "storageAccountType": storage,
            })
        })
        .collect();
    properties["publishingProfile"]["targetRegions"] = json!(regions);
    let ends = object.is_some_and(|object| object.end_of_life.is_some());
    if let Some(days) = gallery.end_of_life_after.filter(|_| !ends) {
        let end = now + Duration::days(i64::from(days));
        properties["publishingProfile"]["endOfLifeDate"] = json!(instant(end));
    }
    if gallery.protect {
        properties["safetyProfile"]["blockDeletionBeforeEndOfLife"] = json!(true);
    }
}

/// A time as the cloud writes it, in whole seconds.
#[must_use]
pub fn instant(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_default()
}
