//! Google's cloud: one image of a project, uploaded through a bucket, pointed to by a family.
//!
//! It refuses to take an image for ours because of its name, and to move a family before the image is whole and shared.

mod act;
mod answers;
mod check;
mod compute;
mod desired;
mod inventory;
mod judge;
mod notes;
mod plan;
mod policy;
mod publisher;
mod storage;
mod target;
mod templates;
mod token;
mod upload;

pub use judge::PERMISSIONS;
pub use plan::{Action, Desired, Image, Object, Observed, plan};
pub use publisher::Publisher;
pub use target::{Endpoints, Target};
pub use templates::PERMISSION as PRUNE_PERMISSION;
