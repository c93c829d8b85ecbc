//! Unpacks packages into a root directory.
