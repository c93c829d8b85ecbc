//! The UDP socket of a DHCP port: where each packet came from, by which interface, to which address.
//!
//! It refuses to share its port: a second DHCP server on one machine is an error, told clearly.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdSocket};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Room for the packets of a whole rack that is powered on at once: 16 MiB holds 20,000 of them
/// as the kernel counts (about 800 bytes each with its own overhead).
const RECEIVE_BUFFER: usize = 16 << 20;

/// Segments that the kernel joins come as one buffer, at most this large.
const BUFFER: usize = 1 << 16;

/// One received packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    /// Its bytes.
    pub(super) bytes: &'a [u8],
    /// Who sent it.
    pub(super) from: SocketAddrV4,
    /// The address it was sent to, which may be everyone's.
    pub(super) to: Ipv4Addr,
    /// Index of the interface it came by.
    pub(super) interface: u32,
}

/// A bound DHCP port.
#[derive(Debug)]
pub(super) struct Socket4 {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Socket4 {
    /// Binds a port on all addresses.
    pub(super) fn bind(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_broadcast(true)?;
        // Without the capability the kernel's own limit has to do.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
        let socket = StdSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            state,
        })
    }

    /// Receives what waits, at most a batch, and hands over each packet in order.
    pub(super) async fn receive(
        &self,
        buffers: &mut Buffers,
        mut each: impl FnMut(Received<'_>),
    ) -> io::Result<()> {
        let mut slices = buffers.slices();
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let count = self
            .socket
            .async_io(Interest::READABLE, || {
                self.state
                    .recv((&self.socket).into(), &mut slices, &mut metas)
            })
            .await?;
        for (buffer, meta) in slices.iter().zip(&metas).take(count) {
            let SocketAddr::V4(from) = meta.addr else {
                continue;
            };
            let to = match meta.dst_ip {
                Some(IpAddr::V4(to)) => to,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            let packet = |bytes| Received {
                bytes,
                from,
                to,
                interface: meta.interface_index.unwrap_or_default(),
            };
            let whole = buffer.get(..meta.len).unwrap_or_default();
            if whole.is_empty() {
                each(packet(whole));
            }
            for bytes in whole.chunks(meta.stride.max(1)) {
                each(packet(bytes));
            }
        }
        Ok(())
    }

    /// Sends one packet from one of our addresses.
    ///
    /// To everyone's address it leaves by the interface that holds `from`: the kernel routes
    /// limited broadcast by source address.
    pub(super) fn send(&self, from: Ipv4Addr, to: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: SocketAddr::V4(to),
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: (!from.is_unspecified()).then_some(IpAddr::V4(from)),
        };
        self.socket.try_io(Interest::WRITABLE, || {
            self.state.try_send((&self.socket).into(), &transmit)
        })
    }
}

/// The memory that packets are received into, once for all.
#[derive(Debug)]
pub(super) struct Buffers(Vec<u8>);

impl Buffers {
    /// Takes the memory.
    pub(super) fn new() -> Self {
        Self(vec![0; BUFFER * BATCH_SIZE])
    }

    fn slices(&mut self) -> Vec<IoSliceMut<'_>> {
        self.0.chunks_mut(BUFFER).map(IoSliceMut::new).collect()
    }
}
