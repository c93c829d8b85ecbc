//! Decisions, one rule of RFC 2131 and of PXE after the other.

use std::net::Ipv4Addr;

use crate::support::*;
use netboot_core::dhcp::{Change, Destination, LeaseState};

const STRANGERS_FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const STRANGERS_LAST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 109);

#[test]
fn a_listed_host_is_offered_its_reserved_address() {
    let mut appliance = Appliance::new();
    let offer = appliance.reply(&packet(DISCOVER, BIOS1));
    assert_eq!(offer.kind.label(), "offer");
    assert_eq!((offer.yiaddr, offer.xid), (RESERVED, 0x1234_5678));
    let options = [
        (54, RACK.octets().to_vec()),
        (51, 600_u32.to_be_bytes().to_vec()),
        (58, 300_u32.to_be_bytes().to_vec()),
        (59, 525_u32.to_be_bytes().to_vec()),
        (1, vec![255, 255, 255, 0]),
        (3, vec![10, 77, 0, 254]),
        (6, vec![10, 77, 0, 2, 10, 77, 0, 3]),
        (12, b"bios1".to_vec()),
        (15, b"lab.test".to_vec()),
        (28, vec![10, 77, 0, 255]),
    ];
    for (code, value) in options {
        assert_eq!(offer.option(code), Some(value), "option {code}");
    }
    assert_eq!(
        offer.option(67),
        None,
        "an operating system gets nothing to load"
    );
}

#[test]
fn one_host_has_one_address_by_each_interface_and_name() {
    let mut appliance = Appliance::new();
    let second = "52:54:00:77:00:11".parse().unwrap();
    let unknown = "02:00:00:00:00:77".parse().unwrap();
    let guid: netboot_core::Guid = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
    let by_guid = [&[0][..], &guid.wire()].concat();
    let cases = [
        ("plain", packet(DISCOVER, BIOS1)),
        ("other interface", packet(DISCOVER, second)),
        (
            "iPXE's client id",
            packet(DISCOVER, BIOS1).option(61, [1, 0x52, 0x54, 0, 0x77, 0, 1]),
        ),
        (
            "networkd's client id",
            packet(DISCOVER, BIOS1).option(61, [255, 1, 2, 3]),
        ),
        ("guid alone", packet(DISCOVER, unknown).option(97, by_guid)),
    ];
    for (name, packet) in cases {
        assert_eq!(appliance.reply(&packet).yiaddr, RESERVED, "{name}");
    }
    let zero = packet(DISCOVER, unknown).option(97, [0; 17]);
    assert_ne!(
        appliance.reply(&zero).yiaddr,
        RESERVED,
        "a zero guid names no one"
    );
}

#[test]
fn replies_go_where_the_rfc_says() {
    let mut appliance = Appliance::new();
    let relay = Ipv4Addr::new(10, 77, 0, 200);
    let unicast = Destination::Hardware {
        mac: BIOS1,
        address: RESERVED,
    };
    let cases = [
        ("no flag", packet(DISCOVER, BIOS1), unicast),
        (
            "broadcast flag",
            packet(DISCOVER, BIOS1).flags(0x8000),
            Destination::Broadcast,
        ),
        (
            "relay",
            packet(DISCOVER, BIOS1).giaddr(relay).flags(0x8000),
            Destination::Relay(relay),
        ),
        (
            "lies about its address",
            packet(DISCOVER, BIOS1).ciaddr(RESERVED),
            unicast,
        ),
        (
            "renewing",
            packet(REQUEST, BIOS1).ciaddr(RESERVED).unicast(),
            Destination::Client(RESERVED),
        ),
        (
            "inform",
            packet(INFORM, BIOS1).ciaddr(RESERVED),
            Destination::Client(RESERVED),
        ),
    ];
    for (name, packet, expected) in cases {
        assert_eq!(appliance.reply(&packet).destination, expected, "{name}");
    }
}

#[test]
fn an_unlisted_host_is_ignored_unless_the_network_says_otherwise() {
    let mut appliance = Appliance::new();
    for kind in [DISCOVER, REQUEST, DECLINE, RELEASE, INFORM] {
        let asked = packet(kind, STRANGER).on(QUIET).address(50, QUIET);
        assert_eq!(silence(&appliance.ask(&asked)), "unknown-host", "{kind}");
    }
    let offer = appliance.reply(&packet(DISCOVER, STRANGER).pxe(0));
    assert!((STRANGERS_FIRST..=STRANGERS_LAST).contains(&offer.yiaddr));
    assert_eq!(
        (offer.option(67), offer.option(43)),
        (None, None),
        "nothing to boot"
    );
}

