//! Any bytes as one TFTP packet: what is read is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netboot_core::tftp::Packet;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(packet) = Packet::decode(bytes) {
        assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }
});
