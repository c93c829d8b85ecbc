//! What is sent, typed, and its bytes.
//!
//! It refuses to overload `file` and `sname` with options: PXE ROMs read only the field.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use super::wire::{FILE, HEADER, IP_UDP, MAGIC, SHORTEST, SNAME};
use super::{Firmware, Form, Request, option};
use crate::Mac;

/// One answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its type, option 53.
    pub kind: ReplyKind,
    /// Where it is sent.
    pub destination: Destination,
    /// Transaction id, as the client chose it.
    pub xid: u32,
    /// The flags, as the client set them.
    pub flags: u16,
    /// The address that the client has.
    pub ciaddr: Ipv4Addr,
    /// The address that the client gets.
    pub yiaddr: Ipv4Addr,
    /// The server of the next step.
    pub siaddr: Ipv4Addr,
    /// The relay, as it named itself.
    pub giaddr: Ipv4Addr,
    /// Hardware type of the client.
    pub htype: u8,
    /// Length of its hardware address.
    pub hlen: u8,
    /// The field of the hardware address, as it was sent.
    pub chaddr: [u8; 16],
    /// Name of the server of the next step, at most 63 bytes.
    pub sname: Option<Box<str>>,
    /// File to load, at most 127 bytes.
    pub file: Option<Box<str>>,
    /// Options in wire order, the most important first; those for which the client has no room are
    /// left out from the end.
    pub options: Vec<(u8, Value)>,
    /// Option 82 as the relay sent it.
    pub relay: Option<Box<[u8]>>,
    /// The most bytes that the client takes.
    pub room: usize,
    /// For the timeline and the log, not for the wire.
    pub about: About,
}

/// Whom a reply is for, and how it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Name of the network.
    pub network: Arc<str>,
    /// Name of the host; none for a stranger.
    pub host: Option<Arc<str>>,
    /// The program that asked.
    pub firmware: Firmware,
    /// Name of the firmware's profile.
    pub profile: &'static str,
    /// In which form it is told what to load, if it is.
    pub form: Option<Form>,
    /// The form that is tried when this one leads to nothing, if there is another.
    pub next: Option<Form>,
}

/// Types of replies (RFC 2131 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyKind {
    /// You could have this.
    Offer,
    /// It is yours.
    Ack,
    /// It is not yours.
    Nak,
}

impl ReplyKind {
    /// Returns a constant word for metrics and log fields.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Ack => "ack",
            Self::Nak => "nak",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Offer => 2,
            Self::Ack => 5,
            Self::Nak => 6,
        }
    }
}

/// Where a reply is sent, from the port that was asked (RFC 2131 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To a relay, at port 67.
    Relay(Ipv4Addr),
    /// To a client that has this address, at port 68.
    Client(Ipv4Addr),
    /// To a client that does not answer ARP yet: a frame to this hardware address, for this
    /// address at port 68. Broadcast will do where no such frame can be sent.
    Hardware {
        /// Where the frame goes.
        mac: Mac,
        /// Where the datagram in it goes.
        address: Ipv4Addr,
    },
    /// To all on the wire that the packet came from, at port 68.
    Broadcast,
    /// Back to where the packet came from.
    Peer(SocketAddrV4),
}

/// Value of one option of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// One address.
    Address(Ipv4Addr),
    /// Some addresses.
    Addresses(Vec<Ipv4Addr>),
    /// A time in seconds.
    Seconds(u32),
    /// A text without an end.
    Text(Arc<str>),
    /// A text that ends in NUL: ROMs read on without it (dnsmasq: "buggy PXE again").
    Ended(Box<str>),
    /// Anything else.
    Bytes(Box<[u8]>),
}

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Address(address) => out.extend(address.octets()),
            Self::Addresses(list) => out.extend(list.iter().flat_map(Ipv4Addr::octets)),
            Self::Seconds(seconds) => out.extend(seconds.to_be_bytes()),
            Self::Text(text) => out.extend(text.bytes()),
            Self::Ended(text) => out.extend(text.bytes().chain([0])),
            Self::Bytes(bytes) => out.extend(&bytes[..]),
        }
    }
}

