use super::*;

/// Version 1 of the format. Never edit this text: locks in git are read for ever.
/// (It was, once, before version 1 was released: `packages` is in it since.)
const VERSION_1: &str = r#"# Written by `imagebuild lock`; do not edit.
version = 1
request = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
source-date = 1757146500
packages = "sha256:f89ad753b5a9b83eedce91d4de787a101ac4505d7b97208e261f42be42fd00ab"

[[release]]
archive = "debian"
suite = "trixie"
date = "2025-09-06T08:15:00Z"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

[[package]]
name = "bash"
version = "5.2.37-2+b5"
architecture = "amd64"
use = "install"
archive = "debian"
path = "pool/main/b/bash/bash_5.2.37-2+b5_amd64.deb"
size = 1480000
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

[[package]]
name = "tzdata"
version = "2025b-4+deb13u1"
architecture = "all"
use = "loader"
archive = "debian"
path = "pool/main/t/tzdata/tzdata_2025b-4+deb13u1_all.deb"
size = 260000
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"#;

#[test]
fn version_1_is_read_and_written_for_ever() {
    let lock = Lock::parse(VERSION_1).unwrap();
    assert_eq!(lock.source_date, 1_757_146_500);
    assert_eq!(lock.releases[0].date, lock.source_date);
    assert_eq!(lock.packages[0].name, "bash");
    assert_eq!(lock.packages[0].usage, Use::Install);
    assert_eq!(lock.packages[1].usage, Use::Loader);
    assert_eq!(lock.render(), VERSION_1);
    assert_eq!(lock.bytes(), 1_740_000);
}

#[test]
fn a_list_that_was_merged_is_refused() {
    let (head, last) = VERSION_1.rsplit_once("\n[[package]]").unwrap();
    let added = format!(
        "{VERSION_1}\n[[package]]{}",
        last.replace("tzdata", "zz-evil")
    );
    for text in [head.to_owned(), added] {
        let error = Lock::parse(&text).unwrap_err();
        assert!(matches!(error, Malformed::Packages { .. }), "{error}");
    }
}

