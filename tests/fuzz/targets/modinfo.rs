//! Any bytes as a kernel module: what it says about itself is read or refused.
#![no_main]

use image_tree::kernel::Modinfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(Modinfo::parse("fuzz.ko", bytes));
});
