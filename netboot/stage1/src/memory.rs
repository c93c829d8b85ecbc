//! The host's memory: whether a root file system fits, and the file in memory that holds it.
//!
//! It frees nothing and swaps nothing: a host that is too small is told so before a byte moves.

use std::fs::{self, File};
use std::io;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// What init and a few services need beside the root to get anywhere: with 39 MiB a Debian host was
/// busy for minutes with reading its programs again and again, with 55 MiB it became healthy.
const RESERVE: u64 = 48 * 1024 * 1024;

/// Why the root has no place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the root file system needs {} MiB of memory and {} MiB are free: this host needs {} MiB more",
        mebibytes(needed + RESERVE), mebibytes(*free), mebibytes(needed + RESERVE - free)
    )]
    TooSmall { needed: u64, free: u64 },
    #[error("failed to make a file in memory")]
    Create(#[source] io::Error),
}

/// Makes an empty file in memory for a root file system that fits.
///
/// It is a memfd and not a file of a tmpfs, because those are limited to half of the memory.
pub(crate) fn room_for(bytes: u64) -> Result<File, Error> {
    // Without an answer the fetch itself will tell.
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = available(&meminfo).unwrap_or(u64::MAX);
    if free < bytes.saturating_add(RESERVE) {
        let needed = bytes;
        return Err(Error::TooSmall { needed, free });
    }
    let file = memfd_create(c"firstboot-root", MFdFlags::MFD_CLOEXEC)
        .map(File::from)
        .map_err(|errno| Error::Create(errno.into()))?;
    file.set_len(bytes).map_err(Error::Create)?;
    Ok(file)
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
            error.to_string().ends_with("this host needs 58 MiB more"),
            "{error}"
        );
    }
}
