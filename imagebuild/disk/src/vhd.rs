//! Fixed VHD: a disk and a footer of 512 bytes, as Azure takes it.
//!
//! It refuses disks that are not whole mebibytes: Azure does. It refuses to read any other kind of VHD.

use std::io;

use crate::{Extents, Guid, MIB, ReadAt, Window};

/// Size of the footer.
pub const FOOTER: u64 = FOOTER_BYTES as u64;
const FOOTER_BYTES: usize = 512;
/// The name of the region in compositions.
pub const REGION: &str = "VHD footer";
/// 2000-01-01 in seconds since 1970: where the format's clock starts.
const EPOCH: i64 = 946_684_800;
const CHECKSUM: std::ops::Range<usize> = 64..68;

/// A VHD that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("failed to read the VHD")]
    Read(#[source] io::Error),
    /// It is none, or damaged, or of another kind.
    #[error("the VHD is malformed: {0}")]
    Malformed(&'static str),
}

/// Composes the VHD of a disk.
#[must_use]
pub fn compose(disk: &Extents, guid: Guid, source_date: i64) -> Extents {
    let mut file = disk.clone();
    file.push_bytes(REGION, footer(disk.size(), guid, source_date));
    file
}

/// The footer of a disk.
#[must_use]
pub fn footer(size: u64, guid: Guid, source_date: i64) -> Vec<u8> {
    let mut footer = Vec::with_capacity(FOOTER_BYTES);
    footer.extend(b"conectix");
    // Reserved bit of the features, version 1.0, no further header.
    footer.extend([0, 0, 0, 2, 0, 1, 0, 0]);
    footer.extend([0xff; 8]);
    let seconds = u32::try_from((source_date - EPOCH).max(0)).unwrap_or(u32::MAX);
    footer.extend(seconds.to_be_bytes());
    // By this name readers tell whether the size or the geometry counts: the sizes of whole
    // mebibytes that Azure wants are not whole cylinders. QEMU writes it for `force_size`.
    footer.extend(b"qem2");
    footer.extend([0, 5, 0, 3]);
    footer.extend(b"Wi2k");
    footer.extend(size.to_be_bytes());
    footer.extend(size.to_be_bytes());
    footer.extend(geometry(size));
    footer.extend(2u32.to_be_bytes());
    footer.extend([0; 4]);
    footer.extend(guid.0);
    footer.resize(FOOTER_BYTES, 0);
    let sum = checksum(&footer);
    footer[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    footer
}

fn checksum(footer: &[u8]) -> u32 {
    let counted = footer
        .iter()
        .enumerate()
        .filter(|(at, _)| !CHECKSUM.contains(at));
    !counted.map(|(_, byte)| u32::from(*byte)).sum::<u32>()
}

/// Cylinders, heads and sectors, by the algorithm in the appendix of the VHD specification.
fn geometry(size: u64) -> [u8; 4] {
    let sectors = (size / 512).min(65535 * 16 * 255);
    let (per_track, heads, tracks);
    if sectors >= 65535 * 16 * 63 {
        (per_track, heads, tracks) = (255, 16, sectors / 255);
    } else {
        let mut chosen = (17, (sectors / 17).div_ceil(1024).max(4), sectors / 17);
        if chosen.2 >= chosen.1 * 1024 || chosen.1 > 16 {
            chosen = (31, 16, sectors / 31);
        }
        if chosen.2 >= chosen.1 * 1024 {
            chosen = (63, 16, sectors / 63);
        }
        (per_track, heads, tracks) = chosen;
    }
    let cylinders = u16::try_from(tracks / heads).unwrap_or(u16::MAX);
    let [high, low] = cylinders.to_be_bytes();
    let byte = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
    [high, low, byte(heads), byte(per_track)]
}

/// Reads a fixed VHD and returns the disk in it.
///
/// # Errors
/// When it is none, damaged, of another kind, or not a whole number of mebibytes.
pub fn open(file: &dyn ReadAt) -> Result<Window<'_>, Error> {
    let size = file.size().checked_sub(FOOTER);
    let size = size.ok_or(Error::Malformed("it is shorter than its footer"))?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(size, &mut footer).map_err(Error::Read)?;
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&footer[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let reason = if &footer[..8] != b"conectix" {
        "it has no footer"
    } else if checksum(&footer).to_be_bytes() != footer[CHECKSUM] {
        "the checksum of its footer is wrong"
    } else if footer[60..64] != 2u32.to_be_bytes() {
        "it is not a fixed one"
    } else if number(48) != size {
        "its size is not that of the file"
    } else if !size.is_multiple_of(MIB) {
        "its size is not whole mebibytes"
    } else {
        return Ok(Window::new(file, 0, size));
    };
    Err(Error::Malformed(reason))
}
