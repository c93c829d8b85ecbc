//! Builds immutable OS images from pinned packages.
