use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::{Device, Entry, Kind, Tree};

const OPTIONS: Options = Options {
    level: 3,
    time: 1_700_000_000,
    threads: 2,
};

fn pack(tree: &Tree, threads: usize) -> Vec<u8> {
    let mut image = Cursor::new(Vec::new());
    let options = Options { threads, ..OPTIONS };
    let size = write(tree, options, &mut image).unwrap();
    let image = image.into_inner();
    assert_eq!(size, image.len() as u64);
    assert_eq!(size % 4096, 0);
    image
}

fn unpack(image: &[u8]) -> Result<Tree, ReadError> {
    read(Cursor::new(image), Limits::default())
}

/// Bytes that do not compress, and are the same each time.
fn noise(length: usize, mut seed: u32) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// A tree with one of everything.
fn example() -> Tree {
    let mut tree = Tree::new();
    let mut capable = Entry::file(&b"ping"[..], 0o755);
    let capability = vec![1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    capable
        .xattrs
        .insert(b"security.capability".to_vec(), capability);
    capable.xattrs.insert(b"user.note".to_vec(), b"x".to_vec());
    let mut linked = Entry::file(&b"one inode"[..], 0o644);
    linked.link = Some(7);
    let mut owned = Entry::file(noise(300_000, 1), 0o4711);
    (owned.uid, owned.gid) = (1000, 65_534);
    let mut sparse = vec![0; 5 * BLOCK_SIZE + 17];
    sparse[2 * BLOCK_SIZE] = 1;
    let mut tagged = Entry::directory();
    tagged.xattrs.insert(b"user.note".to_vec(), b"x".to_vec());
    let disk = Device {
        major: 259,
        minor: 70_000,
    };
    let null = Device { major: 1, minor: 3 };
    let entries: [(&[u8], Entry); 17] = [
        (
            b"bin",
            Entry::new(Kind::Symlink(b"usr/bin".to_vec()), 0o777),
        ),
        (b"dev/disk", Entry::new(Kind::Block(disk), 0o660)),
        (b"dev/null", Entry::new(Kind::Character(null), 0o666)),
        (b"dev/pipe", Entry::new(Kind::Fifo, 0o600)),
        (b"dev/socket", Entry::new(Kind::Socket, 0o600)),
        (b"empty-directory", tagged),
        (b"tmp", Entry::new(Kind::Directory, 0o1777)),
        (b"usr/bin/a", linked.clone()),
        (b"usr/bin/b", linked),
        (b"usr/bin/ping", capable),
        (b"usr/bin/sudo", owned),
        (b"usr/lib/copy", Entry::file(noise(200_000, 2), 0o644)),
        (b"usr/lib/empty", Entry::file(&b""[..], 0o644)),
        (
            b"usr/lib/exact",
            Entry::file(vec![b'x'; 2 * BLOCK_SIZE], 0o644),
        ),
        (b"usr/lib/original", Entry::file(noise(200_000, 2), 0o600)),
        (b"usr/lib/sparse", Entry::file(sparse, 0o644)),
        (
            b"usr/share/caf\xc3\xa9 \\ x",
            Entry::file(&b"name"[..], 0o644),
        ),
    ];
    for (path, entry) in entries {
        tree.insert_all(path, entry).unwrap();
    }
    // More names than one run holds, with inodes in several blocks.
    for number in 0..3000 {
        let path = format!("usr/many/file-with-a-long-name-{number:05}");
        let content = format!("content {}", number % 100);
        let entry = Entry::file(content.into_bytes(), 0o644);
        tree.insert_all(path.as_bytes(), entry).unwrap();
    }
    tree
}

#[test]
fn a_tree_reads_back_as_it_was_written() {
    let tree = example();
    let found = unpack(&pack(&tree, 2)).unwrap();
    let difference = crate::listing::difference(&tree.listing(), &found.listing());
    assert_eq!(difference, None);
    let link = |path: &[u8]| found.get(path).unwrap().link;
    assert!(link(b"usr/bin/a").is_some() && link(b"usr/bin/a") == link(b"usr/bin/b"));
    assert_eq!(link(b"usr/lib/copy"), None);
    assert_eq!(unpack(&pack(&Tree::new(), 1)).unwrap(), Tree::new());
}

#[test]
fn the_number_of_threads_does_not_show() {
    let tree = example();
    let one = pack(&tree, 1);
    for threads in [2, 3, 8] {
        assert!(pack(&tree, threads) == one, "{threads} threads");
    }
}

/// The bytes of an image are digested, signed and cached: a change of them is a change of every
/// image, so it is made knowingly.
#[test]
fn the_bytes_of_an_image_are_frozen() {
    let digest = image_manifest::Digest::of(&pack(&example(), 2));
    assert_eq!(
        digest.to_string(),
        "sha256:3e4749c89883387b8a647cdad3fa8e0ccf516712fe654705c6f5cc63c57a87da"
    );
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// Whether a program is there; in CI it must be.
fn have(program: &str) -> bool {
    let found = Command::new(program).arg("-version").output().is_ok();
    assert!(found || !is_ci(), "{program} is not installed");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

#[test]
fn unsquashfs_finds_what_was_written() {
    if !have("unsquashfs") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    fs::write(&path, pack(&example(), 2)).unwrap();
    let out = Command::new("unsquashfs")
        .arg("-llnumeric")
        .arg(&path)
        .env("TZ", "UTC")
        .output();
    let listed = String::from_utf8(out.unwrap().stdout).unwrap();
    for line in [
        "drwxr-xr-x 0/0                34 2023-11-14 22:13 squashfs-root/empty-directory",
        "crw-rw-rw- 0/0             1,  3 2023-11-14 22:13 squashfs-root/dev/null",
        "-rws--x--x 1000/65534      300000 2023-11-14 22:13 squashfs-root/usr/bin/sudo",
        "lrwxrwxrwx 0/0                 7 2023-11-14 22:13 squashfs-root/bin -> usr/bin",
    ] {
        let words: Vec<_> = line
            .split_whitespace()
            .filter(|word| *word != "34")
            .collect();
        let has = |listed: &str| {
            let listed: Vec<_> = listed.split_whitespace().collect();
            words.iter().all(|word| listed.contains(word))
        };
        assert!(
            listed.lines().any(has),
            "{line} in\n{}",
            &listed[..2000.min(listed.len())]
        );
    }
}

#[test]
fn unsquashfs_unpacks_the_same_contents() {
    if !have("unsquashfs") {
        return;
    }
    let mut tree = example();
    // What only root may make.
    tree.remove(b"dev");
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, pack(&tree, 2)).unwrap();
    let root = directory.path().join("root");
    let mut command = Command::new("unsquashfs");
    command
        .args(["-no-progress", "-no-xattrs", "-dest"])
        .arg(&root)
        .arg(&image);
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    compare(&tree, &root, false);
}

/// The kernel's own reader is the judge that counts. It needs root and a loop device.
#[test]
fn the_kernel_mounts_the_image() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    let tree = example();
    fs::write(&image, pack(&tree, 2)).unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "squashfs", "-o", "loop,ro"])
        .arg(&image)
        .arg(&root);
    match mount.output() {
        Ok(done) if done.status.success() => {}
        Ok(done) => {
            let why = String::from_utf8_lossy(&done.stderr);
            assert!(
                !is_ci(),
                "mounting needs root, loop devices and squashfs: {why}"
            );
            return eprintln!("skipped: mounting needs root, loop devices and squashfs: {why}");
        }
        Err(error) => {
            assert!(!is_ci(), "no program `mount`: {error}");
            return eprintln!("skipped: no program `mount`: {error}");
        }
    }
    let unmount = Unmount(&root);
    compare(&tree, &root, true);
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0).status());
    }
}

