//! A tree as an OCI image, and an OCI image back as a tree.
//!
//! It refuses to know where images are kept or sent: it makes and reads bytes.

pub mod archive;
pub mod compress;
pub mod difference;
pub mod flatten;
pub mod image;
pub mod layer;
pub mod spec;
