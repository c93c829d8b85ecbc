//! What a client asks, typed, with the facts about how the packet reached us.
//!
//! It refuses to judge: whether the client may have what it asks is the decision's business.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::option;
use super::wire::{self, Message, Options};
use crate::{Guid, Mac};

/// How a packet reached us; the shell knows it from the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which of our ports it was sent to.
    pub port: Port,
    /// Where it came from.
    pub source: SocketAddrV4,
    /// The address that it was sent to; `255.255.255.255` when it was broadcast.
    pub destination: Ipv4Addr,
    /// Our address on the interface that it came in by, which names the local network.
    pub local: Ipv4Addr,
}

/// One of our ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// 67, DHCP.
    Dhcp,
    /// 4011, PXE boot server discovery.
    Pxe,
}

/// A DHCP message to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How it reached us.
    pub arrival: Arrival,
    /// Its type, option 53.
    pub kind: Kind,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the client began; `iPXE` hides its state in it.
    pub secs: u16,
    /// The flags, of which only the highest is defined: answer by broadcast.
    pub flags: u16,
    /// Hardware type; 1 is Ethernet.
    pub htype: u8,
    /// Length of the hardware address, at most 16.
    pub hlen: u8,
    /// The field of the hardware address, all of it.
    pub chaddr: [u8; 16],
    /// The client's own address, when it has one.
    pub ciaddr: Ipv4Addr,
    /// The relay that passed it on, or zero.
    pub giaddr: Ipv4Addr,
    /// The address it asks for, option 50.
    pub requested: Option<Ipv4Addr>,
    /// The server it chose, option 54.
    pub server: Option<Ipv4Addr>,
    /// The largest message it takes, option 57.
    pub max_size: Option<u16>,
    /// What it calls itself, option 61.
    pub client_id: Option<Box<[u8]>>,
    /// What it is, option 60.
    pub vendor_class: Option<Box<[u8]>>,
    /// Who it is for, option 77.
    pub user_class: Option<Box<[u8]>>,
    /// Architectures of its firmware, option 93.
    pub architectures: Vec<u16>,
    /// Bytes of option 97 as sent, when they have the right form; they are echoed.
    pub guid_option: Option<[u8; 17]>,
    /// Option 97, when it names a system.
    pub guid: Option<Guid>,
    /// Whether it sent option 175, as only `iPXE` does.
    pub ipxe_options: bool,
    /// What relays added, option 82.
    pub relay: Option<RelayInfo>,
}

/// Types of messages that ask something of a server (RFC 2131 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Which servers are there?
    Discover,
    /// Give, confirm or extend this address.
    Request,
    /// Someone else uses the address.
    Decline,
    /// I need the address no more.
    Release,
    /// Tell me the rest, I have an address.
    Inform,
    /// Anything else, with the number of its type; 0 when it has none.
    Other(u8),
}

impl Kind {
    /// Returns a constant word for log fields.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Request => "request",
            Self::Decline => "decline",
            Self::Release => "release",
            Self::Inform => "inform",
            Self::Other(_) => "other",
        }
    }
}

/// What relays added to a message, option 82.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayInfo {
    /// All of it; it is echoed unchanged (RFC 3046 §2.2).
    pub raw: Box<[u8]>,
    /// The port that the packet came in by.
    pub circuit: Option<Box<[u8]>>,
    /// The client at that port.
    pub remote: Option<Box<[u8]>>,
    /// The link to choose an address for (RFC 3527).
    pub link: Option<Ipv4Addr>,
    /// The server identifier to answer with (RFC 5107).
    pub server: Option<Ipv4Addr>,
}

/// Why bytes are not a DHCP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Shorter than the fixed fields.
    #[error("it is shorter than 240 bytes")]
    Short,
    /// Longer than any client sends.
    #[error("it is longer than 4096 bytes")]
    Long,
    /// A reply, or nothing known.
    #[error("its operation is not 1, a request")]
    NotARequest,
    /// Its hardware address is longer than the field for it.
    #[error("its hardware address is longer than 16 bytes")]
    HardwareLength,
    /// The options do not begin with the magic cookie.
    #[error("it lacks the magic cookie")]
    Magic,
}

