//! What is no longer needed goes, what somebody needs stays, and a collector that is killed leaves nothing half removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::rig::{check, printed};
use e2e::shop;
use image_manifest::Digest;
use image_manifest::layout::Layout;
use serde_json::Value;

use super::{Bench, assert_refused, imagebuild, json};

/// Files that nothing leads to: enough for several kills on the way.
const ORPHANS: usize = 4000;
/// Files that are removed between two kills.
const STRIDE: usize = 600;

fn files(store: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(Path::new(store).join("blobs/sha256")).expect("the store's files");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// Builds a generation of the loaders that says something, and returns how it is named by its digest.
fn generation(bench: &Bench, word: &str) -> String {
    let toml = bench.path("images/loaders/image.toml");
    let text = fs::read_to_string(&toml).expect("a definition");
    let kept = text.split("\n[[file]]").next().expect("a first part");
    let more = format!("\n[[file]]\npath = \"etc/motd\"\ncontent = \"{word}\"\n");
    fs::write(&toml, format!("{kept}{more}")).expect("a definition");
    let built = bench.build("loaders");
    format!("loaders@{}", built["manifest"].as_str().expect("a digest"))
}

fn gc(store: &str, words: &[&str]) -> Value {
    json(&[&["gc", "--store", store, "--keep", "1"], words].concat())
}

#[test]
fn what_has_a_name_a_signature_or_youth_stays() {
    let bench = Bench::with("loaders");
    let store = bench.path("store");
    let key = bench.path("key");
    check(&imagebuild(&["key", "make", &key]));
    let first = generation(&bench, "first");
    let second = generation(&bench, "second");
    for image in [&first, &second] {
        check(&imagebuild(&[
            "sign", image, "--store", &store, "--key", &key,
        ]));
    }
    let before = files(&store);
    let young = gc(&store, &["--delete"]);
    assert_eq!(
        (&young["store"]["files"], files(&store)),
        (&Value::from(0), before.clone())
    );

    let told = gc(&store, &["--min-age", "0s"]);
    assert_eq!(told["deleted"], false);
    assert_eq!(files(&store), before, "it tells, and no more");
    let words = printed(&imagebuild(&[
        "gc",
        "--store",
        &store,
        "--keep",
        "1",
        "--min-age",
        "0s",
    ]));
    assert!(words.contains(&format!("would go: {first}")), "{words}");
    assert!(words.contains("`--delete` does it"), "{words}");
    let removed = gc(&store, &["--min-age", "0s", "--delete"]);
    assert_eq!(
        removed["store"], told["store"],
        "what was told is what was done"
    );
    let gone = told["store"]["files"].as_u64().expect("a number");
    assert_eq!(
        before.len() - files(&store).len(),
        usize::try_from(gone).expect("it fits")
    );

    assert_refused(
        &imagebuild(&["inspect", &first, "--store", &store]),
        1,
        &["no image"],
    );
    let public = format!("{key}.pub");
    check(&imagebuild(&[
        "verify", "loaders", "--store", &store, "--key", &public,
    ]));
    assert_eq!(
        json(&["inspect", "loaders", "--store", &store])["signatures"],
        1
    );
    assert!(
        !json(&["inspect", "loaders", "--store", &store])["referrers"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
    assert_eq!(
        gc(&store, &["--min-age", "0s", "--delete"])["store"]["files"],
        0
    );

    // Nothing goes where something that stays cannot be read: it may lead to what would go.
    let layout = Layout::open(&store).expect("the store");
    let entry = layout
        .named("loaders")
        .expect("an index")
        .expect("the image");
    fs::remove_file(layout.blob(&entry.digest)).expect("its manifest goes");
    let left = files(&store);
    let words = ["gc", "--store", &store, "--min-age", "0s", "--delete"];
    assert_refused(&imagebuild(&words), 1, &[entry.digest.hex().as_str()]);
    assert_eq!(files(&store), left);
}

#[test]
fn a_collector_that_is_killed_leaves_only_whole_images() {
    let bench = Bench::with("loaders");
    let store = bench.path("store");
    generation(&bench, "first");
    generation(&bench, "second");
    let blobs = Path::new(&store).join("blobs/sha256");
    for number in 0..ORPHANS {
        let bytes = number.to_be_bytes();
        fs::write(blobs.join(Digest::of(&bytes).hex()), bytes).expect("a file");
    }
    let mut collect = Command::new(shop::workspace().binary("imagebuild"));
    let words = [
        "gc",
        "--store",
        &store,
        "--keep",
        "1",
        "--min-age",
        "0s",
        "--delete",
    ];
    collect
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut kills = 0;
    loop {
        let before = files(&store).len();
        let mut running = collect.spawn().expect("imagebuild starts");
        let ended = loop {
            if let Some(status) = running.try_wait().expect("it can be asked") {
                break Some(status);
            }
            if before - files(&store).len().min(before) >= STRIDE {
                running.kill().expect("it can be killed");
                running.wait().expect("it ends");
                break None;
            }
        };
        assert_whole(&store);
        match ended {
            Some(status) => {
                assert!(status.success(), "{status}");
                break;
            }
            None => kills += 1,
        }
    }
    assert!(kills >= 2, "it was killed {kills} times");
    assert_eq!(
        gc(&store, &["--min-age", "0s"])["store"]["files"],
        0,
        "the last one did the rest"
    );
    check(&imagebuild(&["verify", "loaders", "--store", &store]));
}

/// Every image that the index names has all of its files.
fn assert_whole(store: &str) {
    let layout = Layout::open(store).expect("the store");
    for entry in layout.entries().expect("an index") {
        assert!(layout.blob(&entry.digest).is_file(), "{entry:?}");
    }
    let manifest = layout.resolve("loaders").expect("the image").manifest;
    for artifact in &manifest.artifacts {
        layout.check(artifact).expect("an artifact of the image");
    }
}
