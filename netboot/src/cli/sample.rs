//! The questions that each kind of firmware asks, for hosts that are not asking just now.
//!
//! It refuses to be complete: what matters is what tells the kinds apart (RFC 4578).

use std::net::Ipv4Addr;

use netboot_core::Mac;

const ETHERNET: u8 = 1;
const REQUEST: u8 = 1;
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// Returns a DISCOVER of every kind of client, with what it is called.
pub(super) fn all(mac: Mac, relay: Option<Ipv4Addr>) -> Vec<(&'static str, Vec<u8>)> {
    let make = |options: &[(u8, &[u8])]| discover(mac, relay, options);
    vec![
        (
            "DISCOVER of a BIOS PXE ROM",
            make(&[(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0])]),
        ),
        (
            "DISCOVER of UEFI PXE, x64",
            make(&[(60, b"PXEClient:Arch:00007:UNDI:003000"), (93, &[0, 7])]),
        ),
        (
            "DISCOVER of UEFI HTTP Boot, x64",
            make(&[(60, b"HTTPClient:Arch:00016:UNDI:003000"), (93, &[0, 16])]),
        ),
        (
            "DISCOVER of iPXE",
            make(&[
                (60, b"PXEClient:Arch:00007:UNDI:003000"),
                (77, b"iPXE"),
                (93, &[0, 7]),
                (175, &[235, 3, 1, 0, 0]),
            ]),
        ),
        ("DISCOVER of an operating system", make(&[])),
    ]
}

fn discover(mac: Mac, relay: Option<Ipv4Addr>, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..4].copy_from_slice(&[REQUEST, ETHERNET, 6, 0]);
    let relay = relay.unwrap_or(Ipv4Addr::UNSPECIFIED);
    bytes[24..28].copy_from_slice(&relay.octets());
    bytes[28..34].copy_from_slice(&mac.0);
    bytes.extend(MAGIC);
    bytes.extend([53, 1, 1]);
    for (code, value) in options {
        // Every value above is far shorter than an option can be.
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
        bytes.extend([*code, length]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes.resize(300, 0);
    bytes
}
