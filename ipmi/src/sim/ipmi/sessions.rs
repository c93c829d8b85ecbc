//! The sessions of a simulated BMC: how many, how long, and which packets belong to one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Privilege;
use super::sol::Sol;
use crate::crypto::{Code, Keys, Suite};
use crate::session::Window;
use crate::wire::Kind;

/// How many handshakes may be under way; the oldest makes room for the next.
const HANDSHAKES: usize = 32;
/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// A handshake under way.
#[derive(Clone, Debug)]
pub(super) struct Handshake {
    pub(super) console: u32,
    pub(super) bmc: u32,
    pub(super) suite: Suite,
    pub(super) since: Instant,
    pub(super) proof: Option<Proof>,
}

/// What RAKP 3 must prove, and what the session will be then.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) expected: Code,
    pub(super) answer: Code,
    pub(super) keys: Keys,
    pub(super) limit: Privilege,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) console: u32,
    pub(super) bmc: u32,
    pub(super) peer: SocketAddr,
    pub(super) privilege: Privilege,
    pub(super) limit: Privilege,
    pub(super) sol: Option<Sol>,
    /// The session ends as soon as the present request is answered.
    pub(super) closing: bool,
    keys: Keys,
    used: Instant,
    inbound: Window,
    outbound: u32,
}

impl Session {
    pub(super) fn new(handshake: &Handshake, proof: Proof, peer: SocketAddr, now: Instant) -> Self {
        Self {
            console: handshake.console,
            bmc: handshake.bmc,
            peer,
            privilege: Privilege::User,
            limit: proof.limit,
            sol: None,
            closing: false,
            keys: proof.keys,
            used: now,
            inbound: Window::default(),
            outbound: 0,
        }
    }

    /// Verifies a packet; its payload, if it belongs to this session and was not here before.
    pub(super) fn open(
        &mut self,
        packet: &crate::wire::Packet<'_>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let payload = self.keys.open(packet).ok()?;
        self.inbound.accept(packet.sequence).then(|| {
            self.used = now;
            payload
        })
    }

    /// Encrypts a payload for the other end.
    pub(super) fn seal(&mut self, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
        let mut iv = [0; 16];
        getrandom::fill(&mut iv).ok()?;
        // 0 is never used inside a session.
        self.outbound = self.outbound.checked_add(1).unwrap_or(1);
        Some(
            self.keys
                .seal(kind, self.console, self.outbound, iv, payload),
        )
    }
}

/// All sessions and handshakes of a BMC.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    active: Vec<Session>,
    handshakes: Vec<Handshake>,
}

impl Sessions {
    /// Forgets what was idle for too long.
    pub(super) fn expire(&mut self, idle: Duration, now: Instant) {
        self.active
            .retain(|session| now.saturating_duration_since(session.used) < idle);
        self.handshakes
            .retain(|handshake| now.saturating_duration_since(handshake.since) < HANDSHAKE_TIME);
    }

    pub(super) fn count(&self) -> usize {
        self.active.len()
    }

    pub(super) fn begin(&mut self, handshake: Handshake) {
        if self.handshakes.len() == HANDSHAKES {
            self.handshakes.remove(0);
        }
        self.handshakes.push(handshake);
    }

    pub(super) fn handshake(&mut self, bmc: u32) -> Option<&mut Handshake> {
        self.handshakes.iter_mut().find(|known| known.bmc == bmc)
    }

    /// Takes a handshake out: it is over, one way or the other.
    pub(super) fn end_handshake(&mut self, bmc: u32) -> Option<Handshake> {
        let index = self.handshakes.iter().position(|known| known.bmc == bmc)?;
        Some(self.handshakes.swap_remove(index))
    }

    pub(super) fn activate(&mut self, session: Session) {
        self.active.push(session);
    }

    pub(super) fn get(&mut self, bmc: u32) -> Option<&mut Session> {
        self.active.iter_mut().find(|session| session.bmc == bmc)
    }

    /// Forgets what was closed.
    pub(super) fn sweep(&mut self) {
        self.active.retain(|session| !session.closing);
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.active.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.active.iter()
    }

    /// An id that no session has.
    pub(super) fn fresh_id(&self) -> Option<u32> {
        let mut id = getrandom::u32().ok()?;
        let taken = |id: u32| {
            id == 0
                || self.active.iter().any(|session| session.bmc == id)
                || self.handshakes.iter().any(|handshake| handshake.bmc == id)
        };
        while taken(id) {
            id = id.wrapping_add(1);
        }
        Some(id)
    }
}
