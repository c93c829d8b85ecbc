//! Other releases, distributions and architectures: the same pipeline, judged by what they bring themselves.
//!
//! It refuses to reach for an archive that is not there: Ubuntu's is a small one of the test's own, laid out like it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use e2e::need;
use e2e::rig::{check, printed, run};
use e2e::shop;
use image_manifest::{Digest, Role};
use lab::images::Workshop;
use serde_json::Value;
use tempfile::TempDir;

/// Where the images of these tests are made, each of its own packages.
fn versions() -> Workshop {
    Workshop {
        definitions: shop::workspace().root.join("tests/lab/images"),
        ..shop::workshop()
    }
}

/// Unpacks a container image of the lab's store with umoci, and returns its root.
fn unpack(folder: &TempDir, image: &str) -> PathBuf {
    let bundle = folder.path().join("bundle");
    let source = format!("{}:{image}", shop::state().store().display());
    let mut umoci = Command::new("umoci");
    check(&run(umoci
        .args(["unpack", "--image", &source])
        .arg(&bundle)));
    bundle.join("rootfs")
}

#[test]
fn bookworm_is_built_as_any_release_and_its_own_tools_are_content() {
    if !need::has(&["chroot", "file", "umoci"]) {
        return;
    }
    versions().build("bookworm").expect("it is built");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let root = unpack(&folder, "bookworm-oci-amd64");
    let inside = |words: &[&str]| printed(&run(Command::new("chroot").arg(&root).args(words)));
    assert!(inside(&["cat", "/etc/os-release"]).contains("VERSION_ID=\"12\""));
    assert_eq!(inside(&["dpkg", "--audit"]), "");
    inside(&["apt-get", "check"]);
    let store = shop::state().store();
    let manifest = shop::manifest(&store, "bookworm");
    // Stub and boot loader are those of its own systemd.
    for (role, own) in [
        (Role::Boot, "LoaderInfo: systemd-boot 252"),
        (Role::Uki, "LoaderInfo: systemd-stub 252"),
    ] {
        let program = shop::artifact(&store, manifest.artifact(role).expect("a program"));
        let kind = printed(&run(Command::new("file").arg("--brief").arg(&program)));
        assert!(
            kind.starts_with("PE32+ executable (EFI application) x86-64"),
            "{kind}"
        );
        let bytes = fs::read(&program).expect("a program");
        let mut windows = bytes.windows(own.len());
        assert!(windows.any(|window| window == own.as_bytes()), "{own}");
    }
}

