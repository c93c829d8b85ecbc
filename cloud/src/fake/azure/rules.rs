//! What the resource manager refuses: names, tags, images and versions that are not as its documentation has them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::blobs::Page;
use super::path::Path;
use super::{State, World};

/// A refusal: its status, word and sentence.
pub(super) type Refusal = (u16, &'static str, String);

fn bad(message: impl Into<String>) -> Refusal {
    (400, "InvalidParameter", message.into())
}

/// What is wrong with a resource that is to be made or changed.
pub(super) fn check(
    world: &World,
    state: &State,
    path: &Path<'_>,
    body: &Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let location = body["location"].as_str().unwrap_or_default();
    if !world.regions.iter().any(|region| region == location) {
        let message = format!("The provided location '{location}' is not available");
        return Err((400, "LocationNotAvailableForResourceType", message));
    }
    if old.is_some_and(|old| old["location"] != body["location"]) {
        return Err((
            409,
            "InvalidResourceLocation",
            "It exists elsewhere.".to_owned(),
        ));
    }
    tags(&body["tags"])?;
    match path.kind {
        "images" => image(world, state, location, body, old),
        "galleries/images" => definition(state, path, body, old),
        "galleries/images/versions" => version(world, state, path, location, body, old),
        _ => Err((405, "MethodNotAllowed", "It cannot be written.".to_owned())),
    }
}

/// What is wrong with tags.
pub(super) fn tags(tags: &Value) -> Result<(), Refusal> {
    let refused = |message: String| Err((400, "InvalidTagNameCharacters", message));
    if tags.is_null() {
        return Ok(());
    }
    let Some(tags) = tags.as_object() else {
        return refused("The tags are no object.".to_owned());
    };
    if tags.len() > 50 {
        return refused("There are more than 50 tags.".to_owned());
    }
    let mut names = BTreeSet::new();
    for (name, value) in tags {
        let fits = !name.is_empty()
            && name.len() <= 512
            && !name.contains(['<', '>', '%', '&', '\\', '?', '/']);
        let fits = fits && value.as_str().is_some_and(|value| value.len() <= 256);
        if !fits || !names.insert(name.to_lowercase()) {
            return refused(format!("The tag '{name}' is not allowed, or there twice."));
        }
    }
    Ok(())
}

fn image(
    world: &World,
    state: &State,
    location: &str,
    body: &Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let properties = &body["properties"];
    let disk = &properties["storageProfile"]["osDisk"];
    let generation = properties["hyperVGeneration"].as_str();
    if !["V1", "V2"].map(Some).contains(&generation) {
        return Err(bad(
            "Required parameter 'hyperVGeneration' is missing or invalid.",
        ));
    }
    if disk["osType"] != "Linux" || disk["osState"] != "Generalized" {
        return Err(bad("Required parameter 'osDisk' is missing or invalid."));
    }
    if let Some(old) = old {
        if old["properties"]["storageProfile"]["osDisk"]["blobUri"] != disk["blobUri"] {
            let message = "Changing property 'image.storageProfile.osDisk' is not allowed.";
            return Err((409, "PropertyChangeNotAllowed", message.to_owned()));
        }
        return Ok(());
    }
    if location != world.location {
        return Err(bad(
            "The storage account is not at the location of the image.",
        ));
    }
    source(world, state, disk["blobUri"].as_str().unwrap_or_default())
}

fn definition(
    state: &State,
    path: &Path<'_>,
    body: &Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let properties = &body["properties"];
    for key in ["osType", "osState", "identifier"] {
        if properties[key].is_null() {
            return Err(bad(format!(
                "Required parameter '{key}' is missing (null)."
            )));
        }
    }
    for key in ["publisher", "offer", "sku"] {
        let text = properties["identifier"][key].as_str().unwrap_or_default();
        if text.is_empty() || text.len() > 128 || text.ends_with('.') {
            return Err(bad(format!("The identifier's '{key}' is invalid.")));
        }
    }
    for feature in properties["features"].as_array().into_iter().flatten() {
        let (name, value) = (feature["name"].as_str(), feature["value"].as_str());
        let values: Vec<&str> = value
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .collect();
        let known = match name {
            Some("DiskControllerTypes") => {
                values.iter().all(|value| ["SCSI", "NVMe"].contains(value))
            }
            Some("SecurityType") => values.iter().all(|value| {
                value.starts_with("TrustedLaunch") || value.starts_with("ConfidentialVm")
            }),
            _ => false,
        };
        if !known {
            return Err(bad(format!(
                "The feature {name:?} has the value {value:?}."
            )));
        }
    }
    if old.is_some_and(|old| old["properties"]["identifier"] != properties["identifier"]) {
        let message = "Changing property 'galleryImage.properties.identifier' is not allowed.";
        return Err((409, "PropertyChangeNotAllowed", message.to_owned()));
    }
    let siblings = state.resources.values().filter(|other| {
        other.path.to_lowercase() != path.whole.to_lowercase()
            && other.kind() == "galleries/images"
            && other
                .path
                .to_lowercase()
                .starts_with(&path.parent().to_lowercase())
    });
    for other in siblings {
        if other.value["properties"]["identifier"] == properties["identifier"] {
            return Err((
                409,
                "Conflict",
                "Another definition has this identifier.".to_owned(),
            ));
        }
    }
    Ok(())
}

fn version(
    world: &World,
    state: &State,
    path: &Path<'_>,
    location: &str,
    body: &Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    if !state.resources.contains_key(&path.parent().to_lowercase()) {
        let message =
            "Can not perform requested operation on nested resource. Parent resource not found.";
        return Err((404, "ParentResourceNotFound", message.to_owned()));
    }
    let numbers: Vec<_> = path.name.split('.').map(str::parse::<u32>).collect();
    let fits = |number: &Result<u32, _>| {
        number
            .as_ref()
            .is_ok_and(|number| i32::try_from(*number).is_ok())
    };
    let zero = |part: &str| part.len() > 1 && part.starts_with('0');
    if numbers.len() != 3 || !numbers.iter().all(fits) || path.name.split('.').any(zero) {
        return Err((
            400,
            "InvalidParameter",
            "The version is not three 32-bit numbers.".to_owned(),
        ));
    }
    regions(world, location, body)?;
    for read_only in ["provisioningState", "replicationStatus"] {
        if !body["properties"][read_only].is_null() {
            return Err(bad(format!("The property '{read_only}' is read-only.")));
        }
    }
    let disk = &body["properties"]["storageProfile"]["osDiskImage"];
    if old.is_some_and(|old| {
        old["properties"]["storageProfile"]["osDiskImage"]["source"] != disk["source"]
    }) {
        let message =
            "Changing property 'galleryImageVersion.properties.storageProfile' is not allowed.";
        return Err((409, "PropertyChangeNotAllowed", message.to_owned()));
    }
    let account = disk["source"]["storageAccountId"]
        .as_str()
        .unwrap_or_default();
    if !account
        .to_lowercase()
        .ends_with(&format!("/storageaccounts/{}", world.account))
    {
        return Err(bad("The source's storageAccountId is missing or invalid."));
    }
    source(
        world,
        state,
        disk["source"]["uri"].as_str().unwrap_or_default(),
    )
}

/// What is wrong with a change of an image or version.
pub(super) fn change(
    world: &World,
    path: &Path<'_>,
    body: &Value,
    old: &Value,
) -> Result<(), Refusal> {
    tags(&body["tags"])?;
    let properties = &body["properties"];
    if path.kind == "images" {
        return Ok(());
    }
    if !properties["storageProfile"].is_object() {
        return Err(bad(
            "Required parameter 'storageProfile' is missing (null).",
        ));
    }
    regions(world, old["location"].as_str().unwrap_or_default(), body)
}

/// What is wrong with the regions of a version.
fn regions(world: &World, location: &str, body: &Value) -> Result<(), Refusal> {
    let profile = &body["properties"]["publishingProfile"];
    let regions: Vec<_> = profile["targetRegions"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let name = |region: &Value| {
        let name = region["name"].as_str().unwrap_or_default();
        name.replace(' ', "").to_lowercase()
    };
    if !regions.iter().any(|region| name(region) == location) {
        let message =
            "The publishing profile's regions must contain the location of the image version.";
        return Err(bad(message));
    }
    for region in &regions {
        let storage = region["storageAccountType"]
            .as_str()
            .unwrap_or("Standard_LRS");
        let known = world.regions.contains(&name(region));
        let replicas = region["regionalReplicaCount"].as_u64().unwrap_or(1);
        if !known
            || !["Standard_LRS", "Standard_ZRS", "Premium_LRS"].contains(&storage)
            || !(1..=100).contains(&replicas)
        {
            return Err(bad(format!(
                "The target region '{}' is invalid.",
                name(region)
            )));
        }
    }
    Ok(())
}

/// What is wrong with the disk that something is to be made of.
pub(super) fn source(world: &World, state: &State, uri: &str) -> Result<(), Refusal> {
    if world.blobs_elsewhere {
        return Ok(());
    }
    let marker = format!("/{}/{}/", world.account, world.container);
    let name = uri
        .split_once(&marker)
        .map(|(_, name)| name)
        .unwrap_or_default();
    let Some(blob) = state.blobs.get(name) else {
        let message = format!("The source blob {uri} does not exist.");
        return Err((400, "BlobNotFound", message));
    };
    if name.rsplit_once('.').is_none_or(|(_, kind)| kind != "vhd") {
        return Err(bad("Blob name in URL must end with '.vhd' extension."));
    }
    vhd(blob).map_err(|reason| {
        let message =
            format!("The specified cookie value in VHD footer or its size is invalid: {reason}");
        (400, "InvalidVhd", message)
    })
}

/// What is wrong with a VHD.
fn vhd(blob: &Page) -> Result<(), &'static str> {
    const MIB: u64 = 1 << 20;
    let size = blob.sizes().0.saturating_sub(512);
    let mut footer = [0; 512];
    blob.read(size, &mut footer)
        .map_err(|_| "it is too short")?;
    let number = |at: usize| {
        let bytes = footer[at..at + 8].iter();
        bytes.fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    if &footer[..8] != b"conectix" {
        return Err("cookie");
    }
    let counted = footer
        .iter()
        .enumerate()
        .filter(|(at, _)| !(64..68).contains(at));
    let sum: u32 = counted.map(|(_, byte)| u32::from(*byte)).sum();
    if footer[64..68] != (!sum).to_be_bytes() {
        return Err("checksum");
    }
    if footer[60..64] != [0, 0, 0, 2] || number(16) != u64::MAX {
        return Err("only fixed VHDs are taken");
    }
    if number(48) != size || !size.is_multiple_of(MIB) || size < MIB {
        return Err("size is not whole MiB, or not the blob's");
    }
    Ok(())
}
