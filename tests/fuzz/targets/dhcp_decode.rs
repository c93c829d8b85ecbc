//! Any bytes as one DHCP packet: reading it ends, and never panics.
#![no_main]

use std::net::{Ipv4Addr, SocketAddrV4};

use libfuzzer_sys::fuzz_target;
use netboot_core::dhcp::{Arrival, Port, Request};

fuzz_target!(|bytes: &[u8]| {
    let arrival = Arrival {
        port: Port::Dhcp,
        source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        destination: Ipv4Addr::BROADCAST,
        local: Ipv4Addr::new(10, 77, 0, 1),
    };
    if let Ok(request) = Request::decode(bytes, arrival) {
        assert!(request.hardware().len() <= 16);
        assert_eq!(request.xid.to_be_bytes(), bytes[4..8]);
    }
});
