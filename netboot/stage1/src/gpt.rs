//! A disk's partition table (GPT, UEFI 2.10 §5.3): which partition has which identity.
//!
//! It reads bytes and touches no disk. A table is believed only when both of its checksums are right and its
//! sizes are sane: what is on a disk was written by anybody.

use std::fmt;

/// `EFI PART`.
const SIGNATURE: [u8; 8] = *b"EFI PART";
/// The fields of a header that UEFI 2.10 defines; it may be longer.
const HEADER: usize = 92;
/// Entries of one table: 128 on every disk that was met; more than this is no table of ours.
const ENTRIES: u32 = 1024;
/// Bytes of one entry that UEFI 2.10 defines, and the most that is read of one.
const ENTRY: u32 = 128;
const LONGEST_ENTRY: u32 = 1024;

/// The identity of a partition or of its type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guid(u128);

/// What a table's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The block where the entries begin.
    pub(crate) entries_at: u64,
    count: u32,
    size: u32,
    checksum: u32,
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Its number on the disk, from 1.
    pub(crate) number: u32,
    pub(crate) kind: Guid,
    pub(crate) id: Guid,
    /// Its first and its last block.
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Why bytes are no partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTable {
    #[error("no partition table")]
    Absent,
    #[error("its partition table is damaged: the {0} does not have its checksum")]
    Checksum(&'static str),
    #[error("its partition table has unusual sizes")]
    Sizes,
}

impl Guid {
    /// Takes the number as it is written in text.
    pub(crate) const fn new(number: u128) -> Self {
        Self(number)
    }

    /// Reads 16 bytes as they are on a disk: three fields are little-endian.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        Some(Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:032x}", self.0);
        let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &text[group]);
        f.write_str(&groups.join("-"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Header {
    /// Reads the header that a block of the disk holds, which has to know itself at that place.
    pub(crate) fn decode(block: &[u8], at: u64) -> Result<Self, NoTable> {
        if block.len() < HEADER || block[..8] != SIGNATURE {
            return Err(NoTable::Absent);
        }
        let length = u32_at(block, 12) as usize;
        let mut header = block
            .get(..length)
            .filter(|header| header.len() >= HEADER)
            .ok_or(NoTable::Sizes)?
            .to_vec();
        header[16..20].fill(0);
        if crc32(&header) != u32_at(block, 16) {
            return Err(NoTable::Checksum("header"));
        }
        let header = Self {
            entries_at: u64_at(block, 72),
            count: u32_at(block, 80),
            size: u32_at(block, 84),
            checksum: u32_at(block, 88),
        };
        let sane = u64_at(block, 24) == at
            && (1..=ENTRIES).contains(&header.count)
            && (ENTRY..=LONGEST_ENTRY).contains(&header.size);
        if sane {
            Ok(header)
        } else {
            Err(NoTable::Sizes)
        }
    }

    /// Returns how many bytes the entries take: one MiB at most.
    pub(crate) fn length(&self) -> usize {
        self.count as usize * self.size as usize
    }

    /// Reads the entries that stand at [`Header::entries_at`].
    pub(crate) fn partitions(&self, entries: &[u8]) -> Result<Vec<Partition>, NoTable> {
        let entries = entries.get(..self.length()).ok_or(NoTable::Sizes)?;
        if crc32(entries) != self.checksum {
            return Err(NoTable::Checksum("list of partitions"));
        }
        let entries = (1..).zip(entries.chunks_exact(self.size as usize));
        Ok(entries
            .filter_map(|(number, entry)| partition(number, entry))
            .collect())
    }
}

/// Reads one entry, unless it is unused or has no blocks.
fn partition(number: u32, entry: &[u8]) -> Option<Partition> {
    let kind = Guid::decode(entry)?;
    let id = Guid::decode(entry.get(16..)?)?;
    let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
    (kind != Guid(0) && first <= last).then_some(Partition {
        number,
        kind,
        id,
        first,
        last,
    })
}

/// Reads a number that is known to be there; nothing of a short block is.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes
        .get(at..at + 4)
        .and_then(|field| field.try_into().ok());
    u32::from_le_bytes(field.unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes
        .get(at..at + 8)
        .and_then(|field| field.try_into().ok());
    u64::from_le_bytes(field.unwrap_or_default())
}

/// The checksum of IEEE 802.3, bit by bit: a table would be a kilobyte of initrd for 16 kB of entries.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

/// Gives a changed header its checksum.
#[cfg(test)]
pub(crate) fn sign(block: &mut [u8]) {
    block[16..20].fill(0);
    let sum = crc32(&block[..HEADER]);
    block[16..20].copy_from_slice(&sum.to_le_bytes());
}

#[cfg(test)]
mod tests;
