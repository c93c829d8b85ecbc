//! Answers to IPv6 router solicitations of hosts: there is no router, go on with IPv4.
//!
//! It refuses to be a router: its advertisements have no lifetime, no prefix and no flags, go to
//! listed hosts only, and only when they ask (RFC 4861 §4.2, §6.2.6). Who is answered is the core's
//! decision.
//!
//! Who: iPXE, 1.0.0+git-2019 in Debian's QEMU and 2.0 alike. What it does: DHCP is done in
//! milliseconds, and then it waits until its last router solicitation has gone unanswered, 16 s in
//! the ROM and 4 s in `ipxe.efi`. What we do: answer the first one. Proof: the stages `ipxe` and
//! `script` of the lab's hosts, 16.0 s apart without this and some milliseconds with it.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use netboot_core::router::{ADVERTISEMENT, answers};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::appliance::Appliance;

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What came through a router has less, and is discarded (RFC 4861 §6.1.1, §6.1.2).
const HOPS: u8 = 255;
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
        socket.set_unicast_hops_v6(HOPS.into())?;
        socket.set_recv_hoplimit_v6(true)?;
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
        let received = listener
            .0
            .async_io(Interest::READABLE, || receive(&listener.0, &mut bytes))
            .await;
        match received {
            Ok(Some((length, from))) => {
                let message = bytes.get(..length).unwrap_or_default();
                if answers(message, *from.ip(), &appliance.site()) {
                    advertise(&listener, from);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(error = %error, "router solicitation not received"),
        }
        tokio::task::yield_now().await;
    }
}

/// Receives a message with its sender; none when it came through a router.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> io::Result<Option<(usize, SocketAddrV6)>> {
    let mut control = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(bytes)];
    let message = recvmsg::<SockaddrIn6>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let near = message.cmsgs()?.any(|control| {
        matches!(control, ControlMessageOwned::Ipv6HopLimit(hops) if hops == i32::from(HOPS))
    });
    let from = message.address.map(SocketAddrV6::from);
    Ok(from.filter(|_| near).map(|from| (message.bytes, from)))
}

fn advertise(listener: &Listener, to: SocketAddrV6) {
    if let Err(error) = listener.0.try_send_to(&ADVERTISEMENT, to.into()) {
        tracing::debug!(peer = %to, error = %error, "router solicitation not answered");
    }
}
