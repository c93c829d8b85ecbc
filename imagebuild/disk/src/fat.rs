//! FAT32: a file system of a few files, laid out once and never changed.
//!
//! It refuses to be small enough for FAT16: some firmware takes nothing but FAT32 for an ESP.

mod names;

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::{Extents, SECTOR, Source};
use names::{DirectoryEntry, Kind};

/// Below this many clusters it would be FAT16 (Microsoft's FAT specification, §3.5).
const LEAST_CLUSTERS: u64 = 65525;
/// Sectors before the first table, at least.
const RESERVED: u64 = 32;
const ROOT_CLUSTER: u32 = 2;
const END: u32 = 0x0fff_ffff;

/// What a file system is made of, beside its files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Size of the partition.
    pub(crate) size: u64,
    /// Where it starts on the disk.
    pub(crate) at: u64,
    /// Number of the volume.
    pub(crate) serial: u32,
    /// Time of all files, in seconds since 1970.
    pub(crate) time: i64,
}

/// A file: its size, and where its bytes come from.
pub(crate) type File = (u64, Source);

/// How the sectors are divided.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    /// Sectors of a cluster.
    cluster: u64,
    reserved: u64,
    /// Sectors of each of the two tables.
    table: u64,
    clusters: u64,
}

impl Geometry {
    /// The largest clusters of up to 4 KiB that still make it FAT32.
    fn of(size: u64) -> Option<Self> {
        let sectors = size / SECTOR;
        [8, 4, 2, 1].into_iter().find_map(|cluster| {
            // One sector of a table counts 128 clusters; the first two numbers are not clusters.
            let table = sectors.checked_sub(RESERVED)? + 2 * cluster;
            let table = table.div_ceil(128 * cluster + 2);
            // Clusters start on a whole 4 KiB.
            let reserved = (RESERVED + 2 * table).next_multiple_of(8) - 2 * table;
            let clusters = sectors.checked_sub(reserved + 2 * table)? / cluster;
            (clusters >= LEAST_CLUSTERS).then_some(Self {
                cluster,
                reserved,
                table,
                clusters,
            })
        })
    }

    fn bytes(&self) -> u64 {
        self.cluster * SECTOR
    }
}

/// Directories by path, each with the names in it; files by path.
struct Names<'a> {
    directories: BTreeMap<&'a str, Vec<&'a str>>,
    files: &'a BTreeMap<String, File>,
}

impl<'a> Names<'a> {
    fn of(files: &'a BTreeMap<String, File>) -> Self {
        let mut directories: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        directories.entry("").or_default();
        for mut path in files.keys().map(String::as_str) {
            loop {
                let (parent, _) = path.rsplit_once('/').unwrap_or(("", path));
                let names = directories.entry(parent).or_default();
                if names.contains(&path) {
                    break;
                }
                names.push(path);
                if parent.is_empty() {
                    break;
                }
                path = parent;
            }
        }
        for names in directories.values_mut() {
            names.sort_unstable();
        }
        Self { directories, files }
    }
}

/// Lays a file system out; `None` when it is too small for FAT32 or for its files.
pub(crate) fn compose(files: &BTreeMap<String, File>, settings: &Settings) -> Option<Extents> {
    let geometry = Geometry::of(settings.size)?;
    let names = Names::of(files);
    let stamp = stamp(settings.time);
    let mut chain = Vec::new();
    let mut take = |bytes: u64| {
        let first = ROOT_CLUSTER + u32::try_from(chain.len()).ok()?;
        let count = bytes.div_ceil(geometry.bytes()).max(1);
        let more = u32::try_from(count).ok()?;
        (chain.len() as u64 + count <= geometry.clusters).then(|| {
            chain.extend((first + 1..first + more).chain([END]));
            first
        })
    };
    // Directories first, the root before all.
    let mut places = BTreeMap::new();
    for (path, children) in &names.directories {
        let size = names::directory_size(path, children);
        places.insert(*path, take(size)?);
    }
    for (path, (size, _)) in names.files {
        places.insert(path.as_str(), take(*size)?);
    }
    let mut extents = Extents::default();
    let free = geometry.clusters - chain.len() as u64;
    let next = ROOT_CLUSTER + u32::try_from(chain.len()).ok()?;
    let head = reserved_sectors(&geometry, settings, free, next);
    extents.push_bytes("FAT boot sectors", head);
    for copy in ["first FAT", "second FAT"] {
        let mut table = Vec::with_capacity(8 + 4 * chain.len());
        let entries = [0x0fff_fff8, END].iter().chain(&chain);
        entries.for_each(|entry| table.extend(entry.to_le_bytes()));
        let end = extents.size() + geometry.table * SECTOR;
        extents.push_bytes(copy, table);
        extents.fill(copy, end, Source::Zero);
    }
    for (path, children) in &names.directories {
        let bytes = directory(path, children, &names, &places, stamp);
        let region = format!("directory /{path}");
        extents.push_bytes(&region, bytes);
        pad(&mut extents, &region, &geometry);
    }
    for (path, (size, source)) in names.files {
        extents.push(&path.as_str().into(), *size, source.clone());
        pad(&mut extents, path, &geometry);
    }
    extents.fill("free clusters", settings.size, Source::Unwritten);
    Some(extents)
}

