//! All transfers of one UDP port.
//!
//! It refuses to answer what it does not know: a stray acknowledgement gets silence, since an error in
//! return could end the peer's next transfer.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::name::normalise;
use super::packet::{ErrorCode, Malformed, Mode, Packet, ReadRequest, encode_error, encode_oack};
use super::terms::Terms;
use super::transfer::{Blocks, Outcome, Step, Transfer};

/// A repeat of a request that arrives this soon after the transfer moved is a late copy of the packet; a client
/// that starts over has been silent for longer, or asks for something else.
const DUPLICATE: Duration = Duration::from_secs(1);

/// Who a transfer is with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The client's address and port.
    pub address: SocketAddr,
    /// The address of ours that the client asked, and that must answer.
    pub local: Option<IpAddr>,
}

/// How much is served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transfers in all.
    pub transfers: usize,
    /// Transfers with one IP address.
    pub per_address: usize,
}

impl Default for Limits {
    /// A rack that powers on at once has some hundred hosts; one host has two transfers at most, and what looks like one
    /// address may be a relay's lab.
    fn default() -> Self {
        Self {
            transfers: 4096,
            per_address: 64,
        }
    }
}

/// Why a request is refused, as the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its number.
    pub code: ErrorCode,
    /// Its reason; firmware shows this.
    pub text: String,
}

/// The files that can be asked for; names come normalised.
pub trait Files {
    /// What stands for an open file in the answers.
    type File: Clone;

    /// Finds a file and its size in bytes, in the given mode.
    ///
    /// # Errors
    /// When there is none; the reason goes to the client.
    fn find(&self, name: &str, mode: Mode) -> Result<(Self::File, u64), Refusal>;
}

/// What is to be done after a step, in order.
#[derive(Clone, Debug)]
pub enum Output<F> {
    /// Send this packet.
    Packet {
        /// To whom.
        to: Peer,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Send these blocks of a file.
    Blocks {
        /// To whom.
        to: Peer,
        /// The file.
        file: F,
        /// Which blocks.
        blocks: Blocks,
    },
    /// Tell that this happened.
    Event(Event),
}

/// What happened, for counters and timelines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first block of a file leaves.
    Began {
        /// To whom.
        peer: SocketAddr,
        /// Name of the file.
        file: String,
        /// Its size in bytes.
        size: u64,
    },
    /// A transfer is over. One that never [`Event::Began`] was a probe, or its peer never answered.
    Ended {
        /// With whom.
        peer: SocketAddr,
        /// Name of the file.
        file: String,
        /// Whether a block was ever sent.
        began: bool,
        /// Size of the file in bytes.
        size: u64,
        /// Bytes of the file that were acknowledged.
        bytes: u64,
        /// Blocks that were sent more than once.
        resent_blocks: u64,
        /// Time since the request.
        elapsed: Duration,
        /// How it ended.
        outcome: Outcome,
    },
    /// A request was answered with an error.
    Refused {
        /// Whose.
        peer: SocketAddr,
        /// What was asked for; empty when that could not be read.
        file: String,
        /// What it was told.
        refusal: Refusal,
    },
    /// A packet was not answered.
    Ignored {
        /// Whose.
        peer: SocketAddr,
        /// Why.
        silence: Silence,
    },
}

/// Why a packet is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It is not TFTP, or not for a server.
    #[error("malformed: {0}")]
    Malformed(Malformed),
    /// No transfer is open with that address and port.
    #[error("no transfer with this peer")]
    UnknownTransfer,
    /// The request is a late copy of the one being served.
    #[error("a late copy of the request")]
    DuplicateRequest,
    /// All transfers are taken. The client asks again, while an error would end its boot.
    #[error("too many transfers")]
    Busy,
    /// An acknowledgement that is old, or whose next blocks are under way.
    #[error("nothing is due")]
    NothingDue,
}

impl Silence {
    /// One word for it, for a metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UnknownTransfer => "unknown_transfer",
            Self::DuplicateRequest => "duplicate_request",
            Self::Busy => "busy",
            Self::NothingDue => "nothing_due",
        }
    }
}

