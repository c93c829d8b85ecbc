//! Our bytes as `dhcproto` reads them, and its bytes as we read them.

use std::net::Ipv4Addr;

use dhcproto::v4::{self, DhcpOption, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use netboot_core::Guid;
use netboot_core::dhcp::{Kind, Malformed, Request};
use proptest::prelude::*;

use crate::support::*;

fn read(bytes: &[u8]) -> v4::Message {
    v4::Message::decode(&mut Decoder::new(bytes)).unwrap()
}

#[test]
fn another_codec_reads_what_we_write() {
    let asked = packet(DISCOVER, BIOS1).pxe(7).option(61, [1, 2, 3]);
    let reply = Appliance::new().reply(&asked);
    let message = read(&reply.encode());
    assert_eq!(message.opcode(), v4::Opcode::BootReply);
    assert_eq!((message.xid(), message.yiaddr()), (0x1234_5678, RESERVED));
    assert_eq!((message.siaddr(), message.chaddr()), (RACK, &BIOS1.0[..]));
    assert_eq!(message.fname(), Some(&b"ipxe.efi\0"[..]));
    assert_eq!(message.sname(), Some(&b"10.77.0.1\0"[..]));
    let options = message.opts();
    let expected = [
        DhcpOption::MessageType(MessageType::Offer),
        DhcpOption::ServerIdentifier(RACK),
        DhcpOption::AddressLeaseTime(600),
        DhcpOption::Renewal(300),
        DhcpOption::Rebinding(525),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![Ipv4Addr::new(10, 77, 0, 254)]),
        DhcpOption::DomainNameServer(vec![
            Ipv4Addr::new(10, 77, 0, 2),
            Ipv4Addr::new(10, 77, 0, 3),
        ]),
        DhcpOption::ClientIdentifier(vec![1, 2, 3]),
        DhcpOption::BootfileName(b"ipxe.efi\0".to_vec()),
        DhcpOption::TFTPServerName(b"10.77.0.1\0".to_vec()),
        DhcpOption::ClientMachineIdentifier(vec![0; 17]),
        DhcpOption::Hostname("bios1".into()),
        DhcpOption::BroadcastAddr(Ipv4Addr::new(10, 77, 0, 255)),
    ];
    for option in expected {
        assert_eq!(options.get(OptionCode::from(&option)), Some(&option));
    }
}

#[test]
fn the_order_on_the_wire_is_fixed_and_short_answers_are_padded() {
    let asked = packet(DISCOVER, BIOS1)
        .pxe(0)
        .option(82, [1, 2, 3, 4, 9, 0]);
    let bytes = Appliance::new().reply(&asked).encode();
    assert_eq!(bytes[240..246], [53, 1, 2, 54, 4, 10]);
    let end = bytes.iter().rposition(|&byte| byte == 255).unwrap();
    assert_eq!(
        bytes[end - 8..end],
        [82, 6, 1, 2, 3, 4, 9, 0],
        "option 82 comes last"
    );
    let nak = packet(REQUEST, BIOS1).address(50, Ipv4Addr::LOCALHOST);
    let nak = Appliance::new().reply(&nak).encode();
    assert_eq!(nak.len(), 300);
}

#[test]
fn a_client_gets_no_more_than_it_takes() {
    let relay = vec![1; 255];
    let cases = [
        ("says nothing", None, 548),
        ("the least", Some(576_u16), 548),
        ("less than the least", Some(100), 548),
        ("an Ethernet frame", Some(1500), 1472),
        ("more than a frame", Some(9000), 1472),
    ];
    for (name, size, most) in cases {
        let mut asked = packet(DISCOVER, BIOS1)
            .pxe(7)
            .option(61, vec![7; 255])
            .option(82, relay.clone());
        if let Some(size) = size {
            asked = asked.option(57, size.to_be_bytes());
        }
        let reply = Appliance::new().reply(&asked);
        let bytes = reply.encode();
        assert!(bytes.len() <= most, "{name}: {}", bytes.len());
        let message = read(&bytes);
        assert!(message.opts().has_msg_type(MessageType::Offer), "{name}");
        assert!(
            message.opts().contains(OptionCode::AddressLeaseTime),
            "{name}"
        );
    }
}

