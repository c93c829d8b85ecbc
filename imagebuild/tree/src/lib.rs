//! A root file system as data, and the formats it is written in.
//!
//! It refuses to know where a tree comes from: packages, definitions, stores and sandboxes are
//! the business of `imagebuild`.

pub mod cpio;
pub mod kernel;
pub mod listing;
mod scan;
pub mod squashfs;
mod tree;

pub use scan::{Owner, ScanError};
pub use tree::{Content, Device, Entry, Kind, PathError, Source, Tree};
