use super::*;

/// Version 1 of the format. Never edit this text: locks in git are read for ever.
const VERSION_1: &str = r#"# Written by `imagebuild lock`; do not edit.
version = 1
request = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
source-date = 1757146500

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
fn what_no_one_would_write_is_refused() {
    let cases = [
        ("another version", "version = 1", "version = 2", "version 2"),
        (
            "unknown key",
            "size = 1480000",
            "size = 1480000\nurl = \"x\"",
            "line 20: unknown field `url`",
        ),
        (
            "wrong type",
            "size = 1480000",
            "size = \"big\"",
            "line 19: invalid type",
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
        ("no size", "size = 1480000", "size = 0", "unusable size"),
        (
            "unknown use",
            "\"loader\"",
            "\"boot\"",
            "unusable use `boot`",
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
            "line 9: not a date",
        ),
    ];
    for (name, from, to, expected) in cases {
        let text = VERSION_1.replacen(from, to, 1);
        assert_ne!(text, VERSION_1, "{name}");
        let error = Lock::parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}
