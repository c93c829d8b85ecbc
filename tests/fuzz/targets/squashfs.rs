//! Any bytes as a root file system: reading it ends within its limits.
#![no_main]

use std::io::Cursor;

use image_tree::squashfs::{self, Limits};
use libfuzzer_sys::fuzz_target;

/// An image may ask for much; here it may not, so that runs are short.
const LIMITS: Limits = Limits {
    entries: 10_000,
    metadata: 4 << 20,
    content: 4 << 20,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tree) = squashfs::read(Cursor::new(bytes), LIMITS) {
        // What was read can be told apart and named.
        assert_eq!(tree.digest(), tree.digest());
    }
});
