//! What every cloud's module offers: look, say what would be done, do it, tell what there is.
//!
//! Stages make a publish safe to break off: whatever stands in a later one is done after all of the earlier ones, in
//! every cloud.

use std::fmt::Debug;
use std::path::PathBuf;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::http::Http;

/// An answer that is still to come.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How far an image is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Every cloud and region has it, and only its owner sees it.
    Private,
    /// It was booted.
    Verified,
    /// Those who may use it can.
    Shared,
    /// What names "the newest" names it: parameters, families, tags.
    Current,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Private, Self::Verified, Self::Shared, Self::Current];

    /// Its word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Verified => "verified",
            Self::Shared => "shared",
            Self::Current => "current",
        }
    }
}

/// One change that is still to be made, as a plan prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Step {
    /// Name of the target.
    pub target: String,
    /// When it is done.
    pub stage: Stage,
    /// What is done, such as `copy-image`.
    pub action: &'static str,
    /// Where: a region, a location, a project.
    pub place: String,
    /// To what: a name, or an id when there is one.
    pub object: String,
    /// More about it, for people.
    pub detail: String,
}

/// Something that will make a publish fail, or surprise: found before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Name of the target.
    pub target: String,
    /// Where: a region, a location, a project.
    pub place: String,
    /// Whether nothing is to be begun because of it.
    pub severity: Severity,
    /// What it is, and what may be done about it.
    pub message: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It is good to know.
    Warning,
    /// The publish would fail.
    Error,
}

/// One object that is there, and what it is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Receipt {
    /// Name of the target.
    pub target: String,
    /// The cloud: `aws`, `gce`, `azure`, `glance`, `oci`.
    pub provider: String,
    /// What it is: `ami`, `snapshot`, `image`, `gallery-version`, `tag`, …
    pub kind: String,
    /// Where: a region, a location, a project.
    pub place: String,
    /// What it is found by there: an id, a resource path, a reference with a digest.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// How far it is published.
    pub stage: Stage,
}

/// One image of this name that a target has, of this build or another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Published {
    /// Name of the target.
    pub target: String,
    /// Where.
    pub place: String,
    /// What it is found by there.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Debian's name of its architecture, as far as its tags tell.
    pub architecture: String,
    /// Digest of the manifest that its tags name.
    pub manifest: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Bytes that are paid for, with everything that goes along when it is removed.
    pub bytes: u64,
    /// Who keeps it: users of it, pointers to it, protection. Nothing that is kept by somebody is removed.
    pub kept_by: Vec<String>,
    /// From when on it is deprecated, in words of the cloud, if it is.
    pub deprecated: Option<String>,
    /// The same in seconds since 1970, where the cloud tells; 0 when it is deprecated since nobody knows when.
    pub deprecated_from: Option<i64>,
}

/// What something of an inventory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Machines are made of it.
    Image,
    /// An image is made of it, or was: it can be removed, and there is nothing to deprecate.
    Disk,
}

/// What every provider is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory in which is kept what was begun; it may be deleted at any time, which only costs work done twice.
    pub journal: PathBuf,
    /// The client that all of them share.
    pub http: Http,
}

/// What is told while something takes long.
pub trait Progress: Send + Sync {
    /// A step begins.
    fn begins(&self, step: &Step);
    /// Bytes of a target are there, of so many.
    fn bytes(&self, target: &str, done: u64, of: u64);
    /// Something is waited for, such as `for ami-1 in eu-west-1 to be available`.
    fn waits(&self, target: &str, what: &str);
}

/// One target that an image goes to.
pub trait Provider: Debug + Send {
    /// Name of the target.
    fn target(&self) -> &str;

    /// Looks what there is. Nothing is changed.
    ///
    /// # Errors
    /// When the cloud does not answer or does not let us look.
    fn observe(&mut self) -> Pending<'_, Result<(), Error>>;

    /// What stands in the way, as far as the cloud lets one ask: quotas, permissions, names. Nothing is changed.
    ///
    /// # Errors
    /// When the cloud does not answer.
    fn check(&mut self) -> Pending<'_, Result<Vec<Finding>, Error>>;

    /// What would be done, from what was observed last; empty when there is nothing to do.
    fn plan(&self) -> Vec<Step>;

    /// Does the steps of one stage, and waits until they took effect and were read back. What is done already is not
    /// done again.
    ///
    /// # Errors
    /// When a step fails. What was done stays done, and is found by the next run.
    fn advance<'a>(
        &'a mut self,
        stage: Stage,
        progress: &'a dyn Progress,
    ) -> Pending<'a, Result<(), Error>>;

    /// What there is of this image, from what was observed last.
    fn receipts(&self) -> Vec<Receipt>;

    /// Every image of this name that the target has, and who keeps each. Nothing is changed.
    ///
    /// # Errors
    /// When the cloud does not answer.
    fn inventory(&mut self) -> Pending<'_, Result<Vec<Published>, Error>>;

    /// Says of one image that it should not be used any more from a time on (seconds since 1970).
    ///
    /// # Errors
    /// When the cloud refuses.
    fn deprecate<'a>(
        &'a mut self,
        published: &'a Published,
        from: i64,
    ) -> Pending<'a, Result<(), Error>>;

    /// Removes one image with all that belongs to it alone. It asks once more who keeps it.
    ///
    /// # Errors
    /// When somebody keeps it, or the cloud refuses.
    fn remove<'a>(&'a mut self, published: &'a Published) -> Pending<'a, Result<(), Error>>;
}