#[test]
fn a_request_is_confirmed_or_refused_by_its_purpose() {
    let other = Ipv4Addr::new(10, 77, 0, 50);
    let foreign = Ipv4Addr::new(192, 168, 1, 7);
    let ask = |mac| packet(REQUEST, mac);
    let cases = [
        (
            "selecting",
            ask(BIOS1).address(50, RESERVED).address(54, RACK),
            "ack",
        ),
        (
            "selecting, by another of our addresses",
            ask(BIOS1).address(50, RESERVED).address(54, BESIDE),
            "ack",
        ),
        (
            "selecting another server",
            ask(BIOS1).address(50, RESERVED).address(54, foreign),
            "other-server",
        ),
        (
            "selecting another address",
            ask(BIOS1).address(50, other).address(54, RACK),
            "nak",
        ),
        (
            "selecting nothing",
            ask(BIOS1).address(54, RACK),
            "no-address",
        ),
        (
            "init-reboot, right",
            ask(BIOS1).address(50, RESERVED),
            "ack",
        ),
        (
            "init-reboot, wrong address",
            ask(BIOS1).address(50, other),
            "nak",
        ),
        (
            "init-reboot, wrong network",
            ask(BIOS1).address(50, foreign),
            "nak",
        ),
        (
            "init-reboot, no record",
            ask(STRANGER).address(50, STRANGERS_FIRST),
            "no-record",
        ),
        (
            "init-reboot, stranger in wrong network",
            ask(STRANGER).address(50, foreign),
            "nak",
        ),
        ("renewing", ask(BIOS1).ciaddr(RESERVED).unicast(), "ack"),
        ("rebinding", ask(BIOS1).ciaddr(RESERVED), "ack"),
        (
            "rebinding in the wrong network",
            ask(BIOS1).ciaddr(foreign),
            "nak",
        ),
        (
            "renewing, our record was lost",
            ask(STRANGER).ciaddr(STRANGERS_LAST).unicast(),
            "ack",
        ),
        (
            "renewing outside the pool",
            ask(STRANGER).ciaddr(other).unicast(),
            "nak",
        ),
        (
            "renewing someone's reservation",
            ask(STRANGER).ciaddr(RESERVED).unicast(),
            "nak",
        ),
        ("asking nothing", ask(BIOS1), "no-address"),
        (
            "host of another network",
            packet(DISCOVER, FAR1),
            "host-elsewhere",
        ),
        (
            "host of another network insists",
            ask(FAR1).address(50, other),
            "nak",
        ),
    ];
    for (name, packet, expected) in cases {
        assert_eq!(Appliance::new().ask(&packet).label(), expected, "{name}");
    }
}

#[test]
fn a_nak_carries_little_and_goes_to_all() {
    let foreign = Ipv4Addr::new(192, 168, 1, 7);
    let asked = packet(REQUEST, BIOS1)
        .address(50, foreign)
        .option(61, [1, 2, 3])
        .option(82, [1, 1, 7]);
    let nak = Appliance::new().reply(&asked);
    let codes: Vec<u8> = nak.options.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [54, 56, 61]);
    assert_eq!(
        (nak.yiaddr, nak.siaddr),
        (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)
    );
    assert_eq!(nak.destination, Destination::Broadcast);
    let relay = Ipv4Addr::new(10, 77, 0, 200);
    let nak = Appliance::new().reply(&asked.giaddr(relay));
    assert_eq!(nak.destination, Destination::Relay(relay));
    assert_eq!(nak.flags, 0x8000);
    assert_eq!(nak.relay.as_deref(), Some(&[1, 1, 7][..]));
}

#[test]
fn relays_choose_link_and_server() {
    let mut appliance = Appliance::new();
    let relay = Ipv4Addr::new(172, 16, 0, 1);
    let far = packet(DISCOVER, FAR1).giaddr(Ipv4Addr::new(10, 79, 0, 1));
    assert_eq!(appliance.reply(&far).yiaddr, Ipv4Addr::new(10, 79, 0, 12));
    let unknown = packet(DISCOVER, FAR1).giaddr(relay);
    assert_eq!(silence(&appliance.ask(&unknown)), "unknown-network");
    let info = [1, 2, 9, 9, 5, 4, 10, 79, 0, 0, 11, 4, 10, 79, 0, 1];
    let linked = unknown.option(82, info);
    let offer = appliance.reply(&linked);
    assert_eq!(offer.yiaddr, Ipv4Addr::new(10, 79, 0, 12));
    assert_eq!(offer.option(54), Some(vec![10, 79, 0, 1]), "RFC 5107");
    assert_eq!(offer.relay.as_deref(), Some(&info[..]));
    assert!(
        offer
            .encode()
            .windows(info.len())
            .any(|bytes| bytes == info)
    );
    let local = packet(DISCOVER, BIOS1).option(82, info);
    assert_eq!(
        appliance.reply(&local).option(54),
        Some(RACK.octets().to_vec())
    );
}

