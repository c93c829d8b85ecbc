//! SPDX 2.3, as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Subject, identifier, package_url};
use crate::facts::Facts;
use crate::lock::Package;

const UNKNOWN: &str = "NOASSERTION";

pub(super) fn document(subject: &Subject<'_>, packages: &[(&Package, &Facts)]) -> Value {
    let image = json!({
        "SPDXID": "SPDXRef-image",
        "name": subject.name,
        "versionInfo": subject.tree,
        "summary": subject.description,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "checksums": [{"algorithm": "SHA256", "checksumValue": subject.tree.hex()}],
    });
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-image",
    })];
    let mut listed = vec![image];
    let mut texts: BTreeMap<&str, &str> = BTreeMap::new();
    for (package, facts) in packages {
        let id = format!("SPDXRef-{}", identifier(package));
        relationships.push(json!({
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": id,
        }));
        listed.push(entry(subject, &id, package, facts));
        for (name, text) in &facts.licence.texts {
            texts.entry(name).or_insert(text);
        }
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        // A name, not a place: equal documents have equal ones.
        "documentNamespace": format!("urn:firstboot:spdx:{}:{}", subject.name, subject.tree.hex()),
        "creationInfo": {
            "created": subject.time(),
            "creators": [format!("Tool: {}", subject.builder.replacen(' ', "-", 1))],
        },
        "packages": listed,
        "relationships": relationships,
    });
    if !texts.is_empty() {
        let texts: Vec<_> = texts
            .into_iter()
            .map(|(name, text)| {
                json!({"licenseId": name, "name": name.trim_start_matches("LicenseRef-"), "extractedText": text})
            })
            .collect();
        document["hasExtractedLicensingInfos"] = json!(texts);
    }
    document
}

fn entry(subject: &Subject<'_>, id: &str, package: &Package, facts: &Facts) -> Value {
    let (distributor, _) = subject.distributor();
    let licence = facts.licence.expression.as_deref().unwrap_or(UNKNOWN);
    let mut entry = json!({
        "SPDXID": id,
        "name": package.name,
        "versionInfo": package.version,
        "packageFileName": package.path.rsplit('/').next(),
        "supplier": format!("Organization: {distributor}"),
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": licence,
        "copyrightText": UNKNOWN,
        "summary": facts.summary,
        "sourceInfo": format!("built from source package {} {}", facts.source, facts.source_version),
        "comment": format!("used for: {}", package.usage.word()),
        "checksums": [{"algorithm": "SHA256", "checksumValue": package.sha256.hex()}],
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package_url(package, subject.distribution),
        }],
    });
    if let Some(homepage) = &facts.homepage {
        entry["homepage"] = json!(homepage);
    }
    entry
}