/// Compares a directory with the tree that it should be; owners only when the disk can hold them.
fn compare(tree: &Tree, root: &Path, owners: bool) {
    use std::os::unix::fs::MetadataExt;
    let inode = root.join("usr/bin/a").metadata().unwrap();
    assert_eq!(inode.nlink(), 2);
    assert_eq!(
        inode.ino(),
        root.join("usr/bin/b").metadata().unwrap().ino()
    );
    assert_eq!(inode.mtime(), 1_700_000_000);
    let ids = std::cell::RefCell::new(std::collections::HashMap::new());
    for (path, entry) in tree.iter() {
        let path = root.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path));
        let found = path.symlink_metadata().unwrap();
        if owners {
            assert_eq!(
                (found.uid(), found.gid()),
                (entry.uid, entry.gid),
                "{}",
                path.display()
            );
        }
        // The scan takes owners and attributes from a record; here it is the tree itself.
        let owner = crate::Owner {
            uid: entry.uid,
            gid: entry.gid,
            stands_for: None,
            xattrs: entry.xattrs.clone(),
        };
        ids.borrow_mut().insert(found.ino(), owner);
    }
    let found = Tree::scan(root, |_, inode| ids.borrow().get(&inode).cloned()).unwrap();
    let difference = crate::listing::difference(&tree.listing(), &found.listing());
    assert_eq!(difference, None);
}

