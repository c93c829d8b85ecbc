//! One SOL packet (IPMI 2.0 §15.9).

use crate::wire::{Malformed, Reader};

/// More does not fit: an accepted count is one byte.
const LONGEST: usize = 255;

/// The fourth byte: what is asked for, or how the other end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The packet was not taken; it shall be sent again.
    pub const NACK: Self = Self(0x40);
    /// From a BMC: the host's serial port cannot take characters now.
    pub const UNAVAILABLE: Self = Self(0x20);
    /// From a BMC: SOL was deactivated. From a console the same bit asks for a break.
    pub const DEACTIVATED: Self = Self(0x10);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A SOL packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its number, 1 to 15; 0 for one that only acknowledges.
    pub sequence: u8,
    /// The number of the packet that it acknowledges; 0 for none.
    pub acknowledges: u8,
    /// How many characters of that were taken.
    pub accepted: u8,
    /// Operation or status.
    pub flags: Flags,
    /// Characters; at most 255.
    pub characters: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Decodes a packet.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "sol packet");
        let [sequence, acknowledges, accepted, flags] = reader.array()?;
        let characters = reader.rest();
        if characters.len() > LONGEST {
            return Err(Malformed::Field("sol packet length"));
        }
        Ok(Self {
            sequence: sequence & 0x0f,
            acknowledges: acknowledges & 0x0f,
            accepted,
            flags: Flags(flags),
            characters,
        })
    }

    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = [
            self.sequence,
            self.acknowledges,
            self.accepted,
            self.flags.0,
        ];
        [&head[..], self.characters].concat()
    }
}
