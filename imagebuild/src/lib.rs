//! Builds immutable OS images from pinned packages.
//!
//! It refuses to resolve while it builds: a definition becomes a lock, a lock becomes a plan, and
//! only a plan that is locked becomes artifacts in a store.

pub mod architecture;
pub mod assemble;
pub mod cache;
pub mod configure;
pub mod container;
pub mod date;
pub mod decoded;
pub mod definition;
pub mod export;
pub mod facts;
pub mod fetch;
pub mod file;
pub mod forms;
pub mod gather;
pub mod gc;
pub mod insight;
mod kept;
pub mod layers;
pub mod lock;
pub mod mirror;
pub mod normalise;
pub mod provenance;
pub mod publish;
pub mod registry;
pub mod sbom;
pub mod secure_boot;
pub mod sign;
pub mod stage1;
pub mod trial;
pub mod unpack;
pub mod verify;
pub mod vm;
