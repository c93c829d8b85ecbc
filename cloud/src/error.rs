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
    #[error("{}", partly(failures, *of))]
    Partly {
        /// What each said.
        failures: Vec<String>,
        /// How many there were.
        of: usize,
        /// The first of them: it says what kind of failure this is.
        first: Box<Error>,
    },
    /// Something that costs was begun and could not be ended.
    #[error("{what} may still run, and costs{}", before(failure.as_deref()))]
    Left {
        /// The object.
        what: String,
        /// What had failed before.
        failure: Option<String>,
        /// Why it could not be ended.
        source: Box<Error>,
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
            Self::Partly { first: error, .. } | Self::Left { source: error, .. } => {
                error.is_remote()
            }
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
            Self::Partly { first, .. } => first.help(),
            Self::Left { .. } => Some(
                "end it by hand, or run the same command again when what is in the way is gone: it ends what it finds",
            ),
            Self::Deadline { .. } | Self::Transport { .. } => {
                Some("run the same command again: it goes on with what is missing")
            }
            Self::Refused { code, message, .. } if is_about_time(code, message) => Some(
                "signatures are good for minutes: set this computer's clock; or get fresh credentials, if these were for some hours",
            ),
            Self::Refused { code, .. } if code.starts_with("ExpiredToken") => Some(
                "these credentials have ended: get fresh ones, or name a `role`, which is taken on anew whenever it ends",
            ),
            Self::Refused { code, .. } if is_about_networks(code) => {
                Some("the account has no default network there: name a `subnet` in `launch`")
            }
            Self::Refused { code, .. } if is_about_room(code) => Some(
                "name another `type` in `launch`, or a `subnet` in another zone; have the limit raised; or run the same command again later",
            ),
            Self::Refused { code, .. } if is_about_keys(code) => Some(
                "the cloud does not take these credentials; `cloud/README.md` says where they are looked for",
            ),
            Self::Foreign { .. } => Some(
                "choose another name in the targets file, or remove the object by hand if nobody needs it",
            ),
            Self::Busy(_) => Some("wait for it; what it finishes is not done twice"),
            _ => None,
        }
    }
}

/// Whether the clocks of both sides differ by too much.
fn is_about_time(code: &str, message: &str) -> bool {
    let codes = ["RequestExpired", "RequestTimeTooSkewed"];
    // The same code is given for wrong keys.
    let words = ["Signature expired", "Signature not yet current"];
    codes.contains(&code) || words.iter().any(|words| message.contains(words))
}

/// Whether an instance has no network to be in.
fn is_about_networks(code: &str) -> bool {
    // The second is of a default network without subnets.
    ["VPCIdNotSpecified", "MissingInput"].contains(&code)
}

/// Whether there is no room for an instance: in the cloud, or in what the account may have.
fn is_about_room(code: &str) -> bool {
    let codes = [
        "InsufficientInstanceCapacity",
        "InstanceLimitExceeded",
        "Unsupported",
        "VcpuLimitExceeded",
    ];
    codes.contains(&code)
}

/// Whether a signature was not taken.
fn is_about_keys(code: &str) -> bool {
    let codes = [
        "AuthFailure",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "AuthenticationFailed",
    ];
    codes.contains(&code)
}

/// Each on a line of its own, and what it is made of below it.
fn partly(failures: &[String], of: usize) -> String {
    if let ([one], 1) = (failures, of) {
        return one.clone();
    }
    let mut lines = vec![format!("{} of {of} failed", failures.len())];
    lines.extend(failures.iter().map(|one| one.replace('\n', "\n  ")));
    lines.join("\n  ")
}

fn before(failure: Option<&str>) -> String {
    failure.map_or_else(String::new, |failure| format!("; before that: {failure}"))
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Error {
        Error::Denied {
            what: "list images".to_owned(),
            permission: "images.list".to_owned(),
            message: String::new(),
        }
    }

    #[test]
    fn what_helps_depends_on_the_clouds_word() {
        let late = "Signature expired: 20260102T030405Z is now earlier than 20260102T033000Z";
        let cases = [
            ("RequestExpired", "", Some("clock")),
            ("InvalidSignatureException", late, Some("clock")),
            ("InvalidSignatureException", "", Some("credentials")),
            ("AuthFailure", "", Some("credentials")),
            ("RequestExpired", "", Some("fresh credentials")),
            ("ExpiredToken", "", Some("fresh ones")),
            ("VPCIdNotSpecified", "", Some("`subnet`")),
            ("MissingInput", "", Some("`subnet`")),
            ("VcpuLimitExceeded", "", Some("limit")),
            ("InsufficientInstanceCapacity", "", Some("another `type`")),
            ("InvalidParameter", "", None),
        ];
        for (code, message, expected) in cases {
            let error = Error::Refused {
                what: "list images".to_owned(),
                status: 403,
                code: code.to_owned(),
                message: message.to_owned(),
            };
            let help = error.help();
            assert_eq!(help.is_some(), expected.is_some(), "{code}");
            let told = help
                .zip(expected)
                .is_none_or(|(help, word)| help.contains(word));
            assert!(told, "{code} {message}: {help:?}");
        }
    }

    #[test]
    fn every_failure_is_told_and_what_may_help() {
        let partly = |failures: &[&str], of| Error::Partly {
            failures: failures.iter().map(|&one| one.to_owned()).collect(),
            of,
            first: Box::new(denied()),
        };
        let regions = partly(&["in a", "in b"], 3).to_string();
        assert_eq!(regions, "2 of 3 failed\n  in a\n  in b");
        let targets = partly(&[&format!("aws: {regions}"), "gce: it rains"], 2);
        let lines = "2 of 2 failed\n  aws: 2 of 3 failed\n    in a\n    in b\n  gce: it rains";
        assert_eq!(targets.to_string(), lines);
        assert_eq!(partly(&["aws: it rains"], 1).to_string(), "aws: it rains");
        assert_eq!(targets.help(), denied().help());
        assert!(targets.is_remote());
    }
}
