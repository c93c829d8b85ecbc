//! Redfish: a thin client that believes little and sends little.
//!
//! A [`Chain`] is one authenticated conversation with one service: identity and act share it. It refuses to take
//! the first of several systems, to build a path that the service did not name, and to send a reset twice.

mod boot;
mod chain;
#[cfg(test)]
#[cfg(feature = "sim")]
mod faults;
mod inventory;
mod link;
mod media;
mod power;
pub mod resource;
mod session;

#[cfg(test)]
#[cfg(feature = "sim")]
mod replay;
#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;

pub use chain::{Chain, open};
pub use inventory::inventory;
pub use media::{eject_media, insert_media};