#[test]
fn an_image_for_arm64_too_is_one_container_image_of_two_platforms() {
    if !need::has(&["file", "qemu-aarch64-static", "skopeo", "umoci"]) {
        return;
    }
    for architecture in [None, Some("arm64")] {
        let workshop = Workshop {
            architecture,
            ..versions()
        };
        workshop.build("bare").expect("it is built");
    }
    let store = shop::state().store();
    let both = format!("oci:{}:bare-oci", store.display());
    let mut skopeo = Command::new("skopeo");
    let index = printed(&run(skopeo.args(["inspect", "--raw", &both])));
    let index: Value = serde_json::from_str(&index).expect("an index");
    let platforms = index["manifests"].as_array().expect("manifests").iter();
    let platforms: Vec<_> = platforms
        .map(|one| one["platform"]["architecture"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(platforms, ["amd64", "amd64", "arm64", "arm64"]);
    for architecture in ["amd64", "arm64"] {
        let mut skopeo = Command::new("skopeo");
        skopeo.args([
            "--override-arch",
            architecture,
            "inspect",
            "--config",
            &both,
        ]);
        let config: Value = serde_json::from_str(&printed(&run(&mut skopeo))).expect("JSON");
        assert_eq!(config["architecture"], architecture);
    }

    let folder = tempfile::tempdir().expect("a temporary directory");
    let root = unpack(&folder, "bare-arm64-oci-arm64");
    let mut file = Command::new("file");
    let kind = printed(&run(file.arg("--brief").arg(root.join("usr/bin/dpkg"))));
    assert!(kind.contains("ARM aarch64"), "{kind}");
    let dpkg = |words: &[&str]| {
        let mut qemu = Command::new("qemu-aarch64-static");
        qemu.arg("-L").arg(&root).arg(root.join("usr/bin/dpkg"));
        qemu.arg(format!("--root={}", root.display()));
        printed(&run(qemu.args(words)))
    };
    assert_eq!(dpkg(&["--print-architecture"]).trim(), "arm64");
    assert_eq!(dpkg(&["--audit"]), "");
    let listed = dpkg(&["--list"]);
    let installed = listed.lines().filter(|line| line.starts_with("ii "));
    assert!(installed.count() > 50, "{listed}");
    // What scripts wrote, not packages.
    let cache = fs::read(root.join("etc/ld.so.cache")).expect("a cache of libraries");
    let libraries = b"aarch64-linux-gnu";
    assert!(
        cache
            .windows(libraries.len())
            .any(|found| found == libraries)
    );
    check(&imagebuild(
        shop::workspace().root.as_path(),
        &[
            "verify",
            "bare-arm64",
            "--store",
            &store.display().to_string(),
        ],
    ));
}

fn imagebuild(folder: &Path, words: &[&str]) -> Output {
    let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
    run(imagebuild
        .current_dir(folder)
        .env("IMAGEBUILD_CACHE", folder.join("cache"))
        .args(words))
}

/// An archive laid out as Ubuntu's, and its ports beside it, on the loopback; dropping it ends both.
struct Ubuntu {
    folder: TempDir,
    server: Child,
    url: String,
}

/// Package, version, component, and more of its control file.
type Package<'a> = (&'a str, &'a str, &'a str, &'a str);

/// What the suite `noble` has; `{architecture}` is that of the index.
const NOBLE: [Package<'_>; 7] = [
    ("base-files", "13ubuntu10", "main", "Essential: yes"),
    ("bash", "5.2.21-2ubuntu4", "main", "Essential: yes"),
    ("hello", "2.10-3build1", "universe", "Depends: bash (>= 5)"),
    (
        "linux-image-generic",
        "6.8.0-31.31",
        "main",
        "Depends: linux-image-6.8.0-31-generic, linux-firmware",
    ),
    (
        "linux-image-6.8.0-31-generic",
        "6.8.0-31.31",
        "main",
        "Depends: kmod, linux-modules-6.8.0-31-generic",
    ),
    (
        "linux-modules-6.8.0-31-generic",
        "6.8.0-31.31",
        "main",
        "Depends: wireless-regdb",
    ),
    (
        "systemd-boot-efi",
        "255.4-1ubuntu8",
        "universe",
        "Section: admin",
    ),
];
/// What `noble-updates` has.
const UPDATES: [Package<'_>; 1] = [("bash", "5.2.21-2ubuntu4.1", "main", "Essential: yes")];

const IMAGE: &str = r#"
name = "noble"
architectures = ["amd64", "arm64"]
outputs = ["oci", "raw"]
[distribution]
name = "ubuntu"
release = "noble"
keyring = "../../archive/key.pgp"
components = ["main", "universe"]
suites = [
    { archive = "ubuntu", suite = "noble", architectures = ["amd64"] },
    { archive = "ubuntu", suite = "noble-updates", architectures = ["amd64"] },
    { archive = "ubuntu-ports", suite = "noble", architectures = ["arm64"] },
    { archive = "ubuntu-ports", suite = "noble-updates", architectures = ["arm64"] },
]
[packages]
install = ["hello"]
[kernel]
package = "linux-image-generic"
"#;

impl Ubuntu {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let archive = folder.path().join("archive");
        fs::create_dir_all(archive.join("gnupg")).expect("directories");
        let mut chmod = Command::new("chmod");
        check(&run(chmod.arg("700").arg(archive.join("gnupg"))));
        let gpg = |words: &[&str]| {
            let mut gpg = Command::new("gpg");
            gpg.args([
                "--batch",
                "--quiet",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
            ]);
            gpg.arg("--homedir").arg(archive.join("gnupg"));
            check(&run(gpg.current_dir(&archive).args(words)));
        };
        gpg(&[
            "--quick-generate-key",
            "Archive <archive@example>",
            "ed25519",
            "sign",
            "never",
        ]);
        gpg(&["--output", "key.pgp", "--export"]);
        for (base, architecture) in [("ubuntu", "amd64"), ("ubuntu-ports", "arm64")] {
            for (suite, packages) in [("noble", &NOBLE[..]), ("noble-updates", &UPDATES[..])] {
                let dists = archive.join(base).join("dists").join(suite);
                let release = indexes(&archive.join(base), suite, architecture, packages);
                fs::write(dists.join("Release"), release).expect("a release");
                let path = |name: &str| dists.join(name).display().to_string();
                gpg(&[
                    "--output",
                    &path("InRelease"),
                    "--clear-sign",
                    &path("Release"),
                ]);
            }
        }
        // The agent of the key ends with its directory's sockets; it is told so all the same.
        drop(run(Command::new("gpgconf")
            .arg("--homedir")
            .arg(archive.join("gnupg"))
            .args(["--kill", "all"])));
        let mut server = Command::new("python3")
            .args([
                "-u",
                "-m",
                "http.server",
                "0",
                "--bind",
                "127.0.0.1",
                "--directory",
            ])
            .arg(&archive)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        let mut line = String::new();
        let stdout = server.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let port = line.split(' ').nth(5).expect("a port").to_owned();
        let url = format!("http://127.0.0.1:{port}");
        let image = folder.path().join("images/noble");
        fs::create_dir_all(&image).expect("a directory");
        fs::write(image.join("image.toml"), IMAGE).expect("a definition");
        Self {
            folder,
            server,
            url,
        }
    }

    fn imagebuild(&self, words: &[&str]) -> Output {
        let mirror = |base: &str| format!("--mirror={base}={}/{base}", self.url);
        let (plain, ports) = (mirror("ubuntu"), mirror("ubuntu-ports"));
        imagebuild(self.folder.path(), &[words, &[&plain, &ports]].concat())
    }

    fn lock(&self, name: &str) -> toml::Table {
        let path = self.folder.path().join("images/noble").join(name);
        let text = fs::read_to_string(path).expect("a lock");
        text.parse().expect("a lock is TOML")
    }
}

impl Drop for Ubuntu {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// Makes packages, compressed as Ubuntu does it, and the indexes of a suite; returns the text of its release.
fn indexes(base: &Path, suite: &str, architecture: &str, packages: &[Package<'_>]) -> String {
    let mut sums = String::new();
    for component in ["main", "universe"] {
        let mut index = String::new();
        for (name, version, _, more) in packages.iter().filter(|one| one.2 == component) {
            let control = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: Nobody <nobody@example>\n{more}\n"
            );
            let pool = format!("pool/{component}/{}/{name}", &name[..1]);
            let path = format!("{pool}/{name}_{version}_{architecture}.deb");
            deb(base, &path, name, &control);
            let bytes = fs::read(base.join(&path)).expect("a package");
            let digest = Digest::of(&bytes).hex();
            let about = format!(
                "Filename: {path}\nSize: {}\nSHA256: {digest}\n",
                bytes.len()
            );
            writeln!(index, "{control}{about}Description: {name}\n").expect("a text");
        }
        let name = format!("{component}/binary-{architecture}/Packages");
        let path = base.join("dists").join(suite).join(&name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, &index).expect("an index");
        check(&run(Command::new("xz").arg("--force").arg(&path)));
        let packed = path.with_extension("xz");
        let bytes = fs::read(packed).expect("an index");
        let digest = Digest::of(&bytes).hex();
        writeln!(sums, " {digest} {} {name}.xz", bytes.len()).expect("a text");
    }
    let date = printed(&run(
        Command::new("date").args(["--utc", "+%a, %d %b %Y %H:%M:%S UTC"])
    ));
    format!(
        "Origin: Ubuntu\nLabel: Ubuntu\nSuite: {suite}\nVersion: 24.04\nCodename: noble\nDate: {}\n\
         Architectures: {architecture}\nComponents: main universe\nAcquire-By-Hash: no\nSHA256:\n{sums}",
        date.trim()
    )
}

fn deb(base: &Path, path: &str, name: &str, control: &str) {
    let tree = tempfile::tempdir().expect("a temporary directory");
    let files = tree.path().join("usr/share").join(name);
    fs::create_dir_all(&files).expect("a directory");
    fs::write(files.join("about"), name).expect("a file");
    fs::create_dir(tree.path().join("DEBIAN")).expect("a directory");
    let control = format!("{control}Description: {name}\n");
    fs::write(tree.path().join("DEBIAN/control"), control).expect("a control file");
    check(&run(Command::new("chmod").arg("755").arg(tree.path())));
    let path = base.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["-Zzstd", "--root-owner-group", "--build"]);
    check(&run(dpkg.arg(tree.path()).arg(&path)));
}

#[test]
fn an_archive_laid_out_as_ubuntus_is_locked_for_both_of_its_halves() {
    if !need::has(&["dpkg-deb", "gpg", "gpgconf", "python3", "xz"]) {
        return;
    }
    let ubuntu = Ubuntu::new();
    check(&ubuntu.imagebuild(&["lock", "images/noble"]));
    for (name, architecture, archive) in [
        ("image.lock", "amd64", "ubuntu"),
        ("image.arm64.lock", "arm64", "ubuntu-ports"),
    ] {
        let lock = ubuntu.lock(name);
        let packages = lock["package"].as_array().expect("packages");
        let text = |package: &toml::Value, key: &str| package[key].as_str().expect(key).to_owned();
        let found: Vec<_> = packages
            .iter()
            .map(|one| (text(one, "name"), text(one, "version"), text(one, "use")))
            .collect();
        let expected = [
            ("base-files", "13ubuntu10", "install"),
            ("bash", "5.2.21-2ubuntu4.1", "install"),
            ("hello", "2.10-3build1", "install"),
            ("linux-image-6.8.0-31-generic", "6.8.0-31.31", "kernel"),
            ("linux-modules-6.8.0-31-generic", "6.8.0-31.31", "kernel"),
            ("systemd-boot-efi", "255.4-1ubuntu8", "boot"),
        ];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(found, expected);
        for package in packages {
            assert_eq!(text(package, "architecture"), architecture);
            assert_eq!(text(package, "archive"), archive);
        }
        // Packages are fetched, and read as packages: their parts are compressed as Ubuntu's are.
        let words = [
            "vendor",
            "images/noble",
            "--architecture",
            architecture,
            "--store",
            "store",
        ];
        check(&ubuntu.imagebuild(&words));
    }
    // The initrd would need a stage1 that only a computer of that architecture makes.
    let dry = [
        "build",
        "images/noble",
        "--store",
        "store",
        "--dry-run",
        "--architecture",
    ];
    let foreign = if cfg!(target_arch = "aarch64") {
        "amd64"
    } else {
        "arm64"
    };
    let output = ubuntu.imagebuild(&[&dry[..], &[foreign]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("is built on a computer of that architecture"),
        "{said}"
    );
}
