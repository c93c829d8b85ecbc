//! Making of replies: what every reply carries, and where it goes (RFC 2131 §4.1, table 3).
//!
//! It refuses to choose an address.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::super::decision::Change;
use super::super::reply::{About, Destination, Reply, ReplyKind, Value};
use super::super::{Decision, Form, Lease, LeaseState, Port, option};
use super::{Kind, Question};
use crate::Timestamp;

impl Question<'_> {
    /// Begins a reply: what is echoed, and who we are.
    pub(super) fn reply(&self, kind: ReplyKind, form: Option<Form>) -> Reply {
        let about = About {
            network: Arc::clone(&self.network.name),
            host: self.host.map(|host| Arc::clone(&host.name)),
            firmware: self.profile.firmware,
            profile: self.profile.name,
            form,
            next: form.and_then(|form| self.next_form(form)),
        };
        let mut reply = Reply::to(self.request, kind, about);
        let server = Value::Address(self.server_id());
        reply.options.push((option::SERVER_ID, server));
        reply
    }

    /// The address that we are known by: what the relay wants it to be (RFC 5107 §4), or ours.
    pub(super) fn server_id(&self) -> Ipv4Addr {
        let relay = self.request.relay.as_ref();
        relay
            .filter(|_| !self.request.giaddr.is_unspecified())
            .and_then(|relay| relay.server)
            .unwrap_or(self.network.appliance)
    }

    /// Tells whether a server identifier of a client means us.
    pub(super) fn is_us(&self, server: Ipv4Addr) -> bool {
        server == self.server_id()
            || server == self.request.arrival.local
            || self.site.is_appliance(server)
    }

    /// Makes the reply that gives an address, with everything that its user is told.
    pub(super) fn give(&self, kind: ReplyKind, address: Ipv4Addr) -> Reply {
        let form = self.form();
        let mut reply = self.reply(kind, form);
        reply.yiaddr = address;
        if self.request.kind == Kind::Request {
            reply.ciaddr = self.request.ciaddr;
        }
        let lease = self.network.lease;
        reply.options.extend([
            (option::LEASE_TIME, seconds(lease)),
            (option::RENEWAL_TIME, seconds(lease / 2)),
            (option::REBINDING_TIME, seconds(lease * 7 / 8)),
        ]);
        self.describe(&mut reply, form);
        reply.destination = self.destination(address);
        reply
    }

    /// Adds what the network and the site say about the client, and what it boots.
    pub(super) fn describe(&self, reply: &mut Reply, form: Option<Form>) {
        let network = self.network;
        let mask = Value::Address(network.subnet.mask());
        reply.options.push((option::SUBNET_MASK, mask));
        if let Some(router) = network.router {
            reply.options.push((option::ROUTER, Value::Address(router)));
        }
        if !network.dns.is_empty() {
            let servers = Value::Addresses(network.dns.clone());
            reply.options.push((option::DNS, servers));
        }
        self.echo_client_id(reply);
        if let Some(form) = form {
            self.boot(reply, form);
        }
        if let Some(domain) = &network.domain {
            let domain = Value::Text(Arc::clone(domain));
            reply.options.push((option::DOMAIN_NAME, domain));
        }
        if let Some(host) = self.host {
            let name = Value::Text(Arc::clone(&host.name));
            reply.options.push((option::HOST_NAME, name));
        }
        if network.subnet.prefix() < 31 {
            let broadcast = Value::Address(network.subnet.last());
            reply.options.push((option::BROADCAST, broadcast));
        }
    }

    /// RFC 6842 §3: a client that shares its hardware address knows its replies by this.
    pub(super) fn echo_client_id(&self, reply: &mut Reply) {
        if let Some(id) = &self.request.client_id {
            reply
                .options
                .push((option::CLIENT_ID, Value::Bytes(id.clone())));
        }
    }

    /// Refuses an address. It goes to all on the wire, since the client may have none that works;
    /// through a relay, the broadcast flag asks for the same (RFC 2131 §4.3.2).
    pub(super) fn nak(&self, reason: &'static str) -> Decision {
        let mut reply = self.reply(ReplyKind::Nak, None);
        reply
            .options
            .push((option::MESSAGE, Value::Text(reason.into())));
        self.echo_client_id(&mut reply);
        if self.request.giaddr.is_unspecified() {
            reply.destination = Destination::Broadcast;
        } else {
            reply.flags |= 0x8000;
            reply.destination = Destination::Relay(self.request.giaddr);
        }
        Decision::Send {
            reply: Box::new(reply),
            change: None,
        }
    }

    /// Where a reply goes that gives `address`, or none (RFC 2131 §4.1).
    pub(super) fn destination(&self, address: Ipv4Addr) -> Destination {
        let request = self.request;
        if request.arrival.port == Port::Pxe {
            return Destination::Peer(request.arrival.source);
        }
        if !request.giaddr.is_unspecified() {
            return Destination::Relay(request.giaddr);
        }
        // A client that still looks for an address does not have the one it claims.
        if request.kind != Kind::Discover && !request.ciaddr.is_unspecified() {
            return Destination::Client(request.ciaddr);
        }
        match request.mac() {
            Some(mac) if !request.wants_broadcast() && !address.is_unspecified() => {
                Destination::Hardware { mac, address }
            }
            _ => Destination::Broadcast,
        }
    }

    /// Makes a lease of the client.
    pub(super) fn lease(&self, address: Ipv4Addr, state: LeaseState, until: Timestamp) -> Lease {
        Lease {
            network: Arc::clone(&self.network.name),
            address,
            client: self.client.clone(),
            mac: self.request.mac(),
            state,
            until,
        }
    }

    /// Gives the client an address for the network's time.
    pub(super) fn bind(&self, address: Ipv4Addr) -> Decision {
        let until = self.now.after(self.network.lease);
        let lease = self.lease(address, LeaseState::Bound, until);
        Decision::Send {
            reply: Box::new(self.give(ReplyKind::Ack, address)),
            change: Some(Change::Put(lease)),
        }
    }
}

fn seconds(duration: Duration) -> Value {
    Value::Seconds(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX))
}
