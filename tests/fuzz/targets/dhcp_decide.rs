//! Any bytes as a story of DHCP packets to one appliance: its laws hold after each.
//!
//! A step of the story is a byte that chooses port, source and wait, two bytes for the length of
//! the packet, and the packet.
#![no_main]

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use netboot_core::Timestamp;
use netboot_core::boot::What;
use netboot_core::dhcp::{Arrival, Decision, LeaseState, Leases, Port, Request, Tries, answer};
use netboot_core::site::{Site, SourceFile};

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let file = SourceFile {
        path: "site.toml".into(),
        text: include_str!("site.toml").into(),
    };
    Site::check(&[file]).expect("the site of the fuzz target is good")
});

fuzz_target!(|story: &[u8]| {
    let mut leases = Leases::new(&SITE);
    let mut tries = Tries::new();
    let mut now = Timestamp(1_700_000_000_000);
    let mut rest = story;
    while let Some((&[choice, low, high], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (packet, after) = after.split_at(after.len().min(length));
        rest = after;
        now = now.after(Duration::from_secs(u64::from(choice >> 4).pow(3)));
        let arrival = arrival(choice);
        let decision = answer(packet, arrival, &SITE, &leases, &tries, now);
        assert_eq!(
            decision,
            answer(packet, arrival, &SITE, &leases, &tries, now),
            "it is a function"
        );
        if let Decision::Send { reply, .. } = &decision {
            let bytes = reply.encode();
            assert_eq!(bytes[4..8], packet[4..8], "a reply echoes the transaction");
            assert_eq!(
                bytes[28..44],
                packet[28..44],
                "a reply is for the client that asked"
            );
            let what = Request::decode(packet, arrival)
                .ok()
                .and_then(|request| What::dhcp(&request, &decision));
            if let (Some(host), Some(what)) = (&reply.about.host, what) {
                tries.note(host, &what);
            }
        }
        if let Some(change) = decision.change() {
            leases.apply(change);
        }
        let held = leases
            .iter()
            .filter(|lease| lease.state == LeaseState::Bound && lease.is_live(now));
        let mut clients = HashSet::new();
        for lease in held {
            assert!(
                clients.insert((&lease.network, lease.address)),
                "an address has one holder"
            );
        }
    }
});

fn arrival(choice: u8) -> Arrival {
    let local = if choice & 1 == 0 {
        Ipv4Addr::new(10, 77, 0, 1)
    } else {
        Ipv4Addr::new(10, 78, 0, 1)
    };
    let from = if choice & 2 == 0 {
        Ipv4Addr::UNSPECIFIED
    } else {
        Ipv4Addr::new(10, 77, 0, 11)
    };
    Arrival {
        port: if choice & 4 == 0 {
            Port::Dhcp
        } else {
            Port::Pxe
        },
        source: SocketAddrV4::new(from, 68),
        destination: if choice & 8 == 0 {
            Ipv4Addr::BROADCAST
        } else {
            local
        },
        local,
    }
}
