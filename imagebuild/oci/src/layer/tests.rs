use std::io::{Read as _, Seek as _};

use image_tree::{Device, Tree};
use proptest::prelude::*;

use super::*;
use crate::archive::read::Limits;
use crate::difference::changes;
use crate::flatten::{self, Progress};

const OPTIONS: Options = Options {
    time: 1_700_000_000,
    threads: 3,
};

struct Made {
    written: Written,
    gzip: Vec<u8>,
    zstd: Vec<u8>,
}

fn make(changes: &[Change<'_>], options: Options, earlier: Option<&Earlier>) -> Made {
    let (mut gzip, mut zstd) = (Vec::new(), Vec::new());
    let written = write(changes, options, earlier, &mut gzip, &mut zstd).unwrap();
    Made {
        written,
        gzip,
        zstd,
    }
}

fn kept(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// A tree with one of everything that a layer can hold.
fn example() -> Tree {
    let mut tree = Tree::new();
    let noise = |seed: u32, size: u32| -> Vec<u8> {
        let byte =
            |n: u32| (n.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 17).to_le_bytes()[0];
        (0..size).map(byte).collect()
    };
    let long = format!("usr/share/{}/{}", "d".repeat(120), "n".repeat(140));
    let mut ping = Entry::file(&b"ping"[..], 0o755);
    ping.xattrs.insert(
        b"security.capability".to_vec(),
        vec![1, 0, 0, 2, 0, 10, 0xff],
    );
    let mut shared = Entry::file(&b"shared"[..], 0o4755);
    shared.link = Some(7);
    let mut foreign = Entry::file(&b""[..], 0o600);
    (foreign.uid, foreign.gid) = (4_000_000_000, 65534);
    let null = Device { major: 1, minor: 3 };
    let disk = Device {
        major: 259,
        minor: 1_048_000,
    };
    let entries: Vec<(Vec<u8>, Entry)> = vec![
        (
            b"bin".to_vec(),
            Entry::new(Kind::Symlink(b"usr/bin".to_vec()), 0o777),
        ),
        (
            b"dev/null".to_vec(),
            Entry::new(Kind::Character(null), 0o666),
        ),
        (b"dev/disk".to_vec(), Entry::new(Kind::Block(disk), 0o660)),
        (b"run/pipe".to_vec(), Entry::new(Kind::Fifo, 0o600)),
        (b"usr/bin/a".to_vec(), shared.clone()),
        (b"usr/bin/ping".to_vec(), ping),
        (b"usr/bin/z".to_vec(), shared),
        (
            b"usr/large".to_vec(),
            Entry::file(noise(1, 2_500_000), 0o644),
        ),
        (b"usr/exact".to_vec(), Entry::file(noise(2, 1 << 20), 0o644)),
        (long.clone().into_bytes(), Entry::file(&b"long"[..], 0o644)),
        (
            b"usr/to".to_vec(),
            Entry::new(Kind::Symlink(long.into_bytes()), 0o777),
        ),
        ("usr/caf\u{e9} \\ \n=".as_bytes().to_vec(), foreign),
        (b"tmp".to_vec(), Entry::new(Kind::Directory, 0o1777)),
    ];
    for (path, entry) in entries {
        tree.insert_all(&path, entry).unwrap();
    }
    for number in 0..300 {
        let path = format!("usr/share/many/{number}");
        tree.insert_all(
            path.as_bytes(),
            Entry::file(noise(number, 40 * number), 0o644),
        )
        .unwrap();
    }
    tree
}

#[test]
fn both_encodings_read_back_as_the_tree() {
    let tree = example();
    let all = changes(None, &tree).unwrap();
    let made = make(&all, OPTIONS, None);
    assert!(made.written.segments.len() > 5);
    for layer in [&made.gzip, &made.zstd] {
        let mut read = Tree::new();
        flatten::lay(
            &mut read,
            &layer[..],
            &made.written.diff_id,
            Limits::default(),
            &mut Progress::default(),
        )
        .unwrap();
        assert_eq!(
            image_tree::listing::difference(&tree.listing(), &read.listing()),
            None
        );
    }
    let other = Digest::of(b"other");
    let refused = flatten::lay(
        &mut Tree::new(),
        &made.gzip[..],
        &other,
        Limits::default(),
        &mut Progress::default(),
    );
    assert!(matches!(refused, Err(flatten::Error::Different { .. })));
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_what_was_made_before() {
    let tree = example();
    let all = changes(None, &tree).unwrap();
    let first = make(&all, OPTIONS, None);
    let one_thread = Options {
        threads: 1,
        ..OPTIONS
    };
    let second = make(&all, one_thread, None);
    assert!(first.gzip == second.gzip && first.zstd == second.zstd);
    assert_eq!(first.written, second.written);

    let mut changed = tree.clone();
    changed
        .insert(b"usr/share/many/7", Entry::file(&b"new"[..], 0o644))
        .unwrap();
    let all = changes(None, &changed).unwrap();
    let plain = make(&all, OPTIONS, None);
    let earlier = Earlier::new(
        kept(&first.gzip),
        kept(&first.zstd),
        &first.written.segments,
    );
    let quick = make(&all, OPTIONS, Some(&earlier));
    assert!(plain.gzip == quick.gzip && plain.zstd == quick.zstd);
    let segments = quick.written.segments.len();
    assert_eq!(
        quick.written.reused,
        segments - 1,
        "one file is in one segment"
    );

    // An earlier layer that is damaged is not believed.
    let mut bad = first.gzip.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    let earlier = Earlier::new(kept(&bad), kept(&first.zstd), &first.written.segments);
    let wary = make(&all, OPTIONS, Some(&earlier));
    assert!(plain.gzip == wary.gzip && wary.written.reused == segments - 2);
}

#[test]
fn a_layer_takes_away_what_its_definition_removes() {
    let parent = example();
    let mut child = parent.clone();
    child.remove(b"usr/share/many");
    child.remove(b"dev/null");
    child.insert(b"usr/exact", Entry::directory()).unwrap();
    child
        .insert(b"usr/exact/in", Entry::file(&b"in"[..], 0o600))
        .unwrap();
    child
        .insert(b"tmp", Entry::new(Kind::Symlink(b"run".to_vec()), 0o777))
        .unwrap();
    let lower = make(&changes(None, &parent).unwrap(), OPTIONS, None);
    let listing = parent.listing();
    let upper = make(&changes(Some(&listing), &child).unwrap(), OPTIONS, None);
    assert!(upper.gzip.len() < 2000, "{}", upper.gzip.len());
    let mut read = Tree::new();
    for (layer, made) in [(&lower.gzip, &lower), (&upper.zstd, &upper)] {
        flatten::lay(
            &mut read,
            &layer[..],
            &made.written.diff_id,
            Limits::default(),
            &mut Progress::default(),
        )
        .unwrap();
    }
    let difference = image_tree::listing::difference(&child.listing(), &read.listing());
    assert_eq!(difference, None);
}

/// GNU tar is the judge of what we write: it lists every path with the mode, owner and size that the tree has.
#[test]
fn gnu_tar_reads_what_we_write() {
    let tree = example();
    let made = make(&changes(None, &tree).unwrap(), OPTIONS, None);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layer.tar.gz");
    std::fs::write(&path, &made.gzip).unwrap();
    let output = std::process::Command::new("tar")
        .args([
            "--list",
            "--verbose",
            "--numeric-owner",
            "--utc",
            "--gzip",
            "--quoting-style=escape",
            "--file",
        ])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let words: Vec<String> = said
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let long = format!("usr/share/{}/{}", "d".repeat(120), "n".repeat(140));
    for expected in [
        "lrwxrwxrwx 0/0 0 2023-11-14 22:13 bin -> usr/bin".to_owned(),
        "crw-rw-rw- 0/0 1,3 2023-11-14 22:13 dev/null".to_owned(),
        "brw-rw---- 0/0 259,1048000 2023-11-14 22:13 dev/disk".to_owned(),
        "-rwsr-xr-x 0/0 6 2023-11-14 22:13 usr/bin/a".to_owned(),
        "hrwsr-xr-x 0/0 0 2023-11-14 22:13 usr/bin/z link to usr/bin/a".to_owned(),
        "drwxrwxrwt 0/0 0 2023-11-14 22:13 tmp/".to_owned(),
        format!("-rw-r--r-- 0/0 4 2023-11-14 22:13 {long}"),
        "-rw-r--r-- 0/0 2500000 2023-11-14 22:13 usr/large".to_owned(),
    ] {
        assert!(
            words.contains(&expected),
            "{expected} in\n{}",
            words[..20.min(words.len())].join("\n")
        );
    }
    assert_eq!(words.len(), tree.len() - 1);
    assert!(
        said.contains("4000000000/65534"),
        "a large number is in a record"
    );
}

/// An entry of an archive: its path, its type and what it links to.
type Hostile = (&'static str, u8, &'static str);

fn refused(entries: &[Hostile]) -> flatten::Error {
    let mut archive = Vec::new();
    for (name, kind, link) in entries {
        let entry = match kind {
            b'2' => Entry::new(Kind::Symlink(link.as_bytes().to_vec()), 0o777),
            b'5' => Entry::directory(),
            _ => Entry::file(&b""[..], 0o644),
        };
        let link = (*kind == b'1').then_some(link.as_bytes());
        let name = name.trim_end_matches('/').as_bytes();
        archive.extend(header(name, &entry, link, 0).unwrap());
    }
    archive.extend(end());
    let outcome = flatten::lay_any(
        &mut Tree::new(),
        &archive[..],
        Limits::default(),
        &mut Progress::default(),
    );
    outcome.expect_err("it is hostile")
}

#[test]
fn a_hostile_layer_is_refused() {
    let cases: [(&str, &[Hostile], &str); 8] = [
        (
            "a whiteout of the root",
            &[(".wh.", b'0', "")],
            "a whiteout of nothing",
        ),
        (
            "upwards",
            &[("../etc/passwd", b'0', "")],
            "not a path below the root",
        ),
        (
            "absolute",
            &[("/etc/passwd", b'0', "")],
            "not a path below the root",
        ),
        (
            "through a link",
            &[("a", b'2', "/etc"), ("a/passwd", b'0', "")],
            "failed to take a path",
        ),
        ("twice", &[("a", b'0', ""), ("a", b'0', "")], "twice"),
        ("a link to nothing", &[("a", b'1', "b")], "is no file"),
        (
            "a link upwards",
            &[("a", b'1', "../b")],
            "not a path below the root",
        ),
        (
            "a file and its whiteout",
            &[("a", b'0', ""), (".wh.a", b'0', "")],
            "twice",
        ),
    ];
    for (name, entries, expected) in cases {
        let said = refused(entries).to_string();
        assert!(said.contains(expected), "{name}: {said}");
    }
}

#[test]
fn a_bomb_is_defused_by_the_limits() {
    let mut tree = Tree::new();
    tree.insert(b"zeros", Entry::file(vec![0; 8 << 20], 0o644))
        .unwrap();
    let made = make(&changes(None, &tree).unwrap(), OPTIONS, None);
    assert!(made.zstd.len() < 4096);
    let limits = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    for layer in [&made.gzip, &made.zstd] {
        let error = flatten::lay_any(
            &mut Tree::new(),
            &layer[..],
            limits,
            &mut Progress::default(),
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("more than 1048576 bytes"),
            "{error}"
        );
    }
    let few = Limits {
        entries: 0,
        ..Limits::default()
    };
    assert!(
        flatten::lay_any(
            &mut Tree::new(),
            &made.gzip[..],
            few,
            &mut Progress::default()
        )
        .is_err()
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, at in 0_usize..4096, with: u8) {
        drop(flatten::lay_any(&mut Tree::new(), &bytes[..], Limits::default(), &mut Progress::default()));
        let tree = example_small();
        let made = make(&changes(None, &tree).unwrap(), OPTIONS, None);
        let mut plain = Vec::new();
        crate::compress::decode(crate::compress::Encoding::Gzip, &made.gzip[..]).unwrap().read_to_end(&mut plain).unwrap();
        let at = at % plain.len();
        plain[at] = with;
        drop(flatten::lay_any(&mut Tree::new(), &plain[..], Limits::default(), &mut Progress::default()));
    }
}

fn example_small() -> Tree {
    let mut tree = Tree::new();
    let path = format!("{}/x", "p".repeat(200));
    tree.insert_all(path.as_bytes(), Entry::file(&b"x"[..], 0o644))
        .unwrap();
    tree
}
