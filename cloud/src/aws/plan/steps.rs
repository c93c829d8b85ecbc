//! One step, and how people read it.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::aws::desired::Desired;
use crate::aws::ec2::Grants;
use crate::provider::{self, Stage};

/// One change. What has no id yet is made by a step before it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum Step {
    /// Bytes go into a snapshot.
    Upload { region: String },
    /// The snapshot becomes an image.
    Register {
        region: String,
        snapshot: Option<String>,
    },
    /// The image goes to another region.
    Copy {
        region: String,
        from: Option<String>,
    },
    /// An image that failed or is there twice goes.
    Deregister {
        region: String,
        image: String,
        why: &'static str,
    },
    /// A snapshot that failed or that nothing uses goes.
    Discard {
        region: String,
        snapshot: String,
        why: &'static str,
    },
    /// Tags are set.
    Tag {
        region: String,
        object: String,
        tags: Vec<(String, String)>,
    },
    /// An instance is launched, seen to be healthy, and terminated.
    Launch {
        region: String,
        image: Option<String>,
        kind: String,
    },
    /// It is deprecated from a time on.
    Deprecate {
        region: String,
        image: Option<String>,
        at: Option<i64>,
    },
    /// It cannot be deregistered any more.
    Protect {
        region: String,
        image: Option<String>,
    },
    /// Accounts may use the snapshot, or may not any more.
    ShareSnapshot {
        region: String,
        snapshot: Option<String>,
        add: BTreeSet<String>,
        remove: BTreeSet<String>,
    },
    /// Others may use the image, or may not any more.
    Share {
        region: String,
        image: Option<String>,
        add: Grants,
        remove: Grants,
    },
    /// A parameter names the image.
    Point {
        region: String,
        parameter: String,
        image: Option<String>,
        from: Option<String>,
    },
}

impl Step {
    /// When it is done.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Upload { .. }
            | Self::Register { .. }
            | Self::Copy { .. }
            | Self::Deregister { .. }
            | Self::Discard { .. }
            | Self::Tag { .. } => Stage::Private,
            Self::Launch { .. } => Stage::Verified,
            Self::Deprecate { .. }
            | Self::Protect { .. }
            | Self::ShareSnapshot { .. }
            | Self::Share { .. } => Stage::Shared,
            Self::Point { .. } => Stage::Current,
        }
    }

    /// Where it is done.
    #[must_use]
    pub fn region(&self) -> &str {
        match self {
            Self::Upload { region }
            | Self::Register { region, .. }
            | Self::Copy { region, .. }
            | Self::Deregister { region, .. }
            | Self::Discard { region, .. }
            | Self::Tag { region, .. }
            | Self::Launch { region, .. }
            | Self::Deprecate { region, .. }
            | Self::Protect { region, .. }
            | Self::ShareSnapshot { region, .. }
            | Self::Share { region, .. }
            | Self::Point { region, .. } => region,
        }
    }

    /// Whether all that it needs is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Upload { .. }
            | Self::Deregister { .. }
            | Self::Discard { .. }
            | Self::Tag { .. } => true,
            Self::Register { snapshot: id, .. }
            | Self::ShareSnapshot { snapshot: id, .. }
            | Self::Copy { from: id, .. }
            | Self::Launch { image: id, .. }
            | Self::Deprecate { image: id, .. }
            | Self::Protect { image: id, .. }
            | Self::Share { image: id, .. }
            | Self::Point { image: id, .. } => id.is_some(),
        }
    }

    /// It in words.
    #[must_use]
    pub fn told(&self, desired: &Desired) -> provider::Step {
        let name = || desired.name.clone();
        let or_name = |id: &Option<String>| id.clone().unwrap_or_else(name);
        let (action, object, detail) = match self {
            Self::Upload { .. } => (
                "upload-snapshot",
                name(),
                format!("a volume of {} GiB", desired.size),
            ),
            Self::Register { snapshot, .. } => {
                let of = snapshot.as_deref().unwrap_or("the uploaded snapshot");
                (
                    "register-image",
                    name(),
                    format!("of {of}, {}, {}", desired.architecture, desired.boot_mode),
                )
            }
            Self::Copy { from, .. } => {
                let from = from.as_deref().unwrap_or("the image");
                (
                    "copy-image",
                    name(),
                    format!("from {from} in {}", desired.home()),
                )
            }
            Self::Deregister { image, why, .. } => {
                ("deregister-image", image.clone(), (*why).to_owned())
            }
            Self::Discard { snapshot, why, .. } => {
                ("delete-snapshot", snapshot.clone(), (*why).to_owned())
            }
            Self::Tag { object, tags, .. } => {
                let keys: Vec<_> = tags.iter().map(|(key, _)| key.as_str()).collect();
                ("tag", object.clone(), keys.join(", "))
            }
            Self::Launch { image, kind, .. } => (
                "launch-instance",
                or_name(image),
                format!("a `{kind}` for some minutes, terminated whatever it says"),
            ),
            Self::Deprecate { image, at, .. } => {
                let at = at.map_or_else(|| "counted from its creation on".to_owned(), minute);
                ("deprecate-image", or_name(image), at)
            }
            Self::Protect { image, .. } => (
                "protect-image",
                or_name(image),
                "from deregistration".to_owned(),
            ),
            Self::ShareSnapshot {
                snapshot,
                add,
                remove,
                ..
            } => {
                let (add, remove) = (
                    add.iter().cloned().collect(),
                    remove.iter().cloned().collect(),
                );
                ("share-snapshot", or_name(snapshot), changes(add, remove))
            }
            Self::Share {
                image, add, remove, ..
            } => (
                "share-image",
                or_name(image),
                changes(add.names(), remove.names()),
            ),
            Self::Point {
                parameter, from, ..
            } => {
                let from = from.as_ref().map(|from| format!("instead of {from}"));
                (
                    "set-parameter",
                    parameter.clone(),
                    from.unwrap_or_else(|| "is new".to_owned()),
                )
            }
        };
        provider::Step {
            target: desired.target.clone(),
            stage: self.stage(),
            action,
            place: self.region().to_owned(),
            object,
            detail,
        }
    }
}

fn changes(add: Vec<String>, remove: Vec<String>) -> String {
    let with =
        |add: Vec<String>, word| (!add.is_empty()).then(|| format!("{word} {}", add.join(", ")));
    let words = [with(add, "with"), with(remove, "no longer with")];
    words.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// A time as the interface takes it.
pub(in crate::aws) fn minute(at: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}
