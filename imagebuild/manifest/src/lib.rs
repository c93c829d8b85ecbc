//! The words every tier shares: digests, manifests, the boot contract and the store layout.
//!
//! It refuses to know how an image is built, served or booted: it depends on none of our crates.

pub mod block_map;
mod boot;
mod checks;
mod digest;
pub mod layout;
mod manifest;
mod secret;
mod signed;
mod verdict;

pub use block_map::BlockMap;
pub use boot::{
    BootImage, Chunks, Credential, Drift, Exchange, FailedCheck, HostConfig, HostSecrets,
    NetworkConfig, Report, Stage, Unhealthy,
};
pub use checks::{CheckCommand, Checks};
pub use digest::{Digest, Hasher, MalformedDigest};
pub use manifest::{Artifact, Disk, Form, FormKind, Kernel, Layer, LayerBlob, Manifest, Role};
pub use secret::{MalformedToken, Secret, Token};
pub use signed::{NotSigned, Signature, Signed, check_signatures};
pub use verdict::{CheckResult, Console, Verdict};
