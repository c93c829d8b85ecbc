//! The words every tier shares: digests, manifests, the boot contract and the store layout.
//!
//! It refuses to know how an image is built, served or booted: it depends on none of our crates.

mod boot;
mod digest;
pub mod layout;
mod manifest;

pub use boot::{BootImage, Chunks, HostConfig, NetworkConfig, Report, Stage, Unhealthy};
pub use digest::{Digest, Hasher, MalformedDigest};
pub use manifest::{Artifact, Kernel, Manifest, Role};
