//! The plan of a disk: partitions, and where each of their bytes comes from.
//!
//! It refuses to look at bytes: sizes and digests are enough. Two images with equal pieces, names
//! and sizes are one disk.
//!
//! ```text
//! esp            systemd-boot and the image's program
//! root-a         the root file system, byte for byte      PARTUUID: first half of the root hash
//! root-a-verity  its hash tree                            PARTUUID: second half
//! root-b         room for the next one
//! root-b-verity  room for its hash tree
//! data           grows to the end of the disk on first boot
//! ```

use image_manifest::{Digest, Disk};

use crate::esp::{self, Esp};
use crate::gpt::{self, Partition, kind};
use crate::{Extents, Guid, MIB, Piece, Source, verity};

/// What the whole disk is a multiple of, as Google's cloud wants it.
const GIB: u64 = 1 << 30;
/// Room of each file system's start that must be zero, so that nothing takes noise for one.
const PROBED: u64 = MIB;
const ESP: u64 = 256 * MIB;
const SLOT: u64 = 256 * MIB;
const DATA: u64 = 64 * MIB;
/// What slots that nobody sized are a multiple of.
const STEP: u64 = 64 * MIB;

/// Sizes that a definition asks for, in bytes; each has a default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The EFI system partition: 256 MiB.
    pub esp: Option<u64>,
    /// Each slot: twice the root file system, at least 256 MiB.
    pub slot: Option<u64>,
    /// The data partition, at least: 64 MiB. What is left of the disk is its too.
    pub data: Option<u64>,
}

/// What a disk is composed of.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// The tree that the image is of.
    pub tree: &'a Digest,
    /// Time of all files, in seconds since 1970.
    pub source_date: i64,
    /// Sizes of the partitions, and the root hash.
    pub disk: &'a Disk,
    /// Sizes of the pieces.
    pub pieces: PieceSizes,
}

/// Sizes of the pieces of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceSizes {
    /// The boot loader.
    pub boot: u64,
    /// Kernel, initrd and command line.
    pub uki: u64,
    /// The root file system.
    pub rootfs: u64,
}

/// A disk that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A partition is too small.
    #[error("partition `{partition}` of {size} bytes is too small: it needs {needed}")]
    TooSmall {
        /// Which one.
        partition: &'static str,
        /// Its size.
        size: u64,
        /// What it needs at least.
        needed: u64,
    },
    /// UEFI has no name for the architecture.
    #[error("no disk is made for architecture `{0}`")]
    Architecture(String),
    /// Sizes do not add up to a disk.
    #[error("the sizes of the partitions do not add up to those of the disk")]
    Sizes,
}

/// A disk: its partitions, and where each of its bytes comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlan {
    /// GUID of the disk.
    pub guid: Guid,
    /// Its partitions, in order.
    pub partitions: Vec<Partition>,
    /// Every byte of it.
    pub extents: Extents,
}

/// Sizes a disk: what is asked for, and defaults for the rest.
///
/// # Errors
/// When something does not fit into the size that was asked for.
pub fn size_disk(sizes: Sizes, pieces: &PieceSizes, root_hash: Digest) -> Result<Disk, PlanError> {
    let asked = |size: Option<u64>, default: u64| match size {
        Some(size) => size.checked_next_multiple_of(MIB).unwrap_or(u64::MAX),
        None => default,
    };
    let wanted = (2 * pieces.rootfs).next_multiple_of(STEP).max(SLOT);
    let (esp, slot, data) = (
        asked(sizes.esp, ESP),
        asked(sizes.slot, wanted),
        asked(sizes.data, DATA),
    );
    let fits = |partition, size, needed| {
        let error = PlanError::TooSmall {
            partition,
            size,
            needed,
        };
        if size < needed { Err(error) } else { Ok(()) }
    };
    // Two programs, since the next image brings its own before this one's is gone.
    let needed = 2 * (pieces.boot + pieces.uki) + 4 * MIB;
    fits("esp", esp, needed.max(34 * MIB))?;
    fits("root-a", slot, pieces.rootfs)?;
    fits("data", data, 2 * PROBED)?;
    // What is larger than this is a mistake, and sums stay far from overflowing.
    if [esp, slot, data].iter().any(|size| *size > 1 << 50) {
        return Err(PlanError::Sizes);
    }
    let hashes = verity::size(slot).next_multiple_of(MIB);
    let used = 2 * MIB + esp + 2 * (slot + hashes);
    let size = (used + data).next_multiple_of(GIB);
    Ok(Disk {
        root_hash,
        size,
        esp,
        slot,
        hashes,
        data: size - used,
    })
}

