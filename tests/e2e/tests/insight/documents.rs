//! What an image says about itself: lists of parts, provenance, differences, and why something is in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::need;
use e2e::rig::{check, printed, run};
use e2e::shop;
use image_manifest::Role;
use image_manifest::layout::Layout;
use lab::python::Environment;
use serde_json::Value;

use super::{Bench, assert_refused, imagebuild, json, said};

/// Judges a list of parts by the schema that its makers publish, formats of texts included.
const JUDGE: &str = r"
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(error) if error else 0)
";

fn python(program: &str) -> Option<PathBuf> {
    let found = Environment::of(&shop::state()).program(program);
    if found.is_none() {
        assert!(!need::is_ci(), "missing: {program}");
        eprintln!("SKIPPED for want of {program}; `cargo lab test --install` installs it");
    }
    found
}

/// Name and version of each package of a lock that is installed.
fn locked(image: &str) -> BTreeSet<(String, String)> {
    let path = shop::workspace().root.join("images").join(image);
    let text = fs::read_to_string(path.join("image.lock")).expect("a lock");
    let lock: toml::Table = text.parse().expect("a lock is TOML");
    let packages = lock["package"].as_array().expect("packages");
    let installed = packages
        .iter()
        .filter(|one| one["use"].as_str() == Some("install"));
    let word = |one: &toml::Value, key: &str| one[key].as_str().expect("a text").to_owned();
    installed
        .map(|one| (word(one, "name"), word(one, "version")))
        .collect()
}

