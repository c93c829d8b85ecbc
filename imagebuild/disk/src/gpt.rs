//! GPT: partition tables, as the UEFI specification (§5.3) has them.
//!
//! It refuses to read a table whose checksums are wrong.

use std::io;

use crate::{Guid, ReadAt, SECTOR};

/// Entries of a table.
const ENTRIES: u32 = 128;
/// Size of an entry.
const ENTRY: u32 = 128;
/// Size of a table.
const TABLE: usize = (ENTRIES * ENTRY) as usize;
/// Sectors of a table.
const TABLE_SECTORS: u64 = TABLE as u64 / SECTOR;
/// Size of the header.
const HEADER: u32 = 92;

/// Partition types, as the UEFI and the discoverable partitions specifications name them.
pub mod kind {
    use crate::Guid;

    /// An EFI system partition.
    pub const ESP: Guid =
        Guid(*b"\xc1\x2a\x73\x28\xf8\x1f\x11\xd2\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b");
    /// Variable data.
    pub const VAR: Guid =
        Guid(*b"\x4d\x21\xb0\x16\xb5\x34\x45\xc2\xa9\xfb\x5c\x16\xe0\x91\xfd\x2d");

    /// The types of a root file system and of its hash tree, by Debian's name of the architecture.
    #[must_use]
    pub fn root(architecture: &str) -> Option<[Guid; 2]> {
        match architecture {
            "amd64" => Some([
                Guid(*b"\x4f\x68\xbc\xe3\xe8\xcd\x4d\xb1\x96\xe7\xfb\xca\xf9\x84\xb7\x09"),
                Guid(*b"\x2c\x73\x57\xed\xeb\xd2\x46\xd9\xae\xc1\x23\xd4\x37\xec\x2b\xf5"),
            ]),
            "arm64" => Some([
                Guid(*b"\xb9\x21\xb0\x45\x1d\xf0\x41\xc3\xaf\x44\x4c\x6f\x28\x0d\x3f\xae"),
                Guid(*b"\xdf\x33\x00\xce\xd6\x9f\x4c\x92\x97\x8c\x9b\xfb\x0f\x38\xd8\x20"),
            ]),
            _ => None,
        }
    }
}

/// Attribute: nothing writes into it.
pub const READ_ONLY: u64 = 1 << 60;
/// Attribute: nothing mounts it by itself.
pub const NO_AUTO: u64 = 1 << 63;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its type.
    pub kind: Guid,
    /// Its own GUID.
    pub guid: Guid,
    /// Where it starts, in bytes.
    pub at: u64,
    /// How large it is, in bytes.
    pub size: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// Its name, of at most 36 characters.
    pub name: String,
}

/// A table that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk could not be read.
    #[error("failed to read the partition table")]
    Read(#[source] io::Error),
    /// It is none, or damaged.
    #[error("the partition table is malformed: {0}")]
    Malformed(&'static str),
}

/// The table of a disk, in the two places where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Protective MBR of 512 bytes.
    pub mbr: Vec<u8>,
    /// Header of the second sector.
    pub primary_header: Vec<u8>,
    /// Entries, the same in both places.
    pub entries: Vec<u8>,
    /// Header of the last sector; its entries stand before it.
    pub backup_header: Vec<u8>,
}

/// Where the entries of the backup start, on a disk of this size.
#[must_use]
pub fn backup_at(size: u64) -> u64 {
    size - (1 + TABLE_SECTORS) * SECTOR
}

