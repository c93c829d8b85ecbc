//! The RMCP+ session of a console, as a machine without a socket or a clock.
//!
//! It refuses whatever it did not ask for: another algorithm, another session, a code that does not fit, a
//! packet that it saw before. It never repeats a handshake message: who lost one begins again with a new id.

mod legacy;
mod login;
mod window;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::crypto::{Code, Exchange, Keys, Suite};
use crate::wire::{
    BmcProof, Code as Completion, Datagram, Kind, Message, NetFn, OpenReply, OpenRequest, Opened,
    Packet, Rakp1, Rakp2, Rakp3, Rakp4, Request, Role, Status, app, encode_plain,
};

pub use legacy::LegacySession;
pub use login::{Login, Privilege};
pub use window::Window;

const RAKP3: &str = "rakp 3";

/// Where random bytes come from.
pub trait Entropy {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);

    /// A random array.
    fn array<const N: usize>(&mut self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// The kernel's random bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Entropy for Kernel {
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel gives random bytes");
    }
}

/// What a datagram did to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The handshake goes on with this datagram.
    Send(Vec<u8>),
    /// The session is open.
    Opened,
    /// A reply; whether it is to the request in flight is for [`Ask::is_answered_by`] to say.
    Reply(Answer),
    /// A payload that is not an IPMI message.
    Payload(Kind, Vec<u8>),
    /// The handshake is over, without a session.
    Refused(Refusal),
    /// Nothing: it was not for this session, or not to be believed.
    Ignored(Ignored),
}

/// A reply to some request of this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The group of the command that it answers.
    pub netfn: NetFn,
    /// The command that it answers.
    pub command: u8,
    /// The request's sequence.
    pub sequence: u8,
    /// How it went.
    pub code: Completion,
    /// The reply's data.
    pub data: Vec<u8>,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The BMC says no.
    #[error("{message}: {status}")]
    Status {
        /// In answer to which message.
        message: &'static str,
        /// What it says.
        status: Status,
    },
    /// The BMC answers with other algorithms than it was asked for.
    #[error("asked for cipher suite {asked}, and the bmc answers with {found}")]
    Downgrade {
        /// What was asked for.
        asked: Suite,
        /// What came.
        found: String,
    },
    /// The BMC does not prove that it knows the password.
    #[error("the bmc does not prove that it knows the password: wrong password, or not the bmc")]
    Password,
    /// The BMC does not prove that it knows the session's keys.
    #[error("the bmc does not prove that it knows the key: wrong kg, or not the bmc")]
    BmcKey,
    /// The BMC does not offer the authentication that was asked for.
    #[error("the bmc does not offer {0}")]
    NotOffered(&'static str),
    /// A 1.5 session was refused with a completion code.
    #[error("{message}: {code}")]
    Completion {
        /// In answer to which command.
        message: &'static str,
        /// What it says.
        code: Completion,
    },
}

impl Refusal {
    /// Whether the two ends came to different keys after the password had been proved.
    #[must_use]
    pub fn is_about_key(&self) -> bool {
        match self {
            Self::BmcKey => true,
            Self::Status { message, status } => *message == RAKP3 && *status == Status::CODE,
            _ => false,
        }
    }
}

/// Why a datagram was not looked at any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Not a packet.
    #[error(transparent)]
    Malformed(#[from] crate::wire::Malformed),
    /// Not from the other end.
    #[error(transparent)]
    Forged(#[from] crate::crypto::Forged),
    /// Of another session, or of another handshake.
    #[error("of another session")]
    Stranger,
    /// Not what comes next.
    #[error("out of turn")]
    OutOfTurn,
    /// Seen before, or too old.
    #[error("seen before, or too old")]
    Replayed,
}

/// A request that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    netfn: NetFn,
    command: u8,
    data: Vec<u8>,
    sequence: u8,
}

impl Ask {
    /// Whether `answer` is the answer to this request, and not a late one to an earlier.
    #[must_use]
    pub fn is_answered_by(&self, answer: &Answer) -> bool {
        (self.netfn, self.command, self.sequence) == (answer.netfn, answer.command, answer.sequence)
    }
}

/// Requests of one session get their sequence from here.
#[derive(Clone, Debug, Default)]
struct Sequence(u8);

impl Sequence {
    fn ask(&mut self, netfn: NetFn, command: u8, data: &[u8]) -> Ask {
        self.0 = (self.0 + 1) & 0x3f;
        Ask {
            netfn,
            command,
            data: data.to_vec(),
            sequence: self.0,
        }
    }
}

fn encode(ask: &Ask) -> Vec<u8> {
    Request {
        netfn: ask.netfn,
        command: ask.command,
        sequence: ask.sequence,
        data: &ask.data,
    }
    .encode()
}

/// One session, from its first message to its close.
pub struct Session {
    login: Arc<Login>,
    suite: Suite,
    console: u32,
    tag: u8,
    state: State,
    asks: Sequence,
}