impl Request {
    /// Reads a request. An option that is wrong in itself counts as absent.
    ///
    /// # Errors
    /// When the fixed fields are wrong.
    pub fn decode(bytes: &[u8], arrival: Arrival) -> Result<Self, Malformed> {
        let message = Message::check(bytes)?;
        let options = message.options();
        let guid_option = options
            .get(option::GUID)
            .and_then(|value| <[u8; 17]>::try_from(value).ok())
            .filter(|value| value[0] == 0);
        Ok(Self {
            arrival,
            kind: kind(&options),
            xid: message.word(4),
            secs: message.half(8),
            flags: message.half(10),
            htype: message.byte(1),
            hlen: message.byte(2),
            chaddr: message.hardware_address(),
            ciaddr: message.address(12),
            giaddr: message.address(24),
            requested: options.address(option::REQUESTED_ADDRESS),
            server: options.address(option::SERVER_ID),
            max_size: max_size(&options),
            client_id: short(&options, option::CLIENT_ID).filter(|id| id.len() >= 2),
            vendor_class: short(&options, option::VENDOR_CLASS),
            user_class: short(&options, option::USER_CLASS),
            architectures: architectures(&options),
            guid_option,
            guid: guid_option.and_then(guid),
            ipxe_options: options.get(option::IPXE).is_some(),
            relay: options.get(option::RELAY_INFO).map(RelayInfo::read),
        })
    }

    /// Returns the hardware address when it is an Ethernet one and names one interface.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        let octets = *self.chaddr.first_chunk::<6>()?;
        let ethernet = self.htype == 1 && self.hlen == 6;
        (ethernet && octets[0] & 1 == 0 && octets != [0; 6]).then_some(Mac(octets))
    }

    /// Returns the bytes of the hardware address.
    #[must_use]
    pub fn hardware(&self) -> &[u8] {
        &self.chaddr[..usize::from(self.hlen).min(16)]
    }

    /// Tells whether the client asks to be answered by broadcast.
    #[must_use]
    pub fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }
}

fn kind(options: &Options<'_>) -> Kind {
    match options.get(option::MESSAGE_TYPE) {
        Some([1]) => Kind::Discover,
        Some([3]) => Kind::Request,
        Some([4]) => Kind::Decline,
        Some([7]) => Kind::Release,
        Some([8]) => Kind::Inform,
        Some([other]) => Kind::Other(*other),
        _ => Kind::Other(0),
    }
}

fn max_size(options: &Options<'_>) -> Option<u16> {
    let value = options.get(option::MAX_SIZE)?;
    <[u8; 2]>::try_from(value).ok().map(u16::from_be_bytes)
}

/// Takes a value that is kept; longer ones than one option can hold are no one's.
fn short(options: &Options<'_>, code: u8) -> Option<Box<[u8]>> {
    options
        .get(code)
        .filter(|value| !value.is_empty() && value.len() <= 255)
        .map(Box::from)
}

fn architectures(options: &Options<'_>) -> Vec<u16> {
    let value = options.get(option::ARCHITECTURE).unwrap_or_default();
    // No firmware known has more than three; the rest of a longer list is noise.
    let (pairs, _) = value.as_chunks::<2>();
    pairs
        .iter()
        .take(8)
        .map(|pair| u16::from_be_bytes(*pair))
        .collect()
}

fn guid(option: [u8; 17]) -> Option<Guid> {
    let [_, wire @ ..] = option;
    Guid::from_wire(wire)
}

impl RelayInfo {
    fn read(raw: &[u8]) -> Self {
        let find = |wanted| {
            wire::suboptions(raw)
                .find(|(code, _)| *code == wanted)
                .map(|(_, value)| value)
        };
        Self {
            circuit: find(option::RELAY_CIRCUIT).map(Box::from),
            remote: find(option::RELAY_REMOTE).map(Box::from),
            link: find(option::RELAY_LINK).and_then(wire::address),
            server: find(option::RELAY_SERVER_ID).and_then(wire::address),
            raw: raw.into(),
        }
    }
}
