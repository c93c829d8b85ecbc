//! Images from other places: the same bytes come out whoever builds, when, where and on what.
//!
//! It refuses to compare trees alone: every file of the other store must be one of the lab's store.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::need;
use e2e::rig::{check, run};
use e2e::shop;
use image_manifest::{Digest, Role};
use serde_json::Value;
use tempfile::TempDir;

/// Who builds elsewhere: the user and the group `nobody`.
const NOBODY: &str = "65534:65534";

/// A copy of the definitions and of the packages, which belongs to nobody.
struct Elsewhere {
    folder: TempDir,
    /// The program, where it may be executed.
    program: TempDir,
}

impl Elsewhere {
    /// Makes one below `parent`: another file system gives directories in another order.
    fn new(parent: &Path) -> Self {
        let elsewhere = Self {
            folder: tempfile::tempdir_in(parent).expect("a temporary directory"),
            program: tempfile::tempdir().expect("a temporary directory"),
        };
        let images = shop::workspace().root.join("images");
        shop::copy_tree(&images, &elsewhere.path("images")).expect("the definitions");
        shop::copy_tree(
            &shop::cache().join("packages"),
            &elsewhere.path("cache/packages"),
        )
        .expect("a warm cache");
        fs::copy(
            shop::workspace().binary("imagebuild"),
            elsewhere.imagebuild(),
        )
        .expect("the program");
        for folder in [elsewhere.folder.path(), elsewhere.program.path()] {
            check(&run(Command::new("chown").args(["-R", NOBODY]).arg(folder)));
        }
        elsewhere
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn imagebuild(&self) -> PathBuf {
        self.program.path().join("imagebuild")
    }
}

/// Builds as nobody under another host name, clock, umask, language, time zone and limit of open files, on one processor,
/// with variables that tools of scripts would listen to.
fn build_in_odd_surroundings(elsewhere: &Elsewhere) -> Output {
    let mut sh = Command::new("unshare");
    sh.args(["--uts", "sh", "-ec"]);
    sh.arg(
        "hostname elsewhere; umask 077; ulimit -n 1024
         exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all -- \
             taskset --cpu-list 0 faketime -f +900d \
             \"$0\" build images/host --store store --offline",
    );
    sh.arg(elsewhere.imagebuild())
        .current_dir(elsewhere.folder.path())
        .env("IMAGEBUILD_CACHE", elsewhere.path("cache"))
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("HOME", elsewhere.folder.path())
        .env("TMPDIR", elsewhere.folder.path());
    for (name, value) in [
        ("DEBIAN_FRONTEND", "readline"),
        ("DPKG_ROOT", "/nowhere"),
        ("GZIP", "-1"),
        ("HOSTNAME", "elsewhere"),
        ("LANG", "tr_TR.UTF-8"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("PERL_HASH_SEED", "7"),
        ("SOURCE_DATE_EPOCH", "1"),
        ("TZ", "Asia/Kathmandu"),
        ("XZ_DEFAULTS", "-0"),
        ("ZSTD_CLEVEL", "19"),
    ] {
        sh.env(name, value);
    }
    run(&mut sh)
}

/// Builds in a container that has no capability, nobody's user, no network and the runtime's own filter of system calls.
/// Its one freedom is that nothing of `/proc` is covered: the kernel mounts no new `/proc` beside a covered one.
fn build_in_a_container(elsewhere: &Elsewhere) -> Output {
    let root = elsewhere.path("root");
    for name in ["dev", "etc", "proc", "run", "sys", "tmp", "usr", "desk"] {
        fs::create_dir_all(root.join(name)).expect("a root directory");
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        let target = Path::new("usr").join(name);
        std::os::unix::fs::symlink(target, root.join(name)).expect("a link");
    }
    let mut podman = Command::new("podman");
    // Neither is podman's default everywhere; both are what it needs where another program owns the control groups.
    podman.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "run"]);
    podman.args(["--rm", "--network", "none", "--user", NOBODY]);
    podman.args(["--cap-drop", "all"]);
    podman.args(["--security-opt", "no-new-privileges"]);
    podman.args(["--security-opt", "unmask=ALL"]);
    podman.args([
        "--ulimit",
        "nofile=4096:4096",
        "--ulimit",
        "nproc=4096:4096",
    ]);
    let bind = |from: &Path, to: &str| format!("--volume={}:{to}", from.display());
    podman
        .arg("--volume=/usr:/usr:ro")
        .arg(bind(elsewhere.folder.path(), "/desk"))
        .arg(bind(elsewhere.program.path(), "/opt:ro"))
        .args([
            "--workdir",
            "/desk",
            "--env",
            "IMAGEBUILD_CACHE=/desk/cache",
        ])
        .arg("--rootfs")
        .arg(&root)
        .args(["/opt/imagebuild", "build", "images/host"])
        .args(["--store", "store", "--offline"]);
    run(&mut podman)
}

