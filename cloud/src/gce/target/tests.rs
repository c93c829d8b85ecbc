use std::sync::Arc;

use super::*;

fn target(more: &str) -> Target {
    let text = format!("name = \"gce\"\nproject = \"acme\"\nbucket = \"images\"\n{more}");
    toml::from_str(&text).unwrap()
}

fn subject(name: &str, version: &str) -> Subject {
    Subject {
        name: name.to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        version: version.to_owned(),
        manifest: Digest::of(b""),
        tree: Digest::of(b""),
        source_date: 0,
        disk: None::<Arc<dyn crate::subject::Disk>>,
    }
}

#[test]
fn names_are_made_of_what_the_cloud_takes() {
    let cases = [
        ("host", "20260102-e3b0c442", "host-20260102-e3b0c442-amd64"),
        ("Web_Host", "1.2", "web-host-1-2-amd64"),
        ("9p", "1", "i-9p-1-amd64"),
    ];
    for (name, version, expected) in cases {
        assert_eq!(target("").image_name(&subject(name, version)), expected);
    }
    let long = target("").image_name(&subject(&"x".repeat(80), "1"));
    assert_eq!(long.len(), LONGEST);
    assert!(long.ends_with("x-e3b0c44298") && is_name(&long), "{long}");
}

#[test]
fn everything_that_is_wrong_is_told() {
    let cases = [
        ("family = \"Host\"", "`family`"),
        ("family = \"{image}-{architecture}\"", ""),
        ("guest-os-features = [\"gvnic\"]", "`guest-os-features`"),
        ("labels = { Cost = \"x\" }", "`labels`: key `Cost`"),
        ("labels = { cost = \"X\" }", "`labels`: value `X`"),
        ("labels = { firstboot-image = \"x\" }", "is one of ours"),
        (
            "storage-locations = [\"eu\", \"us\"]",
            "`storage-locations`",
        ),
        ("kms-key = \"key\"", "`kms-key`"),
        (
            "kms-key = \"projects/p/locations/eu/keyRings/r/cryptoKeys/k\"",
            "",
        ),
        ("share-with = [\"everybody\"]", "`share-with`"),
        (
            "share-with = [\"allAuthenticatedUsers\", \"domain:acme.example\"]",
            "",
        ),
        ("service-account = \"a@b\"", "`service-account`"),
        (
            "endpoints = { compute = \"ftp://x\" }",
            "`endpoints.compute`",
        ),
        (
            "endpoints = { storage = \"http://storage.example\" }",
            "`endpoints.storage`: `http://storage.example` is no URL of `https`",
        ),
        (
            "endpoints = { storage = \"https://storage.example/\" }",
            "has a slash at its end",
        ),
        ("object-prefix = \"/x\"", "`object-prefix`"),
    ];
    for (text, expected) in cases {
        let problems = target(text).check();
        let told = match expected {
            "" => problems.is_empty(),
            expected => problems.len() == 1 && problems[0].contains(expected),
        };
        assert!(told, "{text}: {problems:?}");
    }
}