/// The transfers of one UDP port. `now` is the time since any fixed moment; it must not go backwards.
pub struct Engine<F> {
    limits: Limits,
    sessions: HashMap<SocketAddr, Session<F>>,
    per_address: HashMap<IpAddr, usize>,
    timers: BTreeSet<(Duration, SocketAddr)>,
}

struct Session<F> {
    peer: Peer,
    request: ReadRequest,
    name: String,
    file: F,
    size: u64,
    oack: Vec<u8>,
    transfer: Transfer,
    started: Duration,
    began: bool,
}

impl<F> fmt::Debug for Engine<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("limits", &self.limits)
            .field("transfers", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl<F: Clone> Engine<F> {
    /// Starts without transfers.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            sessions: HashMap::new(),
            per_address: HashMap::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Returns how many transfers are open.
    #[must_use]
    pub fn transfers(&self) -> usize {
        self.sessions.len()
    }

    /// Returns when [`Engine::expire`] is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Takes a datagram.
    pub fn datagram(
        &mut self,
        now: Duration,
        peer: Peer,
        bytes: &[u8],
        files: &impl Files<File = F>,
        out: &mut Vec<Output<F>>,
    ) {
        match Packet::decode(bytes) {
            Ok(Packet::Read(request)) => self.read(now, peer, request, files, out),
            Ok(Packet::Write { file }) => {
                let text = "writing is not possible: this server only gives files".to_owned();
                refuse(peer, file, ErrorCode::AccessViolation, text, out);
            }
            Ok(Packet::Ack(block)) => {
                let before = out.len();
                self.step(now, peer.address, out, |transfer| transfer.ack(now, block));
                if out.len() == before {
                    ignore(peer.address, Silence::NothingDue, out);
                }
            }
            Ok(Packet::Error { code, text }) => self.aborted(now, peer.address, code, text, out),
            Err(malformed) if Packet::is_request(bytes) => {
                refuse(
                    peer,
                    String::new(),
                    ErrorCode::IllegalOperation,
                    malformed.to_string(),
                    out,
                );
            }
            Err(malformed) => ignore(peer.address, Silence::Malformed(malformed), out),
        }
    }

    /// Does what is due.
    pub fn expire(&mut self, now: Duration, out: &mut Vec<Output<F>>) {
        while let Some(&(deadline, peer)) = self.timers.first()
            && deadline <= now
        {
            self.step(now, peer, out, |transfer| transfer.expire(now));
        }
    }

    fn read(
        &mut self,
        now: Duration,
        peer: Peer,
        request: ReadRequest,
        files: &impl Files<File = F>,
        out: &mut Vec<Output<F>>,
    ) {
        if let Some(open) = self.sessions.get(&peer.address) {
            let moved = open.transfer.proven();
            if open.request == request
                && moved.is_some_and(|heard| now.saturating_sub(heard) < DUPLICATE)
            {
                return ignore(peer.address, Silence::DuplicateRequest, out);
            }
            self.end(now, peer.address, Outcome::Restarted, out);
        }
        if self.sessions.len() >= self.limits.transfers {
            return ignore(peer.address, Silence::Busy, out);
        }
        let of_address = self.per_address.get(&peer.address.ip()).copied();
        if of_address.unwrap_or(0) >= self.limits.per_address {
            let text = "too many transfers with your address: let some end first".to_owned();
            return refuse(peer, request.file, ErrorCode::Undefined, text, out);
        }
        let Some(name) = normalise(&request.file) else {
            let text = "the name leads out of the served files".to_owned();
            return refuse(peer, request.file, ErrorCode::AccessViolation, text, out);
        };
        match files.find(&name, request.mode) {
            Ok((file, size)) => self.open(now, peer, request, name, (file, size), out),
            Err(Refusal { code, text }) => refuse(peer, request.file, code, text, out),
        }
    }

    fn open(
        &mut self,
        now: Duration,
        peer: Peer,
        request: ReadRequest,
        name: String,
        (file, size): (F, u64),
        out: &mut Vec<Output<F>>,
    ) {
        let (terms, answers) = Terms::negotiate(&request.asks, size);
        let (transfer, step) = Transfer::start(now, terms, size, !answers.is_empty());
        self.timers.insert((transfer.deadline(), peer.address));
        *self.per_address.entry(peer.address.ip()).or_default() += 1;
        let session = Session {
            peer,
            request,
            name,
            file,
            size,
            oack: encode_oack(&answers),
            transfer,
            started: now,
            began: false,
        };
        self.sessions.insert(peer.address, session);
        self.perform(now, peer.address, step, out);
    }

    fn aborted(
        &mut self,
        now: Duration,
        peer: SocketAddr,
        code: u16,
        text: String,
        out: &mut Vec<Output<F>>,
    ) {
        let Some(session) = self.sessions.get(&peer) else {
            return ignore(peer, Silence::UnknownTransfer, out);
        };
        let outcome = if session.began {
            Outcome::Aborted { code, text }
        } else {
            Outcome::Probed
        };
        self.end(now, peer, outcome, out);
    }

    /// Runs one step of a transfer and keeps its timer.
    fn step(
        &mut self,
        now: Duration,
        peer: SocketAddr,
        out: &mut Vec<Output<F>>,
        step: impl FnOnce(&mut Transfer) -> Step,
    ) {
        let Some(session) = self.sessions.get_mut(&peer) else {
            return ignore(peer, Silence::UnknownTransfer, out);
        };
        let before = session.transfer.deadline();
        let step = step(&mut session.transfer);
        let after = session.transfer.deadline();
        if before != after {
            self.timers.remove(&(before, peer));
            self.timers.insert((after, peer));
        }
        self.perform(now, peer, step, out);
    }

    fn perform(&mut self, now: Duration, peer: SocketAddr, step: Step, out: &mut Vec<Output<F>>) {
        let Some(session) = self.sessions.get_mut(&peer) else {
            return;
        };
        let to = session.peer;
        match step {
            Step::Wait => {}
            Step::Offer => {
                let bytes = session.oack.clone();
                out.push(Output::Packet { to, bytes });
            }
            Step::Send(blocks) => {
                if !session.began {
                    session.began = true;
                    out.push(Output::Event(Event::Began {
                        peer,
                        file: session.name.clone(),
                        size: session.size,
                    }));
                }
                let file = session.file.clone();
                out.push(Output::Blocks { to, file, blocks });
            }
            Step::End(outcome) => self.end(now, peer, outcome, out),
        }
    }

    fn end(&mut self, now: Duration, peer: SocketAddr, outcome: Outcome, out: &mut Vec<Output<F>>) {
        let Some(session) = self.sessions.remove(&peer) else {
            return;
        };
        self.timers.remove(&(session.transfer.deadline(), peer));
        if let Some(open) = self.per_address.get_mut(&peer.ip()) {
            *open -= 1;
            if *open == 0 {
                self.per_address.remove(&peer.ip());
            }
        }
        out.push(Output::Event(Event::Ended {
            peer,
            file: session.name,
            began: session.began,
            size: session.size,
            bytes: session.transfer.delivered(),
            resent_blocks: session.transfer.resent_blocks(),
            elapsed: now.saturating_sub(session.started),
            outcome,
        }));
    }

    /// Checks what must hold between two steps.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check(&self) {
        assert!(self.sessions.len() <= self.limits.transfers);
        assert_eq!(self.timers.len(), self.sessions.len());
        assert_eq!(
            self.per_address.values().sum::<usize>(),
            self.sessions.len()
        );
        assert!(
            self.per_address
                .values()
                .all(|open| *open <= self.limits.per_address)
        );
    }
}

fn ignore<F>(peer: SocketAddr, silence: Silence, out: &mut Vec<Output<F>>) {
    out.push(Output::Event(Event::Ignored { peer, silence }));
}

fn refuse<F>(to: Peer, file: String, code: ErrorCode, text: String, out: &mut Vec<Output<F>>) {
    let bytes = encode_error(code, &text);
    out.push(Output::Packet { to, bytes });
    out.push(Output::Event(Event::Refused {
        peer: to.address,
        file,
        refusal: Refusal { code, text },
    }));
}
