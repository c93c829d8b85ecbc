//! `CycloneDX` 1.6, as JSON, and what it says about packages read back.

use std::collections::BTreeMap;

use image_manifest::{Digest, Hasher};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Subject, identifier, package_url};
use crate::facts::Facts;
use crate::lock::Package;

const USE: &str = "firstboot:use";
const SOURCE: &str = "firstboot:source";
const INSTALLED: &str = "firstboot:installed-size";
const PACKED: &str = "firstboot:size";

/// A package of an image, as the image itself says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What the image does with it.
    #[serde(rename = "use")]
    pub usage: String,
    /// Source package that it is built from.
    pub source: String,
    /// Bytes of the package.
    pub size: u64,
    /// Bytes that it takes when it is installed, as it says.
    pub installed: u64,
}

#[derive(Deserialize)]
struct Read {
    components: Vec<ReadComponent>,
}

#[derive(Deserialize)]
struct ReadComponent {
    name: String,
    version: String,
    #[serde(default)]
    properties: Vec<Property>,
}

#[derive(Deserialize)]
struct Property {
    name: String,
    value: String,
}

/// Reads the packages out of a document that this program wrote.
///
/// # Errors
/// When it is no such document.
pub fn components(document: &[u8]) -> Result<Vec<Component>, serde_json::Error> {
    let read: Read = serde_json::from_slice(document)?;
    let components = read.components.into_iter().map(|one| {
        let properties: BTreeMap<String, String> = one
            .properties
            .into_iter()
            .map(|property| (property.name, property.value))
            .collect();
        let text = |name: &str| properties.get(name).cloned().unwrap_or_default();
        Component {
            usage: text(USE),
            source: text(SOURCE),
            size: text(PACKED).parse().unwrap_or(0),
            installed: text(INSTALLED).parse().unwrap_or(0),
            name: one.name,
            version: one.version,
        }
    });
    Ok(components.collect())
}

pub(super) fn document(subject: &Subject<'_>, packages: &[(&Package, &Facts)]) -> Value {
    let (builder, version) = subject
        .builder
        .split_once(' ')
        .unwrap_or((subject.builder, ""));
    let components: Vec<_> = packages
        .iter()
        .map(|(package, facts)| component(subject, package, facts))
        .collect();
    let parts: Vec<_> = packages
        .iter()
        .map(|(package, _)| identifier(package))
        .collect();
    let mut dependencies = vec![json!({"ref": "image", "dependsOn": parts})];
    dependencies.extend(parts.iter().map(|part| json!({"ref": part})));
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(subject, packages),
        "version": 1,
        "metadata": {
            "timestamp": subject.time(),
            "tools": {"components": [{"type": "application", "name": builder, "version": version}]},
            "component": {
                "type": "operating-system",
                "bom-ref": "image",
                "name": subject.name,
                "version": subject.tree,
                "description": subject.description,
                "hashes": [{"alg": "SHA-256", "content": subject.tree.hex()}],
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(subject: &Subject<'_>, package: &Package, facts: &Facts) -> Value {
    let (distributor, _) = subject.distributor();
    let property = |name: &str, value: String| json!({"name": name, "value": value});
    let source = format!("{} {}", facts.source, facts.source_version);
    let mut component = json!({
        "type": "library",
        "bom-ref": identifier(package),
        "name": package.name,
        "version": package.version,
        "description": facts.summary,
        "supplier": {"name": distributor},
        "publisher": facts.maintainer,
        "purl": package_url(package, subject.distribution),
        "hashes": [{"alg": "SHA-256", "content": package.sha256.hex()}],
        "properties": [
            property(USE, package.usage.word().to_owned()),
            property(SOURCE, source),
            property(PACKED, package.size.to_string()),
            property(INSTALLED, facts.installed.to_string()),
        ],
    });
    if let Some(expression) = &facts.licence.expression {
        component["licenses"] = json!([{"expression": expression}]);
    }
    if let Some(homepage) = &facts.homepage {
        component["externalReferences"] = json!([{"type": "website", "url": homepage}]);
    }
    component
}

/// A UUID that follows from what the document is about (RFC 9562 §5.8).
fn serial(subject: &Subject<'_>, packages: &[(&Package, &Facts)]) -> String {
    let mut hasher = Hasher::new();
    hasher.update(subject.tree.to_string().as_bytes());
    hasher.update(subject.builder.as_bytes());
    for (package, _) in packages {
        hasher.update(package.sha256.to_string().as_bytes());
    }
    let digest: Digest = hasher.finish();
    let hex = digest.hex();
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}
