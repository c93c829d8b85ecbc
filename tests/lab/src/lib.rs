//! A virtual rack on one Linux machine: a network namespace, the appliance, and QEMU hosts without disks.
//!
//! It refuses to know how a packet is answered or an image is built: it runs the product's own
//! binaries and reads what they print, so that a boot counts only when real firmware ran our files.

pub mod accel;
pub mod appliance;
pub mod bmcs;
pub mod chassis;
pub mod down;
pub mod enter;
pub mod firmware;
pub mod hosts;
pub mod images;
pub mod namespace;
pub mod network;
pub mod npm;
pub mod poll;
pub mod process;
pub mod python;
pub mod qemu;
pub mod rack;
pub mod show;
pub mod state;
pub mod stop;
pub mod suites;
pub mod timeline;
pub mod tools;
pub mod up;
pub mod workspace;