/// Encodes a table for a disk of a size in whole sectors.
#[must_use]
pub fn encode(disk: Guid, size: u64, partitions: &[Partition]) -> Tables {
    let entries = encode_entries(partitions);
    let last = size / SECTOR - 1;
    let header = |own: u64, other: u64, table: u64| {
        let mut header = Vec::with_capacity(512);
        header.extend(b"EFI PART\0\0\x01\0");
        header.extend(HEADER.to_le_bytes());
        header.extend([0; 8]);
        for number in [own, other, 2 + TABLE_SECTORS, last - 1 - TABLE_SECTORS] {
            header.extend(number.to_le_bytes());
        }
        header.extend(disk.mixed());
        header.extend(table.to_le_bytes());
        for number in [ENTRIES, ENTRY, crc32(&entries)] {
            header.extend(number.to_le_bytes());
        }
        let checksum = crc32(&header);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        header.resize(512, 0);
        header
    };
    Tables {
        mbr: protective_mbr(last),
        primary_header: header(1, last, 2),
        backup_header: header(last, 1, last - TABLE_SECTORS),
        entries,
    }
}

fn encode_entries(partitions: &[Partition]) -> Vec<u8> {
    let mut entries = Vec::new();
    for partition in partitions {
        let start = entries.len();
        entries.extend(partition.kind.mixed());
        entries.extend(partition.guid.mixed());
        entries.extend((partition.at / SECTOR).to_le_bytes());
        entries.extend(((partition.at + partition.size) / SECTOR - 1).to_le_bytes());
        entries.extend(partition.attributes.to_le_bytes());
        let name = partition.name.encode_utf16().take(36);
        name.for_each(|unit| entries.extend(unit.to_le_bytes()));
        entries.resize(start + ENTRY as usize, 0);
    }
    entries.resize(TABLE, 0);
    entries
}

/// One partition of type 0xee over all of the disk, so that old tools leave it alone.
fn protective_mbr(last: u64) -> Vec<u8> {
    let mut mbr = vec![0; 512];
    let sectors = u32::try_from(last).unwrap_or(u32::MAX);
    mbr[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&sectors.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

/// Reads the primary table of a disk.
///
/// # Errors
/// When it cannot be read, or is not one.
pub fn read(disk: &dyn ReadAt) -> Result<Vec<Partition>, Error> {
    let mut header = [0; HEADER as usize];
    disk.read_exact_at(SECTOR, &mut header)
        .map_err(Error::Read)?;
    if &header[..8] != b"EFI PART" {
        return Err(Error::Malformed("it has no signature"));
    }
    if word(&header, 12) != HEADER {
        return Err(Error::Malformed("its header is of another size"));
    }
    let mut unsigned = header;
    unsigned[16..20].fill(0);
    if crc32(&unsigned) != word(&header, 16) {
        return Err(Error::Malformed("the checksum of its header is wrong"));
    }
    if word(&header, 80) != ENTRIES || word(&header, 84) != ENTRY {
        return Err(Error::Malformed("it has not 128 entries of 128 bytes"));
    }
    let table = double(&header, 72).checked_mul(SECTOR);
    let table = table.ok_or(Error::Malformed("it stands outside of the disk"))?;
    let mut entries = vec![0; TABLE];
    disk.read_exact_at(table, &mut entries)
        .map_err(Error::Read)?;
    if crc32(&entries) != word(&header, 88) {
        return Err(Error::Malformed("the checksum of its entries is wrong"));
    }
    let used = entries
        .chunks_exact(ENTRY as usize)
        .filter(|entry| entry[..16] != [0; 16]);
    used.map(|entry| decode_entry(entry, disk.size())).collect()
}

fn decode_entry(entry: &[u8], disk: u64) -> Result<Partition, Error> {
    let guid = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&entry[at..at + 16]);
        Guid::from_mixed(bytes)
    };
    let (first, last) = (double(entry, 32), double(entry, 40));
    if first > last || last >= disk / SECTOR {
        return Err(Error::Malformed("a partition is not on the disk"));
    }
    let units: Vec<u16> = entry[56..]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    Ok(Partition {
        kind: guid(0),
        guid: guid(16),
        at: first * SECTOR,
        size: (last - first + 1) * SECTOR,
        attributes: double(entry, 48),
        name: String::from_utf16_lossy(&units),
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn double(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
