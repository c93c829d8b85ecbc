//! Addresses: given, confirmed, declined and released as RFC 2131 §4.3 says.
//!
//! It refuses to give one address to two clients: a listed host is one client, by whichever of its
//! interfaces it asks.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::decision::{Change, Decision, Note, Silence};
use super::super::leases::{Lease, LeaseState};
use super::super::reply::ReplyKind;
use super::Question;

/// How long an offered address is kept for its client. Clients collect offers for up to 11 s
/// (PXE 2.1 §2.2.4) and then repeat a lost REQUEST for some more.
const OFFER_HOLD: Duration = Duration::from_secs(30);

/// How long a pool's address that was declined is given to no one.
const DECLINED_POOL: Duration = Duration::from_hours(1);

/// The same for a reserved address: its host has no other, so it may try again soon.
const DECLINED_RESERVED: Duration = Duration::from_mins(1);

/// What a REQUEST is for (RFC 2131 §4.3.2, table 4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It takes an offer.
    Selecting,
    /// It was restarted, and asks whether the address that it had is still its own.
    InitReboot,
    /// It wants to keep its address for longer: renewing when it asks us, rebinding when all.
    Extending,
}

impl Question<'_> {
    /// Answers a DISCOVER.
    pub(super) fn offer(&self) -> Result<Decision, Silence> {
        if let Some(address) = self.reserved()? {
            self.check_reserved_is_free(address)?;
            return Ok(Decision::Send {
                reply: Box::new(self.give(ReplyKind::Offer, address)),
                change: None,
            });
        }
        if self.network.pool.is_none() {
            return Err(Silence::NoPool);
        }
        let wanted = self.request.requested;
        let address = self
            .leases
            .choose(self.network, &self.client, wanted, self.now)
            .ok_or(Silence::PoolEmpty)?;
        Ok(Decision::Send {
            reply: Box::new(self.give(ReplyKind::Offer, address)),
            change: self.hold(address),
        })
    }

    /// Keeps an address for its offer, unless the client has it anyway.
    fn hold(&self, address: Ipv4Addr) -> Option<Change> {
        let known = self.leases.of_client(self.network, &self.client);
        let bound = known.is_some_and(|lease| {
            lease.address == address && lease.state == LeaseState::Bound && lease.is_live(self.now)
        });
        let until = self.now.after(OFFER_HOLD);
        (!bound).then(|| Change::Put(self.lease(address, LeaseState::Offered, until)))
    }

    /// Answers a REQUEST.
    pub(super) fn confirm(&self) -> Result<Decision, Silence> {
        let request = self.request;
        let purpose = match (request.server, request.requested) {
            (Some(_), _) => Purpose::Selecting,
            (None, Some(_)) if request.ciaddr.is_unspecified() => Purpose::InitReboot,
            (None, _) => Purpose::Extending,
        };
        if let Some(server) = request.server.filter(|server| !self.is_us(*server)) {
            return self.other_server(server);
        }
        let address = match purpose {
            Purpose::Extending => Some(request.ciaddr),
            Purpose::Selecting | Purpose::InitReboot => request.requested,
        };
        // Some clients in SELECTING repeat the address in ciaddr alone.
        let address = address
            .or(Some(request.ciaddr))
            .filter(|address| !address.is_unspecified())
            .ok_or(Silence::NoAddress)?;
        if !self.network.subnet.contains(address) {
            return Ok(self.nak("the address belongs to another network"));
        }
        match self.reserved() {
            Ok(Some(reserved)) if reserved == address => {
                self.check_reserved_is_free(address)?;
                Ok(self.bind(address))
            }
            Ok(Some(_)) => Ok(self.nak("another address is reserved for this host")),
            Err(_) => Ok(self.nak("the host's address belongs to another network")),
            Ok(None) => self.confirm_pooled(purpose, address),
        }
    }

    fn confirm_pooled(&self, purpose: Purpose, address: Ipv4Addr) -> Result<Decision, Silence> {
        let available = self
            .leases
            .is_available(self.network, address, &self.client, self.now);
        match self.leases.of_client(self.network, &self.client) {
            Some(lease) if lease.address == address && available => Ok(self.bind(address)),
            Some(lease) if lease.is_live(self.now) => {
                Ok(self.nak("the client has another address"))
            }
            // RFC 2131 §4.3.2: a server without a record stays silent, so that servers that do not
            // know each other can live side by side.
            _ if purpose == Purpose::InitReboot => Err(Silence::NoRecord),
            // Its record was lost, with its offer or its lease, and no one else has the address.
            _ if available => Ok(self.bind(address)),
            _ => Ok(self.nak("the address is not available")),
        }
    }

    /// A client that takes another server's offer thereby declines ours (RFC 2131 §3.1, step 4).
    fn other_server(&self, server: Ipv4Addr) -> Result<Decision, Silence> {
        let lease = self.leases.of_client(self.network, &self.client);
        match lease.filter(|lease| lease.state == LeaseState::Offered) {
            Some(lease) => Ok(Decision::Note {
                note: Note::OfferDeclined,
                change: Change::Withdraw(lease.clone()),
            }),
            None => Err(Silence::OtherServer { server }),
        }
    }

    /// Answers a DECLINE: something else on the wire uses the address.
    pub(super) fn decline(&self) -> Result<Decision, Silence> {
        self.check_server()?;
        let address = self.request.requested.ok_or(Silence::NoAddress)?;
        let reserved = self.held(address)?;
        if let Some(offer) = self.offered(address) {
            // RFC 2131 §3.1 lets a client decline what it was given by an ACK. Whoever had only an
            // offer could take a pool out of use with two packets an address.
            return Ok(Decision::Note {
                note: Note::OfferDeclined,
                change: Change::Withdraw(offer),
            });
        }
        let hold = if reserved {
            DECLINED_RESERVED
        } else {
            DECLINED_POOL
        };
        let lease = self.lease(address, LeaseState::Declined, self.now.after(hold));
        Ok(Decision::Note {
            note: Note::Declined,
            change: Change::Put(lease),
        })
    }

    /// Returns the offer of an address that the client did not take yet.
    fn offered(&self, address: Ipv4Addr) -> Option<Lease> {
        let lease = self.leases.of_client(self.network, &self.client);
        lease
            .filter(|lease| lease.address == address && lease.state == LeaseState::Offered)
            .cloned()
    }

    /// Answers a RELEASE: the address is free, and remembered as the client's.
    pub(super) fn release(&self) -> Result<Decision, Silence> {
        self.check_server()?;
        let address = self.request.ciaddr;
        if address.is_unspecified() {
            return Err(Silence::NoAddress);
        }
        self.held(address)?;
        Ok(Decision::Note {
            note: Note::Released,
            change: Change::Put(self.lease(address, LeaseState::Released, self.now)),
        })
    }

    fn check_server(&self) -> Result<(), Silence> {
        match self.request.server {
            Some(server) if !self.is_us(server) => Err(Silence::OtherServer { server }),
            _ => Ok(()),
        }
    }

    /// Checks that the client holds an address now, and tells whether it is a reserved one.
    fn held(&self, address: Ipv4Addr) -> Result<bool, Silence> {
        let holds = |lease: &Lease| {
            lease.address == address && lease.client == self.client && lease.is_live(self.now)
        };
        if let Ok(Some(reserved)) = self.reserved() {
            let lease = self.leases.fixed(address);
            return (reserved == address && lease.is_none_or(holds))
                .then_some(true)
                .ok_or(Silence::NotItsAddress);
        }
        let lease = self.leases.of_client(self.network, &self.client);
        lease
            .is_some_and(holds)
            .then_some(false)
            .ok_or(Silence::NotItsAddress)
    }

    /// Answers an INFORM: everything but an address (RFC 2131 §4.3.5).
    pub(super) fn inform(&self) -> Result<Decision, Silence> {
        let address = self.request.ciaddr;
        if address.is_unspecified() {
            return Err(Silence::NoAddress);
        }
        if !self.network.subnet.contains(address) {
            return Err(Silence::UnknownNetwork { address });
        }
        let form = self.form();
        let mut reply = self.reply(ReplyKind::Ack, form);
        reply.ciaddr = address;
        self.describe(&mut reply, form);
        reply.destination = self.destination(Ipv4Addr::UNSPECIFIED);
        Ok(Decision::Send {
            reply: Box::new(reply),
            change: None,
        })
    }

    /// Returns the host's reserved address; none when it takes one from the pool.
    fn reserved(&self) -> Result<Option<Ipv4Addr>, Silence> {
        let Some(address) = self.host.and_then(|host| host.address) else {
            return Ok(None);
        };
        if self.network.subnet.contains(address) {
            Ok(Some(address))
        } else {
            Err(Silence::HostElsewhere { address })
        }
    }

    /// Checks that no one else holds a reserved address: another client had it before the site
    /// reserved it, or its own host found it in use.
    fn check_reserved_is_free(&self, address: Ipv4Addr) -> Result<(), Silence> {
        match self.leases.fixed(address) {
            Some(lease) if !lease.is_live(self.now) => Ok(()),
            Some(lease) if lease.state == LeaseState::Declined => {
                Err(Silence::AddressDeclined { address })
            }
            Some(lease) if lease.client != self.client => Err(Silence::AddressTaken { address }),
            _ => Ok(()),
        }
    }
}
