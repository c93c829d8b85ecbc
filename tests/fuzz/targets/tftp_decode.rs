//! Any bytes as one TFTP packet: a request that is read is written back with the same meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netboot_core::tftp::Packet;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Packet::Read(request)) = Packet::decode(bytes) {
        assert_eq!(Packet::decode(&request.encode()), Ok(Packet::Read(request)));
    }
});
