//! The bytes of TFTP packets, in and out.
//!
//! It refuses to judge a request: what an option is answered with is decided in `terms`, which file a name means in
//! the shell.

use super::terms::Ask;

/// RFC 2347 §2: a request is at most 512 bytes. Ours may fill an Ethernet frame, as some firmware pads.
const MAX_REQUEST: usize = 1500;
/// Longer than any path that DHCP can hand out (128 bytes in `file`, 255 in option 67).
const MAX_NAME: usize = 255;
/// Four options are known; the rest is room for unknown ones, which are skipped.
const MAX_OPTIONS: usize = 16;
/// Error texts fit the smallest block, so that every client can hold them (RFC 1350 §5 sets no limit).
const MAX_TEXT: usize = 200;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Bytes before the content of a DATA packet: opcode and block number.
pub(super) const DATA_HEADER: usize = 4;

/// A packet that a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// RRQ: the client asks for a file.
    Read(ReadRequest),
    /// WRQ: the client wants to write this file.
    Write {
        /// Name of the file.
        file: String,
    },
    /// ACK of a block, by its 16-bit number.
    Ack(u16),
    /// ERROR: the client ends its transfer.
    Error {
        /// The number of the error, as the client gave it.
        code: u16,
        /// What the client says about it.
        text: String,
    },
}

/// A read request: which file, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The name as the client wrote it.
    pub file: String,
    /// How the bytes are to travel.
    pub mode: Mode,
    /// The options that are understood and well formed, in the client's order, each at most once.
    pub asks: Vec<Ask>,
}

/// How the bytes of a file travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As they are.
    Octet,
    /// Line ends as CR LF and CR as CR NUL (RFC 764).
    Netascii,
}

/// Why bytes are not a packet of a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends before it has said anything.
    #[error("the packet ends too early")]
    Short,
    /// The opcode is none that a client of a read sends.
    #[error("opcode {0} is not for a server to receive")]
    Opcode(u16),
    /// A request is longer than any request is.
    #[error("the request is longer than {MAX_REQUEST} bytes")]
    TooLong,
    /// The name is empty, too long or not text.
    #[error("the file name is empty, not text or longer than {MAX_NAME} bytes")]
    Name,
    /// The mode is neither `octet` nor `netascii`.
    #[error("the mode is neither octet nor netascii")]
    Mode,
    /// There are more options than any client has.
    #[error("the request has more than {MAX_OPTIONS} options")]
    Options,
}

/// The numbers of RFC 1350 §5 and RFC 2347 that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 0: the text says it.
    Undefined,
    /// 1: no such file.
    NotFound,
    /// 2: not allowed.
    AccessViolation,
    /// 4: the packet makes no sense.
    IllegalOperation,
}

impl ErrorCode {
    fn number(self) -> u16 {
        match self {
            Self::Undefined => 0,
            Self::NotFound => 1,
            Self::AccessViolation => 2,
            Self::IllegalOperation => 4,
        }
    }
}

impl Packet {
    /// Reads a packet that a client sent.
    ///
    /// # Errors
    /// When the bytes are no request, acknowledgement or error. A malformed or unknown *option* is
    /// no error: RFC 2347 §2 has it left out of the answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (opcode, rest) = take_u16(bytes).ok_or(Malformed::Short)?;
        match opcode {
            RRQ => ReadRequest::decode(rest).map(Self::Read),
            WRQ => Ok(Self::Write {
                file: Strings::request(rest)?.name()?,
            }),
            ACK => {
                let (block, _) = take_u16(rest).ok_or(Malformed::Short)?;
                Ok(Self::Ack(block))
            }
            ERROR => {
                let (code, text) = take_u16(rest).ok_or(Malformed::Short)?;
                Ok(Self::Error {
                    code,
                    text: printable(text.split(|byte| *byte == 0).next().unwrap_or_default()),
                })
            }
            other => Err(Malformed::Opcode(other)),
        }
    }

    /// Tells whether bytes are a request, well formed or not: a malformed one deserves an answer.
    #[must_use]
    pub fn is_request(bytes: &[u8]) -> bool {
        matches!(take_u16(bytes), Some((RRQ | WRQ, _)))
    }
}

impl ReadRequest {
    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut strings = Strings::request(bytes)?;
        let file = strings.name()?;
        let mode = match strings.next() {
            Some(mode) if mode.eq_ignore_ascii_case(b"octet") => Mode::Octet,
            Some(mode) if mode.eq_ignore_ascii_case(b"netascii") => Mode::Netascii,
            _ => return Err(Malformed::Mode),
        };
        let mut asks: Vec<Ask> = Vec::new();
        let mut seen = 0;
        while let (Some(name), Some(value)) = (strings.next(), strings.next()) {
            if name.is_empty() {
                break; // padding
            }
            seen += 1;
            if seen > MAX_OPTIONS {
                return Err(Malformed::Options);
            }
            if let Some(ask) = Ask::parse(name, value)
                && !asks.iter().any(|earlier| earlier.name() == ask.name())
            {
                asks.push(ask);
            }
        }
        Ok(Self { file, mode, asks })
    }

    /// Writes the request as a client sends it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mode = match self.mode {
            Mode::Octet => "octet",
            Mode::Netascii => "netascii",
        };
        let mut packet = RRQ.to_be_bytes().to_vec();
        push_string(&mut packet, &self.file);
        push_string(&mut packet, mode);
        push_options(&mut packet, &self.asks);
        packet
    }
}

/// Writes an acknowledgement of the options that were accepted (RFC 2347 §3).
pub(super) fn encode_oack(answers: &[Ask]) -> Vec<u8> {
    let mut packet = OACK.to_be_bytes().to_vec();
    push_options(&mut packet, answers);
    packet
}

