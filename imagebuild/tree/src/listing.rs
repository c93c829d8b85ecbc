//! The canonical listing: a tree as text, whose digest is the identity that every tier shares.
//!
//! It has no times, no inode numbers and no order of its own: equal trees have equal listings,
//! whatever they were read from. A path under several names of one inode is simply several equal
//! lines.
//!
//! ```text
//! firstboot-listing 1
//! / d 0755 0 0
//! /dev/null c 0666 0 0 1 3
//! /usr/bin/ping f 0755 0 0 90568 sha256:… security.capability=0100000200200000…
//! /usr/sbin l 0777 0 0 bin
//! ```
//!
//! One line a path, sorted by the bytes of the path without its leading slash. Fields are parted
//! by one space: path, type (`d` directory, `f` file, `l` symbolic link, `c` and `b` devices, `p`
//! pipe, `s` socket), mode in four octal digits, user, group, then what the type asks for: size
//! and digest of a file, target of a link, major and minor of a device; then extended attributes
//! as name, `=` and value in hexadecimal, sorted by name. In paths, targets and names, a byte that
//! is not printable ASCII, a space, a backslash and an `=` are `\x` and two hexadecimal digits.
//! The mode of a symbolic link is always 0777: Linux ignores it and file systems disagree on it.

use std::cmp::Ordering;
use std::fmt::Write;

use crate::{Entry, Kind, Tree};

/// First line of every listing.
pub const HEADER: &str = "firstboot-listing 1";

/// Writes the listing of a tree.
pub(crate) fn write(tree: &Tree) -> Vec<u8> {
    let mut text = String::with_capacity(128 * tree.len());
    text.push_str(HEADER);
    text.push('\n');
    for (path, entry) in tree.iter() {
        text.push('/');
        escape(path, &mut text);
        describe(entry, &mut text);
        text.push('\n');
    }
    text.into_bytes()
}

fn describe(entry: &Entry, text: &mut String) {
    let (letter, mode) = match entry.kind {
        Kind::Directory => ('d', entry.mode),
        Kind::File(_) => ('f', entry.mode),
        Kind::Symlink(_) => ('l', 0o777),
        Kind::Character(_) => ('c', entry.mode),
        Kind::Block(_) => ('b', entry.mode),
        Kind::Fifo => ('p', entry.mode),
        Kind::Socket => ('s', entry.mode),
    };
    push(
        text,
        format_args!(" {letter} {mode:04o} {} {}", entry.uid, entry.gid),
    );
    match &entry.kind {
        Kind::File(content) => push(text, format_args!(" {} {}", content.size, content.digest)),
        Kind::Symlink(target) => {
            text.push(' ');
            escape(target, text);
        }
        Kind::Character(device) | Kind::Block(device) => {
            push(text, format_args!(" {} {}", device.major, device.minor));
        }
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
    }
    for (name, value) in &entry.xattrs {
        text.push(' ');
        escape(name, text);
        text.push('=');
        for byte in value {
            push(text, format_args!("{byte:02x}"));
        }
    }
}

fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        match byte {
            b'\\' | b'=' | 0..=0x20 | 0x7f.. => push(text, format_args!("\\x{byte:02x}")),
            plain => text.push(char::from(*plain)),
        }
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes all text");
}

/// Where two listings differ first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The path, as it stands in the listing.
    pub path: String,
    /// What the first listing says about it, if it has it.
    pub left: Option<String>,
    /// What the second listing says about it, if it has it.
    pub right: Option<String>,
}

/// Finds the first path on which two listings disagree.
///
/// Lines that are no listing are compared as text, so that any two different texts differ.
#[must_use]
pub fn difference(left: &[u8], right: &[u8]) -> Option<Difference> {
    let mut left_lines = left.split(|byte| *byte == b'\n');
    let mut right_lines = right.split(|byte| *byte == b'\n');
    let (left, right) = loop {
        match (left_lines.next(), right_lines.next()) {
            (None, None) => return None,
            (left, right) if left == right => {}
            pair => break pair,
        }
    };
    // An empty last line is the end of the text.
    let split = |line: Option<&[u8]>| {
        let text = String::from_utf8_lossy(line.filter(|line| !line.is_empty())?).into_owned();
        let (path, rest) = text.split_once(' ').unwrap_or((&text, ""));
        Some((path.to_owned(), rest.to_owned()))
    };
    let order = |(left, _): &(String, String), (right, _): &(String, String)| {
        unescape(left).cmp(&unescape(right))
    };
    Some(match (split(left), split(right)) {
        (Some(left), Some(right)) => match order(&left, &right) {
            Ordering::Less => only(Some(left), None),
            Ordering::Greater => only(None, Some(right)),
            Ordering::Equal => only(Some(left), Some(right)),
        },
        (left, right) => only(left, right),
    })
}