/// Fills the last cluster.
fn pad(extents: &mut Extents, region: &str, geometry: &Geometry) {
    let data = (geometry.reserved + 2 * geometry.table) * SECTOR;
    let used = extents.size() - data;
    let end = data + used.next_multiple_of(geometry.bytes());
    extents.fill(&format!("end of {region}"), end, Source::Zero);
}

fn directory(
    path: &str,
    children: &[&str],
    names: &Names<'_>,
    places: &BTreeMap<&str, u32>,
    stamp: [u8; 4],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |name: [u8; 11], kind, first, size| {
        bytes.extend(
            DirectoryEntry {
                name,
                kind,
                first,
                size,
                stamp,
            }
            .encode(),
        );
    };
    if path.is_empty() {
        push(*names::LABEL, Kind::Label, 0, 0);
    } else {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        push(*b".          ", Kind::Directory, places[path], 0);
        // The root is number 0 to its children, whichever it is.
        let above = if parent.is_empty() { 0 } else { places[parent] };
        push(*b"..         ", Kind::Directory, above, 0);
    }
    for (short, child) in names::short_names(children) {
        let name = names::last(child);
        bytes.extend(names::long_entries(name, &short));
        let (kind, size) = match names.files.get(child) {
            Some((size, _)) => (Kind::File, u32::try_from(*size).unwrap_or(u32::MAX)),
            None => (Kind::Directory, 0),
        };
        let entry = DirectoryEntry {
            name: short,
            kind,
            first: places[child],
            size,
            stamp,
        };
        bytes.extend(entry.encode());
    }
    bytes
}

/// The sectors before the tables: boot sector and free space, both twice.
fn reserved_sectors(geometry: &Geometry, settings: &Settings, free: u64, next: u32) -> Vec<u8> {
    let word = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut boot = Vec::with_capacity(512);
    boot.extend(b"\xeb\x58\x90FIRSTBT ");
    boot.extend(512u16.to_le_bytes());
    boot.push(u8::try_from(geometry.cluster).unwrap_or(u8::MAX));
    boot.extend(&word(geometry.reserved)[..2]);
    boot.push(2);
    // No root directory of fixed size, no 16-bit counts; a fixed disk of 255 heads and 63 sectors.
    boot.extend([0, 0, 0, 0, 0xf8, 0, 0, 63, 0, 255, 0]);
    boot.extend(word(settings.at / SECTOR));
    boot.extend(word(settings.size / SECTOR));
    boot.extend(word(geometry.table));
    boot.extend([0, 0, 0, 0]);
    boot.extend(ROOT_CLUSTER.to_le_bytes());
    // Free space in sector 1, the copies from sector 6 on.
    boot.extend([1, 0, 6, 0]);
    boot.extend([0; 12]);
    boot.extend([0x80, 0, 0x29]);
    boot.extend(settings.serial.to_le_bytes());
    boot.extend(names::LABEL);
    boot.extend(b"FAT32   ");
    // Booted as a program, it halts.
    boot.extend([0xf4, 0xeb, 0xfd]);
    boot.resize(510, 0);
    boot.extend([0x55, 0xaa]);

    let mut space = Vec::with_capacity(512);
    space.extend(b"RRaA");
    space.resize(484, 0);
    space.extend(b"rrAa");
    space.extend(word(free));
    space.extend(next.to_le_bytes());
    space.resize(508, 0);
    space.extend([0, 0, 0x55, 0xaa]);

    let mut third = vec![0; 512];
    third[508..].copy_from_slice(&[0, 0, 0x55, 0xaa]);
    let mut sectors = Vec::new();
    for _ in 0..2 {
        sectors.extend(boot.iter().chain(&space).chain(&third));
        sectors.resize(sectors.len().next_multiple_of(6 * 512), 0);
    }
    sectors.resize(
        usize::try_from(geometry.reserved * SECTOR).unwrap_or(usize::MAX),
        0,
    );
    sectors
}

/// Time and date of a moment, in UTC, as directories have them.
fn stamp(time: i64) -> [u8; 4] {
    // The format's clock starts in 1980.
    let time = time.max(315_532_800);
    let time = OffsetDateTime::from_unix_timestamp(time).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second) = time.to_hms();
    let clock = u16::from(hour) << 11 | u16::from(minute) << 5 | (u16::from(second) / 2);
    let year = u16::try_from(time.year() - 1980).unwrap_or(0).min(127);
    let day = year << 9 | u16::from(u8::from(time.month())) << 5 | u16::from(time.day());
    let ([a, b], [c, d]) = (clock.to_le_bytes(), day.to_le_bytes());
    [a, b, c, d]
}