#[test]
fn a_stranger_keeps_its_address_and_gives_it_back() {
    let mut appliance = Appliance::new();
    let address = appliance.dora(STRANGER, RACK);
    assert_eq!(
        appliance.dora(STRANGER, RACK),
        address,
        "same client, same address"
    );
    let stored: Vec<_> = appliance.leases.iter().collect();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].state, LeaseState::Bound);
    let release = packet(RELEASE, STRANGER)
        .ciaddr(address)
        .address(54, RACK)
        .unicast();
    assert_eq!(appliance.ask(&release).label(), "released");
    assert_eq!(
        silence(&appliance.ask(&release)),
        "not-its-address",
        "only once"
    );
    assert_eq!(appliance.dora(STRANGER, RACK), address, "it is remembered");
    let thief = packet(RELEASE, BIOS1).ciaddr(address).unicast();
    assert_eq!(silence(&appliance.ask(&thief)), "not-its-address");
}

#[test]
fn a_full_pool_is_silent_until_an_address_ends() {
    let mut appliance = Appliance::new();
    let client = |number| netboot_core::Mac([2, 0, 0, 0, 1, number]);
    let mut given: Vec<_> = (0..10)
        .map(|number| appliance.dora(client(number), RACK))
        .collect();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 10, "ten addresses for ten clients");
    assert_eq!(
        silence(&appliance.ask(&packet(DISCOVER, client(10)))),
        "pool-empty"
    );
    appliance.wait(599);
    assert_eq!(
        silence(&appliance.ask(&packet(DISCOVER, client(10)))),
        "pool-empty"
    );
    appliance.wait(1);
    let last = appliance.dora(client(10), RACK);
    assert!(given.contains(&last));
}

#[test]
fn an_offer_is_kept_for_a_while_and_then_taken_back() {
    let mut appliance = Appliance::new();
    let offers: Vec<_> = (0..10)
        .map(|number| {
            appliance
                .reply(&packet(
                    DISCOVER,
                    netboot_core::Mac([2, 0, 0, 0, 2, number]),
                ))
                .yiaddr
        })
        .collect();
    assert_eq!(
        silence(&appliance.ask(&packet(DISCOVER, STRANGER))),
        "pool-empty"
    );
    assert!(
        appliance
            .leases
            .iter()
            .all(|lease| lease.state == LeaseState::Offered)
    );
    let elsewhere = packet(REQUEST, netboot_core::Mac([2, 0, 0, 0, 2, 0]))
        .address(50, offers[0])
        .address(54, Ipv4Addr::new(10, 77, 0, 250));
    assert_eq!(appliance.ask(&elsewhere).label(), "offer-declined");
    assert_eq!(
        appliance.reply(&packet(DISCOVER, STRANGER)).yiaddr,
        offers[0]
    );
    appliance.wait(31);
    assert_eq!(
        appliance
            .ask(&packet(DISCOVER, netboot_core::Mac([2, 0, 0, 0, 3, 0])))
            .label(),
        "offer"
    );
}

#[test]
fn strangers_cannot_claim_a_pool_without_leases() {
    let mut appliance = Appliance::new();
    let stranger = |last| netboot_core::Mac([2, 0, 0, 0, 5, last]);
    for last in 0..20 {
        let offer = appliance.reply(&packet(DISCOVER, stranger(last)));
        let decline = packet(DECLINE, stranger(last))
            .address(50, offer.yiaddr)
            .address(54, RACK);
        assert_eq!(appliance.ask(&decline).label(), "offer-declined", "{last}");
    }
    assert_eq!(appliance.leases.iter().count(), 0, "offers are withdrawn");

    for last in 0..10 {
        appliance.reply(&packet(DISCOVER, stranger(last)));
    }
    let late = packet(DISCOVER, stranger(99));
    assert_eq!(silence(&appliance.ask(&late)), "pool-empty");
    let taken = appliance.dora(BESIDE1, RACK);
    let offered = (0..10).filter(|&last| {
        let request = packet(REQUEST, stranger(last))
            .address(50, taken)
            .address(54, RACK);
        appliance.reply(&request).kind.label() == "ack"
    });
    assert_eq!(offered.count(), 0, "the listed host has it now");

    let mut appliance = Appliance::new();
    for last in 0..10 {
        let address = appliance.dora(stranger(last), RACK);
        if last == 7 {
            let decline = packet(DECLINE, stranger(last)).address(50, address);
            assert_eq!(appliance.ask(&decline).label(), "declined");
        }
    }
    assert_eq!(silence(&appliance.ask(&late)), "pool-empty");
    appliance.dora(BESIDE1, RACK);
    let other = packet(DISCOVER, BESIDE1).option(61, [1]);
    appliance.reply(&other);
    let leased = appliance.leases.iter();
    assert_eq!(leased.count(), 10, "leases of strangers are kept");
}

