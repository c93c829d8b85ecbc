//! The BMC's firmware without its socket and clock: datagrams in, datagrams out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::boot::BootOptions;
use super::command::{self, Call};
use super::records::Records;
use super::sessions::Sessions;
use super::{Config, Outgoing, Privilege, handshake};
use crate::bmc::Protocol;
use crate::sim::{Board, Moment, Verdict};
use crate::wire::{
    Code, Datagram, Kind, Legacy, LegacyAuth, Message, Packet, Request, encode_legacy, encode_plain,
};

/// One simulated BMC.
#[derive(Debug)]
pub struct Firmware {
    board: Board,
    config: Arc<Config>,
    port: u16,
    sessions: Sessions,
    state: State,
}

/// What a BMC remembers beside its sessions.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) boot: BootOptions,
    pub(super) records: Records,
}

impl Firmware {
    /// A BMC that has just started.
    #[must_use]
    pub fn new(board: Board, config: Arc<Config>) -> Self {
        Self {
            board,
            config,
            port: Protocol::Ipmi.port(),
            sessions: Sessions::default(),
            state: State::default(),
        }
    }

    /// The same BMC at another port: consoles want to be told the one they came by.
    #[must_use]
    pub fn at_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Takes a datagram; what it cannot read or believe, it does not answer.
    #[must_use]
    pub fn receive(&mut self, peer: SocketAddr, datagram: &[u8], now: Instant) -> Vec<Outgoing> {
        self.sessions.expire(self.config.idle, now);
        self.state.boot.lapse(&self.board, now);
        let answers = match Datagram::decode(datagram) {
            Ok(Datagram::Ping(ping)) => vec![ping.pong()],
            Ok(Datagram::Legacy(packet)) => self.legacy(&packet, peer, now).into_iter().collect(),
            Ok(Datagram::Session(packet)) => self.packet(&packet, peer, now),
            Err(_) => Vec::new(),
        };
        let outgoing = |bytes| Outgoing { peer, bytes };
        answers.into_iter().map(outgoing).collect()
    }

    /// When there is something to do without a datagram.
    #[must_use]
    pub fn wakes(&self) -> Option<Instant> {
        let consoles = self.sessions.iter().filter_map(|session| {
            let sol = session.sol.as_ref()?;
            Some(sol.wakes())
        });
        consoles.chain(self.state.boot.lapses()).min()
    }

    /// Does what is due.
    #[must_use]
    pub fn wake(&mut self, now: Instant) -> Vec<Outgoing> {
        self.sessions.expire(self.config.idle, now);
        self.state.boot.lapse(&self.board, now);
        let mut outgoing = Vec::new();
        for session in self.sessions.iter_mut() {
            let Some(sol) = &mut session.sol else {
                continue;
            };
            let payload = sol.poll(now);
            if sol.is_dead() {
                session.sol = None;
            }
            if let Some(bytes) = payload.and_then(|payload| session.seal(Kind::Sol, &payload)) {
                outgoing.push(Outgoing {
                    peer: session.peer,
                    bytes,
                });
            }
        }
        outgoing
    }

    fn packet(&mut self, packet: &Packet<'_>, peer: SocketAddr, now: Instant) -> Vec<Vec<u8>> {
        match packet.kind {
            Kind::Ipmi if packet.session == 0 && !packet.authenticated && !packet.encrypted => self
                .execute(packet.payload, None, peer, now)
                .map(|reply| encode_plain(Kind::Ipmi, 0, &reply))
                .into_iter()
                .collect(),
            Kind::Ipmi => self.message(packet, peer, now).into_iter().collect(),
            Kind::Sol => self.sol(packet, now),
            _ => handshake::answer(
                packet,
                peer,
                (&self.board, &self.config),
                &mut self.sessions,
                now,
            )
            .into_iter()
            .collect(),
        }
    }

    fn legacy(&mut self, packet: &Legacy<'_>, peer: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        if packet.session != 0 || packet.auth != LegacyAuth::None {
            return None;
        }
        let payload = self.execute(packet.payload, None, peer, now)?;
        Some(encode_legacy(&Legacy {
            auth: LegacyAuth::None,
            sequence: 0,
            session: 0,
            payload: &payload,
        }))
    }

    fn message(&mut self, packet: &Packet<'_>, peer: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        let session = self.sessions.get(packet.session)?;
        let payload = session.open(packet, now)?;
        session.peer = peer;
        let reply = self.execute(&payload, Some(packet.session), peer, now)?;
        let session = self.sessions.get(packet.session)?;
        let answer = session.seal(Kind::Ipmi, &reply);
        // The answer to Close Session is the last packet of a session.
        self.sessions.sweep();
        answer
    }

    fn sol(&mut self, packet: &Packet<'_>, now: Instant) -> Vec<Vec<u8>> {
        let Some(session) = self.sessions.get(packet.session) else {
            return Vec::new();
        };
        let Some(payload) = session.open(packet, now) else {
            return Vec::new();
        };
        let Some(sol) = &mut session.sol else {
            return Vec::new();
        };
        let answers = sol.receive(&payload, &self.board, now);
        answers
            .iter()
            .filter_map(|answer| session.seal(Kind::Sol, answer))
            .collect()
    }

    /// Carries out a message; none is answered if it is no request, or the hook wants silence.
    fn execute(
        &mut self,
        message: &[u8],
        session: Option<u32>,
        peer: SocketAddr,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let Ok(Message::Request(request)) = Message::decode(message) else {
            return None;
        };
        let ask = |board: &Board, moment| {
            board.ask(peer, Protocol::Ipmi, moment, || command::words(&request))
        };
        if ask(&self.board, Moment::Before) == Verdict::Silence {
            return None;
        }
        let privilege = session
            .and_then(|id| self.sessions.get(id))
            .map(|session| session.privilege);
        let (code, data) = self.permitted(&request, session, privilege, now);
        if ask(&self.board, Moment::After) == Verdict::Silence {
            return None;
        }
        Some(request.reply(code, &data).encode())
    }

    fn permitted(
        &mut self,
        request: &Request<'_>,
        session: Option<u32>,
        privilege: Option<Privilege>,
        now: Instant,
    ) -> (Code, Vec<u8>) {
        if privilege < command::needs(request) {
            return (Code::PRIVILEGE, Vec::new());
        }
        let mut call = Call {
            board: &self.board,
            config: &self.config,
            port: self.port,
            sessions: &mut self.sessions,
            state: &mut self.state,
            session,
            now,
        };
        match command::execute(&mut call, request) {
            Ok(data) => (Code::OK, data),
            Err(code) => (code, Vec::new()),
        }
    }
}