#[test]
fn options_are_found_wherever_they_stand() {
    let base = || packet(DISCOVER, BIOS1);
    let mut overloaded = base().option(52, [3]).encode();
    overloaded[108..115].copy_from_slice(&[60, 4, b'P', b'X', b'E', b'C', 255]);
    overloaded[44..52].copy_from_slice(&[60, 5, b'l', b'i', b'e', b'n', b't', 255]);
    let guid: [u8; 17] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let cases = [
        ("plain", base().option(60, "PXEClient").encode()),
        (
            "padded",
            base().option(0, []).option(60, "PXEClient").encode(),
        ),
        (
            "in two neighbours",
            base().option(60, "PXE").option(60, "Client").encode(),
        ),
        (
            "in two apart",
            base()
                .option(60, "PXE")
                .option(12, "x")
                .option(60, "Client")
                .encode(),
        ),
        ("in file and sname", overloaded),
        (
            "after a Latin-1 host name",
            base().option(12, [0xe9]).option(60, "PXEClient").encode(),
        ),
        (
            "after two time servers",
            base().option(150, [1; 8]).option(60, "PXEClient").encode(),
        ),
    ];
    for (name, bytes) in cases {
        // A pad has no length: the builder wrote one, which reads as a second pad.
        let request = Request::decode(&bytes, on(RACK)).unwrap();
        assert_eq!(
            request.vendor_class.as_deref(),
            Some(&b"PXEClient"[..]),
            "{name}"
        );
        assert_eq!(request.kind, Kind::Discover, "{name}");
    }
    let both = base().option(93, [0, 7, 0, 9]).option(97, guid).encode();
    let request = Request::decode(&both, on(RACK)).unwrap();
    assert_eq!(request.architectures, [7, 9]);
    assert_eq!(request.guid.map(Guid::wire).unwrap()[0], 1);
}

proptest! {
    #[test]
    fn we_read_what_another_codec_writes(
        xid in any::<u32>(),
        mac in prop::array::uniform6(any::<u8>()),
        requested in any::<u32>(),
        class in prop::collection::vec(any::<u8>(), 1..200),
        id in prop::collection::vec(any::<u8>(), 2..200),
        size in any::<u16>(),
        broadcast in any::<bool>(),
    ) {
        let mut message = v4::Message::default();
        message.set_xid(xid).set_chaddr(&mac);
        if broadcast {
            message.set_flags(v4::Flags::default().set_broadcast());
        }
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Request));
        options.insert(DhcpOption::RequestedIpAddress(Ipv4Addr::from_bits(requested)));
        options.insert(DhcpOption::ClassIdentifier(class.clone()));
        options.insert(DhcpOption::ClientIdentifier(id.clone()));
        options.insert(DhcpOption::MaxMessageSize(size));
        let request = Request::decode(&message.to_vec().unwrap(), on(RACK)).unwrap();
        prop_assert_eq!(request.xid, xid);
        prop_assert_eq!(request.kind, Kind::Request);
        prop_assert_eq!(request.hardware(), &mac[..]);
        prop_assert_eq!(request.requested, Some(Ipv4Addr::from_bits(requested)));
        prop_assert_eq!(request.vendor_class.as_deref(), Some(&class[..]));
        prop_assert_eq!(request.client_id.as_deref(), Some(&id[..]));
        prop_assert_eq!(request.max_size, Some(size));
        prop_assert_eq!(request.wants_broadcast(), broadcast);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        match Request::decode(&bytes, on(RACK)) {
            Ok(_) => prop_assert!(bytes.len() >= 240),
            Err(Malformed::Short) => prop_assert!(bytes.len() < 240),
            Err(_) => {}
        }
    }

    #[test]
    fn any_options_behind_a_good_header_are_read(options in prop::collection::vec(any::<u8>(), 0..900), file in prop::collection::vec(any::<u8>(), 192)) {
        let mut bytes = packet(DISCOVER, BIOS1).option(52, [3]).encode();
        bytes.pop();
        bytes[44..236].copy_from_slice(&file);
        bytes.extend(options);
        prop_assert!(Request::decode(&bytes, on(RACK)).is_ok());
    }
}
