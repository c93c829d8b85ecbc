//! One UDP datagram: RMCP around ASF, an IPMI 1.5 or an IPMI 2.0 session packet.

use super::Malformed;
use super::reader::Reader;

/// RMCP 1.0, no sequence number (so nobody acknowledges), class IPMI.
const RMCP_IPMI: [u8; 4] = [0x06, 0x00, 0xff, 0x07];
const RMCP_ASF: [u8; 4] = [0x06, 0x00, 0xff, 0x06];
/// The enterprise number of the ASF forum.
const ASF_IANA: [u8; 4] = 4542_u32.to_be_bytes();
/// The authentication type that marks an IPMI 2.0 packet.
const FORMAT_RMCP_PLUS: u8 = 0x06;
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;

/// More than any BMC sends: SOL packets carry at most 255 bytes, messages at most 1 KiB.
pub const MAX_PAYLOAD: usize = 1024;

/// What a packet of IPMI 2.0 carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An IPMI message.
    Ipmi,
    /// Serial over LAN.
    Sol,
    /// Open Session Request.
    OpenRequest,
    /// Open Session Response.
    OpenReply,
    /// RAKP message 1.
    Rakp1,
    /// RAKP message 2.
    Rakp2,
    /// RAKP message 3.
    Rakp3,
    /// RAKP message 4.
    Rakp4,
}

impl Kind {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Ipmi => 0x00,
            Self::Sol => 0x01,
            Self::OpenRequest => 0x10,
            Self::OpenReply => 0x11,
            Self::Rakp1 => 0x12,
            Self::Rakp2 => 0x13,
            Self::Rakp3 => 0x14,
            Self::Rakp4 => 0x15,
        }
    }

    fn from_number(number: u8) -> Result<Self, Malformed> {
        Ok(match number {
            0x00 => Self::Ipmi,
            0x01 => Self::Sol,
            0x10 => Self::OpenRequest,
            0x11 => Self::OpenReply,
            0x12 => Self::Rakp1,
            0x13 => Self::Rakp2,
            0x14 => Self::Rakp3,
            0x15 => Self::Rakp4,
            _ => return Err(Malformed::Kind("payload")),
        })
    }
}

/// A packet in the format of IPMI 2.0; nothing in it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it carries.
    pub kind: Kind,
    /// Whether it says that its payload is encrypted.
    pub encrypted: bool,
    /// Whether it says that it ends in an authentication code.
    pub authenticated: bool,
    /// The session's id, as its receiver chose it; 0 outside of one.
    pub session: u32,
    /// The sender's sequence number.
    pub sequence: u32,
    /// The payload, perhaps encrypted.
    pub payload: &'a [u8],
    /// From the authentication type to the end: what the code covers, and the code.
    pub covered: &'a [u8],
}

/// The authentication code of an IPMI 1.5 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyAuth {
    /// None.
    None,
    /// MD5 over password, session, message and sequence.
    Md5([u8; 16]),
}

/// A packet in the format of IPMI 1.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Legacy<'a> {
    /// Its authentication code.
    pub auth: LegacyAuth,
    /// The sender's sequence number.
    pub sequence: u32,
    /// The session's id; 0 outside of one.
    pub session: u32,
    /// An IPMI message.
    pub payload: &'a [u8],
}

/// An ASF presence ping or pong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Its tag, which the pong repeats.
    pub tag: u8,
}

/// One datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// Somebody asks whether a BMC is there.
    Ping(Ping),
    /// IPMI 1.5.
    Legacy(Legacy<'a>),
    /// IPMI 2.0.
    Session(Packet<'a>),
}

impl<'a> Datagram<'a> {
    /// Decodes a datagram.
    ///
    /// # Errors
    /// When it is none that we know.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "rmcp packet");
        let [version, _, _, class] = reader.array()?;
        match (version, class) {
            (0x06, 0x07) => {}
            (0x06, 0x06) => return decode_ping(reader),
            _ => return Err(Malformed::Kind("rmcp packet")),
        }
        match reader.rest().first() {
            Some(&FORMAT_RMCP_PLUS) => decode_packet(reader.rest()).map(Self::Session),
            _ => decode_legacy(reader.rest()).map(Self::Legacy),
        }
    }
}

