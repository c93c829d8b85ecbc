//! IPMI messages as LAN channels carry them (IPMI 2.0 §13.8).

use std::fmt;

use super::Malformed;
use super::reader::Reader;

/// The BMC's address on its own bus.
const BMC: u8 = 0x20;
/// The address of remote console software.
const CONSOLE: u8 = 0x81;

/// The group that a command belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetFn {
    /// Power and boot.
    Chassis,
    /// Sensors and events.
    Sensor,
    /// The BMC and its sessions.
    App,
    /// SDR, SEL and FRU.
    Storage,
    /// LAN and SOL settings.
    Transport,
    /// Another one, by its even number.
    Other(u8),
}

impl NetFn {
    fn number(self) -> u8 {
        match self {
            Self::Chassis => 0x00,
            Self::Sensor => 0x04,
            Self::App => 0x06,
            Self::Storage => 0x0a,
            Self::Transport => 0x0c,
            Self::Other(number) => number & 0x3e,
        }
    }

    fn from_number(number: u8) -> Self {
        match number & 0x3e {
            0x00 => Self::Chassis,
            0x04 => Self::Sensor,
            0x06 => Self::App,
            0x0a => Self::Storage,
            0x0c => Self::Transport,
            other => Self::Other(other),
        }
    }
}

/// Commands of [`NetFn::App`].
pub mod app {
    /// Get Device ID.
    pub const DEVICE_ID: u8 = 0x01;
    /// Get System GUID.
    pub const SYSTEM_GUID: u8 = 0x37;
    /// Get Channel Authentication Capabilities.
    pub const CHANNEL_AUTH: u8 = 0x38;
    /// Get Session Challenge (1.5).
    pub const CHALLENGE: u8 = 0x39;
    /// Activate Session (1.5).
    pub const ACTIVATE: u8 = 0x3a;
    /// Set Session Privilege Level.
    pub const SET_PRIVILEGE: u8 = 0x3b;
    /// Close Session.
    pub const CLOSE: u8 = 0x3c;
    /// Activate Payload.
    pub const ACTIVATE_PAYLOAD: u8 = 0x48;
    /// Deactivate Payload.
    pub const DEACTIVATE_PAYLOAD: u8 = 0x49;
    /// Get Channel Cipher Suites.
    pub const CIPHER_SUITES: u8 = 0x54;
}

/// Commands of [`NetFn::Chassis`].
pub mod chassis {
    /// Get Chassis Status.
    pub const STATUS: u8 = 0x01;
    /// Chassis Control.
    pub const CONTROL: u8 = 0x02;
    /// Set System Boot Options.
    pub const SET_BOOT: u8 = 0x08;
    /// Get System Boot Options.
    pub const GET_BOOT: u8 = 0x09;
}

/// Commands of [`NetFn::Transport`].
pub mod transport {
    /// Get LAN Configuration Parameters.
    pub const GET_LAN: u8 = 0x02;
}

/// A completion code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

impl Code {
    /// Done.
    pub const OK: Self = Self(0x00);
    /// The BMC is busy.
    pub const BUSY: Self = Self(0xc0);
    /// It does not know the command.
    pub const INVALID_COMMAND: Self = Self(0xc1);
    /// It gave up on the command.
    pub const TIMEOUT: Self = Self(0xc3);
    /// It has no room.
    pub const OUT_OF_SPACE: Self = Self(0xc4);
    /// Something asked for is not there.
    pub const NOT_PRESENT: Self = Self(0xcb);
    /// A field holds what it must not.
    pub const INVALID_FIELD: Self = Self(0xcc);
    /// The BMC is starting.
    pub const STARTING: Self = Self(0xd2);
    /// The session may not do this.
    pub const PRIVILEGE: Self = Self(0xd4);
    /// Not in the present state.
    pub const STATE: Self = Self(0xd5);

    /// Something went wrong in the BMC.
    pub const UNSPECIFIED: Self = Self(0xff);

    /// Whether the same may be asked again a little later.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::BUSY | Self::TIMEOUT | Self::OUT_OF_SPACE | Self::STARTING
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match *self {
            Self::OK => "done",
            Self::BUSY => "busy",
            Self::INVALID_COMMAND => "unknown command",
            Self::TIMEOUT => "the command timed out in the bmc",
            Self::OUT_OF_SPACE => "out of space",
            Self::NOT_PRESENT => "not present",
            Self::INVALID_FIELD => "invalid field",
            Self::STARTING => "the bmc is starting",
            Self::PRIVILEGE => "insufficient privilege",
            Self::UNSPECIFIED => "unspecified error",
            Self::STATE => "not in the present state",
            Self(other) => return write!(out, "completion code {other:02X}h"),
        };
        write!(out, "{words} ({:02X}h)", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The command's group.
    pub netfn: NetFn,
    /// The command.
    pub command: u8,
    /// What the reply repeats; six bits.
    pub sequence: u8,
    /// The command's data.
    pub data: &'a [u8],
}

/// A BMC's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The group of the command that it answers.
    pub netfn: NetFn,
    /// The command that it answers.
    pub command: u8,
    /// The request's sequence.
    pub sequence: u8,
    /// How it went.
    pub code: Code,
    /// The reply's data.
    pub data: &'a [u8],
}

/// Either of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Even network functions.
    Request(Request<'a>),
    /// Odd network functions.
    Reply(Reply<'a>),
}

impl<'a> Message<'a> {
    /// Decodes a message; checksums are checked.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "message");
        let [to, netfn, head_sum, from, sequence, command] = reader.array()?;
        let (&tail_sum, data) = reader
            .rest()
            .split_last()
            .ok_or(Malformed::Short("message"))?;
        if sum(&[to, netfn]) != head_sum {
            return Err(Malformed::Checksum("a message's head"));
        }
        if sum(&[from, sequence, command]).wrapping_add(sum(data)) != tail_sum {
            return Err(Malformed::Checksum("a message's data"));
        }
        let (group, sequence) = (NetFn::from_number(netfn >> 2), sequence >> 2);
        if netfn >> 2 & 1 == 0 {
            return Ok(Self::Request(Request {
                netfn: group,
                command,
                sequence,
                data,
            }));
        }
        let (&code, data) = data.split_first().ok_or(Malformed::Short("reply"))?;
        Ok(Self::Reply(Reply {
            netfn: group,
            command,
            sequence,
            code: Code(code),
            data,
        }))
    }
}

impl Request<'_> {
    /// Encodes the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(
            [BMC, self.netfn.number() << 2],
            [CONSOLE, self.sequence << 2, self.command],
            &[self.data],
        )
    }

    /// The reply to it.
    #[must_use]
    pub fn reply<'r>(&self, code: Code, data: &'r [u8]) -> Reply<'r> {
        Reply {
            netfn: self.netfn,
            command: self.command,
            sequence: self.sequence,
            code,
            data,
        }
    }
}

impl Reply<'_> {
    /// Encodes the reply.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = [CONSOLE, (self.netfn.number() | 1) << 2];
        encode(
            head,
            [BMC, self.sequence << 2, self.command],
            &[&[self.code.0], self.data],
        )
    }
}

fn encode(head: [u8; 2], tail: [u8; 3], data: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(7 + data.iter().map(|part| part.len()).sum::<usize>());
    out.extend_from_slice(&head);
    out.push(sum(&head));
    out.extend_from_slice(&tail);
    for part in data {
        out.extend_from_slice(part);
    }
    out.push(sum(&out[3..]));
    out
}

/// What makes the sum of `bytes` zero.
fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}
