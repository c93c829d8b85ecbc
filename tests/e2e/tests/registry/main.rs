//! Container images and registries: what was built is what others' tools see, and what travels arrives once and whole.
//!
//! It refuses to speak with any registry but one of its own on the loopback.

mod container;
mod desk;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use e2e::need;
use e2e::rig::run;
use e2e::shop;
use image_manifest::Digest;
use image_manifest::layout::{Attachment, Layout};
use lab::poll;
use serde_json::Value;

use desk::{Desk, json, ok};
use server::{Registry, Wire};

fn has_tools() -> bool {
    need::has(&["curl", "docker-registry", "runc", "skopeo", "umoci"])
}

#[test]
fn what_is_pushed_is_what_is_pulled_and_a_change_sends_one_layer() {
    if !has_tools() {
        return;
    }
    let desk = Desk::new();
    desk.build(&[]);
    let registry = Registry::start();
    let first = desk.push(&registry, &[]);
    let image = registry.at("team/web:v1-oci");
    let inspect = || {
        ok(Command::new("skopeo").args([
            "inspect",
            "--tls-verify=false",
            &format!("docker://{image}"),
        ]))
    };
    let told: Value = serde_json::from_str(&inspect()).expect("JSON");
    assert_eq!(told["Digest"], first["tags"]["v1-oci"]);
    let copy = format!("oci:{}:web", desk.path("copy").display());
    ok(Command::new("skopeo").args([
        "copy",
        "--quiet",
        "--all",
        "--src-tls-verify=false",
        &format!("docker://{image}"),
        &copy,
    ]));

    let again = desk.push(&registry, &[]);
    assert_eq!(again["uploaded-files"], 0);
    let before = registry.uploads().len();
    assert_eq!(Value::from(before), first["uploaded-files"]);

    let old = desk.layers().map(|layers| layers[1].clone());
    desk.edit("8080");
    desk.build(&[]);
    let planned = desk.push(&registry, &["--dry-run"]);
    assert_eq!(registry.uploads().len(), before, "a plan sends nothing");
    let pushed = desk.push(&registry, &[]);
    assert_eq!(planned["missing-files"], pushed["uploaded-files"]);
    let sent = registry.uploads().split_off(before);
    for ((layers, old), encoding) in desk.layers().iter().zip(old).zip(["gzip", "zstd"]) {
        let uploaded: Vec<_> = layers.iter().filter(|layer| sent.contains(layer)).collect();
        assert_eq!(
            uploaded,
            [&layers[1]],
            "{encoding}: the layer that changed, and no other"
        );
        assert_ne!(layers[1], old);
    }

    let pull = |store: &str| {
        let mut pull = desk.imagebuild();
        pull.args([
            "pull",
            &registry.at("team/web:v1"),
            "--store",
            store,
            "--json",
            "--cache",
            "journal",
        ]);
        json(&mut pull)
    };
    let pulled = pull("pulled");
    assert_eq!(pulled["names"]["web"], pushed["tags"]["v1"]);
    assert_eq!(pulled["names"]["web-oci"], pushed["tags"]["v1-oci"]);
    assert_eq!(pull("pulled")["downloaded-files"], 0);
    json(
        desk.imagebuild()
            .args(["verify", "web", "--store", "pulled", "--json"]),
    );

    // The registry goes bad: one byte of a layer.
    let bad = &desk.layers()[0][1]["sha256:".len()..];
    let file = registry
        .folder
        .path()
        .join("data/docker/registry/v2/blobs/sha256")
        .join(&bad[..2])
        .join(bad)
        .join("data");
    let mut bytes = fs::read(&file).expect("the registry's file");
    bytes[20] ^= 1;
    fs::write(&file, bytes).expect("the registry's file");
    let output = run(desk.imagebuild().args([
        "pull",
        &registry.at("team/web:v1"),
        "--store",
        "hostile",
        "--cache",
        "journal-2",
    ]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains(bad) && said.contains("has the digest"),
        "{said}"
    );
    let hostile = Layout::open(desk.path("hostile")).expect("a store");
    assert_eq!(
        hostile.entries().expect("an index"),
        [],
        "nothing has a name"
    );
}

#[test]
fn a_push_that_is_cut_ends_well() {
    if !has_tools() {
        return;
    }
    let desk = Desk::new();
    desk.build(&[]);
    let registry = Registry::start();
    let total = desk.push(&registry, &["--dry-run"])["missing-bytes"]
        .as_u64()
        .expect("a number");
    let manifest = shop::manifest(&desk.path("store"), "web");
    let layers = manifest
        .layers
        .iter()
        .flat_map(|layer| [layer.gzip.size, layer.zstd.size]);
    let files = manifest.artifacts.iter().map(|artifact| artifact.size);
    let largest = layers.chain(files).max().expect("an image has files");
    let push = |address: &str, name: &str| {
        let mut push = desk.imagebuild();
        push.args([
            "push",
            "web",
            &format!("{address}/{name}"),
            "--store",
            "store",
            "--json",
            "--cache",
            "journal",
        ]);
        push.args(["--chunk", "1048576", "--parallel", "1"]);
        push
    };

    // The wire is cut once. This registry forgets an upload that ends within a chunk, so that one file may go twice, and no other.
    let wire = Wire::to(&registry, 9 << 20);
    let pushed = json(&mut push(&wire.address, "team/cut:v1"));
    let sent = wire.sent.load(Ordering::Relaxed);
    assert!(
        sent > total && sent < total + largest + (2 << 20),
        "{sent} of {total} went over the wire"
    );
    assert_eq!(pushed["present-files"], 0);

    // The program is killed: what was complete is not sent again.
    let wire = Wire::to(&registry, i64::MAX);
    let mut killed = push(&wire.address, "team/killed:v1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let well_in = || (wire.sent.load(Ordering::Relaxed) > largest + (4 << 20)).then_some(());
    assert!(
        poll::until(Duration::from_mins(1), well_in).is_some(),
        "it sends"
    );
    killed.kill().expect("it runs");
    killed.wait().expect("it ends");
    let before = wire.sent.load(Ordering::Relaxed);
    let pushed = json(&mut push(&wire.address, "team/killed:v1"));
    let after = wire.sent.load(Ordering::Relaxed) - before;
    assert!(
        after < total,
        "{after} of {total} went over the wire after the kill"
    );
    assert!(pushed["present-files"].as_u64().expect("a number") >= 1);
    let image = format!("docker://{}", registry.at("team/killed:v1-oci"));
    ok(Command::new("skopeo")
        .args(["copy", "--quiet", "--all", "--src-tls-verify=false", &image])
        .arg(format!("oci:{}:web", desk.path("copy").display())));
}

#[test]
fn attachments_and_packages_travel_with_the_image() {
    if !has_tools() {
        return;
    }
    let desk = Desk::new();
    desk.build(&[]);
    let store = Layout::open(desk.path("store")).expect("the store");
    let image = store
        .named("web")
        .expect("an index")
        .expect("the image")
        .digest;
    let statement = Attachment {
        artifact_type: "application/spdx+json",
        media_type: "application/spdx+json",
        file: store.put(br#"{"spdxVersion":"SPDX-2.3"}"#).expect("a file"),
        annotations: BTreeMap::new(),
    };
    let statement = store.attach(&image, &statement).expect("an attachment");
    let registry = Registry::start();
    let refused = run(desk.imagebuild().args([
        "push",
        "web",
        &registry.at("team/web:v1"),
        "--store",
        "store",
        "--packages",
    ]));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("imagebuild vendor"),
        "{said}"
    );
    json(desk.imagebuild().args([
        "vendor",
        "images/web",
        "--store",
        "store",
        "--offline",
        "--json",
    ]));
    let pushed = desk.push(&registry, &["--packages"]);
    let attached = digests(&store, &image);
    assert!(attached.contains(&statement), "{attached:?}");
    let sent = pushed["attachments"].as_u64().expect("a number");
    assert!(sent >= attached.len() as u64, "{sent} of {attached:?}");
    desk.push(&registry, &["--packages"]);

    // This registry knows no referrers, so the tag that stands in for them lists each, once.
    let tag = registry.get(&format!("team/web/manifests/sha256-{}", image.hex()));
    let listed: Value = serde_json::from_str(&tag).expect("an index");
    let listed = listed["manifests"].as_array().expect("a list");
    assert_eq!(listed.len(), attached.len(), "{tag}");
    let ours = listed
        .iter()
        .find(|one| one["digest"] == statement.to_string());
    let ours = ours.unwrap_or_else(|| panic!("{tag}"));
    assert_eq!(ours["artifactType"], "application/spdx+json");

    json(desk.imagebuild().args([
        "pull",
        &registry.at("team/web:v1"),
        "--store",
        "pulled",
        "--packages",
        "--json",
    ]));
    let pulled = Layout::open(desk.path("pulled")).expect("a store");
    assert_eq!(digests(&pulled, &image), attached);

    // Everything else is gone: the mirrors, the cache, the image. The packages are enough.
    drop(registry);
    fs::create_dir(desk.path("empty")).expect("a cache");
    let build = |store: &Path| {
        let mut build = desk.imagebuild();
        build
            .args([
                "build",
                "images/web",
                "--offline",
                "--rebuild",
                "--json",
                "--cache",
                "empty",
                "--store",
            ])
            .arg(store);
        build.args(["--mirror", "http://127.0.0.1:9/debian"]);
        json(&mut build)
    };
    let rebuilt = build(&desk.path("pulled"));
    assert_eq!(
        rebuilt["tree"],
        shop::manifest(&desk.path("store"), "web").tree.to_string()
    );
    assert_eq!(
        rebuilt["manifest"],
        image.to_string(),
        "the same image, byte for byte"
    );
}

/// Returns what is attached to an image in a store.
fn digests(store: &Layout, image: &Digest) -> BTreeSet<Digest> {
    let referrers = store.referrers(image).expect("an index");
    referrers.into_iter().map(|one| one.digest).collect()
}
