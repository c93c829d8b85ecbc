//! qcow2, version 3: a disk without the clusters that are zero.
//!
//! It refuses to read what it would have to guess at: backing files, encryption, compressed clusters,
//! features that it does not know. It never looks at data to decide what is allocated.

use std::io;
use std::sync::Mutex;

use crate::{Extents, ReadAt, Source};

/// Size of a cluster that is written.
const CLUSTER: u64 = CLUSTER_BYTES as u64;
const CLUSTER_BYTES: usize = 64 << 10;
const HEADER: u32 = 104;
/// Reference counts in a cluster, of two bytes each.
const COUNTS: u64 = CLUSTER / 2;
/// Entries of a table in a cluster.
const ENTRIES: u64 = GROUP as u64;
/// As many clusters of the disk, which one second table tells of.
const GROUP: usize = CLUSTER_BYTES / 8;
/// The cluster is used once.
const COPIED: u64 = 1 << 63;
/// What an offset in a table is made of.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Largest first table that is read: enough for 128 TiB of clusters of 64 KiB.
const L1_LIMIT: u64 = 2 << 20;

/// A qcow2 file that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("failed to read the qcow2 file")]
    Read(#[source] io::Error),
    /// It is none, or damaged, or uses something that is not known here.
    #[error("the qcow2 file is malformed: {0}")]
    Malformed(&'static str),
}

/// Which clusters of the disk hold data.
fn allocated(disk: &Extents) -> Vec<bool> {
    let count = disk.size().div_ceil(CLUSTER);
    let mut allocated = vec![false; usize::try_from(count).unwrap_or(usize::MAX)];
    for extent in disk.list() {
        if matches!(extent.source, Source::Bytes(..) | Source::Piece(..)) {
            let last = (extent.at + extent.size - 1) / CLUSTER;
            for cluster in extent.at / CLUSTER..=last {
                allocated[usize::try_from(cluster).unwrap_or(usize::MAX)] = true;
            }
        }
    }
    allocated
}

/// Where everything stands, in clusters.
struct Plan {
    counts: u64,
    count_tables: u64,
    first: u64,
    second: u64,
    data: u64,
}

impl Plan {
    fn of(allocated: &[bool]) -> Self {
        let data = allocated.iter().filter(|used| **used).count() as u64;
        let groups = allocated.chunks(GROUP);
        let second = groups.filter(|group| group.contains(&true)).count() as u64;
        let first = (allocated.len() as u64).div_ceil(ENTRIES).div_ceil(ENTRIES);
        let mut plan = Self {
            counts: 1,
            count_tables: 1,
            first,
            second,
            data,
        };
        // Counts count themselves.
        while plan.counts * COUNTS < plan.total() || plan.count_tables * ENTRIES < plan.counts {
            plan.counts = plan.total().div_ceil(COUNTS).max(plan.counts);
            plan.count_tables = plan.counts.div_ceil(ENTRIES);
        }
        plan
    }

    fn total(&self) -> u64 {
        1 + self.count_tables + self.counts + self.first + self.second + self.data
    }

    fn first_at(&self) -> u64 {
        (1 + self.count_tables + self.counts) * CLUSTER
    }

    fn second_at(&self) -> u64 {
        self.first_at() + self.first * CLUSTER
    }

    fn data_at(&self) -> u64 {
        self.second_at() + self.second * CLUSTER
    }
}

/// Composes the qcow2 file of a disk.
#[must_use]
pub fn compose(disk: &Extents) -> Extents {
    let allocated = allocated(disk);
    let plan = Plan::of(&allocated);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut next = plan.data_at();
    for group in allocated.chunks(GROUP) {
        if !group.contains(&true) {
            first.extend(0u64.to_be_bytes());
            continue;
        }
        let at = plan.second_at() + second.len() as u64;
        first.extend((at | COPIED).to_be_bytes());
        for used in group {
            second.extend(if *used { next | COPIED } else { 0 }.to_be_bytes());
            next += if *used { CLUSTER } else { 0 };
        }
        pad(&mut second);
    }
    let entries = allocated.len().div_ceil(GROUP);
    pad(&mut first);
    let mut count_table = Vec::new();
    for index in 0..plan.counts {
        let at = (1 + plan.count_tables + index) * CLUSTER;
        count_table.extend(at.to_be_bytes());
    }
    pad(&mut count_table);
    let mut counts = Vec::new();
    for _ in 0..plan.total() {
        counts.extend(1u16.to_be_bytes());
    }
    pad(&mut counts);

    let mut file = Extents::default();
    file.push_bytes("qcow2 header", header(disk.size(), entries, &plan));
    file.push_bytes("qcow2 table of reference counts", count_table);
    file.push_bytes("qcow2 reference counts", counts);
    file.push_bytes("qcow2 first table", first);
    file.push_bytes("qcow2 second tables", second);
    for (index, _) in allocated.iter().enumerate().filter(|(_, used)| **used) {
        let from = index as u64 * CLUSTER;
        let until = (from + CLUSTER).min(disk.size());
        for part in disk.within(from, until) {
            file.push(&part.region, part.size, part.source);
        }
        let end = file.size().next_multiple_of(CLUSTER);
        file.fill("qcow2 end of the last cluster", end, Source::Zero);
    }
    file
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(CLUSTER_BYTES), 0);
}

