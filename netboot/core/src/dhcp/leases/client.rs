//! Who holds an address, and the lease that says so.
//!
//! It refuses to compare clients of different kinds: a listed host is its record, not its packets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::Request;
use crate::site::Host;
use crate::{Mac, Timestamp};

/// Who holds an address; written `host:web1`, `id:ff00…` or `hw:1:525400000001`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// A host of the site, whatever it calls itself in ROM, loader and operating system.
    Host(Arc<str>),
    /// A stranger, by option 61 (RFC 2131 §4.2).
    Id(Box<[u8]>),
    /// A stranger that sends no option 61, by hardware type and address.
    Hardware(u8, Box<[u8]>),
}

impl Client {
    /// Tells who sent a request.
    #[must_use]
    pub fn of(request: &Request, host: Option<&Host>) -> Self {
        match (host, &request.client_id) {
            (Some(host), _) => Self::Host(Arc::clone(&host.name)),
            (None, Some(id)) => Self::Id(id.clone()),
            (None, None) => Self::Hardware(request.htype, request.hardware().into()),
        }
    }

    /// Tells whether the site does not list it.
    pub(super) fn is_stranger(&self) -> bool {
        !matches!(self, Self::Host(_))
    }

    /// Tells whether nothing distinguishes it from other clients.
    pub(in crate::dhcp) fn is_nameless(&self) -> bool {
        matches!(self, Self::Hardware(_, address) if address.iter().all(|&byte| byte == 0))
    }

    /// Returns a number that is the same for the same client in every run (FNV-1a), so that a
    /// client without history gets the same address again from a pool that has it.
    pub(super) fn preference(&self) -> u64 {
        let (kind, bytes) = match self {
            Self::Host(name) => (0, name.as_bytes()),
            Self::Id(id) => (1, &id[..]),
            Self::Hardware(_, address) => (2, &address[..]),
        };
        let start = 0xcbf2_9ce4_8422_2325_u64;
        std::iter::once(&kind)
            .chain(bytes)
            .fold(start, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match self {
            Self::Host(name) => return write!(f, "host:{name}"),
            Self::Id(id) => {
                f.write_str("id:")?;
                id
            }
            Self::Hardware(htype, address) => {
                write!(f, "hw:{htype}:")?;
                address
            }
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is not part of a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not part of a lease")]
pub struct MalformedLease(String);

impl FromStr for Client {
    type Err = MalformedLease;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || MalformedLease(text.chars().take(80).collect());
        let (kind, rest) = text.split_once(':').ok_or_else(malformed)?;
        match kind {
            "host" => Ok(Self::Host(rest.into())),
            "id" => Ok(Self::Id(unhex(rest).ok_or_else(malformed)?)),
            "hw" => {
                let (htype, address) = rest.split_once(':').ok_or_else(malformed)?;
                let htype = htype.parse().map_err(|_| malformed())?;
                Ok(Self::Hardware(htype, unhex(address).ok_or_else(malformed)?))
            }
            _ => Err(malformed()),
        }
    }
}

fn unhex(text: &str) -> Option<Box<[u8]>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs
        .iter()
        .map(|&[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok())
        .collect()
}

/// An address and who holds it until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Name of the network.
    pub network: Arc<str>,
    /// The address.
    pub address: Ipv4Addr,
    /// Who holds it, or held it last.
    pub client: Client,
    /// Hardware address that asked last.
    pub mac: Option<Mac>,
    /// How it is held.
    pub state: LeaseState,
    /// Until when; from then on, others may have it.
    pub until: Timestamp,
}

impl Lease {
    /// Tells whether no one else may have the address yet.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.until > now
    }
}

/// How an address is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// Offered, and kept for the client for some seconds.
    Offered,
    /// The client's, until it ends.
    Bound,
    /// Given back; the client gets it again if it asks before another does.
    Released,
    /// Found in use by someone else; given to no one for a while.
    Declined,
}

impl LeaseState {
    /// Returns the word that is stored.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Bound => "bound",
            Self::Released => "released",
            Self::Declined => "declined",
        }
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for LeaseState {
    type Err = MalformedLease;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Offered, Self::Bound, Self::Released, Self::Declined]
            .into_iter()
            .find(|state| state.label() == text)
            .ok_or_else(|| MalformedLease(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_reads_back_what_it_writes() {
        let cases = [
            ("host:web1", Client::Host("web1".into())),
            ("id:ff00", Client::Id([0xff, 0].into())),
            (
                "hw:1:525400000001",
                Client::Hardware(1, [0x52, 0x54, 0, 0, 0, 1].into()),
            ),
            ("hw:0:", Client::Hardware(0, [].into())),
        ];
        for (text, client) in cases {
            assert_eq!(client.to_string(), text);
            assert_eq!(text.parse(), Ok(client), "{text}");
        }
        for text in ["", "web1", "id:f", "id:zz", "hw:x:00", "hw:00", "id:é"] {
            assert!(text.parse::<Client>().is_err(), "{text}");
        }
        assert_eq!("bound".parse(), Ok(LeaseState::Bound));
        assert!("Bound".parse::<LeaseState>().is_err());
    }
}
