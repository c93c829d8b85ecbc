//! Answers to IPv6 router solicitations of hosts: there is no router, go on with IPv4.
//!
//! It refuses to be a router: its advertisements have no lifetime, no prefix and no flags, go to
//! listed hosts only, and only when they ask (RFC 4861 §4.2, §6.2.6).
//!
//! Who: iPXE, 1.0.0+git-2019 in Debian's QEMU and 2.0 alike. What it does: DHCP is done in
//! milliseconds, and then it waits until its last router solicitation has gone unanswered, 16 s in
//! the ROM and 4 s in `ipxe.efi`. What we do: answer the first one. Proof: the stages `ipxe` and
//! `script` of the lab's hosts, 16.0 s apart without this and some milliseconds with it.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use netboot_core::Mac;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::appliance::Appliance;

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SOLICITATION: u8 = 133;
/// Type 134; no hop limit, flags, lifetime or timers. The kernel fills in the checksum.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Others discard what could have come through a router (RFC 4861 §6.1.2).
const HOPS: u32 = 255;
/// A solicitation has 8 bytes and its options; ours of interest is the first.
const LONGEST: usize = 256;

/// A socket that hears solicitations on some interfaces.
///
/// It is a raw one; tokio has none, and its UDP socket does with any what is needed here.
#[derive(Debug)]
pub(super) struct Listener(UdpSocket);

impl Listener {
    /// Listens on the interfaces with these indices.
    pub(super) fn bind(interfaces: impl IntoIterator<Item = u32>) -> io::Result<Self> {
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6))?;
        socket.set_unicast_hops_v6(HOPS)?;
        for interface in interfaces {
            socket.join_multicast_v6(&ALL_ROUTERS, interface)?;
        }
        UdpSocket::from_std(socket.into()).map(Self)
    }
}

/// Answers until the task is dropped.
pub(super) async fn run(appliance: Arc<Appliance>, listener: Listener) {
    let mut bytes = [0; LONGEST];
    loop {
        match listener.0.recv_from(&mut bytes).await {
            Ok((length, SocketAddr::V6(from))) => {
                if let Some(mac) = bytes.get(..length).and_then(solicitor) {
                    answer(&appliance, &listener, mac, from);
                }
            }
            Ok((_, SocketAddr::V4(_))) => {}
            Err(error) => tracing::debug!(error = %error, "router solicitation not received"),
        }
        tokio::task::yield_now().await;
    }
}

fn answer(appliance: &Appliance, listener: &Listener, mac: Mac, from: SocketAddrV6) {
    if appliance.site().host_by_mac(mac).is_none() || !from.ip().is_unicast_link_local() {
        return;
    }
    let sent = listener.0.try_send_to(&ADVERTISEMENT, from.into());
    if let Err(error) = sent {
        tracing::debug!(mac = %mac, error = %error, "router solicitation not answered");
    }
}

/// Returns the hardware address that a solicitation names in its source option.
fn solicitor(bytes: &[u8]) -> Option<Mac> {
    if *bytes.first()? != SOLICITATION {
        return None;
    }
    let mut options = bytes.get(8..)?;
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if kind == 1 {
            return option.get(2..8)?.try_into().ok().map(Mac);
        }
        if option.is_empty() {
            return None;
        }
        options = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_solicitor_is_who_its_source_option_says() {
        let head = [133, 0, 0, 0, 0, 0, 0, 0];
        let source = [1, 1, 0x52, 0x54, 0, 0, 0, 1];
        let other = [14, 1, 9, 9, 9, 9, 9, 9];
        let mac = Some(Mac([0x52, 0x54, 0, 0, 0, 1]));
        let cases: [(&str, Vec<u8>, Option<Mac>); 7] = [
            ("iPXE", [head, source].concat(), mac),
            ("after another option", [head, other, source].concat(), mac),
            ("no option", head.to_vec(), None),
            ("cut", [&head[..], &source[..5]].concat(), None),
            (
                "an option without a length",
                [&head[..], &[3, 0, 1, 1]].concat(),
                None,
            ),
            (
                "an advertisement",
                [&[134][..], &head[1..], &source].concat(),
                None,
            ),
            ("nothing", Vec::new(), None),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(solicitor(&bytes), expected, "{name}");
        }
    }
}