#[test]
fn what_no_one_would_write_is_refused() {
    let cases = [
        ("another version", "version = 1", "version = 2", "version 2"),
        (
            "unknown key",
            "size = 1480000",
            "size = 1480000\nurl = \"x\"",
            "line 21: unknown field `url`",
        ),
        (
            "wrong type",
            "size = 1480000",
            "size = \"big\"",
            "line 20: invalid type",
        ),
        (
            "climbing path",
            "pool/main/b/bash",
            "pool/../b/bash",
            "unusable path",
        ),
        (
            "absolute path",
            "\"pool/main/b/bash",
            "\"/pool/main/b/bash",
            "unusable path",
        ),
        (
            "host in the path",
            "\"pool/main/b",
            "\"http://x/pool/main/b",
            "unusable path",
        ),
        (
            "edited",
            "size = 1480000",
            "size = 1480001",
            "edited or merged; `imagebuild lock` makes",
        ),
        (
            "no digest of its packages",
            "packages = \"sha256:f89ad753b5a9b83eedce91d4de787a101ac4505d7b97208e261f42be42fd00ab\"\n",
            "",
            "`imagebuild lock` makes a new one",
        ),
        ("no size", "size = 1480000", "size = 0", "unusable size"),
        (
            "unknown use",
            "\"loader\"",
            "\"kitchen\"",
            "unusable use `kitchen`",
        ),
        (
            "unsorted",
            "name = \"bash\"",
            "name = \"zsh\"",
            "not where it belongs",
        ),
        (
            "twice",
            "name = \"tzdata\"\nversion = \"2025b-4+deb13u1\"\narchitecture = \"all\"\nuse = \"loader\"",
            "name = \"bash\"\nversion = \"5\"\narchitecture = \"all\"\nuse = \"install\"",
            "not where",
        ),
        (
            "other archive",
            "archive = \"debian\"\npath = \"pool/main/t",
            "archive = \"x\"\npath = \"pool/main/t",
            "archive `x`",
        ),
        (
            "no date",
            "2025-09-06T08:15:00Z",
            "yesterday",
            "line 10: not a date",
        ),
    ];
    for (name, from, to, expected) in cases {
        let text = VERSION_1.replacen(from, to, 1);
        assert_ne!(text, VERSION_1, "{name}");
        let error = Lock::parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

/// A definition that asks for something of every use, and its lock.
fn asked() -> (Definition, Lock) {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"
name = "test"
description = "x"
architectures = ["amd64"]
[distribution]
name = "debian"
release = "trixie"
keyring = "image.toml"
components = ["main"]
suites = [ { archive = "debian", suite = "trixie" } ]
[packages]
install = ["bash", "dash=0.5-1"]
[kernel]
package = "linux-image-amd64"
command-line = "quiet"
modules = ["squashfs"]
firmware = ["firmware-nic"]
initrd-modules = ["squashfs"]
[loaders]
packages = ["ipxe"]
files = { "ipxe.efi" = "usr/lib/ipxe/ipxe.efi" }
"#;
    std::fs::write(directory.path().join(crate::definition::FILE), text).unwrap();
    let definition = crate::definition::load(directory.path()).unwrap();
    let entry = |name: &str, usage, version: &str| Package {
        name: name.to_owned(),
        usage,
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        archive: "debian".to_owned(),
        path: format!("pool/{name}.deb"),
        size: 1,
        sha256: Digest::of(name.as_bytes()),
    };
    let lock = Lock {
        request: Request::of(&definition).digest(),
        source_date: 1_757_146_500,
        releases: Vec::new(),
        packages: vec![
            entry("bash", Use::Install, "5"),
            entry("dash", Use::Install, "0.5-1"),
            entry("firmware-nic", Use::Firmware, "1"),
            entry("ipxe", Use::Loader, "1"),
            entry("libc6", Use::Install, "2"),
            entry("linux-image-6.12-amd64", Use::Kernel, "6"),
            entry("systemd-boot-efi", Use::Boot, "257"),
        ],
    };
    (definition, lock)
}

#[test]
fn a_lock_must_answer_its_definition() {
    type Change = fn(&mut Vec<Package>);
    let cases: [(&str, Change, Option<&str>); 10] = [
        ("as it was made", |_| (), None),
        (
            "no request for what is needed",
            |packages| drop(packages.remove(4)),
            None,
        ),
        (
            "an installed one dropped",
            |packages| drop(packages.remove(0)),
            Some("asks for package `bash`, which its lock lacks for use `install`"),
        ),
        (
            "another version",
            |packages| packages[1].version = "99:9".to_owned(),
            Some("asks for package `dash` 0.5-1, its lock has 99:9"),
        ),
        (
            "two versions",
            |packages| {
                let mut twice = packages[0].clone();
                twice.version = "6".to_owned();
                packages.insert(1, twice);
            },
            Some("has package `bash` twice for use `install`"),
        ),
        (
            "firmware dropped",
            |packages| drop(packages.remove(2)),
            Some("`firmware-nic`, which its lock lacks for use `firmware`"),
        ),
        (
            "a loader for something else",
            |packages| packages[3].usage = Use::Install,
            Some("`ipxe`, which its lock lacks for use `loader`"),
        ),
        (
            "no kernel",
            |packages| drop(packages.remove(5)),
            Some("`linux-image-amd64`, which its lock lacks for use `kernel`"),
        ),
        (
            "nothing that starts a disk",
            |packages| drop(packages.pop()),
            Some("`systemd-boot-efi`, which its lock lacks for use `boot`"),
        ),
        (
            "firmware that no one asked for",
            |packages| packages[4].usage = Use::Firmware,
            Some("package `libc6` for use `firmware`, which is not asked for"),
        ),
    ];
    for (name, change, expected) in cases {
        let (definition, mut lock) = asked();
        change(&mut lock.packages);
        let outcome = definition.lock(lock);
        match (outcome, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => {
                let text = error.to_string();
                assert!(text.contains(expected), "{name}: {text}");
                assert!(text.contains("`imagebuild lock`"), "{name}: {text}");
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
    let (mut definition, lock) = asked();
    definition.architecture = "arm64".to_owned();
    let error = definition.lock(lock).unwrap_err();
    assert!(matches!(error, StaleLock::Request { .. }), "{error}");
}