fn decode_ping(mut reader: Reader<'_>) -> Result<Datagram<'static>, Malformed> {
    let [a, b, c, d, kind, tag, _, _] = reader.array()?;
    if [a, b, c, d] == ASF_IANA && kind == 0x80 {
        Ok(Datagram::Ping(Ping { tag }))
    } else {
        Err(Malformed::Kind("asf message"))
    }
}

fn decode_packet(covered: &[u8]) -> Result<Packet<'_>, Malformed> {
    let mut reader = Reader::new(covered, "session packet");
    reader.u8()?;
    let flags = reader.u8()?;
    let kind = Kind::from_number(flags & !(ENCRYPTED | AUTHENTICATED))?;
    let session = reader.u32()?;
    let sequence = reader.u32()?;
    let length = usize::from(reader.u16()?);
    if length > MAX_PAYLOAD {
        return Err(Malformed::Field("payload length"));
    }
    Ok(Packet {
        kind,
        encrypted: flags & ENCRYPTED != 0,
        authenticated: flags & AUTHENTICATED != 0,
        session,
        sequence,
        payload: reader.take(length)?,
        covered,
    })
}

fn decode_legacy(bytes: &[u8]) -> Result<Legacy<'_>, Malformed> {
    let mut reader = Reader::new(bytes, "session packet");
    let format = reader.u8()?;
    let sequence = reader.u32()?;
    let session = reader.u32()?;
    let auth = match format {
        0x00 => LegacyAuth::None,
        0x02 => LegacyAuth::Md5(reader.array()?),
        _ => return Err(Malformed::Kind("authentication")),
    };
    let length = usize::from(reader.u8()?);
    Ok(Legacy {
        auth,
        sequence,
        session,
        payload: reader.take(length)?,
    })
}

impl Ping {
    /// Encodes the ping.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        [&RMCP_ASF[..], &ASF_IANA, &[0x80, self.tag, 0x00, 0x00]].concat()
    }

    /// Encodes the pong that answers it: IPMI is spoken here.
    #[must_use]
    pub fn pong(self) -> Vec<u8> {
        let about = [0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0];
        let mut pong = [
            &RMCP_ASF[..],
            &ASF_IANA,
            &[0x40, self.tag, 0x00, 16],
            &about,
        ]
        .concat();
        pong[12..16].copy_from_slice(&ASF_IANA);
        pong
    }
}

/// Encodes a packet of IPMI 2.0 without encryption and code, as the handshake uses it.
#[must_use]
pub fn encode_plain(kind: Kind, session: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + payload.len());
    header(&mut out, kind.number(), (session, 0), payload.len());
    out.extend_from_slice(payload);
    out
}

/// Begins a packet whose payload is encrypted and authenticated; what follows is the business of `crypto`.
pub(crate) fn begin_sealed(
    out: &mut Vec<u8>,
    kind: Kind,
    session: u32,
    sequence: u32,
    length: usize,
) {
    header(
        out,
        kind.number() | ENCRYPTED | AUTHENTICATED,
        (session, sequence),
        length,
    );
}

/// How many bytes stand before what an authentication code covers.
pub(crate) const UNCOVERED: usize = RMCP_IPMI.len();

fn header(out: &mut Vec<u8>, flags: u8, (session, sequence): (u32, u32), length: usize) {
    out.extend_from_slice(&RMCP_IPMI);
    out.extend_from_slice(&[FORMAT_RMCP_PLUS, flags]);
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
}

/// Encodes a packet of IPMI 1.5.
#[must_use]
pub fn encode_legacy(packet: &Legacy<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(30 + packet.payload.len());
    out.extend_from_slice(&RMCP_IPMI);
    out.push(match packet.auth {
        LegacyAuth::None => 0x00,
        LegacyAuth::Md5(_) => 0x02,
    });
    out.extend_from_slice(&packet.sequence.to_le_bytes());
    out.extend_from_slice(&packet.session.to_le_bytes());
    if let LegacyAuth::Md5(code) = packet.auth {
        out.extend_from_slice(&code);
    }
    out.push(u8::try_from(packet.payload.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(packet.payload);
    out
}
