//! Publishes images to clouds: what is wanted is compared with what is there, and only the difference is done.
//!
//! It refuses to build, and to trust a name: an object is this image's when it carries this image's digest.

pub mod api;
pub mod authorize;
pub mod aws;
pub mod azure;
pub mod error;
pub mod escape;
#[cfg(feature = "fake")]
pub mod fake;
pub mod gce;
pub mod glance;
pub mod http;
pub mod journal;
pub mod oci;
pub mod patience;
pub mod provider;
pub mod publish;
pub mod record;
pub mod subject;
pub mod targets;
pub mod uuid;

pub use error::Error;
pub use provider::{
    Finding, Kind, Options, Pending, Progress, Provider, Published, Receipt, Severity, Stage, Step,
};
pub use publish::Publication;
pub use record::Record;
pub use subject::{Disk, Subject};
pub use targets::Targets;
