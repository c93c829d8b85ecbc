//! TFTP on one UDP port: receives datagrams, lets the core decide, sends blocks of mapped files.
//!
//! It refuses to copy more than it sends: a file is mapped once for all hosts, and a window leaves in one system call where
//! the kernel can cut it into packets.

mod fragments;
#[cfg(test)]
mod tests;

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use netboot_core::boot::Protocol;
use netboot_core::tftp::{
    Blocks, Engine, ErrorCode, Event, Files, Limits, Mode, Outcome, Output, Peer, Refusal,
};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Duration, sleep_until};

use super::catalogue::{self, Catalogue, End, OpenError, Transfer, TransferLog, Wanted};

/// Datagrams taken in one system call. Each buffer must hold what the kernel may join (64 KiB).
const BATCH: usize = 8;
const BUFFER: usize = 64 << 10;
/// Bytes of one send that the kernel cuts into packets; a UDP length has 16 bits.
const SEGMENTED: usize = 65_000;
/// Room for the requests of a thousand hosts that power on at once.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Some windows of 64 blocks: beyond that, sending waits for the wire.
const SEND_BUFFER: usize = 2 << 20;

/// The bound port.
#[derive(Debug)]
pub struct Server {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Server {
    /// Binds the port. It must be called within a runtime.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking(),
            Some(SocketProtocol::UDP),
        )?;
        socket.bind(&address.into())?;
        enlarge(&socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        fragments::allow(&socket)?;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, state })
    }

    /// Returns the bound address.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn run(self, catalogue: Arc<Catalogue>, log: Arc<dyn TransferLog>, limits: Limits) {
        let started = Instant::now();
        let mut engine = Engine::new(limits);
        let files = Shelf(&catalogue);
        let mut buffers = vec![vec![0; BUFFER]; BATCH];
        let mut out = Vec::new();
        let mut packets = Vec::with_capacity(BUFFER);
        let port = Port {
            server: &self,
            log: &*log,
        };
        loop {
            let due = engine.next_timer().unwrap_or(Duration::from_hours(1));
            let mut metas = [RecvMeta::default(); BATCH];
            let received = tokio::select! {
                received = self.receive(&mut buffers, &mut metas) => received,
                () = sleep_until((started + due).into()) => 0,
            };
            let now = started.elapsed();
            for (buffer, meta) in buffers.iter().zip(&metas).take(received) {
                let peer = Peer {
                    address: meta.addr,
                    local: meta.dst_ip,
                };
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    engine.datagram(now, peer, datagram, &files, &mut out);
                }
                if meta.len == 0 {
                    engine.datagram(now, peer, &[], &files, &mut out);
                }
            }
            engine.expire(now, &mut out);
            for output in out.drain(..) {
                port.perform(output, &mut packets).await;
            }
        }
    }

    async fn receive(&self, buffers: &mut [Vec<u8>], metas: &mut [RecvMeta]) -> usize {
        let mut slices: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| IoSliceMut::new(buffer))
            .collect();
        let received = self
            .socket
            .async_io(Interest::READABLE, || {
                self.state
                    .recv(UdpSockRef::from(&self.socket), &mut slices, metas)
            })
            .await;
        received.unwrap_or_else(|error| {
            tracing::debug!(error = %error, "tftp datagram not received");
            0
        })
    }

    async fn send(&self, to: Peer, contents: &[u8], segment_size: Option<usize>) -> io::Result<()> {
        let transmit = Transmit {
            destination: to.address,
            ecn: None,
            contents,
            segment_size,
            src_ip: to.local,
        };
        self.socket
            .async_io(Interest::WRITABLE, || {
                self.state
                    .try_send(UdpSockRef::from(&self.socket), &transmit)
            })
            .await
    }

    /// Sends blocks, many in one call where the kernel can cut them.
    async fn send_blocks(&self, to: Peer, file: &[u8], blocks: Blocks, packets: &mut Vec<u8>) {
        let size = blocks.packet_size();
        let mut rest = Some(blocks);
        while let Some(blocks) = rest {
            let at_once = (SEGMENTED / size).min(self.state.max_gso_segments()).max(1);
            let (head, tail) = blocks.split(u16::try_from(at_once).unwrap_or(u16::MAX));
            rest = tail;
            packets.clear();
            head.encode(file, packets);
            let sent = if head.count == 1 {
                self.send(to, packets, None).await
            } else {
                match self.send(to, packets, Some(size)).await {
                    // The interface cannot cut; quinn-udp has noticed and asks for single packets from now on.
                    Err(_) => self.send_singly(to, packets, size).await,
                    sent => sent,
                }
            };
            if let Err(error) = sent {
                tracing::debug!(peer = %to.address, error = %error, "tftp blocks not sent");
                return; // as good as lost: the transfer's timer sends them again
            }
        }
    }

    async fn send_singly(&self, to: Peer, packets: &[u8], size: usize) -> io::Result<()> {
        for packet in packets.chunks(size) {
            self.send(to, packet, None).await?;
        }
        Ok(())
    }
}

