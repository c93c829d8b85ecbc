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
}

impl Manifest {
    /// The version of the format that this code reads and writes.
    pub const SCHEMA: u32 = 1;

    /// Finds the artifact of a role that an image has at most once.
    #[must_use]
    pub fn artifact(&self, role: Role) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.role == role)
    }
}
