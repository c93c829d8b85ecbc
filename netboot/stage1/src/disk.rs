//! The way into an image on a disk: find its partitions, check every block of its root, hand over.
//!
//! What is trusted is the root hash on the command line alone, which the firmware checks where Secure Boot is on.
//! Nothing is mounted of which one block is not what it was when the image was built.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::backoff::Backoff;
use crate::coldplug::Coldplug;
use crate::console;
use crate::devicemapper::Mapped;
use crate::disks::{self, Device, Found, Seen};
use crate::memory::mebibytes;
use crate::rootfs;
use crate::verity::{OnDamage, RootHash, SUPERBLOCK, Superblock, Unusable};

/// What stage1 itself needs; the disks' drivers are found by modalias.
pub(crate) const NEEDED: [&str; 4] = ["dm_mod", "dm_verity", "squashfs", "overlay"];
/// Controllers with many disks, and disks of a network, take their time.
const PATIENCE: Duration = Duration::from_mins(2);
/// The longest pause between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// What is read at once; the kernel reads ahead of it.
const PIECE: usize = 1 << 20;
/// What the device is called on the running host.
const NAME: &str = "root";
/// Where the running host finds its disk, and the partition for what it keeps.
const DISK: &str = "/run/firstboot/disk";
const DATA: &str = "/run/firstboot/data";

/// Why a disk is not booted from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no disk has the image with the root hash {hash} ({seen})")]
    NotFound { hash: RootHash, seen: Seen },
    #[error("failed to read `{path}`")]
    Read { path: String, source: io::Error },
    #[error("the hash tree on `{path}` cannot be used")]
    Hashes { path: String, source: Unusable },
    #[error("failed to set dm-verity up")]
    Verity(#[source] io::Error),
    #[error(
        "the root file system on `{path}` is NOT the one that was built: the block at byte {at} does not lead to the root hash {hash}"
    )]
    Damaged {
        path: String,
        at: u64,
        hash: RootHash,
    },
    #[error(transparent)]
    Root(#[from] rootfs::Error),
    #[error("failed to say which partition keeps data")]
    Tell(#[source] io::Error),
}

/// Makes the image with this root hash the new root.
pub(crate) fn assemble(hash: &RootHash, coldplug: &mut Coldplug) -> Result<(), Error> {
    let found = search(hash, coldplug)?;
    let disk = found.disk.display();
    console::info(&format!("the image is on {disk}, root hash {hash}"));
    coldplug.named(&NEEDED);
    let superblock = superblock(&found.hashes)?;
    let covered = superblock
        .covered(found.root.size)
        .map_err(|source| Error::Hashes {
            path: show(&found.hashes.path),
            source,
        })?;
    let mapped = Mapped::create(NAME, &superblock.device_uuid(NAME)).map_err(Error::Verity)?;
    let map = |damage| {
        let (root, hashes) = (show(&found.root.path), show(&found.hashes.path));
        let table = superblock.table(&root, &hashes, hash, damage);
        let mapped = mapped.map(covered / 512, "verity", &table);
        mapped.map_err(Error::Verity)
    };
    map(OnDamage::Fail)?;
    // Open until it is mounted, so that what was read stays in memory.
    let device = File::open(&mapped.path).map_err(Error::Verity)?;
    check(&device, &found.root, hash, covered)?;
    map(OnDamage::Panic)?;
    rootfs::assemble_on(&mapped.path)?;
    drop(device);
    tell(&found).map_err(Error::Tell)
}

/// Looks until the disk is there or the time is over; drivers load meanwhile.
fn search(hash: &RootHash, coldplug: &mut Coldplug) -> Result<Found, Error> {
    let started = Instant::now();
    let mut backoff = Backoff::new(LOOK);
    let mut told = false;
    loop {
        coldplug.devices();
        match disks::search(Path::new(disks::SYSTEM), hash) {
            Ok(found) => return Ok(found),
            Err(seen) if started.elapsed() > PATIENCE => {
                return Err(Error::NotFound { hash: *hash, seen });
            }
            Err(seen) if !told && started.elapsed() > Duration::from_secs(10) => {
                console::warn(&format!("no disk with this image yet ({seen})"));
                told = true;
            }
            Err(_) => {}
        }
        thread::sleep(backoff.pause());
    }
}

fn superblock(hashes: &Device) -> Result<Superblock, Error> {
    let path = || show(&hashes.path);
    let mut bytes = [0; SUPERBLOCK];
    File::open(&hashes.path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| Error::Read {
            path: path(),
            source,
        })?;
    Superblock::decode(&bytes).map_err(|source| Error::Hashes {
        path: path(),
        source,
    })
}

/// Reads all of the root through the kernel's checks. It costs what a boot from the network costs to hash, a boot
/// reads half of it anyway, and a changed byte is refused before anything of the image runs.
fn check(device: &File, root: &Device, hash: &RootHash, length: u64) -> Result<(), Error> {
    let started = Instant::now();
    // Only advice: without it reading is slower.
    let advice = PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL;
    posix_fadvise(device.as_fd(), 0, 0, advice).ok();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let take = usize::try_from(length - at).map_or(PIECE, |left| left.min(PIECE));
        if device.read_exact_at(&mut piece[..take], at).is_err() {
            return Err(blame(device, root, hash, at));
        }
        at += take as u64;
    }
    let elapsed_ms = started.elapsed().as_millis();
    console::info(&format!(
        "root file system of {} MiB checked in {elapsed_ms} ms",
        mebibytes(length)
    ));
    Ok(())
}

/// Finds the block that cannot be read, and whether the disk or its content is to blame.
fn blame(device: &File, root: &Device, hash: &RootHash, from: u64) -> Error {
    let mut block = [0; 4096];
    let blocks = (from..).step_by(block.len()).take(PIECE / block.len());
    let at = blocks
        .into_iter()
        .find(|at| device.read_exact_at(&mut block, *at).is_err())
        .unwrap_or(from);
    let path = show(&root.path);
    match File::open(&root.path).and_then(|raw| raw.read_exact_at(&mut block, at)) {
        Ok(()) => Error::Damaged {
            path,
            at,
            hash: *hash,
        },
        Err(source) => Error::Read { path, source },
    }
}

/// Leaves behind where units of the image find the disk and the partition that they grow.
fn tell(found: &Found) -> io::Result<()> {
    symlink(&found.disk, DISK)?;
    match &found.data {
        Some(data) => symlink(&data.path, DATA),
        None => Ok(()),
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
