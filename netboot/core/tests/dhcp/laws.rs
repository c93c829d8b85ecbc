//! What holds for any packets in any order.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use netboot_core::Mac;
use netboot_core::dhcp::{Arrival, Decision, LeaseState, Leases, Port, ReplyKind, answer};
use netboot_core::explain::explain;
use proptest::prelude::*;

use crate::support::*;

fn any_mac() -> impl Strategy<Value = Mac> {
    let listed = prop::sample::select(vec![BIOS1, FAR1, BESIDE1]);
    let stranger = (0_u8..16).prop_map(|last| Mac([2, 0, 0, 0, 0, last]));
    prop_oneof![1 => listed, 3 => stranger]
}

fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        4 => (95_u8..115).prop_map(|last| Ipv4Addr::new(10, 77, 0, last)),
        2 => prop::sample::select(vec![Ipv4Addr::UNSPECIFIED, RESERVED, RACK, BESIDE, QUIET]),
        1 => any::<u32>().prop_map(Ipv4Addr::from_bits),
    ]
}

fn any_arrival() -> impl Strategy<Value = Arrival> {
    let local = prop::sample::select(vec![RACK, RACK, RACK, BESIDE, QUIET, Ipv4Addr::LOCALHOST]);
    (local, any::<bool>(), prop::bool::weighted(0.1)).prop_map(|(local, unicast, pxe)| Arrival {
        port: if pxe { Port::Pxe } else { Port::Dhcp },
        source: SocketAddrV4::new(RESERVED, 68),
        destination: if unicast { local } else { Ipv4Addr::BROADCAST },
        local,
    })
}

fn any_option() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        (
            prop::sample::select(vec![50, 54]),
            any_address().prop_map(|address| address.octets().to_vec())
        ),
        (
            Just(60),
            prop::sample::select(vec![b"PXEClient".to_vec(), b"HTTPClient".to_vec()])
        ),
        (Just(93), (0_u8..20).prop_map(|arch| vec![0, arch])),
        (Just(77), Just(b"iPXE".to_vec())),
        (Just(61), prop::collection::vec(0_u8..2, 0..3)),
        (Just(82), bytes.clone()),
        (any::<u8>(), bytes),
    ]
}

prop_compose! {
    fn any_packet()(
        kind in prop_oneof![9 => prop::sample::select(vec![1, 1, 3, 3, 3, 4, 7, 8]), 1 => any::<u8>()],
        mac in any_mac(),
        xid in any::<u32>(),
        flags in any::<u16>(),
        ciaddr in prop_oneof![3 => Just(Ipv4Addr::UNSPECIFIED), 1 => any_address()],
        giaddr in prop_oneof![6 => Just(Ipv4Addr::UNSPECIFIED), 1 => any_address()],
        mut options in prop::collection::vec(any_option(), 0..6),
        arrival in any_arrival(),
    ) -> Packet {
        options.insert(0, (53, vec![kind]));
        Packet { mac, xid, flags, ciaddr, giaddr, options, arrival }
    }
}

/// Packets with the seconds that pass before each.
fn any_day() -> impl Strategy<Value = Vec<(u64, Packet)>> {
    let pause = prop_oneof![6 => Just(0_u64), 2 => 0_u64..60, 1 => 0_u64..4000];
    prop::collection::vec((pause, any_packet()), 1..120)
}

/// Who holds each address, as the clients believe.
#[derive(Default)]
struct Believers(HashMap<Ipv4Addr, (String, u64)>);

