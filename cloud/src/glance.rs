//! OpenStack's image service: one image of a project, streamed once, found by the digest in its properties.
//!
//! It refuses to take an image for whole before its hash was compared, and to touch images of another project.

mod act;
mod answers;
mod images;
mod inventory;
mod judge;
mod keystone;
mod plan;
mod publisher;
mod settings;
mod target;
mod upload;

pub use plan::{Action, Desired, Image, Observed, plan};
pub use publisher::Publisher;
pub use target::{Target, Visibility};