fn header(size: u64, entries: usize, plan: &Plan) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(b"QFI\xfb");
    header.extend(3u32.to_be_bytes());
    // No backing file.
    header.extend([0; 12]);
    header.extend(16u32.to_be_bytes());
    header.extend(size.to_be_bytes());
    // Not encrypted.
    header.extend([0; 4]);
    header.extend(u32::try_from(entries).unwrap_or(u32::MAX).to_be_bytes());
    header.extend(plan.first_at().to_be_bytes());
    header.extend(CLUSTER.to_be_bytes());
    let tables = u32::try_from(plan.count_tables).unwrap_or(u32::MAX);
    header.extend(tables.to_be_bytes());
    // No snapshots, no features.
    header.extend([0; 12 + 24]);
    // Counts of 16 bits.
    header.extend(4u32.to_be_bytes());
    header.extend(HEADER.to_be_bytes());
    pad(&mut header);
    header
}

/// The disk in a qcow2 file.
pub struct Disk<'a> {
    file: &'a dyn ReadAt,
    size: u64,
    cluster: u64,
    first: Vec<u64>,
    /// The second table that was read last.
    recent: Mutex<Option<(u64, Vec<u8>)>>,
}

impl std::fmt::Debug for Disk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "qcow2::Disk({})", self.size)
    }
}

/// Opens a qcow2 file; in memory are its first table and one second table.
///
/// # Errors
/// When it is none, damaged, or uses what is not known here.
pub fn open(file: &dyn ReadAt) -> Result<Disk<'_>, Error> {
    let mut header = [0; HEADER as usize];
    file.read_exact_at(0, &mut header).map_err(Error::Read)?;
    let number = |at: usize, width: usize| {
        let digits = header[at..at + width].iter();
        digits.fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let bits = number(20, 4);
    let reason = if &header[..4] != b"QFI\xfb" {
        "it has no signature"
    } else if number(4, 4) != 3 {
        "it is not of version 3"
    } else if number(8, 8) != 0 {
        "it has a backing file"
    } else if number(32, 4) != 0 {
        "it is encrypted"
    } else if number(72, 8) != 0 {
        "it uses features that are not known here"
    } else if !(9..=21).contains(&bits) {
        "its clusters are of a size that does not exist"
    } else if number(36, 4) > L1_LIMIT {
        "its first table is too large"
    } else {
        ""
    };
    if !reason.is_empty() {
        return Err(Error::Malformed(reason));
    }
    let (size, cluster, count) = (number(24, 8), 1 << bits, number(36, 4));
    if size.div_ceil(cluster).div_ceil(cluster / 8) > count {
        return Err(Error::Malformed("its first table is too small"));
    }
    let mut first = vec![0; usize::try_from(8 * count).unwrap_or(usize::MAX)];
    file.read_exact_at(number(40, 8), &mut first)
        .map_err(Error::Read)?;
    Ok(Disk {
        file,
        size,
        cluster,
        first: first.chunks_exact(8).map(double).collect(),
        recent: Mutex::new(None),
    })
}

fn double(bytes: &[u8]) -> u64 {
    let digits = bytes.iter();
    digits.fold(0u64, |number, byte| number << 8 | u64::from(*byte))
}

impl Disk<'_> {
    /// Where a cluster of the disk stands in the file, if it is there.
    fn place(&self, cluster: u64) -> io::Result<Option<u64>> {
        let malformed = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
        let entries = self.cluster / 8;
        let first = usize::try_from(cluster / entries).ok();
        let first = first.and_then(|index| self.first.get(index));
        let at = first.ok_or_else(|| malformed("the qcow2 file has no such cluster"))? & OFFSET;
        if at == 0 {
            return Ok(None);
        }
        let recent = self.recent.lock();
        let mut recent = recent.unwrap_or_else(std::sync::PoisonError::into_inner);
        if recent.as_ref().is_none_or(|(known, _)| *known != at) {
            let mut table = vec![0; usize::try_from(self.cluster).unwrap_or(usize::MAX)];
            self.file.read_exact_at(at, &mut table)?;
            *recent = Some((at, table));
        }
        let index = usize::try_from(8 * (cluster % entries)).unwrap_or(usize::MAX);
        let entry = recent
            .as_ref()
            .and_then(|(_, table)| table.get(index..index + 8))
            .map_or(0, double);
        if entry & 1 << 62 != 0 {
            return Err(malformed("the qcow2 file has compressed clusters"));
        }
        let is_zero = entry & 1 == 1 || entry & OFFSET == 0;
        Ok((!is_zero).then_some(entry & OFFSET))
    }
}

impl ReadAt for Disk<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut at, mut rest) = (at, buffer);
        while !rest.is_empty() {
            let skip = at % self.cluster;
            let length = crate::extent::chunk(self.cluster - skip, rest.len());
            let (here, after) = rest.split_at_mut(length);
            match self.place(at / self.cluster)? {
                None => here.fill(0),
                Some(place) => self.file.read_exact_at(place + skip, here)?,
            }
            (at, rest) = (at + length as u64, after);
        }
        Ok(())
    }
}