impl Believers {
    fn take(
        &mut self,
        address: Ipv4Addr,
        client: String,
        now: u64,
        until: u64,
    ) -> Result<(), String> {
        if let Some((holder, end)) = self.0.get(&address)
            && *holder != client
            && *end > now
        {
            return Err(format!("{address} went from {holder} to {client}"));
        }
        self.0.insert(address, (client, until));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_address_is_never_two_clients(day in any_day()) {
        let mut appliance = Appliance::new();
        let mut believers = Believers::default();
        for (pause, packet) in day {
            appliance.wait(pause);
            let now = appliance.now.0;
            let decision = appliance.ask(&packet);
            if let Decision::Send { reply, change: Some(change) } = &decision
                && reply.kind == ReplyKind::Ack
            {
                let lease = change.durable().unwrap();
                prop_assert_eq!(lease.address, reply.yiaddr);
                let taken = believers.take(lease.address, lease.client.to_string(), now, lease.until.0);
                prop_assert_eq!(taken, Ok(()));
            }
            if let Decision::Note { change, .. } = &decision
                && let Some(lease) = change.durable()
            {
                // Only its holder can give an address back; then it is no one's.
                believers.0.remove(&lease.address);
            }
        }
    }

    #[test]
    fn a_reply_echoes_what_it_must(day in any_day()) {
        let mut appliance = Appliance::new();
        for (_, packet) in day {
            if let Decision::Send { reply, .. } = appliance.ask(&packet) {
                let bytes = reply.encode();
                prop_assert_eq!(&bytes[4..8], &packet.xid.to_be_bytes()[..]);
                prop_assert_eq!(&bytes[28..34], &packet.mac.0[..]);
                prop_assert_eq!(&bytes[24..28], &packet.giaddr.octets()[..]);
                prop_assert!((300..=1472).contains(&bytes.len()));
                prop_assert!(reply.option(54).is_some());
                let proxy = &*reply.about.network == "beside";
                prop_assert!(!proxy || reply.yiaddr.is_unspecified());
                prop_assert!(dhcproto_reads(&bytes));
            }
        }
    }

    #[test]
    fn the_same_question_has_the_same_answer(day in any_day()) {
        let (mut one, mut other) = (Appliance::new(), Appliance::new());
        for (pause, packet) in day {
            one.wait(pause);
            other.wait(pause);
            prop_assert_eq!(one.ask(&packet), other.ask(&packet));
        }
    }

    #[test]
    fn leases_survive_a_restart(day in any_day(), next in any_packet()) {
        let mut appliance = Appliance::new();
        for (pause, packet) in day {
            appliance.wait(pause);
            appliance.ask(&packet);
        }
        let stored = appliance.leases.iter().filter(|lease| lease.state != LeaseState::Offered);
        let mut restarted = Appliance::new();
        restarted.now = appliance.now;
        restarted.leases = Leases::restore(&appliance.site, stored.cloned(), appliance.now);
        for lease in appliance.leases.iter().filter(|lease| lease.state == LeaseState::Bound) {
            prop_assert!(restarted.leases.iter().any(|other| other == lease));
        }
        restarted.ask(&next);
    }

    #[test]
    fn a_released_address_returns(first in 0_u8..16, second in 16_u8..32) {
        let mut appliance = Appliance::new();
        let [mac, other] = [first, second].map(|last| Mac([2, 0, 0, 0, 0, last]));
        let address = appliance.dora(mac, RACK);
        for last in 100..109_u8 {
            appliance.dora(Mac([2, 1, 0, 0, 0, last]), RACK);
        }
        prop_assert_eq!(appliance.ask(&packet(DISCOVER, other)).label(), "pool-empty");
        appliance.ask(&packet(RELEASE, mac).ciaddr(address).unicast());
        prop_assert_eq!(appliance.dora(other, RACK), address);
    }

    #[test]
    fn no_packet_is_too_strange_to_explain(packet in any_packet(), cut in 0_usize..300, noise in prop::collection::vec((0_usize..600, any::<u8>()), 0..20)) {
        let appliance = Appliance::new();
        let mut bytes = packet.encode();
        for (at, byte) in noise {
            if let Some(there) = bytes.get_mut(at) {
                *there = byte;
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let decision = answer(&bytes, packet.arrival, &appliance.site, &appliance.leases, &appliance.tries, appliance.now);
        prop_assert!(!decision.label().is_empty());
        if let Ok(request) = netboot_core::dhcp::Request::decode(&bytes, packet.arrival) {
            prop_assert!(explain(&request, &decision).ends_with('\n'));
        }
    }
}

fn dhcproto_reads(bytes: &[u8]) -> bool {
    use dhcproto::{Decodable, Decoder, v4};
    v4::Message::decode(&mut Decoder::new(bytes))
        .is_ok_and(|message| message.opts().msg_type().is_some())
}
