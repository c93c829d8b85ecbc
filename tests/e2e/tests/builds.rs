//! Builds that do not end as they should: no room, no time, no patience. The store stays one that readers can trust.
//!
//! It refuses to look only at what `imagebuild` says: every file of a store is hashed, and its index read.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use e2e::need;
use e2e::rig::{check, printed, run};
use e2e::shop;
use image_manifest::layout::{Entry, Layout};
use image_manifest::{Digest, Hasher};
use lab::poll;
use serde_json::Value;
use tempfile::TempDir;

/// A store and a workspace of a test's own; the packages are those of the lab's builds.
struct Bench {
    folder: TempDir,
    expected: Digest,
}

impl Bench {
    fn new() -> Self {
        // Its build fills the cache with the packages, and says what all others must come to.
        shop::image("base");
        let store = Layout::open(shop::state().store()).expect("the lab's store");
        let expected = store.resolve("base").expect("an image").digest;
        let folder = tempfile::tempdir().expect("a temporary directory");
        Self { folder, expected }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn imagebuild(&self, words: &[&str]) -> Command {
        let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
        imagebuild.current_dir(self.folder.path()).args(words);
        imagebuild
    }

    fn build(&self, store: &str, work: &str) -> Command {
        let workshop = shop::workshop();
        let mut build = self.imagebuild(&["build"]);
        build.arg(workshop.definitions.join("base"));
        build.args(["--store", store, "--work", work]);
        build.args(["--offline", "--json"]);
        // Where the archive moved on, the lab has a lock of its own.
        let lock = workshop.locks.join("base/image.lock");
        if lock.is_file() {
            build.arg("--lock").arg(lock);
        }
        build
    }

    /// Asserts that a build comes to the image that every other one comes to, and that `verify` finds no fault in it.
    fn assert_builds(&self, store: &str, work: &str) {
        let built: Value = serde_json::from_str(&printed(&run(&mut self.build(store, work))))
            .expect("one line of JSON");
        assert_eq!(built["manifest"], self.expected.to_string());
        check(&run(
            &mut self.imagebuild(&["verify", "base", "--store", store])
        ));
        let left = |name: &str| fs::read_dir(self.path(name)).map_or(0, Iterator::count);
        assert_eq!(left(work), 0, "a workspace is left");
        assert_eq!(left(&format!("{store}/ingest")), 0, "half a file is left");
    }

    /// Asserts what a reader may rely on at any time: a file that has a name has its digest, and a name has an image.
    fn assert_readable(&self, store: &str) -> Vec<Entry> {
        let path = self.path(store);
        let layout = Layout::open(&path).expect("a store");
        for file in fs::read_dir(path.join("blobs/sha256")).expect("files") {
            let file = file.expect("a file");
            let mut hasher = Hasher::new();
            let mut bytes = fs::File::open(file.path()).expect("a file");
            std::io::copy(&mut bytes, &mut hasher).expect("it is read");
            assert_eq!(hasher.finish().hex(), file.file_name().to_string_lossy());
        }
        layout.entries().expect("an index")
    }

    fn assert_no_image(&self, store: &str) {
        let named = self.assert_readable(store);
        let named: Vec<_> = named
            .iter()
            .filter_map(|entry| entry.name.as_ref())
            .collect();
        assert!(named.is_empty(), "{named:?}");
        let verified = run(&mut self.imagebuild(&["verify", "base", "--store", store]));
        let told = said(&verified);
        assert!(
            !verified.status.success() && told.contains("no image `base`"),
            "{told}"
        );
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A small file system in memory; dropping it takes it away.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf, size: &str) -> Self {
        fs::create_dir(&at).expect("a directory");
        let size = format!("size={size}");
        let mount = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        check(&run(Command::new("mount").args(mount).arg(&at)));
        Self(at)
    }

    fn grow(&self, size: &str) {
        let size = format!("remount,size={size}");
        check(&run(Command::new("mount").args(["-o", &size]).arg(&self.0)));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there is not kept from ending.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[test]
fn a_build_without_room_says_so_leaves_nothing_half_and_can_be_repeated() {
    if !need::has(&["mount", "umount"]) {
        return;
    }
    let bench = Bench::new();
    let small = Small::mount(bench.path("small"), "16M");
    let without_room = |store: &str, work: &str| {
        let output = run(&mut bench.build(store, work));
        let told = said(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let told = told.split_once("error:").map_or("", |(_, error)| error);
        assert!(told.contains("No space left on device"), "{told}");
        assert!(told.contains("help: a disk is full"), "{told}");
    };
    // No room for the tree, or for what is made of one that was kept.
    without_room("store", "small/work");
    bench.assert_no_image("store");
    let left = fs::read_dir(bench.path("small/work")).expect("a directory");
    assert_eq!(left.count(), 0, "the workspace goes");

    // No room for the image, of which half fits: its parts are written side by side, and any may be the first to fail.
    small.grow("40M");
    without_room("small/store", "work");
    bench.assert_no_image("small/store");
    let gc = [
        "gc",
        "--store",
        "small/store",
        "--min-age",
        "0s",
        "--delete",
    ];
    check(&run(&mut bench.imagebuild(&gc)));
    let files = fs::read_dir(bench.path("small/store/blobs/sha256")).expect("files");
    assert_eq!(files.count(), 0, "what no image needs goes");
    small.grow("400M");
    bench.assert_builds("small/store", "work");
}

#[test]
fn two_builds_at_once_into_one_store_make_one_image() {
    let bench = Bench::new();
    let builds = ["one", "other"].map(|work| {
        let mut build = bench.build("store", work);
        build.stdin(Stdio::null()).stdout(Stdio::piped());
        build.stderr(Stdio::piped()).spawn().expect("it starts")
    });
    for build in builds {
        let output = build.wait_with_output().expect("it ends");
        let built: Value = serde_json::from_str(&printed(&output)).expect("one line of JSON");
        assert_eq!(built["manifest"], bench.expected.to_string());
    }
    let entries = bench.assert_readable("store");
    let digests: BTreeSet<_> = entries.iter().map(|entry| entry.digest).collect();
    assert_eq!(digests.len(), entries.len(), "{entries:?}");
    bench.assert_builds("store", "one");
}

/// Kills a build as soon as something can be seen of it.
fn kill(mut build: Child, is_there: impl Fn() -> bool) {
    let seen = poll::until(Duration::from_mins(2), || is_there().then_some(()));
    build.kill().expect("it runs");
    let ended = build.wait().expect("it ends");
    assert!(seen.is_some() && !ended.success(), "{ended}");
}

#[test]
fn a_build_that_is_killed_leaves_no_image_and_nothing_that_the_next_does_not_sweep() {
    let bench = Bench::new();
    let start = || {
        let mut build = bench.build("store", "work");
        build.stdin(Stdio::null()).stdout(Stdio::null());
        build.stderr(Stdio::null()).spawn().expect("it starts")
    };
    let holds = |name: &str, bytes: u64| {
        let entries = fs::read_dir(bench.path(name))
            .into_iter()
            .flatten()
            .flatten();
        let mut sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
        sizes.any(|size| size >= bytes)
    };
    // While it makes the tree.
    kill(start(), || holds("work", 0));
    bench.assert_no_image("store");
    assert!(holds("work", 0), "its workspace is left");

    // While it writes into the store.
    kill(start(), || holds("store/ingest", 1 << 20));
    bench.assert_no_image("store");
    assert!(holds("store/ingest", 1 << 20), "half a file is left");

    bench.assert_builds("store", "work");
    bench.assert_readable("store");
}
