//! The first-boot appliance: sockets, disk, clock and command line around `netboot-core`.
//!
//! It refuses to decide anything itself: what a packet is answered with, what a script says and
//! what a boot's verdict is are functions of `netboot-core`.

mod api;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod cli;
mod clock;
pub mod data;
mod durable;
pub mod hosts;
pub mod images;
pub mod operate;
pub mod secrets;
pub mod serve;
pub mod site;
pub mod store;
pub mod tls;