impl DiskPlan {
    /// Plans a disk.
    ///
    /// # Errors
    /// When the pieces do not fit, or the sizes contradict each other.
    pub fn new(request: &Request<'_>) -> Result<Self, PlanError> {
        let Disk {
            root_hash: _,
            size,
            esp,
            slot,
            hashes,
            data,
        } = *request.disk;
        let parts = [MIB, esp, slot, hashes, slot, hashes, data, MIB];
        let sum = parts
            .iter()
            .try_fold(0u64, |sum, part| sum.checked_add(*part));
        let whole = parts.iter().all(|part| part.is_multiple_of(MIB));
        if sum != Some(size) || !whole || size > 1 << 62 {
            return Err(PlanError::Sizes);
        }
        let partitions = partitions(request)?;
        let guid = Guid::of(request.tree, "disk");
        let tables = gpt::encode(guid, size, &partitions);
        let mut extents = Extents::default();
        extents.push_bytes("protective MBR", tables.mbr);
        extents.push_bytes("GPT header", tables.primary_header);
        extents.push_bytes("GPT entries", tables.entries.clone());
        extents.fill("gap after the GPT", MIB, Source::Zero);
        fill_partitions(&mut extents, request)?;
        extents.fill(
            "gap before the backup GPT",
            gpt::backup_at(size),
            Source::Zero,
        );
        extents.push_bytes("backup GPT entries", tables.entries);
        extents.push_bytes("backup GPT header", tables.backup_header);
        Ok(Self {
            guid,
            partitions,
            extents,
        })
    }

    /// Finds a partition by name.
    #[must_use]
    pub fn partition(&self, name: &str) -> Option<&Partition> {
        self.partitions
            .iter()
            .find(|partition| partition.name == name)
    }
}

fn partitions(request: &Request<'_>) -> Result<Vec<Partition>, PlanError> {
    let architecture = request.architecture;
    let types = kind::root(architecture);
    let unknown = || PlanError::Architecture(architecture.to_owned());
    let [root, hash] = types.ok_or_else(unknown)?;
    let [root_a, hash_a] = Guid::halves(&request.disk.root_hash);
    let own = |name| Guid::of(request.tree, name);
    let disk = request.disk;
    let table = [
        ("esp", kind::ESP, own("esp"), disk.esp, 0),
        ("root-a", root, root_a, disk.slot, gpt::READ_ONLY),
        ("root-a-verity", hash, hash_a, disk.hashes, gpt::READ_ONLY),
        ("root-b", root, own("root-b"), disk.slot, gpt::NO_AUTO),
        (
            "root-b-verity",
            hash,
            own("root-b-verity"),
            disk.hashes,
            gpt::NO_AUTO,
        ),
        ("data", kind::VAR, own("data"), disk.data, 0),
    ];
    let mut at = MIB;
    let partitions = table.map(|(name, kind, guid, size, attributes)| {
        let start = at;
        at += size;
        Partition {
            kind,
            guid,
            at: start,
            size,
            attributes,
            name: name.to_owned(),
        }
    });
    Ok(partitions.into())
}

fn fill_partitions(extents: &mut Extents, request: &Request<'_>) -> Result<(), PlanError> {
    let (disk, pieces) = (request.disk, request.pieces);
    let esp = esp::compose(&Esp {
        name: request.name,
        architecture: request.architecture,
        tree: request.tree,
        boot: pieces.boot,
        uki: pieces.uki,
        size: disk.esp,
        at: extents.size(),
        time: request.source_date,
    });
    let too_small = |partition, size, needed| PlanError::TooSmall {
        partition,
        size,
        needed,
    };
    let needed = pieces.boot + pieces.uki;
    extents.append("esp", &esp.ok_or(too_small("esp", disk.esp, needed))?);
    let slots = [
        ("root-a", Piece::Rootfs, pieces.rootfs, disk.slot),
        (
            "root-a-verity",
            Piece::Verity,
            verity::size(pieces.rootfs),
            disk.hashes,
        ),
    ];
    for (name, piece, size, room) in slots {
        if size > room {
            return Err(too_small(name, room, size));
        }
        let end = extents.size() + room;
        extents.push(&name.into(), size, Source::Piece(piece, 0));
        // Zero and not only unwritten, so that the slot is the same on every disk.
        extents.fill(&format!("end of {name}"), end, Source::Zero);
    }
    let free = [
        ("root-b", disk.slot),
        ("root-b-verity", disk.hashes),
        ("data", disk.data),
    ];
    for (name, size) in free {
        let end = extents.size() + size;
        extents.push(&name.into(), PROBED.min(size), Source::Zero);
        extents.fill(name, end, Source::Unwritten);
    }
    Ok(())
}