/// What a store's index says of the names of one image.
fn entries(store: &Path, image: &str) -> BTreeMap<String, Value> {
    let text = fs::read(store.join("index.json")).expect("an index");
    let index: Value = serde_json::from_slice(&text).expect("JSON");
    let entries = index["manifests"].as_array().expect("entries").iter();
    let named = entries.filter_map(|entry| {
        let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str()?;
        let own = name == image || name.starts_with(&format!("{image}-"));
        own.then(|| (name.to_owned(), entry.clone()))
    });
    named.collect()
}

/// Names the first path in which two trees of an image differ.
fn first_difference(stores: [&Path; 2], image: &str) -> Option<String> {
    let listings = stores.map(|store| {
        let manifest = shop::manifest(store, image);
        let listing = manifest.artifact(Role::Listing).expect("a listing");
        let bytes = fs::read(shop::artifact(store, listing)).expect("the listing");
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let [left, right] = &listings;
    let mut pairs = left.lines().zip(right.lines());
    pairs
        .find(|(left, right)| left != right)
        .map(|(left, right)| format!("{left}\n{right}"))
}

/// Demands that a store holds nothing but what the lab's store holds for this image, byte for byte.
fn assert_same(other: &Path, image: &str) {
    let lab = shop::state().store();
    if let Some(difference) = first_difference([&lab, other], image) {
        panic!("the trees differ:\n{difference}");
    }
    let names = entries(other, image);
    assert!(names.len() >= 4, "image, index, both encodings: {names:?}");
    let ours = entries(&lab, image);
    for (name, entry) in &names {
        assert_eq!(ours.get(name), Some(entry), "{name}");
    }
    let mut files = 0;
    for entry in fs::read_dir(other.join("blobs/sha256")).expect("the store") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let digest = Digest::of(&fs::read(&path).expect("a file of the store"));
        assert_eq!(digest.hex(), name);
        assert!(
            lab.join("blobs/sha256").join(&*name).is_file(),
            "only elsewhere: {name}"
        );
        files += 1;
    }
    assert!(files > 20, "{files} files");
}

#[test]
fn another_user_clock_place_language_and_processor_give_the_same_bytes() {
    if !need::has(&["chown", "faketime", "setpriv", "taskset", "unshare"]) {
        return;
    }
    shop::image("host");
    let elsewhere = Elsewhere::new(Path::new("/dev/shm"));
    check(&build_in_odd_surroundings(&elsewhere));
    assert_same(&elsewhere.path("store"), "host");

    // Again, with all that the first build learned of packages and modules.
    for learned in ["cache/decoded/1", "cache/modules/1"] {
        let kept = fs::read_dir(elsewhere.path(learned)).expect("what was learned");
        assert!(kept.count() > 0, "{learned}");
    }
    for gone in ["store", "cache/configured"] {
        fs::remove_dir_all(elsewhere.path(gone)).expect("it goes");
    }
    let mut again = Command::new(elsewhere.imagebuild());
    again
        .args(["build", "images/host", "--store", "store", "--offline"])
        .current_dir(elsewhere.folder.path())
        .env("IMAGEBUILD_CACHE", elsewhere.path("cache"));
    check(&run(&mut again));
    assert_same(&elsewhere.path("store"), "host");
}

#[test]
fn an_unprivileged_container_gives_the_same_bytes() {
    if !need::has(&["chown", "podman", "runc"]) {
        return;
    }
    shop::image("host");
    let elsewhere = Elsewhere::new(&std::env::temp_dir());
    check(&build_in_a_container(&elsewhere));
    assert_same(&elsewhere.path("store"), "host");
}
