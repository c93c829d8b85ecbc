//! Builds immutable OS images from pinned packages.

fn main() {}
