//! The BMC's half of the handshake (IPMI 2.0 §13.17 to §13.24).
//!
//! It refuses a repeated message: a console that lost an answer starts over with Open Session.

use std::net::SocketAddr;
use std::time::Instant;

use secrecy::ExposeSecret as _;

use super::sessions::{Handshake, Proof, Session, Sessions};
use super::{Config, Privilege, User, privilege};
use crate::crypto::{self, Exchange, Key, Suite};
use crate::sim::Board;
use crate::wire::{
    Algorithms, BmcProof, Kind, OpenReply, OpenRequest, Opened, Packet, Rakp1, Rakp2, Rakp3, Rakp4,
    Status, encode_plain,
};

/// The bit of the role byte that asks for a lookup by name alone.
const NAME_ONLY: u8 = 0x10;

/// Answers a message of the handshake.
pub(super) fn answer(
    packet: &Packet<'_>,
    peer: SocketAddr,
    (board, config): (&Board, &Config),
    sessions: &mut Sessions,
    now: Instant,
) -> Option<Vec<u8>> {
    match packet.kind {
        Kind::OpenRequest => {
            let request = OpenRequest::decode(packet.payload).ok()?;
            let reply = open(request, (board, config), sessions, now)?;
            Some(encode_plain(Kind::OpenReply, 0, &reply.encode()))
        }
        Kind::Rakp1 => {
            let request = Rakp1::decode(packet.payload).ok()?;
            rakp1(&request, (board, config), sessions)
        }
        Kind::Rakp3 => {
            let request = Rakp3::decode(packet.payload).ok()?;
            rakp3(&request, peer, sessions, now)
        }
        _ => None,
    }
}

fn open(
    request: OpenRequest,
    (board, config): (&Board, &Config),
    sessions: &mut Sessions,
    now: Instant,
) -> Option<OpenReply> {
    let refuse = |status| OpenReply {
        tag: request.tag,
        console: request.console,
        opened: Err(status),
    };
    if board.faults().sessions_exhausted() || sessions.count() >= config.sessions {
        return Some(refuse(Status::NO_RESOURCES));
    }
    let suite = Suite::from_algorithms(request.algorithms);
    let Some(suite) = suite.filter(|suite| config.suites.contains(suite)) else {
        return Some(refuse(Status::SUITE));
    };
    let bmc = sessions.fresh_id()?;
    sessions.begin(Handshake {
        console: request.console,
        bmc,
        suite,
        since: now,
        proof: None,
    });
    let mut algorithms = suite.algorithms();
    if board.faults().downgrades() {
        algorithms = Algorithms {
            integrity: 0,
            confidentiality: 0,
            ..algorithms
        };
    }
    Some(OpenReply {
        tag: request.tag,
        console: request.console,
        opened: Ok(Opened {
            // 0 asks for as much as there is; accounts are limited in RAKP 2.
            privilege: if request.privilege == 0 {
                Privilege::Administrator.number()
            } else {
                request.privilege
            },
            bmc,
            algorithms,
        }),
    })
}

/// Finds the account, and how far a session of it may go.
fn account<'a>(
    request: &Rakp1<'_>,
    (board, config): (&Board, &'a Config),
) -> Result<(&'a User, Key, Privilege), Status> {
    if board.faults().refuses() {
        return Err(Status::NAME);
    }
    let named = |user: &&User| user.name.as_bytes() == request.user;
    let user = config.users.iter().find(named).ok_or(Status::NAME)?;
    let level = request.role.0 & 0x0f;
    let wanted = match level {
        0 => user.limit,
        level => privilege(level).ok_or(Status::ROLE)?,
    };
    // Looked up by name alone, an account gets what it may have; looked up by role and name, it must have that role.
    if wanted > user.limit && request.role.0 & NAME_ONLY == 0 {
        return Err(Status::ROLE);
    }
    let key = crypto::key(user.password.expose_secret().as_bytes()).ok_or(Status::NAME)?;
    Ok((user, key, wanted.min(user.limit)))
}

fn rakp1(
    request: &Rakp1<'_>,
    (board, config): (&Board, &Config),
    sessions: &mut Sessions,
) -> Option<Vec<u8>> {
    let Some(handshake) = sessions.handshake(request.bmc) else {
        return Some(refuse_rakp1(request.tag, 0, Status::INVALID_SESSION));
    };
    if handshake.proof.is_some() {
        return None;
    }
    let (_, password, limit) = match account(request, (board, config)) {
        Ok(account) => account,
        Err(status) => {
            let console = handshake.console;
            sessions.end_handshake(request.bmc);
            return Some(refuse_rakp1(request.tag, console, status));
        }
    };
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let exchange = Exchange {
        suite: handshake.suite,
        console: handshake.console,
        bmc: handshake.bmc,
        console_random: request.random,
        bmc_random: random,
        guid: board.identity().guid.unwrap_or_default(),
        role: request.role.0,
        user: request.user,
    };
    let (answer, keys) = exchange.keys(config.kg.as_ref().unwrap_or(&password));
    let code = exchange.rakp2(&password);
    handshake.proof = Some(Proof {
        expected: exchange.rakp3(&password),
        answer,
        keys,
        limit,
    });
    let reply = Rakp2 {
        tag: request.tag,
        console: handshake.console,
        proof: Ok(BmcProof {
            random,
            guid: exchange.guid,
            code: code.as_bytes(),
        }),
    };
    Some(encode_plain(Kind::Rakp2, 0, &reply.encode()))
}

fn refuse_rakp1(tag: u8, console: u32, status: Status) -> Vec<u8> {
    let reply = Rakp2 {
        tag,
        console,
        proof: Err(status),
    };
    encode_plain(Kind::Rakp2, 0, &reply.encode())
}

fn rakp3(
    request: &Rakp3<'_>,
    peer: SocketAddr,
    sessions: &mut Sessions,
    now: Instant,
) -> Option<Vec<u8>> {
    // A console that gives up, or a RAKP 3 that nobody waits for, gets no answer.
    let code = request.proof.ok();
    let mut handshake = sessions.end_handshake(request.bmc)?;
    let (code, proof) = (code?, handshake.proof.take()?);
    let answer = proof.answer.clone();
    let result = if proof.expected.matches(code) {
        sessions.activate(Session::new(&handshake, proof, peer, now));
        Ok(answer.as_bytes())
    } else {
        Err(Status::CODE)
    };
    let reply = Rakp4 {
        tag: request.tag,
        console: handshake.console,
        proof: result,
    };
    Some(encode_plain(Kind::Rakp4, 0, &reply.encode()))
}