/// Writes an error; clients show its text to whoever stands before the screen.
pub(super) fn encode_error(code: ErrorCode, text: &str) -> Vec<u8> {
    let mut packet = ERROR.to_be_bytes().to_vec();
    packet.extend(code.number().to_be_bytes());
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    push_string(&mut packet, &text[..end]);
    packet
}

/// Writes the header of one DATA packet.
pub(super) fn encode_data_header(block: u16, into: &mut Vec<u8>) {
    into.extend(DATA.to_be_bytes());
    into.extend(block.to_be_bytes());
}

fn push_options(packet: &mut Vec<u8>, options: &[Ask]) {
    for option in options {
        push_string(packet, option.name());
        push_string(packet, &option.value().to_string());
    }
}

fn push_string(packet: &mut Vec<u8>, text: &str) {
    packet.extend(text.bytes().filter(|byte| *byte != 0));
    packet.push(0);
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// Keeps what can stand in a log line.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT)])
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// The strings of a request, each ended by a NUL. A last one without its NUL is dropped.
struct Strings<'a>(&'a [u8]);

impl<'a> Strings<'a> {
    fn request(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_REQUEST {
            return Err(Malformed::TooLong);
        }
        Ok(Self(bytes))
    }

    fn name(&mut self) -> Result<String, Malformed> {
        let name = self.next().ok_or(Malformed::Name)?;
        let text = std::str::from_utf8(name).map_err(|_| Malformed::Name)?;
        if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
            return Err(Malformed::Name);
        }
        Ok(text.to_owned())
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (string, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Some(string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, mode: Mode, asks: &[Ask]) -> Packet {
        Packet::Read(ReadRequest {
            file: file.to_owned(),
            mode,
            asks: asks.to_vec(),
        })
    }

    #[test]
    fn packets_of_clients_are_read() {
        let edk2 = [Ask::BlockSize(1468), Ask::Window(4)];
        let cases: [(&str, &[u8], Result<Packet, Malformed>); 17] = [
            (
                "plain",
                b"\0\x01ipxe.efi\0octet\0",
                Ok(read("ipxe.efi", Mode::Octet, &[])),
            ),
            (
                "any case",
                b"\0\x01A\0OcTeT\0BLKSIZE\x001468\0",
                Ok(read("A", Mode::Octet, &edk2[..1])),
            ),
            (
                "netascii",
                b"\0\x01a\0netascii\0",
                Ok(read("a", Mode::Netascii, &[])),
            ),
            (
                "edk2",
                b"\0\x01a\0octet\0blksize\x001468\0windowsize\x004\0",
                Ok(read("a", Mode::Octet, &edk2)),
            ),
            (
                "unknown option",
                b"\0\x01a\0octet\0multicast\0\0tsize\x000\0",
                Ok(read("a", Mode::Octet, &[Ask::Size(0)])),
            ),
            (
                "option twice",
                b"\0\x01a\0octet\0tsize\x000\0tsize\x007\0",
                Ok(read("a", Mode::Octet, &[Ask::Size(0)])),
            ),
            (
                "not a number",
                b"\0\x01a\0octet\0blksize\0-1\0",
                Ok(read("a", Mode::Octet, &[])),
            ),
            (
                "padded with NUL",
                b"\0\x01a\0octet\0\0\0\0\0",
                Ok(read("a", Mode::Octet, &[])),
            ),
            (
                "option cut",
                b"\0\x01a\0octet\0tsize\x000",
                Ok(read("a", Mode::Octet, &[])),
            ),
            ("mode cut", b"\0\x01a\0octet", Err(Malformed::Mode)),
            ("mode unknown", b"\0\x01a\0mail\0", Err(Malformed::Mode)),
            ("no name", b"\0\x01\0octet\0", Err(Malformed::Name)),
            (
                "name not text",
                b"\0\x01\xff\xfe\0octet\0",
                Err(Malformed::Name),
            ),
            (
                "write",
                b"\0\x02x\0octet\0",
                Ok(Packet::Write {
                    file: "x".to_owned(),
                }),
            ),
            ("ack", b"\0\x04\x01\x02", Ok(Packet::Ack(0x102))),
            ("data", b"\0\x03\0\x01abc", Err(Malformed::Opcode(3))),
            ("nothing", b"\0", Err(Malformed::Short)),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(Packet::decode(bytes), expected, "{name}");
        }
    }

    #[test]
    fn an_error_is_read_without_control_characters() {
        let packet = Packet::decode(b"\0\x05\0\x08User\x1b aborted\0rest");
        let text = "User aborted".to_owned();
        assert_eq!(packet, Ok(Packet::Error { code: 8, text }));
    }

    #[test]
    fn an_error_is_written_with_its_reason_cut_at_a_character() {
        let packet = encode_error(ErrorCode::NotFound, &"é".repeat(300));
        assert_eq!(packet[..4], [0, 5, 0, 1]);
        assert_eq!(packet.len(), 4 + MAX_TEXT + 1);
        assert!(std::str::from_utf8(&packet[4..]).is_ok());
    }

    #[test]
    fn hosts_that_ask_too_much_are_refused() {
        let mut many = b"\0\x01a\0octet\0".to_vec();
        many.extend(b"x\x001\0".repeat(MAX_OPTIONS + 1));
        assert_eq!(Packet::decode(&many), Err(Malformed::Options));
        assert_eq!(
            Packet::decode(&[&[0, 1], [b'a'; 2000].as_slice()].concat()),
            Err(Malformed::TooLong)
        );
        let long = [b"\0\x01".as_slice(), &[b'a'; 256], b"\0octet\0"].concat();
        assert_eq!(Packet::decode(&long), Err(Malformed::Name));
    }
}
