//! The host's memory: whether a root file system fits, the file in memory that holds it, and whether little is left.
//!
//! It frees nothing and swaps nothing: a host that is too small is told so before a byte moves, and what the image does
//! about little memory is its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::mount::{MntFlags, MsFlags, umount2};

use crate::rootfs;

/// Where the file is made; nothing is left there.
const ROOM: &str = "/room";
const FILE: &str = "/room/root.squashfs";
/// What tells the image's own units that little is left, with the number of bytes.
const LITTLE: &str = "/run/firstboot/little-memory";
/// With less than this beside its root a Debian host reads its programs more than once.
const EASE: u64 = 64 * 1024 * 1024;

/// What init and a few services need beside the root to get anywhere. Of Debian hosts that compress what lies idle, on
/// two busy emulated processors, one that had 33 MiB was healthy after one to two minutes, and one that had 29 was not
/// after four.
const RESERVE: u64 = 32 * 1024 * 1024;

/// Why the root has no place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the root file system needs {} MiB of memory and {} MiB are free: this host needs {} MiB more",
        mebibytes(needed + RESERVE), mebibytes(*free), mebibytes(needed + RESERVE - free)
    )]
    TooSmall { needed: u64, free: u64 },
    #[error(transparent)]
    Place(rootfs::Error),
    #[error("failed to make a file in memory")]
    Create(#[source] io::Error),
    #[error("failed to write `{LITTLE}`")]
    Tell(#[source] io::Error),
}

/// Makes an empty file in memory for a root file system that fits.
///
/// It is a file of a ramfs of its own. Files of a tmpfs are limited to half of the memory; and they and memfds are
/// swapped out by a host that has swap: bytes that were checked would be read back from a disk unchecked, or be
/// compressed a second time in vain where the swap is memory itself.
pub(crate) fn room_for(bytes: u64) -> Result<File, Error> {
    // Without an answer the fetch itself will tell.
    let free = free().unwrap_or(u64::MAX);
    if free < bytes.saturating_add(RESERVE) {
        let needed = bytes;
        return Err(Error::TooSmall { needed, free });
    }
    rootfs::directory(ROOM, 0o700).map_err(Error::Place)?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    rootfs::place(Some("firstboot"), ROOM, "ramfs", quiet, Some("mode=0700"))
        .map_err(Error::Place)?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o400);
    let file = file.open(FILE).map_err(Error::Create)?;
    file.set_len(bytes).map_err(Error::Create)?;
    // Whoever has it open keeps it: stage1, and then the loop device.
    umount2(ROOM, MntFlags::MNT_DETACH).map_err(|errno| Error::Create(errno.into()))?;
    Ok(file)
}

/// Tells the image's own units when little memory is left beside the root.
pub(crate) fn tell() -> Result<(), Error> {
    match free() {
        Some(free) if free < EASE => fs::write(LITTLE, format!("{free}\n")).map_err(Error::Tell),
        _ => Ok(()),
    }
}

/// Reads how much memory programs can still have.
pub(crate) fn free() -> Option<u64> {
    available(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// Returns bytes as whole mebibytes, for people.
pub(crate) fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1024 * 1024)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let cases = [
            (
                "as the kernel writes it",
                "MemTotal:  9 kB\nMemAvailable:     2048 kB\n",
                Some(2_097_152),
            ),
            ("missing", "MemTotal:  9 kB\n", None),
            ("no number", "MemAvailable: x kB\n", None),
            ("too large", "MemAvailable: 18446744073709551615 kB\n", None),
        ];
        for (name, text, expected) in cases {
            assert_eq!(available(text), expected, "{name}");
        }
    }

    #[test]
    fn a_root_that_does_not_fit_is_refused_in_words() {
        let error = Error::TooSmall {
            needed: 100 << 20,
            free: 90 << 20,
        };
        assert!(
            error.to_string().ends_with("this host needs 42 MiB more"),
            "{error}"
        );
    }
}
