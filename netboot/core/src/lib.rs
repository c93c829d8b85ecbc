//! The appliance's decisions, as functions over values.
//!
//! It refuses to do anything itself: no clock, socket, disk, log, randomness or async.
//! The shell in `netboot` gives it bytes, a [`site::Site`] and the time, and gets values back.

pub mod boot;
pub mod dhcp;
pub mod difference;
pub mod drift;
pub mod explain;
pub mod lifecycle;
pub mod mac;
pub mod rollout;
pub mod router;
pub mod script;
pub mod selector;
pub mod site;
pub mod tftp;
pub mod time;

pub use mac::{Guid, Mac};
pub use time::Timestamp;
