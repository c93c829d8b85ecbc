//! Rules about dependencies, judged over `cargo metadata`: which crate may know which, and under
//! which licences others' code may be linked.
//!
//! It refuses to keep a list of licences or bans of its own: `deny.toml` is the one list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Which crates of ours each crate of ours may depend on (STYLE: "Direction of dependencies").
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("image-manifest", &[]),
    ("deb-archive", &["image-manifest"]),
    ("image-disk", &["image-manifest"]),
    ("image-tree", &["image-manifest"]),
    ("image-oci", &["image-manifest", "image-tree"]),
    ("image-sandbox", &[]),
    (
        "imagebuild",
        &[
            "cloud",
            "deb-archive",
            "image-disk",
            "image-manifest",
            "image-oci",
            "image-sandbox",
            "image-tree",
        ],
    ),
    ("cloud", &["image-manifest"]),
    ("ipmi", &[]),
    ("stage1", &["image-manifest"]),
    ("netboot-core", &["image-manifest"]),
    ("netboot", &["image-manifest", "ipmi", "netboot-core"]),
    ("lab", &["image-manifest", "ipmi"]),
    ("e2e", &["cloud", "image-manifest", "ipmi", "lab"]),
    ("bench", &["cloud", "image-manifest", "ipmi"]),
];

/// What would bring clocks, sockets, disks or logs into a crate that is a pure function.
const IMPURE: &[&str] = &[
    "getrandom",
    "hyper",
    "libc",
    "nix",
    "quinn-udp",
    "rand",
    "socket2",
    "sqlx",
    "time",
    "tokio",
    "tracing",
];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--all-features",
        ])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("metadata is JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"].as_array().map_or(&[], Vec::as_slice)
}

/// Names of the direct dependencies that are linked into a package's product, not only into its tests.
fn linked(package: &Value) -> BTreeSet<&str> {
    let dependencies = package["dependencies"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    dependencies
        .iter()
        .filter(|one| one["kind"] != "dev")
        .map(|one| text(one, "name"))
        .collect()
}

#[test]
fn every_crate_knows_only_what_it_may() {
    let metadata = metadata();
    let rules: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    let members = metadata["workspace_members"].as_array().unwrap();
    let ours: Vec<_> = packages(&metadata)
        .iter()
        .filter(|package| members.contains(&package["id"]))
        .collect();
    let names: BTreeSet<_> = ours.iter().map(|package| text(package, "name")).collect();
    for package in &ours {
        let name = text(package, "name");
        let allowed = rules
            .get(name)
            .unwrap_or_else(|| panic!("`{name}` needs a line in MAY_KNOW"));
        for known in linked(package).intersection(&names) {
            assert!(
                allowed.contains(known),
                "`{name}` must not depend on `{known}`"
            );
        }
    }
}

#[test]
fn the_decision_core_is_pure() {
    let metadata = metadata();
    let core = packages(&metadata)
        .iter()
        .find(|package| package["name"] == "netboot-core")
        .unwrap();
    let impure: Vec<_> = linked(core)
        .into_iter()
        .filter(|name| IMPURE.contains(name))
        .collect();
    assert!(
        impure.is_empty(),
        "netboot-core must not depend on {impure:?}"
    );
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed_and_a_source_that_is_known() {
    let rules: toml::Table = fs::read_to_string(format!("{ROOT}/deny.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let strings = |value: &toml::Value| -> BTreeSet<String> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect()
    };
    let allowed = strings(&rules["licenses"]["allow"]);
    let bans = rules["bans"]["deny"].as_array().unwrap();
    let banned: BTreeSet<_> = bans
        .iter()
        .map(|ban| ban["crate"].as_str().unwrap())
        .collect();
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in packages(&metadata) {
        let name = text(package, "name");
        let licence = text(package, "license");
        if !Expression::new(licence).allows(&allowed) {
            wrong.push(format!("{name}: licence `{licence}` is not allowed"));
        }
        if banned.contains(name) {
            wrong.push(format!("{name}: banned in deny.toml"));
        }
        let source = package["source"].as_str();
        if source
            .is_some_and(|source| source != "registry+https://github.com/rust-lang/crates.io-index")
        {
            wrong.push(format!(
                "{name}: comes from `{}`",
                source.unwrap_or_default()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An SPDX licence expression; `/` is what old crates write for `OR`.
struct Expression(Vec<String>);

impl Expression {
    fn new(text: &str) -> Self {
        let spaced = text
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let mut words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
        // An exception belongs to the licence before it.
        while let Some(with) = words.iter().position(|word| word == "WITH") {
            let joined = words
                .drain(with - 1..(with + 2).min(words.len()))
                .collect::<Vec<_>>()
                .join(" ");
            words.insert(with - 1, joined);
        }
        words.reverse();
        Self(words)
    }

    fn allows(mut self, allowed: &BTreeSet<String>) -> bool {
        self.either(allowed) && self.0.is_empty()
    }

    fn either(&mut self, allowed: &BTreeSet<String>) -> bool {
        let mut met = self.both(allowed);
        while self.0.pop_if(|word| word == "OR").is_some() {
            met |= self.both(allowed);
        }
        met
    }

    fn both(&mut self, allowed: &BTreeSet<String>) -> bool {
        let mut met = self.one(allowed);
        while self.0.pop_if(|word| word == "AND").is_some() {
            met &= self.one(allowed);
        }
        met
    }

    fn one(&mut self, allowed: &BTreeSet<String>) -> bool {
        match self.0.pop() {
            Some(word) if word == "(" => {
                let met = self.either(allowed);
                let closed = self.0.pop_if(|word| word == ")").is_some();
                met && closed
            }
            Some(word) => allowed.contains(&word),
            None => false,
        }
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]
        .map(str::to_owned)
        .into();
    let cases = [
        ("one", "MIT", true),
        ("either", "GPL-3.0 OR MIT", true),
        ("old either", "GPL-3.0/MIT", true),
        ("both", "MIT AND GPL-3.0", false),
        ("brackets", "(MIT OR GPL-3.0) AND ISC", true),
        ("brackets, no", "(MIT AND GPL-3.0) OR GPL-2.0", false),
        ("brackets, the other", "(MIT AND GPL-3.0) OR ISC", true),
        ("an exception", "Apache-2.0 WITH LLVM-exception", true),
        ("without it", "Apache-2.0", false),
        ("nothing", "", false),
    ];
    for (name, expression, expected) in cases {
        assert_eq!(
            Expression::new(expression).allows(&allowed),
            expected,
            "{name}"
        );
    }
}