#[test]
fn a_declined_address_is_left_alone() {
    let mut appliance = Appliance::new();
    let address = appliance.dora(STRANGER, RACK);
    let decline = packet(DECLINE, STRANGER)
        .address(50, address)
        .address(54, RACK);
    assert_eq!(appliance.ask(&decline).label(), "declined");
    assert_eq!(
        silence(&appliance.ask(&decline)),
        "not-its-address",
        "only once"
    );
    let wants = packet(DISCOVER, STRANGER).address(50, address);
    assert_ne!(appliance.reply(&wants).yiaddr, address);
    appliance.wait(3601);
    let other = netboot_core::Mac([2, 0, 0, 0, 4, 0]);
    assert_eq!(
        appliance
            .reply(&packet(DISCOVER, other).address(50, address))
            .yiaddr,
        address
    );

    let decline = packet(DECLINE, BIOS1)
        .address(50, RESERVED)
        .address(54, RACK);
    assert_eq!(appliance.ask(&decline).label(), "declined");
    assert_eq!(
        silence(&appliance.ask(&packet(DISCOVER, BIOS1))),
        "address-declined"
    );
    appliance.wait(61);
    assert_eq!(appliance.reply(&packet(DISCOVER, BIOS1)).yiaddr, RESERVED);
}

#[test]
fn a_binding_is_a_change_to_store_and_an_offer_is_not() {
    let mut appliance = Appliance::new();
    let offer = appliance.ask(&packet(DISCOVER, STRANGER));
    assert_eq!(offer.change().and_then(Change::durable), None);
    let ack = appliance.ask(
        &packet(REQUEST, BIOS1)
            .address(50, RESERVED)
            .address(54, RACK),
    );
    let lease = ack.change().and_then(Change::durable).unwrap();
    assert_eq!((lease.address, lease.state), (RESERVED, LeaseState::Bound));
    assert_eq!(lease.client.to_string(), "host:bios1");
    assert_eq!(
        lease.until,
        appliance.now.after(std::time::Duration::from_mins(10))
    );
}

#[test]
fn inform_gets_everything_but_an_address() {
    let mut appliance = Appliance::new();
    let address = Ipv4Addr::new(10, 77, 0, 60);
    let ack = appliance.reply(&packet(INFORM, STRANGER).ciaddr(address));
    assert_eq!((ack.yiaddr, ack.ciaddr), (Ipv4Addr::UNSPECIFIED, address));
    assert_eq!(ack.option(51), None);
    assert_eq!(ack.option(1), Some(vec![255, 255, 255, 0]));
    assert_eq!(
        silence(&appliance.ask(&packet(INFORM, STRANGER))),
        "no-address"
    );
}

#[test]
fn malformed_packets_are_counted_and_nothing_more() {
    let good = packet(DISCOVER, BIOS1).encode();
    let change = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        ("empty", Vec::new(), "malformed"),
        ("short", good[..239].to_vec(), "malformed"),
        ("a reply", change(0, 2), "malformed"),
        ("a hardware address of 17 bytes", change(2, 17), "malformed"),
        ("no cookie", change(236, 0), "malformed"),
        (
            "too long",
            [good.clone(), vec![0; 5000]].concat(),
            "malformed",
        ),
        (
            "no name",
            packet(DISCOVER, netboot_core::Mac([0; 6])).encode(),
            "nameless",
        ),
        ("no message type", good[..240].to_vec(), "not-a-question"),
        ("a message for clients", change(242, 2), "not-a-question"),
        (
            "an option that ends outside",
            [&good[..240], &[53, 200, 1]].concat(),
            "not-a-question",
        ),
    ];
    let appliance = Appliance::new();
    for (name, bytes, expected) in cases {
        let decision = netboot_core::dhcp::answer(
            &bytes,
            on(RACK),
            &appliance.site,
            &appliance.leases,
            &appliance.tries,
            appliance.now,
        );
        assert_eq!(silence(&decision), expected, "{name}");
    }
}
