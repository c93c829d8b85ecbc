//! Answers beside another DHCP server: boot options only (PXE 2.1 §2.2.3).
//!
//! It refuses to give addresses, and to answer clients that do not boot from the network.

use std::net::Ipv4Addr;

use super::super::firmware::{Firmware, Form};
use super::super::reply::ReplyKind;
use super::super::{Decision, Port, Profile, Silence};
use super::{Kind, Question};

impl Question<'_> {
    /// Answers in a network whose addresses another server gives.
    pub(super) fn beside_another_server(&self) -> Result<Decision, Silence> {
        if self.request.arrival.port == Port::Pxe {
            return self.at_port_4011();
        }
        let form = self.boot_form()?;
        match self.request.kind {
            Kind::Discover => Ok(self.tell(ReplyKind::Offer, form)),
            // Some Intel ROMs and iPXE come back to port 67 with our identifier.
            Kind::Request if self.request.server.is_some_and(|server| self.is_us(server)) => {
                Ok(self.tell(ReplyKind::Ack, form))
            }
            _ => Err(Silence::ForTheDhcpServer),
        }
    }

    /// Answers a client that has an address and asks for its boot file only.
    pub(super) fn at_port_4011(&self) -> Result<Decision, Silence> {
        let form = self.boot_form()?;
        match self.request.kind {
            Kind::Request | Kind::Inform => Ok(self.tell(ReplyKind::Ack, form)),
            Kind::Discover => Ok(self.tell(ReplyKind::Offer, form)),
            Kind::Decline | Kind::Release | Kind::Other(_) => Err(Silence::ForTheDhcpServer),
        }
    }

    fn boot_form(&self) -> Result<Form, Silence> {
        if self.profile.firmware == Firmware::Os {
            return Err(Silence::NotBooting);
        }
        if self.host.is_none() {
            return Err(Silence::UnknownHost);
        }
        let architecture = Profile::architecture(self.request);
        self.form().ok_or(Silence::NoLoader(architecture))
    }

    fn tell(&self, kind: ReplyKind, form: Form) -> Decision {
        // Whoever comes to port 4011 was sent there, whatever form its next offer will have.
        let form = match (self.request.arrival.port, form) {
            (Port::Pxe, Form::Plain | Form::Direct) => Form::Port4011,
            (_, form) => form,
        };
        let mut reply = self.reply(kind, Some(form));
        if kind == ReplyKind::Ack {
            reply.ciaddr = self.request.ciaddr;
        }
        self.boot(&mut reply, form);
        self.echo_client_id(&mut reply);
        reply.destination = self.destination(Ipv4Addr::UNSPECIFIED);
        Decision::Send {
            reply: Box::new(reply),
            change: None,
        }
    }
}
