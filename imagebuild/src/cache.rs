//! Packages kept by digest.
