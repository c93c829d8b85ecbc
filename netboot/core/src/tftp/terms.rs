//! What a client may ask for in options, and what it gets.
//!
//! It refuses to exceed what a path is sure to carry: fragments and frames over the MTU lose boots.

use std::time::Duration;

/// An Ethernet frame less the headers of IPv4, UDP and TFTP: 1500 - 20 - 8 - 4.
///
/// Some ROMs drop fragments, others drop packets with DF set; neither happens below this size.
pub const MAX_BLOCK_SIZE: u16 = 1468;
/// Blocks in flight. 64 blocks of 1468 bytes fill 10 ms of Gigabit Ethernet; a larger window only
/// overruns the receive ring of firmware.
pub const MAX_WINDOW: u16 = 64;
/// RFC 1350 §2.
const DEFAULT_BLOCK_SIZE: u16 = 512;
/// RFC 2348 §2.
const MIN_BLOCK_SIZE: u64 = 8;

/// One option of a request or of its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// `blksize` in bytes (RFC 2348).
    BlockSize(u64),
    /// `tsize` in bytes; 0 in a request (RFC 2349).
    Size(u64),
    /// `timeout` in seconds (RFC 2349).
    Timeout(u64),
    /// `windowsize` in blocks (RFC 7440).
    Window(u64),
}

/// The terms of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Content bytes of every block but the last.
    pub block_size: u16,
    /// Blocks sent for one acknowledgement.
    pub window: u16,
    /// The longest wait before something is sent again, if the client asked for one.
    pub timeout: Option<Duration>,
}

impl Ask {
    /// Reads one option; unknown ones and values outside the RFC's range are none.
    pub(super) fn parse(name: &[u8], value: &[u8]) -> Option<Self> {
        if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let value: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("blksize") && (MIN_BLOCK_SIZE..=65464).contains(&value) {
            Some(Self::BlockSize(value))
        } else if is("tsize") {
            Some(Self::Size(value))
        } else if is("timeout") && (1..=255).contains(&value) {
            Some(Self::Timeout(value))
        } else if is("windowsize") && (1..=65535).contains(&value) {
            Some(Self::Window(value))
        } else {
            None
        }
    }

    /// The option's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BlockSize(_) => "blksize",
            Self::Size(_) => "tsize",
            Self::Timeout(_) => "timeout",
            Self::Window(_) => "windowsize",
        }
    }

    /// The option's value.
    #[must_use]
    pub fn value(self) -> u64 {
        match self {
            Self::BlockSize(value)
            | Self::Size(value)
            | Self::Timeout(value)
            | Self::Window(value) => value,
        }
    }
}

impl Terms {
    /// Answers the options of a request for a file of `size` bytes.
    ///
    /// No answers means no OACK: the transfer starts with its first block (RFC 2347 §3).
    pub(super) fn negotiate(asks: &[Ask], size: u64) -> (Self, Vec<Ask>) {
        let mut terms = Self {
            block_size: DEFAULT_BLOCK_SIZE,
            window: 1,
            timeout: None,
        };
        let answers = asks.iter().map(|ask| terms.answer(*ask, size)).collect();
        (terms, answers)
    }

    fn answer(&mut self, ask: Ask, size: u64) -> Ask {
        match ask {
            Ask::BlockSize(wanted) => {
                self.block_size = at_most(wanted, MAX_BLOCK_SIZE);
                Ask::BlockSize(self.block_size.into())
            }
            Ask::Size(_) => Ask::Size(size),
            Ask::Timeout(seconds) => {
                self.timeout = Some(Duration::from_secs(seconds));
                ask
            }
            Ask::Window(wanted) => {
                self.window = at_most(wanted, MAX_WINDOW);
                Ask::Window(self.window.into())
            }
        }
    }
}

fn at_most(wanted: u64, limit: u16) -> u16 {
    u16::try_from(wanted).map_or(limit, |wanted| wanted.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_answered_within_our_limits() {
        let cases = [
            (
                "edk2 asks for the size",
                vec![Ask::Size(0)],
                (512, 1),
                vec![Ask::Size(5000)],
            ),
            (
                "jumbo block",
                vec![Ask::BlockSize(65464)],
                (1468, 1),
                vec![Ask::BlockSize(1468)],
            ),
            (
                "small block",
                vec![Ask::BlockSize(8)],
                (8, 1),
                vec![Ask::BlockSize(8)],
            ),
            (
                "huge window",
                vec![Ask::Window(65535)],
                (512, 64),
                vec![Ask::Window(64)],
            ),
            (
                "the client's order is kept",
                vec![Ask::Window(4), Ask::Timeout(3), Ask::BlockSize(1024)],
                (1024, 4),
                vec![Ask::Window(4), Ask::Timeout(3), Ask::BlockSize(1024)],
            ),
            ("nothing asked", vec![], (512, 1), vec![]),
        ];
        for (name, asks, (block_size, window), expected) in cases {
            let (terms, answers) = Terms::negotiate(&asks, 5000);
            assert_eq!(
                (terms.block_size, terms.window),
                (block_size, window),
                "{name}"
            );
            assert_eq!(answers, expected, "{name}");
        }
    }

    #[test]
    fn values_outside_the_range_are_as_if_not_asked() {
        let cases = [
            ("blksize", "7"),
            ("blksize", "65465"),
            ("blksize", ""),
            ("windowsize", "0"),
            ("windowsize", "65536"),
            ("timeout", "0"),
            ("timeout", "256"),
            ("tsize", "+1"),
            ("tsize", "99999999999999999999"),
            ("rollover", "0"),
        ];
        for (name, value) in cases {
            assert_eq!(
                Ask::parse(name.as_bytes(), value.as_bytes()),
                None,
                "{name}={value}"
            );
        }
    }
}
