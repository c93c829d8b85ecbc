//! Why a cloud could not be used, and what a person may do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::http::TransportError;

/// Why something could not be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer came.
    #[error("failed to {what}")]
    Transport {
        /// What was asked for.
        what: String,
        /// Why.
        source: TransportError,
    },
    /// The cloud refused, and will refuse again.
    #[error("failed to {what}: {status} {code}{}", said(message))]
    Refused {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The cloud's own word for it.
        code: String,
        /// What it says about it.
        message: String,
    },
    /// The credentials do not allow it.
    #[error(
        "failed to {what}: the credentials lack `{permission}`{}",
        said(message)
    )]
    Denied {
        /// What was asked for.
        what: String,
        /// The permission that is missing, as the cloud's policies name it.
        permission: String,
        /// What the cloud says about it.
        message: String,
    },
    /// There are no credentials, or they were not taken.
    #[error("no usable credentials for {provider}: {reason}")]
    Credentials {
        /// Which cloud.
        provider: &'static str,
        /// Why; it never has a secret in it.
        reason: String,
    },
    /// The cloud does not answer as its documentation says.
    #[error("failed to {what}: {reason}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// It took longer than it may.
    #[error("gave up after {} s waiting {what}; last seen: {last}", waited.as_secs())]
    Deadline {
        /// What was waited for, such as `for snapshot snap-1 to be completed`.
        what: String,
        /// How long.
        waited: Duration,
        /// The last state or answer.
        last: String,
    },
    /// The cloud has something else than what was sent.
    #[error("{what} is {found}, expected {expected}")]
    Mismatch {
        /// What was compared.
        what: String,
        /// What the cloud has.
        found: String,
        /// What it should have.
        expected: String,
    },
    /// Somebody else's object has the name that this image needs.
    #[error("{what} exists and is not of this image")]
    Foreign {
        /// The object.
        what: String,
    },
    /// Some of several places failed; the others were finished.
    #[error("{} of {of} failed", failures.len())]
    Partly {
        /// What each said.
        failures: Vec<String>,
        /// How many there were.
        of: usize,
        /// The first of them.
        #[source]
        first: Box<Error>,
    },
    /// Somebody needs what is to be removed.
    #[error("{what} is not removed: {}", by.join("; "))]
    Kept {
        /// The object.
        what: String,
        /// Who keeps it.
        by: Vec<String>,
    },
    /// The image cannot be published so.
    #[error("image `{image}` cannot be published to {to}: {reason}")]
    Unfit {
        /// The image.
        image: String,
        /// The target.
        to: String,
        /// Why.
        reason: String,
    },
    /// The image's disk could not be read.
    #[error("failed to read the disk of the image")]
    Disk(#[source] io::Error),
    /// The notes of what was done could not be kept.
    #[error("failed to use `{}`", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process publishes the same to the same target.
    #[error("another process is publishing this image to `{0}`")]
    Busy(String),
}

impl Error {
    /// Whether the cloud, or the way to it, is what failed: a retry may help.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Transport { .. }
            | Self::Refused { .. }
            | Self::Denied { .. }
            | Self::Protocol { .. }
            | Self::Credentials { .. }
            | Self::Deadline { .. }
            | Self::Busy(_) => true,
            Self::Partly { first, .. } => first.is_remote(),
            Self::Mismatch { .. }
            | Self::Foreign { .. }
            | Self::Kept { .. }
            | Self::Unfit { .. }
            | Self::Disk(_)
            | Self::Journal { .. } => false,
        }
    }

    /// What a person may do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Denied { .. } => Some(
                "`cloud/README.md` lists the permissions that each target needs; grant the one named above",
            ),
            Self::Credentials { .. } => {
                Some("`cloud/README.md` says where credentials of each cloud are looked for")
            }
            Self::Deadline { .. } | Self::Partly { .. } => {
                Some("run the same command again: it goes on with what is missing")
            }
            Self::Foreign { .. } => Some(
                "choose another name in the targets file, or remove the object by hand if nobody needs it",
            ),
            Self::Busy(_) => Some("wait for it; what it finishes is not done twice"),
            _ => None,
        }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}
