//! Builds immutable OS images from pinned packages.
//!
//! It refuses to resolve while it builds: a definition becomes a lock, a lock becomes a plan, and
//! only a plan that is locked becomes artifacts in a store.

pub mod assemble;
pub mod cache;
pub mod configure;
pub mod definition;
pub mod fetch;
pub mod layers;
pub mod lock;
pub mod mirror;
pub mod normalise;
pub mod registry;
pub mod stage1;
pub mod unpack;
pub mod verify;
