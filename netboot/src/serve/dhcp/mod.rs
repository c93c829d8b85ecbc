//! DHCP on the wire: receive, decide in the core, store, send.
//!
//! It refuses to decide, and refuses to send what is not on disk: an ACK leaves after the commit.

mod link;
mod socket;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use netboot_core::Mac;
use netboot_core::dhcp::{Arrival, Decision, Destination, Kind, Port, Reply, Request, Silence};

use self::link::{Frame, Link};
use self::socket::{Buffers, Received, Socket4};
use super::Appliance;
use super::appliance::Trouble;
use crate::cli::report::chain;
use crate::store::{Change, Urgency};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// Boot server discovery of PXE.
const PXE: u16 = 4011;

/// A bound DHCP port of the appliance.
#[derive(Debug)]
pub(super) struct Listener {
    port: Port,
    socket: Socket4,
}

impl Listener {
    /// Binds a port.
    pub(super) fn bind(port: Port) -> io::Result<Self> {
        let socket = Socket4::bind(number(port))?;
        Ok(Self { port, socket })
    }
}

/// Returns the number of a port.
pub(super) fn number(port: Port) -> u16 {
    match port {
        Port::Dhcp => SERVER,
        Port::Pxe => PXE,
    }
}

fn label(port: Port) -> &'static str {
    match port {
        Port::Dhcp => "67",
        Port::Pxe => "4011",
    }
}

/// Answers what comes in at a port, until the task is dropped.
pub(super) async fn run(appliance: Arc<Appliance>, listener: Listener) {
    let link = Link::open().inspect_err(|error| {
        tracing::warn!(
            error = %error,
            "no raw socket, so clients without an address are answered by broadcast"
        );
    });
    let exchange = Arc::new(Exchange {
        appliance,
        port: listener.port,
        socket: listener.socket,
        link: link.ok(),
    });
    let mut buffers = Buffers::new();
    loop {
        let received = exchange
            .socket
            .receive(&mut buffers, |packet| exchange.packet(packet))
            .await;
        if let Err(error) = received {
            // Such as a port-unreachable of an earlier reply: the next packet may be good.
            tracing::debug!(error = %error, "dhcp socket returned an error");
        }
        // A flood keeps the socket readable; the other tasks get their turn between batches.
        tokio::task::yield_now().await;
    }
}

/// One port with all that is needed to answer on it.
#[derive(Debug)]
struct Exchange {
    appliance: Arc<Appliance>,
    port: Port,
    socket: Socket4,
    link: Option<Link>,
}

/// A reply with the way it goes.
struct Outgoing {
    reply: Box<Reply>,
    interface: u32,
    /// Our address on the wire.
    local: Ipv4Addr,
    /// The address that was asked.
    asked: Ipv4Addr,
    since: Instant,
}

impl Exchange {
    /// Brings one packet to its one decision.
    fn packet(self: &Arc<Self>, packet: Received<'_>) {
        let since = Instant::now();
        let local = self.appliance.local(packet.interface);
        let arrival = Arrival {
            port: self.port,
            source: packet.from,
            destination: packet.to,
            local: local.unwrap_or(Ipv4Addr::UNSPECIFIED),
        };
        let request = match Request::decode(packet.bytes, arrival) {
            Ok(request) => request,
            Err(malformed) => {
                let silence = Silence::Malformed(malformed);
                self.count(silence.label());
                tracing::debug!(peer = %packet.from, silence = %silence, "ignored dhcp packet");
                return;
            }
        };
        let deferrable = request.kind == Kind::Discover;
        if deferrable && self.appliance.writer.is_crowded() {
            self.appliance.metrics.dhcp_shed.inc();
            self.count("shed");
            return;
        }
        let decided = self.appliance.decide(&request);
        self.count(decided.decision.label());
        log(&request, &decided.decision);
        if let Some(trouble) = &decided.trouble {
            report_trouble(&request, trouble);
        }
        let outgoing = match decided.decision {
            Decision::Send { reply, .. } => Some(Outgoing {
                reply,
                interface: packet.interface,
                local: arrival.local,
                asked: packet.to,
                since,
            }),
            Decision::Note { .. } | Decision::Ignore(_) => None,
        };
        self.store_and_send(decided.changes, decided.durable, outgoing);
    }

