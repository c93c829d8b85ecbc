//! End-to-end tests: the product's binaries against tools no one here wrote.
//!
//! It refuses to look inside: a test here sees packets, files, exit codes and what is printed.

pub mod archive;
pub mod desk;
pub mod ghost;
pub mod haunted;
pub mod need;
pub mod registry;
pub mod rig;
pub mod shop;
