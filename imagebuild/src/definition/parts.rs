//! What a definition may ask for beside packages and files: plain values, checked elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use image_manifest::FormKind;

/// A directory of the image's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Path in the image, without leading slash.
    pub path: String,
    /// Permission bits; where none are given, one that is there already stays as it is, owner and all.
    pub mode: Option<u32>,
    /// Owner: a name of the image's `passwd`, or a number.
    pub user: String,
    /// Group: a name of the image's `group`, or a number.
    pub group: String,
}

/// A group of the image's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
    /// Users that belong to it, beside those that say so themselves.
    pub members: Vec<String>,
}

/// A user of the image's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name of the user, and of its group unless another is named.
    pub name: String,
    /// Number of the user, and of its own group.
    pub uid: u32,
    /// What it is for.
    pub kind: UserKind,
    /// The group that it belongs to first; one of its own name and number when none is named.
    pub group: Option<String>,
    /// Who it is, for people.
    pub comment: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// More groups that it belongs to.
    pub groups: Vec<String>,
    /// Public keys that may log in as it, each one line of `authorized_keys`.
    pub ssh_keys: Vec<String>,
}

/// What a user is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserKind {
    /// A person, or what acts for one.
    Regular,
    /// A service: no home directory unless one is asked for, a number below 1000.
    System,
}

impl UserKind {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::System => "system",
        }
    }
}

/// The image's locales.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locale {
    /// What programs use where nothing else is said.
    pub default: Option<String>,
    /// Locales to make beside `C.UTF-8`, which every image has; sorted.
    pub generate: BTreeSet<String>,
}

/// A form that an image is to come in, beside what boots from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Output {
    /// The disk, byte for byte.
    Raw,
    /// The disk in QEMU's format.
    Qcow2,
    /// The disk as a fixed VHD.
    Vhd,
    /// The disk in Google's archive.
    Gce,
    /// The container image.
    Oci,
}

impl Output {
    /// The form of the disk that it is.
    #[must_use]
    pub fn form(self) -> Option<FormKind> {
        match self {
            Self::Raw => Some(FormKind::Raw),
            Self::Qcow2 => Some(FormKind::Qcow2),
            Self::Vhd => Some(FormKind::Vhd),
            Self::Gce => Some(FormKind::Gce),
            Self::Oci => None,
        }
    }

    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Qcow2, Self::Vhd, Self::Gce, Self::Oci];

    /// The word for it in a definition.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Gce => "gce",
            Self::Oci => "oci",
        }
    }
}

/// Sizes of a disk in bytes, where the definition gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSizes {
    /// The EFI system partition.
    pub esp: Option<u64>,
    /// Each of the two slots for a root file system.
    pub slot: Option<u64>,
    /// The data partition, which grows on first boot.
    pub data: Option<u64>,
}

/// How a container of the image runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oci {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// The arguments where the user gives none.
    pub cmd: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Labels, for people and tools.
    pub labels: BTreeMap<String, String>,
    /// Ports that are listened on, such as `443/tcp`.
    pub ports: BTreeSet<String>,
    /// Who runs the program, as `user` or `user:group`.
    pub user: Option<String>,
    /// Where it starts.
    pub working_directory: Option<String>,
    /// The signal that stops it, such as `SIGTERM`.
    pub stop_signal: Option<String>,
}

/// Sizes in bytes that a build must not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// All files of the tree together.
    pub tree: Option<u64>,
    /// The root file system, compressed.
    pub rootfs: Option<u64>,
    /// The initrd, compressed.
    pub initrd: Option<u64>,
}