/// Asks for large buffers, past the system's limit where we may; less only means more packets sent again.
fn enlarge(socket: &Socket) {
    let receive = setsockopt(socket, RcvBufForce, &RECEIVE_BUFFER)
        .map_err(io::Error::from)
        .or_else(|_| socket.set_recv_buffer_size(RECEIVE_BUFFER));
    let send = setsockopt(socket, SndBufForce, &SEND_BUFFER)
        .map_err(io::Error::from)
        .or_else(|_| socket.set_send_buffer_size(SEND_BUFFER));
    if let Err(error) = receive.and(send) {
        tracing::debug!(error = %error, "tftp buffers not enlarged");
    }
}

/// Where answers and events go.
struct Port<'a> {
    server: &'a Server,
    log: &'a dyn TransferLog,
}

impl Port<'_> {
    async fn perform(&self, output: Output<Bytes>, packets: &mut Vec<u8>) {
        match output {
            Output::Packet { to, bytes } => {
                if let Err(error) = self.server.send(to, &bytes, None).await {
                    tracing::debug!(peer = %to.address, error = %error, "tftp packet not sent");
                }
            }
            Output::Blocks { to, file, blocks } => {
                self.server.send_blocks(to, &file, blocks, packets).await;
            }
            Output::Event(event) => self.tell(event),
        }
    }

    fn tell(&self, event: Event) {
        let over = Protocol::Tftp;
        let transfer = |peer: SocketAddr, file, size| Transfer {
            peer: peer.ip().to_canonical(),
            over,
            wanted: Wanted::Loader(file),
            first: 0,
            length: size,
            size,
        };
        match event {
            Event::Began { peer, file, size } => self.log.began(&transfer(peer, file, size)),
            Event::Ended {
                peer,
                file,
                began,
                size,
                bytes,
                resent_blocks,
                elapsed,
                outcome,
            } => {
                tracing::debug!(
                    peer = %peer,
                    file = file.as_str(),
                    outcome = outcome.label(),
                    bytes,
                    resent_blocks,
                    elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                    "tftp transfer ended"
                );
                if began {
                    let outcome = outcome_of(outcome);
                    let end = End {
                        bytes,
                        elapsed,
                        outcome,
                    };
                    self.log.ended(&transfer(peer, file, size), &end);
                } else {
                    self.log.ignored(over, outcome.label());
                }
            }
            Event::Refused {
                peer,
                file,
                refusal,
            } => {
                tracing::debug!(peer = %peer, file = file.as_str(), reason = refusal.text.as_str(), "tftp request refused");
                let peer = peer.ip().to_canonical();
                self.log.refused(peer, over, &file, &refusal.text);
            }
            Event::Ignored { peer, silence } => {
                tracing::trace!(peer = %peer, silence = silence.label(), "tftp packet ignored");
                self.log.ignored(over, silence.label());
            }
        }
    }
}

fn outcome_of(outcome: Outcome) -> catalogue::Outcome {
    let cut = match outcome {
        // Firmware that leaves with the last block in hand has what it wanted.
        Outcome::Complete | Outcome::Unconfirmed => return catalogue::Outcome::Complete,
        Outcome::Aborted { code, text } => format!("the host ended it: {text} (error {code})"),
        Outcome::TimedOut => "the host went silent".to_owned(),
        Outcome::Restarted => "the host asked anew".to_owned(),
        Outcome::Probed => "the host only asked for the size".to_owned(),
    };
    catalogue::Outcome::Cut(cut)
}

/// The loaders, as the core asks for them.
struct Shelf<'a>(&'a Catalogue);

impl Files for Shelf<'_> {
    type File = Bytes;

    fn find(&self, name: &str, mode: Mode) -> Result<(Bytes, u64), Refusal> {
        let open = || {
            let loader = self.0.loader(name)?;
            self.0.open_loader(&loader, mode)
        };
        match open() {
            Ok(bytes) => {
                let size = bytes.len() as u64;
                Ok((bytes, size))
            }
            Err(error) => {
                let code = match &error {
                    OpenError::NoLoader(_) => ErrorCode::NotFound,
                    OpenError::Netascii(_) => ErrorCode::Undefined,
                    OpenError::NoArtifact(_) | OpenError::Open { .. } | OpenError::Size { .. } => {
                        tracing::warn!(file = name, error = %crate::cli::report::chain(&error), "loader cannot be served");
                        ErrorCode::NotFound
                    }
                };
                let text = error.reason();
                Err(Refusal { code, text })
            }
        }
    }
}
