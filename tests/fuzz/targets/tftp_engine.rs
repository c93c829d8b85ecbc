//! Any bytes as a story of datagrams and waits for the TFTP engine; the laws stand beside the engine.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|story: &[u8]| netboot_core::tftp::drill(story));
