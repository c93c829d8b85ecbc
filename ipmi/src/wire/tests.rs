//! The codec: what was captured from other tools, what goes there and back, and what must not panic.

use proptest::prelude::*;

use super::*;
use crate::crypto::Suite;

#[test]
fn messages_are_the_bytes_that_ipmitool_sends() {
    // Captured from ipmitool 1.8.19 against `ipmi_sim`: the inside of its packets.
    let cases: [(&[u8], Request<'_>); 3] = [
        (
            &[0x20, 0x18, 0xc8, 0x81, 0x04, 0x38, 0x0e, 0x03, 0x32],
            Request {
                netfn: NetFn::App,
                command: app::CHANNEL_AUTH,
                sequence: 1,
                data: &[0x0e, 3],
            },
        ),
        (
            &[0x20, 0x18, 0xc8, 0x81, 0x10, 0x3b, 0x03, 0x31],
            Request {
                netfn: NetFn::App,
                command: app::SET_PRIVILEGE,
                sequence: 4,
                data: &[3],
            },
        ),
        (
            &[0x20, 0x00, 0xe0, 0x81, 0x24, 0x01, 0x5a],
            Request {
                netfn: NetFn::Chassis,
                command: chassis::STATUS,
                sequence: 9,
                data: &[],
            },
        ),
    ];
    for (bytes, request) in cases {
        assert_eq!(request.encode(), bytes);
        assert_eq!(Message::decode(bytes), Ok(Message::Request(request)));
    }
    // A reply of `ipmi_sim` to Get Chassis Status.
    let reply = [
        0x81, 0x04, 0x7b, 0x20, 0x24, 0x01, 0x00, 0x01, 0x00, 0x00, 0x00, 0xba,
    ];
    assert_eq!(
        Message::decode(&reply),
        Ok(Message::Reply(Reply {
            netfn: NetFn::Chassis,
            command: chassis::STATUS,
            sequence: 9,
            code: Code::OK,
            data: &[1, 0, 0, 0]
        }))
    );
}

#[test]
fn a_wrong_checksum_is_no_message() {
    let good = Request {
        netfn: NetFn::App,
        command: 1,
        sequence: 1,
        data: &[1, 2],
    }
    .encode();
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 0x10;
        assert!(Message::decode(&bad).is_err(), "byte {index}");
    }
}

#[test]
fn an_open_session_reply_with_an_error_may_be_short() {
    for bytes in [&[7, 0x11][..], &[7, 0x11, 0, 0, 4, 3, 2, 1]] {
        let reply = OpenReply::decode(bytes).unwrap();
        assert_eq!((reply.tag, reply.opened), (7, Err(Status::SUITE)));
    }
    assert!(OpenReply::decode(&[7, 0, 0, 0, 4, 3, 2, 1]).is_err());
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..200)
}

proptest! {
    #[test]
    fn nothing_panics_on_any_bytes(bytes in any_bytes(), head in 0_usize..3) {
        let heads: [&[u8]; 3] = [&[], &[6, 0, 0xff, 7], &[6, 0, 0xff, 7, 6]];
        let datagram = [heads[head], &bytes].concat();
        let decoded = [
            Datagram::decode(&datagram).is_ok(),
            crate::session::addressee(&datagram).is_some(),
            Message::decode(&bytes).is_ok(),
            OpenRequest::decode(&bytes).is_ok(),
            OpenReply::decode(&bytes).is_ok(),
            Rakp1::decode(&bytes).is_ok(),
            Rakp2::decode(&bytes).is_ok(),
            Rakp3::decode(&bytes).is_ok(),
            Rakp4::decode(&bytes).is_ok(),
        ];
        prop_assert!(decoded.contains(&false), "no bytes are everything");
    }

    #[test]
    fn handshakes_go_there_and_back(tag: u8, console: u32, bmc: u32, random: [u8; 16], guid: [u8; 16],
        privilege: u8, code in proptest::collection::vec(any::<u8>(), 0..32), user in proptest::collection::vec(any::<u8>(), 0..=16)) {
        let algorithms = Suite::Seventeen.algorithms();
        let open = OpenRequest { tag, privilege, console, algorithms };
        let bytes = open.encode();
        prop_assert_eq!(OpenRequest::decode(&bytes), Ok(open));
        let opened = OpenReply { tag, console, opened: Ok(Opened { privilege, bmc, algorithms }) };
        let bytes = opened.encode();
        prop_assert_eq!(OpenReply::decode(&bytes), Ok(opened));
        let rakp1 = Rakp1 { tag, bmc, random, role: Role(privilege), user: &user };
        let bytes = rakp1.encode();
        prop_assert_eq!(Rakp1::decode(&bytes), Ok(rakp1));
        let rakp2 = Rakp2 { tag, console, proof: Ok(BmcProof { random, guid, code: &code }) };
        let bytes = rakp2.encode();
        prop_assert_eq!(Rakp2::decode(&bytes), Ok(rakp2));
        let rakp3 = Rakp3 { tag, bmc, proof: Ok(&code) };
        let bytes = rakp3.encode();
        prop_assert_eq!(Rakp3::decode(&bytes), Ok(rakp3));
        let rakp4 = Rakp4 { tag, console, proof: Err(Status::CODE) };
        let bytes = rakp4.encode();
        prop_assert_eq!(Rakp4::decode(&bytes), Ok(rakp4));
    }
}