enum State {
    Opening,
    Authenticating { bmc: u32, random: [u8; 16] },
    Proving { rakp4: Code, channel: Channel },
    Open(Channel),
    Closed,
}

struct Channel {
    bmc: u32,
    keys: Keys,
    sent: u32,
    window: Window,
    guid: [u8; 16],
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Session")
            .field("suite", &self.suite)
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Begins a session under the id `console`, which no other session at this socket may have; gives its first datagram.
    pub fn begin(
        login: Arc<Login>,
        suite: Suite,
        console: u32,
        entropy: &mut impl Entropy,
    ) -> (Self, Vec<u8>) {
        let [tag] = entropy.array();
        let request = OpenRequest {
            tag,
            privilege: login.privilege.number(),
            console,
            algorithms: suite.algorithms(),
        };
        let session = Self {
            login,
            suite,
            console,
            tag,
            state: State::Opening,
            asks: Sequence::default(),
        };
        (
            session,
            encode_plain(Kind::OpenRequest, 0, &request.encode()),
        )
    }

    /// Whether requests can be made.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The system GUID, which the BMC proved in the handshake.
    #[must_use]
    pub fn guid(&self) -> Option<[u8; 16]> {
        match &self.state {
            State::Open(channel) => Some(channel.guid),
            _ => None,
        }
    }

    /// Takes in a datagram.
    pub fn receive(&mut self, datagram: &[u8], entropy: &mut impl Entropy) -> Received {
        match Datagram::decode(datagram) {
            Ok(Datagram::Session(packet)) => self
                .packet(&packet, entropy)
                .unwrap_or_else(Received::Ignored),
            Ok(Datagram::Ping(_) | Datagram::Legacy(_)) => Received::Ignored(Ignored::Stranger),
            Err(malformed) => Received::Ignored(malformed.into()),
        }
    }

    fn packet(
        &mut self,
        packet: &Packet<'_>,
        entropy: &mut impl Entropy,
    ) -> Result<Received, Ignored> {
        match (&mut self.state, packet.kind) {
            (State::Opening, Kind::OpenReply) => {
                self.opened(OpenReply::decode(packet.payload)?, entropy)
            }
            (State::Authenticating { .. }, Kind::Rakp2) => {
                self.authenticated(&Rakp2::decode(packet.payload)?)
            }
            (State::Proving { .. }, Kind::Rakp4) => self.proved(&Rakp4::decode(packet.payload)?),
            (State::Open(channel), Kind::Ipmi | Kind::Sol) => {
                if packet.session != self.console {
                    return Err(Ignored::Stranger);
                }
                let payload = channel.keys.open(packet)?;
                if !channel.window.accept(packet.sequence) {
                    return Err(Ignored::Replayed);
                }
                if packet.kind != Kind::Ipmi {
                    return Ok(Received::Payload(packet.kind, payload));
                }
                answer(&payload).map(Received::Reply)
            }
            _ => Err(Ignored::OutOfTurn),
        }
    }

    fn opened(
        &mut self,
        reply: OpenReply,
        entropy: &mut impl Entropy,
    ) -> Result<Received, Ignored> {
        let ours = match reply.opened {
            Ok(_) => reply.console == self.console,
            Err(_) => reply.console == self.console || reply.console == 0,
        };
        if reply.tag != self.tag || !ours {
            return Err(Ignored::Stranger);
        }
        let Opened {
            bmc, algorithms, ..
        } = match reply.opened {
            Ok(opened) => opened,
            Err(status) => {
                return Ok(self.refuse(Refusal::Status {
                    message: "open session",
                    status,
                }));
            }
        };
        // The codes of RAKP do not cover the algorithms: who accepts others here can be talked out of all protection.
        if algorithms != self.suite.algorithms() {
            let found = Suite::from_algorithms(algorithms).map_or_else(
                || {
                    let (a, i, c) = (
                        algorithms.authentication,
                        algorithms.integrity,
                        algorithms.confidentiality,
                    );
                    format!("algorithms {a}/{i}/{c}")
                },
                |suite| format!("suite {suite}"),
            );
            return Ok(self.refuse(Refusal::Downgrade {
                asked: self.suite,
                found,
            }));
        }
        let random = entropy.array();
        self.state = State::Authenticating { bmc, random };
        let rakp1 = Rakp1 {
            tag: self.tag,
            bmc,
            random,
            role: Role(self.login.role()),
            user: self.login.user.as_bytes(),
        };
        Ok(Received::Send(encode_plain(
            Kind::Rakp1,
            0,
            &rakp1.encode(),
        )))
    }

