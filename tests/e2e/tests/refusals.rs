//! What is not built: every refusal names what is wrong, and leaves nothing behind that looks like an image.
//!
//! It refuses to touch the lab's store and the committed locks: every test works on copies.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use e2e::archive::{self, Archive, Package, SUITES, Signature};
use e2e::need;
use e2e::rig::{check, printed, run, script};
use e2e::shop;
use image_manifest::Digest;
use tempfile::TempDir;

/// A file that unpacks to more than a package of its size may hold.
const BOMB: u64 = 600 << 20;

/// A directory of a test's own, and imagebuild in it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn imagebuild(&self, words: &[&str]) -> Output {
        let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
        imagebuild.current_dir(self.folder.path()).args(words);
        run(&mut imagebuild)
    }

    /// The definition `small` of an archive of the test's own.
    fn define(&self, archive: &Archive, install: &str) {
        fs::copy(archive.keyring(), self.path("lab.pgp")).expect("a keyring");
        let distribution = Archive::distribution();
        let text =
            format!("name = \"small\"\n{distribution}[packages]\ninstall = [\"{install}\"]\n");
        self.write("image.toml", &text);
    }

    fn with_archive(&self, verb: &str, archive: &Archive, words: &[&str]) -> Output {
        let mirror = archive.mirror();
        let common = [verb, ".", "--cache", "cache", "--mirror", &mirror];
        self.imagebuild(&[&common[..], words].concat())
    }

    /// No image has a name, and no workspace is left.
    fn assert_nothing_built(&self) {
        let index = fs::read_to_string(self.path("store/index.json")).expect("an index");
        assert!(index.contains("\"manifests\":[]"), "{index}");
        let left = fs::read_dir(self.path("cache/work")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "workspaces are left");
    }
}

fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` in {said}");
    }
}

const fn package(name: &str) -> Package<'_> {
    Package {
        name,
        version: "1",
        source: name,
        depends: "",
        news: "New.",
    }
}

#[test]
fn a_release_that_nobody_trustworthy_signed_in_time_is_not_locked() {
    let (Some(archive), Some(stranger)) = (Archive::new(), Archive::new()) else {
        return;
    };
    let bench = Bench::new();
    bench.define(&archive, "hello");
    let [stable, security] = SUITES;
    archive.publish(security, &[], Signature::Good);
    let lock = || bench.with_archive("lock", &archive, &[]);
    let cases = [
        (Signature::None, "nobody signed it"),
        (Signature::Broken, "no signature is good"),
        (Signature::Expired, "valid until"),
    ];
    for (signature, word) in cases {
        archive.publish(stable, &[package("hello")], signature);
        let output = lock();
        let suite = format!("suite `{stable}` of archive `{}`", archive::ARCHIVE);
        assert_refused(
            &output,
            1,
            &["no mirror has a good release", &suite, word, "InRelease"],
        );
        assert!(!bench.path("image.lock").exists(), "{signature:?}");
    }
    archive.publish(stable, &[package("hello")], Signature::Good);
    fs::copy(stranger.keyring(), bench.path("lab.pgp")).expect("a keyring");
    assert_refused(&lock(), 1, &["no mirror has a good release", "key"]);
    assert!(!bench.path("image.lock").exists());
    bench.define(&archive, "hello");
    check(&lock());
}

#[test]
fn a_lock_that_does_not_answer_its_definition_is_not_built() {
    let Some(archive) = Archive::new() else {
        return;
    };
    let bench = Bench::new();
    bench.define(&archive, "hello");
    let [stable, security] = SUITES;
    archive.publish(security, &[], Signature::Good);
    archive.publish(
        stable,
        &[package("hello"), package("other")],
        Signature::Good,
    );
    let build = || bench.with_archive("build", &archive, &["--store", "store"]);
    assert_refused(&build(), 3, &["image.lock", "imagebuild lock"]);
    check(&bench.with_archive("lock", &archive, &[]));
    bench.define(&archive, "other");
    assert_refused(
        &build(),
        3,
        &[
            "asks for other packages than its lock was made for",
            "imagebuild lock",
        ],
    );
    bench.define(&archive, "hello");
    // A list that somebody merged or edited by hand is not the one that was resolved.
    let lock = fs::read_to_string(bench.path("image.lock")).expect("a lock");
    bench.write(
        "image.lock",
        &lock.replace("version = \"1\"", "version = \"2\""),
    );
    assert_refused(&build(), 3, &["image.lock", "imagebuild lock"]);
    assert!(!bench.path("store").exists(), "nothing was begun");
}

/// A package with any tree: dpkg-deb would not make it, tar and ar do.
fn forge(folder: &Path, name: &str, data: &[u8], ending: &str) -> Vec<u8> {
    let path = |name: &str| folder.join(name);
    let text = format!("{}Description: {name}\n", archive::control(&package(name)));
    fs::write(path("control"), text).expect("a control file");
    fs::write(path("debian-binary"), "2.0\n").expect("a file");
    check(&run(Command::new("tar")
        .arg("-C")
        .arg(folder)
        .args(["-czf"])
        .arg(path("control.tar.gz"))
        .arg("control")));
    let data_name = format!("data.tar{ending}");
    fs::write(path(&data_name), data).expect("a file");
    let deb = path("forged.deb");
    drop(fs::remove_file(&deb));
    let mut ar = Command::new("ar");
    ar.arg("rcD").arg(&deb);
    check(&run(ar.args(
        ["debian-binary", "control.tar.gz", &data_name].map(path),
    )));
    fs::read(deb).expect("a package")
}

/// An archive of what stands in a directory, under the names that an expression makes of theirs.
fn tar(root: &Path, rename: &str, names: &[&str]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(root)
        .args(["--absolute-names", "--no-recursion", "--transform", rename]);
    let output = run(tar.args(["-cf", "-"]).args(names));
    check(&output);
    output.stdout
}

/// An archive of one file of zeros, packed as it is made.
fn bomb(root: &Path) -> Vec<u8> {
    let file = fs::File::create(root.join("zeros")).expect("a file");
    file.set_len(BOMB).expect("a sparse file");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(root).args(["-cf", "-", "zeros"]);
    let mut tar = tar.stdout(Stdio::piped()).spawn().expect("tar starts");
    let mut packed = Vec::new();
    let stream = tar.stdout.take().expect("a pipe");
    zstd::stream::copy_encode(stream, &mut packed, 1).expect("it is packed");
    assert!(tar.wait().expect("tar ends").success());
    packed
}

#[test]
fn a_hostile_package_is_refused_and_writes_nothing_outside() {
    if !need::has(&["ar", "mknod", "tar"]) {
        return;
    }
    let Some(archive) = Archive::new() else {
        return;
    };
    let bench = Bench::new();
    let (root, outside) = (bench.path("root"), bench.path("outside"));
    fs::create_dir_all(&root).expect("a directory");
    fs::create_dir_all(&outside).expect("a directory");
    fs::write(root.join("evil"), "evil").expect("a file");
    symlink(&outside, root.join("link")).expect("a link");
    check(&run(Command::new("mknod")
        .arg(root.join("device"))
        .args(["b", "8", "0"])));
    let target = outside.join("evil");
    let absolute = format!("s,^evil,{},", target.display());
    let through = "s,^evil,link/evil,";
    let upwards = format!(
        "s,^evil,{}{},",
        "../".repeat(20),
        &target.display().to_string()[1..]
    );
    let cases = [
        (
            "absolute",
            tar(&root, &absolute, &["evil"]),
            "",
            "unsafe path",
        ),
        (
            "upwards",
            tar(&root, &upwards, &["evil"]),
            "",
            "unsafe path",
        ),
        (
            "device",
            tar(&root, "s,x,x,", &["device"]),
            "",
            "holds the device `device`",
        ),
        (
            "through",
            tar(&root, through, &["link", "evil"]),
            "",
            "link/evil",
        ),
        (
            "bomb",
            bomb(&root),
            ".zst",
            "more than a package of its size",
        ),
    ];
    archive.publish(SUITES[1], &[], Signature::Good);
    for (name, data, ending, word) in cases {
        let deb = forge(bench.folder.path(), name, &data, ending);
        archive.publish_files(SUITES[0], &[(package(name), deb)], Signature::Good);
        bench.define(&archive, name);
        check(&bench.with_archive("lock", &archive, &["--allow-older"]));
        let output = bench.with_archive("build", &archive, &["--store", "store"]);
        assert_refused(&output, 1, &[name, word]);
        assert!(!target.exists(), "{name}: it wrote outside");
        bench.assert_nothing_built();
    }
}

/// Gives a lock the digest of its list of packages, as `imagebuild lock` would have.
fn resealed(lock: &str) -> String {
    let at = lock.find("\n[[package]]").expect("packages");
    let digest = Digest::of(&lock.as_bytes()[at..]);
    let line = lock.lines().find(|line| line.starts_with("packages = "));
    let line = line.expect("a digest of the packages");
    lock.replacen(line, &format!("packages = \"{digest}\""), 1)
}

/// A package like the one that a lock has, but for a script that fails.
fn failing(bench: &Bench, name: &str, version: &str) -> Vec<u8> {
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    );
    bench.write("package/DEBIAN/control", &control);
    let postinst = bench.path("package/DEBIAN/postinst");
    script(
        &postinst,
        "#!/bin/sh\necho asking for port 80\necho no such port >&2\nexit 7\n",
    );
    archive::pack(&bench.path("package"), &bench.path("package.deb"))
}

#[test]
fn a_maintainer_script_that_fails_is_told_with_its_last_words() {
    if !need::has(&["dpkg-deb"]) {
        return;
    }
    shop::image("base");
    let bench = Bench::new();
    let images = shop::workspace().root.join("images");
    shop::copy_tree(&images, &bench.path("images")).expect("a copy of the definitions");
    let path = bench.path("images/base/image.lock");
    let lock = fs::read_to_string(&path).expect("a lock");
    let table: toml::Table = lock.parse().expect("a lock is TOML");
    let mut packages = table["package"].as_array().expect("packages").iter();
    let netbase = packages.find(|one| one["name"].as_str() == Some("netbase"));
    let netbase = netbase.expect("every image has it");
    let deb = failing(
        &bench,
        "netbase",
        netbase["version"].as_str().expect("a version"),
    );
    let entry = format!("size = {}\nsha256 = {}", netbase["size"], netbase["sha256"]);
    assert!(lock.contains(&entry), "{entry}");
    let digest = Digest::of(&deb).hex();
    let other = format!("size = {}\nsha256 = \"{digest}\"", deb.len());
    fs::write(&path, resealed(&lock.replacen(&entry, &other, 1))).expect("a lock");
    // A store may have packages: this one has the changed one, and the cache all others.
    bench.write("store/oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
    bench.write("store/index.json", "{\"schemaVersion\":2,\"manifests\":[]}");
    bench.write("store/blobs/sha256/.keep", "");
    fs::write(bench.path("store/blobs/sha256").join(digest), deb).expect("a package");
    let output = bench.imagebuild(&[
        "build",
        "images/base",
        "--store",
        "store",
        "--offline",
        "--work",
        "work",
    ]);
    assert_refused(
        &output,
        1,
        &[
            "`netbase`",
            "post-installation",
            "exit status 7",
            "asking for port 80",
            "no such port",
        ],
    );
    let index = fs::read_to_string(bench.path("store/index.json")).expect("an index");
    assert!(index.contains("\"manifests\":[]"), "{index}");
    let left = printed(&run(Command::new("find").arg(bench.path("work")).args([
        "-mindepth",
        "1",
        "-maxdepth",
        "1",
    ])));
    assert_eq!(left, "", "the workspace is gone");
}