/// The most bytes of a message that fit an Ethernet frame.
const FRAME: usize = 1500 - IP_UDP;
/// The most bytes of a message that every client takes (RFC 2131 §2).
const EVERY_CLIENT: usize = 576 - IP_UDP;

impl Reply {
    /// Begins a reply to a request: everything that is echoed is set.
    pub(super) fn to(request: &Request, kind: ReplyKind, about: About) -> Self {
        let room = usize::from(request.max_size.unwrap_or_default()).saturating_sub(IP_UDP);
        Self {
            kind,
            destination: Destination::Broadcast,
            xid: request.xid,
            flags: request.flags,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: request.giaddr,
            htype: request.htype,
            hlen: request.hlen,
            chaddr: request.chaddr,
            sname: None,
            file: None,
            options: Vec::with_capacity(16),
            relay: request.relay.as_ref().map(|relay| relay.raw.clone()),
            room: room.clamp(EVERY_CLIENT, FRAME),
            about,
        }
    }

    /// Returns the bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.room.clamp(SHORTEST, FRAME));
        out.extend([2, self.htype, self.hlen, 0]);
        out.extend(self.xid.to_be_bytes());
        out.extend([0, 0]);
        out.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            out.extend(address.octets());
        }
        out.extend(self.chaddr);
        field(&mut out, self.sname.as_deref(), SNAME.len());
        field(&mut out, self.file.as_deref(), FILE.len());
        out.extend(MAGIC);
        debug_assert_eq!(out.len(), HEADER);
        self.encode_options(&mut out);
        out.resize(out.len().max(SHORTEST), option::PAD);
        out
    }

    fn encode_options(&self, out: &mut Vec<u8>) {
        let room = self.room.max(SHORTEST);
        out.extend([option::MESSAGE_TYPE, 1, self.kind.number()]);
        let mut relay = Vec::new();
        if let Some(raw) = &self.relay {
            option_into(&mut relay, option::RELAY_INFO, raw);
        }
        // A relay that leaves no room for its client's options gets none of its own back
        // (RFC 3046 §2.1.1: it then drops the reply, which nothing could have saved).
        if out.len() + relay.len() + 64 > room {
            relay.clear();
        }
        let mut value = Vec::with_capacity(64);
        for (code, typed) in &self.options {
            value.clear();
            typed.write(&mut value);
            let pieces = value.len().div_ceil(255).max(1);
            if out.len() + value.len() + 2 * pieces + relay.len() < room {
                option_into(out, *code, &value);
            }
        }
        // The last option: relays of today strip it from the end (RFC 3046 §2.2 lets them).
        out.extend(relay);
        out.push(option::END);
    }

    /// Returns an option's value, as bytes.
    #[must_use]
    pub fn option(&self, code: u8) -> Option<Vec<u8>> {
        let (_, value) = self.options.iter().find(|(known, _)| *known == code)?;
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        Some(bytes)
    }
}

/// Writes an option; a value of more than 255 bytes in pieces (RFC 3396).
fn option_into(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    if value.is_empty() {
        out.extend([code, 0]);
    }
    for piece in value.chunks(255) {
        // A chunk of 255 fits a byte.
        let length = u8::try_from(piece.len()).unwrap_or(u8::MAX);
        out.extend([code, length]);
        out.extend(piece);
    }
}

/// Writes a text into a field that always keeps a NUL at its end.
fn field(out: &mut Vec<u8>, text: Option<&str>, size: usize) {
    let bytes = text.unwrap_or_default().as_bytes();
    let kept = bytes.len().min(size - 1);
    let end = out.len() + size;
    out.extend(&bytes[..kept]);
    out.resize(end, 0);
}
