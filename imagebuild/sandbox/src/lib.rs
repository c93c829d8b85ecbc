//! Namespaces without network in which maintainer scripts run, as root or not.
//!
//! It knows nothing of packages. A tree that belongs to one user becomes the root of programs that
//! believe to be root: who they say owns a file is kept in a table, and told back to them, but
//! never written to disk. A map of one user is used whoever builds, and that user is never the root
//! of this computer, so that root and anybody else get the same bytes.

mod child;
mod emulate;
mod filter;
mod mounts;
mod ownership;
mod refusal;
mod session;
mod supervise;
mod sys;
mod uname;
mod wire;
mod worker;

pub use child::child_main;
pub use emulate::{Emulator, Machine};
pub use ownership::{Device, DeviceKind, Inode, Owner, Ownership};
pub use session::{Error, HELPER_ARGUMENT, Outcome, Sandbox, Session, Status};
pub use worker::hand_over;
