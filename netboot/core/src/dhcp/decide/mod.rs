//! The decision about one packet.
//!
//! It refuses to fail: `decide` is total, and refusing is an answer. Each submodule is one part of
//! it: addresses as RFC 2131 §4.3 gives them, boot options, and answers beside another server.

use std::sync::Arc;

use super::request::{Arrival, Kind, Request};
use super::{Client, Decision, Leases, Profile, Silence, Tried, Tries};
use crate::Timestamp;
use crate::site::{Host, Mode, Network, Reach, Site, Strangers};

mod address;
mod boot;
mod proxy;
mod send;

/// Decides about the bytes of one packet.
#[must_use]
pub fn answer(
    bytes: &[u8],
    arrival: Arrival,
    site: &Site,
    leases: &Leases,
    tries: &Tries,
    now: Timestamp,
) -> Decision {
    match Request::decode(bytes, arrival) {
        Ok(request) => decide(&request, site, leases, tries, now),
        Err(malformed) => Decision::Ignore(Silence::Malformed(malformed)),
    }
}

/// Decides about one request.
#[must_use]
pub fn decide(
    request: &Request,
    site: &Site,
    leases: &Leases,
    tries: &Tries,
    now: Timestamp,
) -> Decision {
    Question::new(request, site, leases, tries, now)
        .and_then(|question| question.decide())
        .unwrap_or_else(Decision::Ignore)
}

/// A request with everything that decides about it.
struct Question<'a> {
    request: &'a Request,
    site: &'a Site,
    leases: &'a Leases,
    now: Timestamp,
    network: &'a Network,
    host: Option<&'a Arc<Host>>,
    client: Client,
    profile: &'static Profile,
    tried: Tried,
}

impl<'a> Question<'a> {
    fn new(
        request: &'a Request,
        site: &'a Site,
        leases: &'a Leases,
        tries: &Tries,
        now: Timestamp,
    ) -> Result<Self, Silence> {
        if let Kind::Other(number) = request.kind {
            return Err(Silence::NotAQuestion(number));
        }
        let network = network(request, site)?;
        let host = site.identify(request.mac(), request.guid);
        if host.is_none() && network.strangers == Strangers::Ignore {
            return Err(Silence::UnknownHost);
        }
        let client = Client::of(request, host.map(Arc::as_ref));
        if client.is_nameless() {
            return Err(Silence::Nameless);
        }
        Ok(Self {
            client,
            profile: Profile::of(request),
            tried: host.map_or_else(Tried::default, |host| tries.of(&host.name)),
            request,
            site,
            leases,
            now,
            network,
            host,
        })
    }

    fn decide(&self) -> Result<Decision, Silence> {
        if self.network.mode == Mode::Proxy {
            return self.beside_another_server();
        }
        if self.request.arrival.port == super::Port::Pxe {
            return self.at_port_4011();
        }
        match self.request.kind {
            Kind::Discover => self.offer(),
            Kind::Request => self.confirm(),
            Kind::Decline => self.decline(),
            Kind::Release => self.release(),
            Kind::Inform => self.inform(),
            Kind::Other(number) => Err(Silence::NotAQuestion(number)),
        }
    }
}

/// Finds the network that a request is about.
///
/// A relay's link selection comes before its own address (RFC 3527 §2). A client with an address
/// that asks us alone may be anywhere, and its address tells where; all others are on the wire that
/// the packet came in by.
fn network<'a>(request: &Request, site: &'a Site) -> Result<&'a Network, Silence> {
    let find = |address| site.network_of(address).map(Arc::as_ref);
    if !request.giaddr.is_unspecified() {
        let link = request.relay.as_ref().and_then(|relay| relay.link);
        let address = link.unwrap_or(request.giaddr);
        return find(address).ok_or(Silence::UnknownNetwork { address });
    }
    if !request.ciaddr.is_unspecified()
        && !request.arrival.destination.is_broadcast()
        && let Some(network) = find(request.ciaddr)
    {
        return Ok(network);
    }
    let address = request.arrival.local;
    find(address)
        .filter(|network| network.reach == Reach::Local)
        .ok_or(Silence::UnknownNetwork { address })
}
