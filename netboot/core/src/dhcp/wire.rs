//! The bytes of a DHCP message: its fixed fields, and its options as codes with bytes.
//!
//! It refuses to understand options: [`super::Request`] does. What it reads is borrowed, and an
//! option that ends outside its field is dropped alone.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use super::option;
use super::request::Malformed;

/// Fixed fields and the magic cookie (RFC 2131 §2).
pub(super) const HEADER: usize = 240;
/// Answers are padded to this: BOOTP relays and old ROMs drop shorter ones (RFC 1542 §2.1).
pub(super) const SHORTEST: usize = 300;
/// Bytes of IP and UDP headers, which option 57 counts in.
pub(super) const IP_UDP: usize = 28;
pub(super) const MAGIC: [u8; 4] = [99, 130, 83, 99];
pub(super) const SNAME: std::ops::Range<usize> = 44..108;
pub(super) const FILE: std::ops::Range<usize> = 108..236;
/// The largest message that we read; an Ethernet frame holds 1,472 bytes.
const LONGEST: usize = 4096;

/// A message whose fixed fields were checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks length, operation, hardware address length and magic cookie.
    pub(super) fn check(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER {
            return Err(Malformed::Short);
        }
        if bytes.len() > LONGEST {
            return Err(Malformed::Long);
        }
        if bytes[0] != 1 {
            return Err(Malformed::NotARequest);
        }
        if bytes[2] > 16 {
            return Err(Malformed::HardwareLength);
        }
        if bytes[236..HEADER] != MAGIC {
            return Err(Malformed::Magic);
        }
        Ok(Self { bytes })
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    pub(super) fn word(&self, at: usize) -> u32 {
        let bytes = self.bytes;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    pub(super) fn half(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    pub(super) fn address(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.word(at))
    }

    pub(super) fn hardware_address(&self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.bytes[28..44]);
        address
    }

    /// Reads all options: those of the option field, then of `file`, then of `sname` when option
    /// 52 says that they hold some (RFC 2131 §4.1); split ones are joined (RFC 3396).
    pub(super) fn options(&self) -> Options<'a> {
        let mut options = Options::default();
        options.read(&self.bytes[HEADER..]);
        let overload = match options.get(option::OVERLOAD) {
            Some(&[overload]) => overload,
            _ => 0,
        };
        if overload & 1 != 0 {
            options.read(&self.bytes[FILE]);
        }
        if overload & 2 != 0 {
            options.read(&self.bytes[SNAME]);
        }
        options
    }
}

/// Options in the order in which each was first met.
#[derive(Clone, Debug, Default)]
pub(super) struct Options<'a> {
    list: Vec<(u8, Cow<'a, [u8]>)>,
}

impl<'a> Options<'a> {
    fn read(&mut self, mut field: &'a [u8]) {
        if self.list.capacity() == 0 {
            self.list.reserve(20);
        }
        while let [code, rest @ ..] = field {
            match *code {
                option::PAD => field = rest,
                option::END => return,
                code => {
                    let Some((value, after)) = rest
                        .split_first()
                        .and_then(|(&length, rest)| rest.split_at_checked(length.into()))
                    else {
                        return;
                    };
                    self.add(code, value);
                    field = after;
                }
            }
        }
    }

    fn add(&mut self, code: u8, value: &'a [u8]) {
        match self.list.iter_mut().find(|(known, _)| *known == code) {
            Some((_, joined)) => joined.to_mut().extend_from_slice(value),
            None => self.list.push((code, Cow::Borrowed(value))),
        }
    }

    /// Returns the value of an option.
    pub(super) fn get(&self, code: u8) -> Option<&[u8]> {
        self.list
            .iter()
            .find(|(known, _)| *known == code)
            .map(|(_, value)| value.as_ref())
    }

    /// Returns the address that an option holds, when it holds exactly one.
    pub(super) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        address(self.get(code)?)
    }
}

/// Reads four bytes as an address.
pub(super) fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

/// Walks options or suboptions that have neither padding nor end (RFC 3046 §2.0).
pub(super) fn suboptions(mut field: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[code, length], rest) = field.split_first_chunk::<2>()?;
        let (value, after) = rest.split_at_checked(length.into())?;
        field = after;
        Some((code, value))
    })
}