/// The same, as dpkg's own database in the root file system has it.
fn installed(bench: &Bench, image: &str) -> BTreeSet<(String, String)> {
    let store = bench.path("store");
    let manifest = shop::manifest(Path::new(&store), image);
    let root = manifest.artifact(Role::Rootfs).expect("a root");
    let tree = bench.path("tree");
    check(&run(Command::new("unsquashfs")
        .args(["-quiet", "-no-progress", "-dest", &tree])
        .arg(shop::artifact(Path::new(&store), root))
        .args(["var/lib/dpkg/status", "var/lib/dpkg/info"])));
    let listed = printed(&run(Command::new("dpkg-query").args([
        "--admindir",
        &format!("{tree}/var/lib/dpkg"),
        "--show",
        "--showformat=${Package} ${Version}\\n",
    ])));
    let pairs = listed.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

/// Name and version of each package that a list of parts names by its package URL.
fn parts(parts: &[Value], name: &str, version: &str) -> BTreeSet<(String, String)> {
    let word = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let packages = parts
        .iter()
        .filter(|one| one.to_string().contains("pkg:deb/"));
    packages
        .map(|one| (word(one, name), word(one, version)))
        .collect()
}

#[test]
fn lists_of_parts_are_valid_and_are_what_dpkg_finds_in_the_tree() {
    let (Some(spdx_judge), Some(python)) = (python("pyspdxtools"), python("python")) else {
        return;
    };
    if !need::has(&["dpkg-query", "unsquashfs"]) {
        return;
    }
    let bench = Bench::with("base");
    let store = bench.path("store");
    let keep = |name: &str, words: &[&str]| {
        let path = bench.path(name);
        fs::write(&path, printed(&imagebuild(words))).expect("a document");
        path
    };
    let spdx = keep("base.spdx.json", &["sbom", "base", "--store", &store]);
    let cyclonedx = keep(
        "base.cdx.json",
        &["sbom", "base", "--store", &store, "--format", "cyclonedx"],
    );
    check(&run(Command::new(spdx_judge).args(["--infile", &spdx])));
    check(&run(Command::new(&python).args(["-c", JUDGE, &cyclonedx])));

    let read = |path: &str| -> Value {
        serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
    };
    let (spdx, cyclonedx) = (read(&spdx), read(&cyclonedx));
    let list = |document: &Value, key: &str| document[key].as_array().expect("a list").clone();
    let truth = installed(&bench, "base");
    assert!(truth.len() > 40, "{truth:?}");
    assert_eq!(locked("base"), truth);
    let packages = list(&spdx, "packages");
    assert_eq!(parts(&packages, "name", "versionInfo"), truth);
    assert_eq!(
        parts(&list(&cyclonedx, "components"), "name", "version"),
        truth
    );
    let known = packages
        .iter()
        .filter(|one| one["licenseDeclared"] != "NOASSERTION");
    assert!(
        known.count() * 2 > truth.len(),
        "most packages of Debian state their licence so that a program can read it"
    );
}

#[test]
fn the_provenance_is_about_the_bytes_of_the_store_and_names_what_they_were_made_from() {
    let bench = Bench::with("base");
    let store = bench.path("store");
    let statement = json(&["provenance", "base", "--store", &store]);
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let manifest = shop::manifest(Path::new(&store), "base");
    let subjects = statement["subject"].as_array().expect("subjects");
    for artifact in &manifest.artifacts {
        let subject = subjects
            .iter()
            .find(|one| one["name"] == artifact.name.as_str());
        if artifact.role == Role::Provenance {
            assert_eq!(subject, None, "it cannot know its own digest");
            continue;
        }
        let said = subject.expect(&artifact.name)["digest"]["sha256"].as_str();
        let file = shop::artifact(Path::new(&store), artifact);
        let found = printed(&run(Command::new("sha256sum").arg(file)));
        assert_eq!(said, found.split(' ').next(), "{}", artifact.name);
    }
    let build = &statement["predicate"]["buildDefinition"];
    let dependencies = build["resolvedDependencies"].as_array().expect("a list");
    let digest = |name: &str| {
        let found = dependencies.iter().find(|one| one["name"] == name);
        found.expect(name)["digest"]["sha256"]
            .as_str()
            .map(str::to_owned)
    };
    let toml = printed(&run(
        Command::new("sha256sum").arg(bench.path("images/base/image.toml"))
    ));
    assert_eq!(digest("base/image.toml").as_deref(), toml.split(' ').next());
    let packages = dependencies.iter().filter(|one| {
        let uri = one["uri"].as_str().unwrap_or_default();
        uri.starts_with("pkg:deb/debian/")
    });
    assert_eq!(packages.count(), locked("base").len());
    let metadata = &statement["predicate"]["runDetails"]["builder"];
    assert!(metadata["id"].is_string(), "{metadata}");

    let layout = Layout::open(&store).expect("the store");
    let image = layout.resolve("base").expect("the image").digest;
    let referrers = layout.referrers(&image).expect("referrers");
    let types = referrers
        .iter()
        .filter_map(|one| one.artifact_type.as_deref());
    assert_eq!(
        types.collect::<BTreeSet<_>>(),
        BTreeSet::from([
            "application/spdx+json",
            "application/vnd.cyclonedx+json",
            "application/vnd.in-toto+json",
        ])
    );
}

#[test]
fn the_difference_of_two_generations_and_of_two_locks_is_told() {
    let bench = Bench::with("loaders");
    let store = bench.path("store");
    let inspected = json(&["inspect", "loaders", "--store", &store]);
    assert_eq!(inspected["packages"][0]["name"], "ipxe");
    let old = format!(
        "loaders@{}",
        inspected["digest"].as_str().expect("a digest")
    );
    let toml = bench.path("images/loaders/image.toml");
    let text = fs::read_to_string(&toml).expect("a definition");
    let more = "\n[[file]]\npath = \"etc/motd\"\ncontent = \"hello\"\nmode = \"0600\"\n";
    fs::write(&toml, text + more).expect("a definition");
    bench.build("loaders");
    let difference = json(&["diff", &old, "loaders", "--store", &store]);
    let files = difference["files"].as_array().expect("files");
    let paths: Vec<_> = files.iter().map(|file| &file["path"]).collect();
    assert_eq!(paths, ["/etc", "/etc/motd"]);
    assert_eq!(difference["packages"], serde_json::json!([]));
    let told = printed(&imagebuild(&["diff", &old, "loaders", "--store", &store]));
    assert!(told.contains("\n  + /etc/motd\n"), "{told}");
    let same = json(&["diff", "loaders", "loaders", "--store", &store]);
    assert_eq!(same["same"], true);

    let (base, host) = (bench.path("images/base"), bench.path("images/host"));
    let difference = json(&["diff", &base, &host]);
    let changes = difference["packages"].as_array().expect("packages");
    let came: BTreeSet<_> = changes
        .iter()
        .filter(|one| one["from"].is_null())
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert!(
        came.contains("openssh-server") && !came.contains("libc6"),
        "{came:?}"
    );
    assert_refused(
        &imagebuild(&["diff", &base, &bench.path("none")]),
        3,
        &["none"],
    );
    let absent = imagebuild(&["inspect", "none", "--store", &store]);
    assert_refused(&absent, 1, &["no image `none`"]);
}

#[test]
fn a_package_and_a_file_say_why_they_are_there() {
    shop::image("host");
    let images = shop::workspace().root.join("images");
    let host = images.join("host").to_str().expect("a path").to_owned();
    let why = json(&["why", &host, "libcap2"]);
    let chains = why["chains"].as_array().expect("chains");
    let direct = chains.iter().find(|one| one["asked-by"] == "host");
    let direct = direct.expect("the definition asks for it").to_string();
    assert!(direct.ends_with(r#""libcap2"]}"#), "{direct}");
    let told = printed(&imagebuild(&["why", &host, "openssh-server"]));
    assert!(told.contains("host: openssh-server"), "{told}");
    let kernel = printed(&imagebuild(&["why", &host, "linux-image-amd64"]));
    assert!(
        kernel.contains("host (kernel): linux-image-amd64 -> linux-image-"),
        "{kernel}"
    );
    // `/bin` is a link, and the package has the path below `usr`.
    for path in ["/usr/bin/ss", "/bin/ss"] {
        assert_eq!(
            json(&["why", &host, "--file", path])["packages"][0],
            "iproute2"
        );
    }
    let nobody = imagebuild(&["why", &host, "--file", "/etc/passwd"]);
    assert_refused(&nobody, 1, &["maintainer script"]);
    let absent = imagebuild(&["why", &host, "libcap"]);
    assert_refused(&absent, 1, &["no package `libcap`"]);
    assert!(
        said(&absent).contains("libcap2"),
        "it names what is near: {}",
        said(&absent)
    );
}
