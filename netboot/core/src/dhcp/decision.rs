//! What is done about one packet, and why.
//!
//! It refuses to leave a packet without an answer: silence is one, and has a reason.

use std::net::Ipv4Addr;

use super::{Lease, Malformed, Reply};

/// What is done about one packet. Every packet ends in exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Store the change, then send the reply.
    Send {
        /// What is sent.
        reply: Box<Reply>,
        /// What must be remembered before it is sent.
        change: Option<Change>,
    },
    /// Store the change; the client expects no reply.
    Note {
        /// What the client told us.
        note: Note,
        /// What must be remembered.
        change: Change,
    },
    /// Do nothing.
    Ignore(Silence),
}

impl Decision {
    /// Returns a constant word for metrics and log fields.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Send { reply, .. } => reply.kind.label(),
            Self::Note { note, .. } => note.label(),
            Self::Ignore(silence) => silence.label(),
        }
    }

    /// Returns what must be remembered.
    #[must_use]
    pub fn change(&self) -> Option<&Change> {
        match self {
            Self::Send { change, .. } => change.as_ref(),
            Self::Note { change, .. } => Some(change),
            Self::Ignore(_) => None,
        }
    }
}

/// One change of the leases; [`super::Leases::apply`] makes it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes this lease over whatever its address had.
    Put(Lease),
    /// Takes back an address that was only on offer.
    Withdraw(Lease),
}

impl Change {
    /// Returns the lease that must be on disk before the reply leaves.
    ///
    /// Offers are not stored: RFC 2131 §3.1 asks only that a binding is.
    #[must_use]
    pub fn durable(&self) -> Option<&Lease> {
        match self {
            Self::Put(lease) if lease.state != super::LeaseState::Offered => Some(lease),
            Self::Put(_) | Self::Withdraw(_) => None,
        }
    }
}

/// What a client told us without asking anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It gives its address back.
    Released,
    /// Something else uses the address that we gave.
    Declined,
    /// It took the offer of another server.
    OfferDeclined,
}

impl Note {
    /// Returns a constant word for metrics and log fields.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Declined => "declined",
            Self::OfferDeclined => "offer-declined",
        }
    }
}

/// Why a packet gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It is no DHCP request that can be read.
    #[error("the packet is malformed: {0}")]
    Malformed(Malformed),
    /// It is BOOTP, or a message for clients.
    #[error("message type {0} asks nothing of a server")]
    NotAQuestion(u8),
    /// No network of the site covers where it came from.
    #[error("no network covers {address}")]
    UnknownNetwork {
        /// The relay, the link it selected, or our own address on the wire.
        address: Ipv4Addr,
    },
    /// The site does not list the host, and the network answers listed hosts only.
    #[error("no host of the site has this hardware address")]
    UnknownHost,
    /// It has neither hardware address nor client identifier (RFC 2131 §4.2 wants one of them).
    #[error("the client does not say who it is")]
    Nameless,
    /// The host's reserved address belongs to another network.
    #[error("the host's address {address} belongs to another network")]
    HostElsewhere {
        /// The reserved address.
        address: Ipv4Addr,
    },
    /// The client chose another server.
    #[error("addressed to the server {server}")]
    OtherServer {
        /// That server.
        server: Ipv4Addr,
    },
    /// The network has no pool to take an address from.
    #[error("the network has no pool")]
    NoPool,
    /// All addresses of the pool are in use.
    #[error("all addresses of the pool are in use")]
    PoolEmpty,
    /// Someone else still holds the host's reserved address.
    #[error("{address} is still leased to another client")]
    AddressTaken {
        /// The reserved address.
        address: Ipv4Addr,
    },
    /// A client found the reserved address in use.
    #[error("{address} was declined: something on the wire uses it")]
    AddressDeclined {
        /// The reserved address.
        address: Ipv4Addr,
    },
    /// We know nothing of the address that the client wants confirmed (RFC 2131 §4.3.2).
    #[error("the client wants an address confirmed that we have no record of")]
    NoRecord,
    /// The client gives back or declines an address that it does not hold.
    #[error("the client does not hold this address")]
    NotItsAddress,
    /// The packet lacks the address that its kind needs.
    #[error("the packet does not say which address it is about")]
    NoAddress,
    /// Another server gives addresses here, and the client does not boot from the network.
    #[error("the client does not ask for boot options")]
    NotBooting,
    /// Another server gives addresses here, and this question is for it.
    #[error("the question is for the network's DHCP server")]
    ForTheDhcpServer,
    /// We have no loader for the architecture.
    #[error("no loader for architecture {0}")]
    NoLoader(u16),
}

impl Silence {
    /// Returns a constant word for metrics and log fields.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::NotAQuestion(_) => "not-a-question",
            Self::UnknownNetwork { .. } => "unknown-network",
            Self::UnknownHost => "unknown-host",
            Self::Nameless => "nameless",
            Self::HostElsewhere { .. } => "host-elsewhere",
            Self::OtherServer { .. } => "other-server",
            Self::NoPool => "no-pool",
            Self::PoolEmpty => "pool-empty",
            Self::AddressTaken { .. } => "address-taken",
            Self::AddressDeclined { .. } => "address-declined",
            Self::NoRecord => "no-record",
            Self::NotItsAddress => "not-its-address",
            Self::NoAddress => "no-address",
            Self::NotBooting => "not-booting",
            Self::ForTheDhcpServer => "for-the-dhcp-server",
            Self::NoLoader(_) => "no-loader",
        }
    }
}