/// Goes through the lines of a listing: paths without their leading slash, and what is said about them.
///
/// What is no line of a listing is left out.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (Vec<u8>, &[u8])> {
    text.split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let space = line.iter().position(|byte| *byte == b' ')?;
            let path = std::str::from_utf8(line[..space].strip_prefix(b"/")?).ok()?;
            Some((unescape(path), &line[space + 1..]))
        })
}

fn only(left: Option<(String, String)>, right: Option<(String, String)>) -> Difference {
    let path = left.as_ref().or(right.as_ref());
    Difference {
        path: path.map(|(path, _)| path.clone()).unwrap_or_default(),
        left: left.map(|(_, rest)| rest),
        right: right.map(|(_, rest)| rest),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.strip_prefix(b"x").and_then(|after| after.get(..2));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Device;

    fn example() -> Tree {
        let mut tree = Tree::new();
        let mut ping = Entry::file(&b"ping"[..], 0o4755);
        let capability = vec![1, 0, 0, 2, 0xff];
        ping.xattrs
            .insert(b"security.capability".to_vec(), capability);
        ping.xattrs.insert(b"user.a=b".to_vec(), Vec::new());
        ping.link = Some(1);
        let mut spool = Entry::new(Kind::Directory, 0o1777);
        (spool.uid, spool.gid) = (1, 65534);
        let null = Device { major: 1, minor: 3 };
        let disk = Device {
            major: 259,
            minor: 1_000_000,
        };
        let entries: [(&[u8], Entry); 9] = [
            (b"bin", Entry::new(Kind::Symlink(b"usr/my bin".to_vec()), 0)),
            (b"dev/null", Entry::new(Kind::Character(null), 0o666)),
            (b"dev/nvme0n1", Entry::new(Kind::Block(disk), 0o660)),
            (b"run/pipe", Entry::new(Kind::Fifo, 0o600)),
            (b"run/socket", Entry::new(Kind::Socket, 0o600)),
            (b"usr/bin/ping", ping.clone()),
            (b"usr/bin/ping6", ping),
            (
                "usr/share/caf\u{e9} \\ =".as_bytes(),
                Entry::file(&b""[..], 0o644),
            ),
            (b"var/spool", spool),
        ];
        for (path, entry) in entries {
            tree.insert_all(path, entry).unwrap();
        }
        tree
    }

    /// The bytes of version 1: tree digests are made of them, so they never change.
    #[test]
    fn version_1_is_frozen() {
        let listing = String::from_utf8(example().listing()).unwrap();
        assert_eq!(listing, include_str!("listing/version-1.txt"));
        assert_eq!(
            example().digest().to_string(),
            "sha256:14b1a332d1cde1601df9346bdc16422a2aec258b8e2494294641ea8939136003"
        );
    }

    #[test]
    fn the_first_difference_is_named() {
        let left = example();
        let mut changed = left.clone();
        changed
            .insert(b"run/pipe", Entry::new(Kind::Fifo, 0o644))
            .unwrap();
        let mut more = left.clone();
        more.insert(b"run-x", Entry::directory()).unwrap();
        let mut less = left.clone();
        less.remove(b"var");
        let some = |text: &str| Some(text.to_owned());
        let cases = [
            (
                "changed",
                changed,
                "/run/pipe",
                some("p 0600 0 0"),
                some("p 0644 0 0"),
            ),
            ("more", more, "/run-x", None, some("d 0755 0 0")),
            ("less", less, "/var", some("d 0755 0 0"), None),
        ];
        assert_eq!(difference(&left.listing(), &left.listing()), None);
        for (name, right, path, said, says) in cases {
            let found = difference(&left.listing(), &right.listing()).unwrap();
            assert_eq!(found.path, path, "{name}");
            assert_eq!((found.left, found.right), (said, says), "{name}");
        }
    }

    #[test]
    fn a_listing_is_read_line_by_line() {
        let tree = example();
        let text = tree.listing();
        let read: Vec<_> = lines(&text).collect();
        let paths: Vec<_> = tree.iter().map(|(path, _)| path.to_vec()).collect();
        assert_eq!(
            read.iter()
                .map(|(path, _)| path.clone())
                .collect::<Vec<_>>(),
            paths
        );
        assert_eq!(read[0].1, b"d 0755 0 0");
        assert_eq!(lines(b"no listing\nx\n/y\n").count(), 0);
    }

    proptest! {
        #[test]
        fn an_escaped_text_is_one_word_and_reads_back(bytes: Vec<u8>) {
            let mut text = String::new();
            escape(&bytes, &mut text);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'='));
            prop_assert_eq!(unescape(&text), bytes);
        }

        #[test]
        fn different_texts_differ(left: Vec<u8>, right: Vec<u8>) {
            prop_assert_eq!(difference(&left, &right).is_none(), left == right);
        }
    }
}