    /// Stores first, when the reply depends on it.
    fn store_and_send(
        self: &Arc<Self>,
        changes: Vec<Change>,
        durable: bool,
        outgoing: Option<Outgoing>,
    ) {
        let urgency = if durable {
            Urgency::Urgent
        } else {
            Urgency::Deferrable
        };
        let commit = if changes.is_empty() {
            None
        } else {
            match self.appliance.writer.submit(changes, urgency) {
                Ok(commit) => Some(commit),
                Err(_) if durable => {
                    self.appliance.metrics.dhcp_shed.inc();
                    return;
                }
                // The timeline misses an event; the client misses nothing.
                Err(_) => None,
            }
        };
        let waiting = i64::try_from(self.appliance.writer.waiting());
        self.appliance
            .metrics
            .store_waiting
            .set(waiting.unwrap_or(i64::MAX));
        let Some(outgoing) = outgoing else { return };
        match commit.filter(|_| durable) {
            None => self.send(&outgoing),
            Some(commit) => {
                let exchange = Arc::clone(self);
                tokio::spawn(async move {
                    match commit.durable().await {
                        Ok(()) => exchange.send(&outgoing),
                        Err(error) => {
                            exchange.appliance.metrics.store_failures.inc();
                            tracing::debug!(error = %chain(&error), "no reply without the store");
                        }
                    }
                });
            }
        }
    }

    fn send(&self, outgoing: &Outgoing) {
        let sent = self.transmit(outgoing);
        self.appliance
            .metrics
            .dhcp_seconds
            .observe(outgoing.since.elapsed().as_secs_f64());
        if let Err(error) = sent {
            self.appliance.metrics.dhcp_unsent.inc();
            tracing::debug!(
                xid = format_args!("{:08x}", outgoing.reply.xid),
                error = %error,
                "dhcp reply not sent"
            );
        }
    }

    fn transmit(&self, outgoing: &Outgoing) -> io::Result<()> {
        let bytes = outgoing.reply.encode();
        let local = outgoing.local;
        // A relay or client that asked one of our addresses gets its answer from that one.
        let from = match outgoing.asked {
            asked if asked.is_broadcast() => local,
            asked => asked,
        };
        let datagram = |to| {
            let sent = self.socket.send(from, to, &bytes);
            // It was a subnet's broadcast address, or is ours no more: the kernel chooses.
            sent.or_else(|_| self.socket.send(Ipv4Addr::UNSPECIFIED, to, &bytes))
        };
        let frame = |mac, address| Frame {
            interface: outgoing.interface,
            mac,
            from: (local, number(self.port)),
            to: (address, CLIENT),
        };
        match (outgoing.reply.destination, &self.link) {
            (Destination::Relay(relay), _) => datagram(SocketAddrV4::new(relay, SERVER)),
            (Destination::Client(client), _) => datagram(SocketAddrV4::new(client, CLIENT)),
            (Destination::Peer(peer), _) => datagram(peer),
            (Destination::Hardware { mac, address }, Some(link)) => {
                link.send(&frame(mac, address), &bytes)
            }
            (Destination::Broadcast, Some(link)) => {
                link.send(&frame(Mac([0xff; 6]), Ipv4Addr::BROADCAST), &bytes)
            }
            (Destination::Hardware { .. } | Destination::Broadcast, None) => {
                let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT);
                self.socket.send(local, everyone, &bytes)
            }
        }
    }

    fn count(&self, decision: &'static str) {
        self.appliance.metrics.decided(label(self.port), decision);
    }
}

/// Tells the operator what no packet of the host itself will change.
fn report_trouble(request: &Request, trouble: &Trouble) {
    let mac = request.mac();
    let mac = mac.as_ref().map(tracing::field::display);
    let host = trouble.host.as_deref();
    match trouble.silence {
        None => tracing::warn!(
            mac,
            host,
            address = request.requested.as_ref().map(tracing::field::display),
            "address was declined, something else on the wire uses it"
        ),
        Some(silence) => tracing::warn!(mac, host, silence = %silence, "host gets no address"),
    }
}

fn log(request: &Request, decision: &Decision) {
    let xid = format_args!("{:08x}", request.xid);
    let mac = request.mac();
    let mac = mac.as_ref().map(tracing::field::display);
    let kind = request.kind.label();
    match decision {
        Decision::Send { reply, .. } => tracing::debug!(
            mac,
            xid,
            kind,
            host = reply.about.host.as_deref(),
            firmware = reply.about.firmware.label(),
            address = %reply.yiaddr,
            reply = reply.kind.label(),
            "answered dhcp request"
        ),
        Decision::Note { note, .. } => {
            tracing::debug!(mac, xid, kind, note = note.label(), "noted dhcp message");
        }
        Decision::Ignore(silence) => {
            tracing::debug!(mac, xid, kind, silence = %silence, "ignored dhcp request");
        }
    }
}
