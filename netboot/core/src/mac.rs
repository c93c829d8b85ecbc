//! The names that hardware gives itself: MAC addresses and system GUIDs.
//!
//! It refuses texts that could mean two things: every octet has two digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet hardware address, written `52:54:00:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is not a hardware address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hardware address such as `52:54:00:00:00:01`")]
pub struct MalformedMac(String);

impl Mac {
    /// Returns it as URLs hold it: `52-54-00-00-00-01`.
    #[must_use]
    pub fn dashed(self) -> String {
        self.join('-')
    }

    fn join(self, separator: char) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(17);
        for (index, octet) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(separator);
            }
            // Writing to a string cannot fail.
            write!(text, "{octet:02x}").ok();
        }
        text
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.join(':'))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = MalformedMac;

    /// Reads six octets of two digits with `:` or `-` between them, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || MalformedMac(text.chars().take(40).collect());
        let bytes = text.as_bytes();
        if bytes.len() != 17 {
            return Err(malformed());
        }
        let separator = bytes[2];
        if separator != b':' && separator != b'-' {
            return Err(malformed());
        }
        let mut octets = [0; 6];
        for (index, octet) in octets.iter_mut().enumerate() {
            let at = index * 3;
            if index > 0 && bytes[at - 1] != separator {
                return Err(malformed());
            }
            let digits = nibble(bytes[at]).zip(nibble(bytes[at + 1]));
            *octet = digits.map(|(h, l)| h << 4 | l).ok_or_else(malformed)?;
        }
        Ok(Self(octets))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A system's GUID as DHCP option 97 and `dmidecode` give it; never all zero.
///
/// The bytes are in wire order: the first three fields of the text are little-endian in them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

/// A text that is not a GUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedGuid {
    /// It has another form.
    #[error("`{0}` is not a GUID such as `4c4c4544-0042-3510-8056-b7c04f4e3732`")]
    Form(String),
    /// It is all zero, which firmware without a GUID sends.
    #[error("an all-zero GUID names no host")]
    Zero,
}

/// Where the bytes of the text stand on the wire.
const GUID_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Guid {
    /// Takes 16 bytes in wire order; none when they are all zero or all one.
    #[must_use]
    pub fn from_wire(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16] && bytes != [0xff; 16]).then_some(Self(bytes))
    }

    /// Returns the 16 bytes in wire order.
    #[must_use]
    pub fn wire(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &at) in GUID_ORDER.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[at])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = MalformedGuid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || MalformedGuid::Form(text.chars().take(60).collect());
        let bytes = text.as_bytes();
        let dashes = [8, 13, 18, 23];
        if bytes.len() != 36 || dashes.iter().any(|&at| bytes[at] != b'-') {
            return Err(malformed());
        }
        let mut digits = (0..36)
            .filter(|at| !dashes.contains(at))
            .map(|at| nibble(bytes[at]));
        let mut wire = [0; 16];
        for at in GUID_ORDER {
            let pair = digits.next().flatten().zip(digits.next().flatten());
            wire[at] = pair.map(|(h, l)| h << 4 | l).ok_or_else(malformed)?;
        }
        Self::from_wire(wire).ok_or(MalformedGuid::Zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_reads_both_forms_and_nothing_else() {
        let mac = Mac([0x52, 0x54, 0, 0x0a, 0xbc, 1]);
        assert_eq!(mac.to_string(), "52:54:00:0a:bc:01");
        assert_eq!(mac.dashed(), "52-54-00-0a-bc-01");
        assert_eq!("52-54-00-0A-bC-01".parse(), Ok(mac));
        let wrong = [
            "",
            "52:54:0:0:0:1",
            "52:54:00:00:00:0g",
            "52:54-00:00:00:01",
            "52:54:00:00:00:0é",
            "é2:54:00:00:00:01",
        ];
        for text in wrong {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_guid_is_little_endian_in_its_first_fields() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let guid: Guid = text.parse().unwrap();
        assert_eq!(
            guid.wire()[..8],
            [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66]
        );
        assert_eq!(guid.to_string(), text);
        assert_eq!(
            "00000000-0000-0000-0000-000000000000".parse::<Guid>(),
            Err(MalformedGuid::Zero)
        );
        assert!(
            "00112233-4455-6677-8899-aabbccddeef"
                .parse::<Guid>()
                .is_err()
        );
        assert!(
            "00112233-4455-6677-8899-aabbccddeefé"
                .parse::<Guid>()
                .is_err()
        );
    }
}
