//! The manifest: the list of an image's artifacts, and what they were made from.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The list of one image's artifacts.
///
/// It is written as JSON into the store, as the configuration of an OCI image manifest whose layers are the artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Version of this format; this code reads and writes [`Manifest::SCHEMA`].
    pub schema: u32,
    /// Name of the image, as its definition gives it.
    pub name: String,
    /// Debian's name of the architecture, such as `amd64`.
    pub architecture: String,
    /// Distribution and release, such as `debian/trixie`.
    pub distribution: String,
    /// Digest of the tree's canonical listing: the identity that every tier shares.
    pub tree: Digest,
    /// Digest of the lock it was built from.
    pub lock: Digest,
    /// Digest of all inputs of the build: equal inputs are never built twice.
    pub inputs: Digest,
    /// The only clock of the build, in seconds since 1970.
    pub source_date: i64,
    /// Name and version of the program that built it.
    pub builder: String,
    /// The kernel that the image boots with; absent when the image has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// How the image is laid out on a disk; absent when it has no disk form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// What can be composed from the artifacts, sorted by kind; none of it is stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forms: Vec<Form>,
    /// The layers of the container image, lowest first; together they are the tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// All files of the image, sorted by role and name.
    pub artifacts: Vec<Artifact>,
}

/// The kernel of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The image's own part of the kernel command line.
    pub command_line: String,
}

/// The sizes that a disk is composed with, in bytes, and what its root is verified by.
///
/// Together with the artifacts it determines every byte of every disk form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// Root hash of the dm-verity tree over the root file system: what the command line says.
    pub root_hash: Digest,
    /// The whole disk.
    pub size: u64,
    /// The EFI system partition.
    pub esp: u64,
    /// Each of the two slots for a root file system.
    pub slot: u64,
    /// Each of the two slots for a hash tree.
    pub hashes: u64,
    /// The data partition, which grows on first boot.
    pub data: u64,
}

/// One file that is composed from the artifacts on demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Form {
    /// What it is.
    pub kind: FormKind,
    /// File name for people, such as `host.qcow2`; unique in the manifest.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// The forms that one disk is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormKind {
    /// The disk itself, byte for byte.
    Raw,
    /// QEMU's format, version 3, without what was never written.
    Qcow2,
    /// Fixed VHD, as Azure takes it.
    Vhd,
    /// `disk.raw` in a compressed archive, as Google's cloud takes it.
    Gce,
}

/// One layer of the container image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layer {
    /// Name of the definition that it comes from.
    pub definition: String,
    /// Digest of the archive before it is compressed.
    pub diff_id: Digest,
    /// The archive under gzip.
    pub gzip: LayerBlob,
    /// The archive under zstd.
    pub zstd: LayerBlob,
}

/// The compressed bytes of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LayerBlob {
    /// Their digest.
    pub digest: Digest,
    /// Their size in bytes.
    pub size: u64,
}

/// One output file, named by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Artifact {
    /// What it is for.
    pub role: Role,
    /// File name for people and for loaders, such as `ipxe.efi`; unique in the manifest.
    pub name: String,
    /// Media type, as OCI and HTTP give it.
    pub media_type: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// What an artifact is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The kernel, as firmware and loaders start it.
    Kernel,
    /// stage1 and the modules it needs to reach the root file system.
    Initrd,
    /// The root file system, as squashfs.
    Rootfs,
    /// The canonical listing whose digest is the tree digest.
    Listing,
    /// A program that firmware loads, such as iPXE.
    Loader,
    /// The dm-verity superblock and hash tree of the root file system.
    Verity,
    /// Kernel, initrd and command line in one program for UEFI.
    Uki,
    /// The boot loader of the disk, which finds the image's program.
    Boot,
    /// Which blocks of the disk are data, must read as zero, or were never written, as JSON.
    BlockMap,
    /// What the image is made of, for other tools.
    Sbom,
    /// How and from what it was built, for other tools.
    Provenance,
}

impl Manifest {
    /// The version of the format that this code reads and writes.
    pub const SCHEMA: u32 = 2;

    /// Finds the artifact of a role that an image has at most once.
    #[must_use]
    pub fn artifact(&self, role: Role) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.role == role)
    }

    /// Finds one form of the disk.
    #[must_use]
    pub fn form(&self, kind: FormKind) -> Option<&Form> {
        self.forms.iter().find(|form| form.kind == kind)
    }
}
