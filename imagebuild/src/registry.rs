//! Images to and from registries (OCI distribution specification 1.1): any of them, by the one interface that all have.
//!
//! It refuses bytes without the digest that they were asked for by, plain HTTP to another computer unless that was asked for,
//! to show credentials to another host than the registry's own and its token server, and endless retries.

mod challenge;
pub mod credentials;
mod download;
mod packages;
mod pull;
pub(crate) mod push;
pub mod reference;
mod referrers;
pub(crate) mod session;
#[cfg(test)]
mod tests;
pub(crate) mod upload;

use std::path::PathBuf;

use hyper::StatusCode;
use image_manifest::{Digest, layout};
use image_oci::{flatten, spec};

pub use cloud::http::TransportError;
pub use packages::{Vendored, vendor};
pub use pull::{Pulled, pull};
pub(crate) use push::send_files;
pub use push::{Plan as PushPlan, Pushed, Things, push};
pub use reference::{Remote, Repository};
pub use session::Session;

use crate::gather;

/// How registries are spoken to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether plain HTTP may go to other computers.
    pub plain: Plain,
    /// How many files are sent or fetched at the same time.
    pub parallel: usize,
    /// Files larger than this are sent in chunks of it, which can be taken up again.
    pub chunk: u64,
    /// Directory in which is kept what was begun; it may be deleted at any time.
    pub journal: PathBuf,
    /// A repository of the same registry that may have layers already.
    pub mount_from: Option<Repository>,
}

impl Options {
    /// What is usual where nothing is said.
    #[must_use]
    pub fn usual(cache: &crate::cache::Cache, plain: Plain) -> Self {
        Self {
            plain,
            parallel: PARALLEL,
            chunk: CHUNK,
            journal: cache.root().join("registry"),
            mount_from: None,
        }
    }
}

/// Files that are sent or fetched at the same time, when nothing else is said.
pub const PARALLEL: usize = 4;
/// Size of chunks in bytes, when nothing else is said: large enough that a request more does not count.
pub const CHUNK: u64 = 32 << 20;

/// Whether plain HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// With registries on this computer.
    Loopback,
    /// With every registry that was named.
    Everywhere,
}

/// Why a registry could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text names no image.
    #[error(transparent)]
    Reference(#[from] reference::Malformed),
    /// Credentials could not be found out.
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    /// No answer came.
    #[error("failed to {what}")]
    Transport {
        /// What was asked for.
        what: String,
        /// Why.
        source: TransportError,
    },
    /// The registry refused.
    #[error("failed to {what}: the registry answers {status}{}", said(details))]
    Refused {
        /// What was asked for.
        what: String,
        /// The status.
        status: StatusCode,
        /// What it says about it.
        details: String,
    },
    /// The registry does not answer as the specification says.
    #[error("failed to {what}: {reason}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes are not those that were asked for.
    #[error("`{what}` has the digest {found}, expected {expected}")]
    Digest {
        /// What was asked for.
        what: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Something is larger than its manifest says, or than anybody needs.
    #[error("`{what}` is larger than {limit} bytes")]
    TooLarge {
        /// What it is.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A document was refused.
    #[error("`{what}` is no image that can be used")]
    Document {
        /// What it is.
        what: String,
        /// Why.
        source: spec::Error,
    },
    /// A layer was refused.
    #[error("layer {digest} is refused")]
    Layer {
        /// Which.
        digest: Digest,
        /// Why.
        source: flatten::Error,
    },
    /// An image was refused.
    #[error("`{what}` is refused: {reason}")]
    Hostile {
        /// What it is.
        what: String,
        /// Why.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] layout::Error),
    /// What is to be sent could not be gathered.
    #[error(transparent)]
    Gather(#[from] gather::Error),
    /// A file could not be read or written.
    #[error("failed to use `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store has no packages for the image.
    #[error("the store has no packages of `{0}`")]
    NoPackages(String),
}

fn said(details: &str) -> String {
    if details.is_empty() {
        String::new()
    } else {
        format!(": {details}")
    }
}

impl Error {
    /// Whether the registry, or the way to it, is what failed: a retry may help.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(
            self,
            Self::Transport { .. } | Self::Refused { .. } | Self::Protocol { .. }
        )
    }

    /// What a person may do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Refused { status, .. }
                if matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =>
            {
                Some(
                    "`podman login HOST` writes the credentials that are used here; `REGISTRY_AUTH_FILE` names another file",
                )
            }
            Self::Transport {
                source: TransportError::Connection(reason),
                ..
            } if reason.contains("InvalidContentType") => {
                Some("the registry speaks plain HTTP: `--plain-http` allows that")
            }
            Self::NoPackages(_) => Some("`imagebuild vendor DEFINITION` puts them there"),
            _ => None,
        }
    }
}