#[test]
fn a_content_that_is_not_what_the_tree_says_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "grown").unwrap();
    let mut tree = Tree::scan(directory.path(), |_, _| None).unwrap();
    fs::write(directory.path().join("file"), "grown longer").unwrap();
    let error = write(&tree, OPTIONS, &mut Cursor::new(Vec::new())).unwrap_err();
    assert!(matches!(error, WriteError::Changed { path } if path == "file"));
    let mut odd = Entry::directory();
    odd.xattrs
        .insert(b"system.posix_acl_access".to_vec(), vec![1]);
    tree = Tree::new();
    tree.insert(b"odd", odd).unwrap();
    let error = write(&tree, OPTIONS, &mut Cursor::new(Vec::new())).unwrap_err();
    assert!(matches!(error, WriteError::Attribute { path } if path == "odd"));
}

#[test]
fn limits_hold() {
    let image = pack(&example(), 2);
    let generous = Limits::default();
    let cases = [
        (
            "paths",
            Limits {
                entries: 3000,
                ..generous
            },
        ),
        (
            "metadata",
            Limits {
                metadata: 16 << 10,
                ..generous
            },
        ),
        (
            "content",
            Limits {
                content: 1 << 20,
                ..generous
            },
        ),
    ];
    for (name, limits) in cases {
        let error = read(Cursor::new(&image), limits).unwrap_err();
        assert!(matches!(error, ReadError::Limit(_)), "{name}: {error}");
    }
}

#[test]
fn a_cut_or_foreign_image_is_refused() {
    let image = pack(&example(), 2);
    let mut other = image.clone();
    other[20] = 1;
    let cases: [(&str, &[u8], &str); 4] = [
        ("empty", b"", "superblock"),
        ("text", &[b'x'; 200], "no squashfs"),
        ("cut off", &image[..image.len() - 8192], "cut off"),
        ("gzip", &other, "number 1"),
    ];
    for (name, image, expected) in cases {
        let error = unpack(image).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        (0usize..400_000, any::<u32>()).prop_map(|(length, seed)| noise(length, seed)),
        (0usize..400_000).prop_map(|length| vec![0; length]),
    ];
    let entry = (
        content,
        0u32..0o10000,
        any::<(u32, u32)>(),
        0..6,
        proptest::option::of(0u64..3),
    );
    let entry = entry.prop_map(|(content, mode, (uid, gid), kind, note)| {
        let device = Device {
            major: uid & 0xfff,
            minor: gid & 0xfffff,
        };
        let mut entry = match kind {
            0 => Entry::directory(),
            1 => Entry::new(Kind::Symlink(b"target".to_vec()), 0o777),
            2 => Entry::new(Kind::Block(device), mode),
            _ => Entry::file(content, mode),
        };
        (entry.uid, entry.gid) = (uid, gid);
        if let Some(note) = note {
            entry
                .xattrs
                .insert(b"trusted.note".to_vec(), note.to_le_bytes().to_vec());
        }
        entry
    });
    proptest::collection::vec(("([a-c]{1,2}/){0,3}[a-c]{1,2}", entry), 0..20).prop_map(|entries| {
        let mut tree = Tree::new();
        for (path, entry) in entries {
            // A path that leads through a file is not taken.
            drop(tree.insert_all(path.as_bytes(), entry));
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_reads_back(tree in any_tree()) {
        let found = unpack(&pack(&tree, 2)).unwrap();
        prop_assert_eq!(crate::listing::difference(&tree.listing(), &found.listing()), None);
    }

    #[test]
    fn damaged_images_are_errors_or_trees_and_never_panics(
        tree in any_tree(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut image = pack(&tree, 1);
        for (at, byte) in damage {
            // Half of the damage hits the superblock and what is next to it.
            let end = if byte % 2 == 0 { 128 } else { image.len() };
            let at = at.index(end);
            image[at] = byte;
        }
        let limits = Limits { entries: 1000, metadata: 1 << 20, content: 16 << 20 };
        drop(read(Cursor::new(&image), limits));
    }
}
