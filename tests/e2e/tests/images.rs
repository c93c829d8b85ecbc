//! Images: the same bytes wherever they are built, accepted by others' tools, and refused clearly.
//!
//! It refuses to change the lab's store or the committed locks: every test works on copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use e2e::archive;
use e2e::need;
use e2e::rig::{check, printed, run};
use e2e::shop;
use image_manifest::{Digest, Role};
use lab::images::Workshop;
use tempfile::TempDir;

/// Definitions, a cache and a store of a test's own.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let bench = Self { folder };
        let images = shop::workspace().root.join("images");
        shop::copy_tree(&images, &bench.path("images")).expect("a copy of the definitions");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn imagebuild(&self) -> Command {
        let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
        imagebuild
            .current_dir(self.folder.path())
            .env("IMAGEBUILD_CACHE", self.path("cache"));
        imagebuild
    }

    fn build(&self, name: &str, more: &[&str]) -> Output {
        run(self
            .imagebuild()
            .args([
                "build",
                &format!("images/{name}"),
                "--store",
                "store",
                "--json",
            ])
            .args(more))
    }

    fn lock(&self, name: &str) -> String {
        fs::read_to_string(self.path("images").join(name).join("image.lock"))
            .expect("a committed lock")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A mirror on the loopback that answers from a function of the path: the test's own archive.
fn mirror(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> String {
    format!("debian=http://{}/debian", archive::listen(answer))
}

/// The one package of the loaders: its file in the warm cache and its path in the archive.
fn loader_package(bench: &Bench) -> (Vec<u8>, String) {
    shop::image("loaders");
    let lock: toml::Table = bench.lock("loaders").parse().expect("a lock is TOML");
    let package = &lock["package"].as_array().expect("packages")[0];
    let digest: Digest = sha256(&package["sha256"]);
    let file = shop::cache().join("packages/sha256").join(digest.hex());
    (
        fs::read(file).expect("the cache holds it"),
        package["path"].as_str().expect("a path").to_owned(),
    )
}

fn sha256(value: &toml::Value) -> Digest {
    let text = value.as_str().expect("a digest");
    text.parse()
        .or_else(|_| Digest::from_hex(text))
        .expect("a digest")
}

/// What a build says that runs no maintainer script.
const CONFIGURED: &str = "an earlier build configured the same";

#[test]
fn a_kept_tree_gives_the_same_bytes_and_a_damaged_one_is_made_again() {
    shop::image("host");
    let bench = Bench::new();
    shop::copy_tree(
        &shop::cache().join("packages"),
        &bench.path("cache/packages"),
    )
    .expect("a warm cache");
    let build = |more: &[&str]| {
        if bench.path("store").exists() {
            fs::remove_dir_all(bench.path("store")).expect("the store goes");
        }
        let output = bench.build("base", &[&["--offline"], more].concat());
        check(&output);
        let is_reused = said(&output).contains(CONFIGURED);
        (shop::manifest(&bench.path("store"), "base"), is_reused)
    };
    let (cold, is_reused) = build(&[]);
    assert!(!is_reused);
    assert_eq!(build(&[]), (cold.clone(), true), "warm");
    assert_eq!(build(&["--rebuild"]), (cold.clone(), false), "without it");

    let shelf = fs::read_dir(bench.path("cache/configured/1")).expect("what is kept");
    let kept: Vec<_> = shelf.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(kept.len(), 1);
    let mut bytes = fs::read(&kept[0]).expect("a kept tree");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&kept[0], &bytes).expect("it is damaged");
    assert_eq!(build(&[]), (cold.clone(), false), "damaged");

    // One file more: nothing is configured again, and only what depends on it differs.
    let path = bench.path("images/base/image.toml");
    let text = fs::read_to_string(&path).expect("a definition");
    let more = "\n[[file]]\npath = \"etc/motd\"\ncontent = \"more\"\n";
    fs::write(&path, text + more).expect("it is written");
    let (changed, is_reused) = build(&[]);
    assert!(is_reused, "a file is laid over what is there");
    assert_ne!(changed.tree, cold.tree);
}

#[test]
fn a_second_build_downloads_nothing_and_builds_nothing() {
    shop::image("host");
    let again = shop::image("host");
    assert!(again.cached);
    assert_eq!(again.downloaded_packages, 0);
}

#[test]
fn mistakes_in_a_definition_are_all_told_with_their_lines() {
    let bench = Bench::new();
    let path = bench.path("images/loaders/image.toml");
    let text = fs::read_to_string(&path).expect("a definition");
    let line = text.lines().count();
    fs::write(
        &path,
        format!("nmae = \"x\"\n{text}\n[packages]\ninstall = 7\n"),
    )
    .expect("it is written");
    let output = bench.build("loaders", &["--offline"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("nmae") && said.contains("image.toml:1"),
        "{said}"
    );
    assert!(
        said.contains(&format!("image.toml:{}", line + 4)) && said.contains("install"),
        "{said}"
    );
}

#[test]
fn a_package_whose_bytes_differ_is_named_and_never_kept() {
    let bench = Bench::new();
    let (good, path) = loader_package(&bench);
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    let name = path.rsplit('/').next().expect("a file name").to_owned();
    let wanted = format!("/debian/{path}");

    let (asked, body) = (wanted.clone(), bad);
    let source = mirror(move |path| (path == asked).then(|| body.clone()));
    let output = bench.build("loaders", &["--mirror", &source]);
    let text = said(&output);
    assert!(!output.status.success());
    assert!(
        text.contains("ipxe") && (text.contains("digest") || text.contains("sha256")),
        "{name}: {text}"
    );
    assert_eq!(kept(&bench), 0, "bad bytes are not kept");

    let (asked, body) = (wanted, good);
    let source = mirror(move |path| (path == asked).then(|| body.clone()));
    check(&bench.build("loaders", &["--mirror", &source]));
    assert_eq!(kept(&bench), 1);

    // What was kept needs no mirror, and a lying one gets nothing in when it is asked.
    fs::remove_dir_all(bench.path("store")).expect("the store goes");
    let source = mirror(|_| Some(b"lies".to_vec()));
    check(&bench.build("loaders", &["--mirror", &source]));
    assert_eq!(kept(&bench), 1);
    fs::remove_dir_all(bench.path("store")).expect("the store goes");
    fs::remove_dir_all(bench.path("cache/packages")).expect("the cache goes");
    let output = bench.build("loaders", &["--mirror", &source]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ipxe") && text.contains("differs"), "{text}");
    assert_eq!(kept(&bench), 0);
}

fn kept(bench: &Bench) -> usize {
    fs::read_dir(bench.path("cache/packages/sha256")).map_or(0, Iterator::count)
}

#[test]
fn a_package_that_left_every_source_is_named_with_the_remedy() {
    let bench = Bench::new();
    let source = mirror(|_| None);
    let output = bench.build("loaders", &["--mirror", &source]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(
        said.contains("ipxe") && said.contains("imagebuild lock"),
        "{said}"
    );
}

/// Gives a lock the digest of its list of packages, as `imagebuild lock` would have.
fn resealed(lock: &str) -> String {
    let at = lock.find("\n[[package]]").expect("packages");
    let digest = Digest::of(&lock.as_bytes()[at..]);
    let line = lock.lines().find(|line| line.starts_with("packages = "));
    lock.replacen(
        line.expect("a digest of the packages"),
        &format!("packages = \"{digest}\""),
        1,
    )
}

#[test]
fn the_lab_locks_again_when_a_package_has_left_every_source() {
    let bench = Bench::new();
    // A lock of last year: a version that no archive has any more.
    let path = bench.path("images/loaders/image.lock");
    let lock: toml::Table = bench.lock("loaders").parse().expect("a lock is TOML");
    let package = &lock["package"].as_array().expect("packages")[0];
    let (version, digest) = (
        package["version"].as_str().expect("a version"),
        package["sha256"].as_str().expect("a digest"),
    );
    let mut old = digest.to_owned();
    let last = old.pop().expect("a digit");
    old.push(if last == '0' { '1' } else { '0' });
    let text = bench
        .lock("loaders")
        .replace(digest, &old)
        .replace(version, "0.0.1-1");
    let text = resealed(&text);
    fs::write(&path, &text).expect("the lock is written");
    let workshop = Workshop {
        imagebuild: shop::workspace().binary("imagebuild"),
        definitions: bench.path("images"),
        store: bench.path("store"),
        locks: bench.path("locks"),
        lock: None,
        architecture: None,
    };
    let built = workshop
        .build("loaders")
        .expect("it is built with a new lock");
    assert!(!built.cached);
    assert!(bench.path("locks/loaders/image.lock").is_file());
    assert_eq!(
        fs::read_to_string(&path).expect("the lock"),
        text,
        "the committed lock is as it was"
    );
    let again = workshop.build("loaders").expect("it is there");
    assert!(again.cached, "the second time needs no lock and no build");
}

#[test]
fn skopeo_and_umoci_accept_the_store() {
    if !need::has(&["skopeo", "umoci"]) {
        return;
    }
    shop::image("loaders");
    let store = shop::state().store();
    let raw = printed(&run(Command::new("skopeo").args([
        "inspect",
        "--raw",
        &format!("oci:{}:loaders", store.display()),
    ])));
    let manifest: serde_json::Value = serde_json::from_str(&raw).expect("a manifest is JSON");
    assert_eq!(manifest["schemaVersion"], 2);
    assert!(
        manifest["layers"]
            .as_array()
            .is_some_and(|layers| !layers.is_empty()),
        "{raw}"
    );
    let listed = printed(&run(Command::new("umoci")
        .args(["ls", "--layout"])
        .arg(&store)));
    assert!(listed.lines().any(|line| line == "loaders"), "{listed}");
}

#[test]
fn unsquashfs_reads_the_root_and_finds_the_listing_in_it() {
    if !need::has(&["unsquashfs"]) {
        return;
    }
    shop::image("host");
    let store = shop::state().store();
    let manifest = shop::manifest(&store, "host");
    let root = shop::artifact(&store, manifest.artifact(Role::Rootfs).expect("a root"));
    let listing = shop::artifact(&store, manifest.artifact(Role::Listing).expect("a listing"));
    let listing = fs::read(listing).expect("the listing");
    assert_eq!(Digest::of(&listing), manifest.tree);
    let seen = printed(&run(Command::new("unsquashfs")
        .args(["-ll", "-no-progress"])
        .arg(root)));
    let entries = seen
        .lines()
        .filter(|line| line.contains(" squashfs-root"))
        .count();
    let listed = listing
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .count();
    // The listing may have a head line; the root directory is in both or in one.
    assert!(
        entries.abs_diff(listed) <= 2,
        "{entries} entries, {listed} lines"
    );
}

#[test]
fn verify_accepts_the_root_and_refuses_a_flipped_byte() {
    shop::image("host");
    let bench = Bench::new();
    shop::copy_tree(&shop::state().store(), &bench.path("store")).expect("a copy of the store");
    let verify = || {
        run(bench
            .imagebuild()
            .args(["verify", "host", "--store", "store"])
            .stdin(Stdio::null()))
    };
    check(&verify());
    let manifest = shop::manifest(&bench.path("store"), "host");
    let root = shop::artifact(
        &bench.path("store"),
        manifest.artifact(Role::Rootfs).expect("a root"),
    );
    flip(&root);
    let output = verify();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("it is read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(path).expect("it goes");
    fs::write(path, bytes).expect("it is written");
}
