//! The disks of this host and their partitions, as `/sys/block` shows them.
//!
//! It reads; nothing is written to a disk here. A disk that cannot be read or has no table is said and passed over: the
//! root may be on another one.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::gpt::{Guid, Header, NoTable, Partition};
use crate::verity::RootHash;

/// Where the kernel lists whole disks.
pub(crate) const SYSTEM: &str = "/sys/block";
/// The unit of all sizes in `/sys/block`, whatever the disk's own blocks are.
const SECTOR: u64 = 512;
/// Disks have blocks of 512 or 4096 bytes; more is looked at by nobody.
const BLOCKS: std::ops::RangeInclusive<u64> = 512..=65_536;

/// The type of the partition that holds `/var` (UAPI.2).
pub(crate) const VAR: Guid = Guid::new(0x4d21_b016_b534_45c2_a9fb_5c16_e091_fd2d);

/// The partitions of the image on one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The disk, such as `/dev/vda`.
    pub(crate) disk: PathBuf,
    pub(crate) root: Device,
    pub(crate) hashes: Device,
    /// What the host keeps over a boot, when the disk has a place for it.
    pub(crate) data: Option<Device>,
}

/// A partition as a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    /// In bytes.
    pub(crate) size: u64,
}

/// Why a disk is not the one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("not readable: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Table(#[from] NoTable),
    #[error("{0} partitions, none of them this image's")]
    Other(usize),
    #[error("the image's {0} is missing")]
    Half(&'static str),
    #[error("the kernel does not show its partition {0}")]
    Hidden(u32),
}

/// What was looked at, with why it was not taken.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<(String, Unfit)>);

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("this host shows no disk");
        }
        for (at, (name, why)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{name}: {why}")?;
        }
        Ok(())
    }
}

/// Looks for the image with this root hash on all disks, in the order of their names.
pub(crate) fn search(system: &Path, hash: &RootHash) -> Result<Found, Seen> {
    let mut names: Vec<_> = fs::read_dir(system)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !is_made_of_something(name))
        .collect();
    names.sort();
    let mut seen = Seen::default();
    for name in names {
        match on(system, &name, hash) {
            Ok(found) => return Ok(found),
            Err(why) => seen.0.push((name, why)),
        }
    }
    Err(seen)
}

/// Memory, loop and optical devices have no image of ours, and an empty drive takes long to say so.
fn is_made_of_something(name: &str) -> bool {
    ["dm-", "fd", "loop", "md", "nbd", "ram", "sr", "zram"]
        .iter()
        .any(|kind| name.starts_with(kind))
}

/// Looks for the image on one disk.
fn on(system: &Path, name: &str, hash: &RootHash) -> Result<Found, Unfit> {
    let sys = system.join(name);
    let disk = node(name);
    let blocks = Blocks {
        file: File::open(&disk)?,
        size: number(&sys.join("queue/logical_block_size")).unwrap_or(SECTOR),
        count: number(&sys.join("size")).unwrap_or(0),
    };
    let partitions = blocks.partitions()?;
    let [root, hashes] = both(&partitions, hash)?;
    let data = partitions.iter().rfind(|partition| partition.kind == VAR);
    let device = |partition: &Partition| {
        shown(&sys, partition, blocks.size).ok_or(Unfit::Hidden(partition.number))
    };
    Ok(Found {
        root: device(root)?,
        hashes: device(hashes)?,
        data: data.map(device).transpose()?,
        disk,
    })
}

/// Picks the partitions of a root hash.
fn both<'a>(partitions: &'a [Partition], hash: &RootHash) -> Result<[&'a Partition; 2], Unfit> {
    let (root, hashes) = hash.partitions();
    let with = |id| partitions.iter().find(|partition| partition.id == id);
    match (with(root), with(hashes)) {
        (Some(root), Some(hashes)) => Ok([root, hashes]),
        (Some(_), None) => Err(Unfit::Half("hash tree")),
        (None, Some(_)) => Err(Unfit::Half("root file system")),
        (None, None) => Err(Unfit::Other(partitions.len())),
    }
}

/// A disk's blocks.
struct Blocks {
    file: File,
    /// Bytes of one.
    size: u64,
    /// Sectors of 512 bytes.
    count: u64,
}

impl Blocks {
    /// Reads the partition table, or the copy of it at the disk's end when the first is damaged.
    fn partitions(&self) -> Result<Vec<Partition>, Unfit> {
        if !BLOCKS.contains(&self.size) {
            return Err(NoTable::Sizes.into());
        }
        let last = (self.count * SECTOR / self.size).saturating_sub(1);
        self.table(1).or_else(|error| match error {
            Unfit::Table(_) if last > 1 => self.table(last).map_err(|_| error),
            error => Err(error),
        })
    }

    fn table(&self, at: u64) -> Result<Vec<Partition>, Unfit> {
        let header = Header::decode(&self.read(at, self.size)?, at)?;
        let entries = self.read(header.entries_at, header.length() as u64)?;
        Ok(header.partitions(&entries)?)
    }

    /// Reads bytes from the beginning of a block.
    fn read(&self, block: u64, length: u64) -> io::Result<Vec<u8>> {
        let at = block
            .checked_mul(self.size)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

/// Finds the device that the kernel made of a partition: the same number and the same place.
fn shown(sys: &Path, partition: &Partition, block: u64) -> Option<Device> {
    let first = partition.first.checked_mul(block)? / SECTOR;
    let blocks = (partition.last - partition.first).checked_add(1)?;
    let size = blocks.checked_mul(block)?;
    fs::read_dir(sys).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        let is_it = number(&path.join("partition")) == Some(partition.number.into())
            && number(&path.join("start")) == Some(first)
            && number(&path.join("size")) == Some(size / SECTOR);
        let name = entry.file_name().into_string().ok()?;
        let path = node(&name);
        is_it.then_some(Device { path, size })
    })
}

/// The file of a device; the kernel writes a slash of its name as an exclamation mark.
fn node(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
