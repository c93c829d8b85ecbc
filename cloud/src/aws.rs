//! Amazon's cloud: a snapshot written block by block, an image of it in each region, who may use it, and what names it.
//!
//! It refuses buckets and import tasks, and to trust a name: an image is ours when its tags carry our digest.

mod client;
mod console;
mod credentials;
mod desired;
mod ebs;
mod ec2;
mod execute;
mod inventory;
mod launch;
mod left;
mod observe;
mod pace;
mod plan;
mod preflight;
mod publisher;
mod quota;
mod ssm;
mod target;
mod together;
mod upload;
mod verify;
mod waiting;
mod wire;

pub use desired::Desired;
pub use ec2::{Grants, Image, Mapping, Snapshot};
pub use plan::{Region, Step, plan};
pub use publisher::Publisher;
pub use target::{BootMode, Launch, Target};
pub use waiting::Bounds;
