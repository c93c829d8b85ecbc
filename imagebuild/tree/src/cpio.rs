//! cpio in the `newc` form: what the kernel unpacks as its initramfs.
//!
//! It refuses to depend on anything but the tree and one time: inode numbers count from 1, and
//! hard links become copies. Format: the kernel's `Documentation/driver-api/early-userspace/
//! buffer-format.rst`.

use std::io::{self, Read, Write};

use crate::{Entry, Kind, Tree};

/// Bytes of a header.
const HEADER: usize = 110;
/// What names and contents are padded to.
const ALIGNMENT: usize = 4;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file of the tree could not be read.
    #[error("failed to read `{path}` of the tree")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file is too large for the format, or not as long as the tree says.
    #[error("`{path}` has another size than the tree says, or 4 GiB and more")]
    Size {
        /// Which.
        path: String,
    },
    /// The archive could not be written.
    #[error("failed to write the archive")]
    Write {
        /// Why.
        source: io::Error,
    },
}

/// Writes a tree as an archive; all of it has one time, in seconds since 1970.
///
/// # Errors
/// When a file of the tree cannot be read, or the archive cannot be written.
pub fn write<W: Write>(tree: &Tree, time: u32, out: &mut W) -> Result<(), WriteError> {
    for (number, (path, entry)) in (1u32..).zip(tree.iter()) {
        // The root is the kernel's own; an archive does not name it.
        if !path.is_empty() {
            append(number, path, entry, time, out)?;
        }
    }
    let end = Header {
        links: 1,
        ..Header::default()
    };
    let bytes = end.encode(b"TRAILER!!!");
    out.write_all(&bytes)
        .map_err(|source| WriteError::Write { source })
}

fn append<W: Write>(
    number: u32,
    path: &[u8],
    entry: &Entry,
    time: u32,
    out: &mut W,
) -> Result<(), WriteError> {
    let write = |source| WriteError::Write { source };
    let name = || String::from_utf8_lossy(path).into_owned();
    let (kind, device) = match &entry.kind {
        Kind::Directory => (0o040_000, None),
        Kind::File(_) => (0o100_000, None),
        Kind::Symlink(_) => (0o120_000, None),
        Kind::Character(device) => (0o020_000, Some(*device)),
        Kind::Block(device) => (0o060_000, Some(*device)),
        Kind::Fifo => (0o010_000, None),
        Kind::Socket => (0o140_000, None),
    };
    let size = match &entry.kind {
        Kind::File(content) => u32::try_from(content.size),
        Kind::Symlink(target) => u32::try_from(target.len()),
        _ => Ok(0),
    };
    let header = Header {
        number,
        mode: kind | entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        links: if kind == 0o040_000 { 2 } else { 1 },
        time,
        size: size.map_err(|_| WriteError::Size { path: name() })?,
        device: device.map_or((0, 0), |device| (device.major, device.minor)),
    };
    out.write_all(&header.encode(path)).map_err(write)?;
    match &entry.kind {
        Kind::File(content) => {
            let read = |source| WriteError::Read {
                path: name(),
                source,
            };
            let mut source = content.open().map_err(read)?.take(content.size + 1);
            if io::copy(&mut source, out).map_err(read)? != content.size {
                return Err(WriteError::Size { path: name() });
            }
        }
        Kind::Symlink(target) => out.write_all(target).map_err(write)?,
        _ => {}
    }
    out.write_all(padding(header.size as usize)).map_err(write)
}

fn padding(length: usize) -> &'static [u8] {
    &[0; ALIGNMENT][..length.next_multiple_of(ALIGNMENT) - length]
}

#[derive(Default)]
struct Header {
    number: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    time: u32,
    size: u32,
    device: (u32, u32),
}

impl Header {
    fn encode(&self, name: &[u8]) -> Vec<u8> {
        let mut bytes = b"070701".to_vec();
        let (major, minor) = self.device;
        let length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        for field in [
            self.number,
            self.mode,
            self.uid,
            self.gid,
            self.links,
            self.time,
            self.size,
            0,
            0,
            major,
            minor,
            length,
            0,
        ] {
            bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        debug_assert_eq!(bytes.len(), HEADER);
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(padding(bytes.len()));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::Device;

    fn example() -> Tree {
        let mut tree = Tree::new();
        let console = Device { major: 5, minor: 1 };
        let entries: [(&[u8], Entry); 4] = [
            (b"dev/console", Entry::new(Kind::Character(console), 0o600)),
            (b"init", Entry::file(&b"#!/bin/sh\n"[..], 0o755)),
            (
                b"lib",
                Entry::new(Kind::Symlink(b"usr/lib".to_vec()), 0o777),
            ),
            (b"run", Entry::directory()),
        ];
        for (path, entry) in entries {
            tree.insert_all(path, entry).unwrap();
        }
        tree
    }

    #[test]
    fn cpio_reads_the_archive() {
        let mut archive = Vec::new();
        write(&example(), 1_700_000_000, &mut archive).unwrap();
        assert_eq!(archive.len() % ALIGNMENT, 0);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive");
        std::fs::write(&path, &archive).unwrap();
        let listed = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .env("TZ", "UTC")
            .stdin(Stdio::from(std::fs::File::open(&path).unwrap()))
            .output();
        let Ok(listed) = listed else {
            assert!(std::env::var_os("CI").is_none(), "cpio is not installed");
            return eprintln!("skipped: cpio is not installed");
        };
        let text = String::from_utf8(listed.stdout).unwrap();
        // How wide columns are is up to its version.
        let listed = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let expected = [
            "drwxr-xr-x 2 0 0 0 Nov 14 2023 dev",
            "crw------- 1 0 0 5, 1 Nov 14 2023 dev/console",
            "-rwxr-xr-x 1 0 0 10 Nov 14 2023 init",
            "lrwxrwxrwx 1 0 0 7 Nov 14 2023 lib -> usr/lib",
            "drwxr-xr-x 2 0 0 0 Nov 14 2023 run",
        ];
        assert_eq!(listed.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let mut tree = example();
        let mut entry = Entry::file(&b"four"[..], 0o644);
        if let Kind::File(content) = &mut entry.kind {
            content.size = 5;
        }
        tree.insert(b"short", entry).unwrap();
        let error = write(&tree, 0, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, WriteError::Size { path } if path == "short"));
    }
}
