//! What `netboot explain` prints, as its golden file.

use std::net::Ipv4Addr;

use netboot_core::dhcp::Request;
use netboot_core::explain::explain;

use crate::support::*;

/// `UPDATE_GOLDEN=1 cargo test -p netboot-core` writes it anew, to be read in review.
#[test]
fn decisions_are_explained_in_words() {
    let relay = Ipv4Addr::new(10, 79, 0, 1);
    let cases = [
        ("uefi discovers", packet(DISCOVER, BIOS1).pxe(7)),
        (
            "ipxe takes its offer",
            packet(REQUEST, BIOS1)
                .pxe(7)
                .option(77, "iPXE")
                .option(61, [1, 0x52, 0x54, 0, 0x77, 0, 1])
                .address(50, RESERVED)
                .address(54, RACK),
        ),
        (
            "behind a relay",
            packet(DISCOVER, FAR1).giaddr(relay).option(82, [1, 1, 7]),
        ),
        (
            "beside another server",
            packet(DISCOVER, BESIDE1).on(BESIDE).pxe(7),
        ),
        (
            "a wrong address",
            packet(REQUEST, BIOS1).address(50, Ipv4Addr::new(192, 168, 1, 7)),
        ),
        ("a stranger", packet(DISCOVER, STRANGER).on(QUIET)),
    ];
    let told = cases.map(|(name, packet)| {
        let mut appliance = Appliance::new();
        let request = Request::decode(&packet.encode(), packet.arrival).unwrap();
        let decision = appliance.ask(&packet);
        format!("== {name}\n{}\n", explain(&request, &decision))
    });
    let text = told.concat();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/explain.txt");
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .unwrap();
    }
    assert_eq!(text, include_str!("../golden/explain.txt"));
}
