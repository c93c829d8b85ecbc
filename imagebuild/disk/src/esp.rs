//! The EFI system partition: a boot loader and the image's program.
//!
//! It refuses configuration files: systemd-boot finds what is in `EFI/Linux` by itself.

use std::collections::BTreeMap;

use image_manifest::Digest;

use crate::{Extents, Piece, Source, fat};

/// What an ESP holds.
#[derive(Clone, Copy, Debug)]
pub struct Esp<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// The tree that the image is of.
    pub tree: &'a Digest,
    /// Size of the boot loader.
    pub boot: u64,
    /// Size of the image's program.
    pub uki: u64,
    /// Size of the partition.
    pub size: u64,
    /// Where it starts on the disk.
    pub at: u64,
    /// Time of all files, in seconds since 1970.
    pub time: i64,
}

/// UEFI's name of an architecture, as it stands in file names.
#[must_use]
pub fn firmware_name(architecture: &str) -> Option<&'static str> {
    match architecture {
        "amd64" => Some("x64"),
        "arm64" => Some("aa64"),
        _ => None,
    }
}

/// Where firmware looks for a loader, and where the loader looks for the image's program.
#[must_use]
pub fn paths(name: &str, architecture: &str) -> Option<[String; 2]> {
    let loader = firmware_name(architecture)?.to_uppercase();
    Some([
        format!("EFI/BOOT/BOOT{loader}.EFI"),
        format!("EFI/Linux/{name}.efi"),
    ])
}

/// Lays the partition out; `None` when it is too small or of an architecture without a name.
#[must_use]
pub fn compose(esp: &Esp<'_>) -> Option<Extents> {
    let [boot, uki] = paths(esp.name, esp.architecture)?;
    let files = BTreeMap::from([
        (boot, (esp.boot, Source::Piece(Piece::Boot, 0))),
        (uki, (esp.uki, Source::Piece(Piece::Uki, 0))),
    ]);
    let mut serial = [0; 4];
    serial.copy_from_slice(&esp.tree.as_bytes()[..4]);
    let settings = fat::Settings {
        size: esp.size,
        at: esp.at,
        serial: u32::from_le_bytes(serial),
        time: esp.time,
    };
    fat::compose(&files, &settings)
}