    fn authenticated(&mut self, reply: &Rakp2<'_>) -> Result<Received, Ignored> {
        let State::Authenticating { bmc, random } = self.state else {
            return Err(Ignored::OutOfTurn);
        };
        if reply.tag != self.tag || reply.console != self.console {
            return Err(Ignored::Stranger);
        }
        let BmcProof {
            random: bmc_random,
            guid,
            code,
        } = match reply.proof {
            Ok(proof) => proof,
            Err(status) => {
                return Ok(self.refuse(Refusal::Status {
                    message: "rakp 1",
                    status,
                }));
            }
        };
        let exchange = Exchange {
            suite: self.suite,
            console: self.console,
            bmc,
            console_random: random,
            bmc_random,
            guid,
            role: self.login.role(),
            user: self.login.user.as_bytes(),
        };
        if !exchange.rakp2(&self.login.password).matches(code) {
            return Ok(self.refuse(Refusal::Password));
        }
        let (rakp4, keys) = exchange.keys(self.login.kg.as_ref().unwrap_or(&self.login.password));
        let proof = exchange.rakp3(&self.login.password);
        let rakp3 = Rakp3 {
            tag: self.tag,
            bmc,
            proof: Ok(proof.as_bytes()),
        }
        .encode();
        let channel = Channel {
            bmc,
            keys,
            sent: 0,
            window: Window::default(),
            guid,
        };
        self.state = State::Proving { rakp4, channel };
        Ok(Received::Send(encode_plain(Kind::Rakp3, 0, &rakp3)))
    }

    fn proved(&mut self, reply: &Rakp4<'_>) -> Result<Received, Ignored> {
        if reply.tag != self.tag || reply.console != self.console {
            return Err(Ignored::Stranger);
        }
        match (
            std::mem::replace(&mut self.state, State::Closed),
            reply.proof,
        ) {
            (State::Proving { rakp4, channel }, Ok(code)) if rakp4.matches(code) => {
                self.state = State::Open(channel);
                Ok(Received::Opened)
            }
            (_, Ok(_)) => Ok(Received::Refused(Refusal::BmcKey)),
            (_, Err(status)) => Ok(Received::Refused(Refusal::Status {
                message: RAKP3,
                status,
            })),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Received {
        self.state = State::Closed;
        Received::Refused(refusal)
    }

    /// A request, to be sent with [`Session::send`].
    pub fn ask(&mut self, netfn: NetFn, command: u8, data: &[u8]) -> Ask {
        self.asks.ask(netfn, command, data)
    }

    /// A datagram with the request, the first time or again; none unless the session is open.
    pub fn send(&mut self, ask: &Ask, entropy: &mut impl Entropy) -> Option<Vec<u8>> {
        self.payload(Kind::Ipmi, &encode(ask), entropy)
    }

    /// A datagram with a payload; none unless the session is open.
    pub fn payload(
        &mut self,
        kind: Kind,
        payload: &[u8],
        entropy: &mut impl Entropy,
    ) -> Option<Vec<u8>> {
        let State::Open(channel) = &mut self.state else {
            return None;
        };
        Some(channel.seal(kind, payload, entropy))
    }

    /// A datagram that closes the session at the BMC; none if the BMC cannot have one.
    ///
    /// Between RAKP 3 and RAKP 4 the BMC may have opened what we do not know of yet: that is closed too.
    pub fn close(&mut self, entropy: &mut impl Entropy) -> Option<Vec<u8>> {
        let (State::Open(mut channel) | State::Proving { mut channel, .. }) =
            std::mem::replace(&mut self.state, State::Closed)
        else {
            return None;
        };
        let ask = self
            .asks
            .ask(NetFn::App, app::CLOSE, &channel.bmc.to_le_bytes());
        Some(channel.seal(Kind::Ipmi, &encode(&ask), entropy))
    }
}

impl Channel {
    fn seal(&mut self, kind: Kind, payload: &[u8], entropy: &mut impl Entropy) -> Vec<u8> {
        // 0 means "outside of a session" and is left out when the numbers begin again.
        self.sent = self.sent.checked_add(1).unwrap_or(1);
        self.keys
            .seal(kind, self.bmc, self.sent, entropy.array(), payload)
    }
}

fn answer(payload: &[u8]) -> Result<Answer, Ignored> {
    match Message::decode(payload)? {
        Message::Reply(reply) => Ok(Answer {
            netfn: reply.netfn,
            command: reply.command,
            sequence: reply.sequence,
            code: reply.code,
            data: reply.data.to_vec(),
        }),
        Message::Request(_) => Err(Ignored::OutOfTurn),
    }
}

/// The console's id that a datagram is addressed to, by which the owner of many sessions finds the one; nothing is verified.
#[must_use]
pub fn addressee(datagram: &[u8]) -> Option<u32> {
    let Ok(Datagram::Session(packet)) = Datagram::decode(datagram) else {
        return None;
    };
    match packet.kind {
        Kind::Ipmi | Kind::Sol => Some(packet.session),
        Kind::OpenReply => OpenReply::decode(packet.payload)
            .ok()
            .map(|reply| reply.console),
        Kind::Rakp2 | Kind::Rakp4 => packet
            .payload
            .get(4..8)?
            .try_into()
            .ok()
            .map(u32::from_le_bytes),
        _ => None,
    }
}
