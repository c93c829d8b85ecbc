//! A session of IPMI 1.5, with MD5 codes and no encryption: only for hosts that carry the waiver.
//!
//! It refuses any weaker authentication than MD5, and replies without a code.

use std::fmt;
use std::sync::Arc;

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;

use super::{
    Answer, Ask, Entropy, Ignored, Login, Received, Refusal, Sequence, Window, answer, encode,
};
use crate::wire::{Code, Datagram, Legacy, LegacyAuth, NetFn, app, encode_legacy};

/// MD5 among the authentication types (IPMI 2.0 Table 13-8).
const MD5: u8 = 2;

/// One session of IPMI 1.5.
pub struct LegacySession {
    login: Arc<Login>,
    state: State,
    ask: Ask,
    asks: Sequence,
    session: u32,
    sent: u32,
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asking,
    Challenging,
    Activating,
    Open,
    Closed,
}

impl fmt::Debug for LegacySession {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LegacySession")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl LegacySession {
    /// Begins a session; gives its first datagram.
    #[must_use]
    pub fn begin(login: Arc<Login>) -> (Self, Vec<u8>) {
        let mut asks = Sequence::default();
        let ask = asks.ask(
            NetFn::App,
            app::CHANNEL_AUTH,
            &[0x0e, login.privilege.number()],
        );
        let mut session = Self {
            login,
            state: State::Asking,
            ask,
            asks,
            session: 0,
            sent: 0,
            window: Window::default(),
        };
        let first = session.datagram(&session.ask.clone());
        (session, first)
    }

    /// Whether requests can be made.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Takes in a datagram.
    pub fn receive(&mut self, datagram: &[u8], entropy: &mut impl Entropy) -> Received {
        match Datagram::decode(datagram) {
            Ok(Datagram::Legacy(packet)) => self
                .packet(&packet, entropy)
                .unwrap_or_else(Received::Ignored),
            Ok(Datagram::Ping(_) | Datagram::Session(_)) => Received::Ignored(Ignored::Stranger),
            Err(malformed) => Received::Ignored(malformed.into()),
        }
    }

    fn packet(
        &mut self,
        packet: &Legacy<'_>,
        entropy: &mut impl Entropy,
    ) -> Result<Received, Ignored> {
        if packet.session != self.session {
            return Err(Ignored::Stranger);
        }
        if matches!(self.state, State::Activating | State::Open) {
            let LegacyAuth::Md5(code) = packet.auth else {
                return Err(crate::crypto::Forged::Bare.into());
            };
            if !bool::from(self.code(packet.sequence, packet.payload).ct_eq(&code)) {
                return Err(crate::crypto::Forged::Code.into());
            }
        }
        if self.state == State::Open && !self.window.accept(packet.sequence) {
            return Err(Ignored::Replayed);
        }
        let answer = answer(packet.payload)?;
        match self.state {
            State::Open => Ok(Received::Reply(answer)),
            State::Closed => Err(Ignored::OutOfTurn),
            _ if !self.ask.is_answered_by(&answer) => Err(Ignored::OutOfTurn),
            _ => Ok(self.advance(&answer, entropy)),
        }
    }

    fn advance(&mut self, answer: &Answer, entropy: &mut impl Entropy) -> Received {
        let message = match self.state {
            State::Asking => "get channel authentication capabilities",
            State::Challenging => "get session challenge",
            _ => "activate session",
        };
        if answer.code != Code::OK {
            self.state = State::Closed;
            return Received::Refused(Refusal::Completion {
                message,
                code: answer.code,
            });
        }
        let next = match self.state {
            State::Asking => self.challenge(&answer.data),
            State::Challenging => self.activate(&answer.data, entropy),
            _ => return self.activated(&answer.data),
        };
        if let Some(ask) = next {
            self.ask = ask;
            Received::Send(self.datagram(&self.ask.clone()))
        } else {
            self.state = State::Closed;
            Received::Refused(Refusal::NotOffered("MD5 authentication"))
        }
    }

    fn challenge(&mut self, capabilities: &[u8]) -> Option<Ask> {
        capabilities
            .get(1)
            .filter(|types| **types & 1 << MD5 != 0)?;
        let mut data = [0; 17];
        data[0] = MD5;
        data.get_mut(1..=self.login.user.len())?
            .copy_from_slice(self.login.user.as_bytes());
        self.state = State::Challenging;
        Some(self.asks.ask(NetFn::App, app::CHALLENGE, &data))
    }

    fn activate(&mut self, challenge: &[u8], entropy: &mut impl Entropy) -> Option<Ask> {
        let (session, challenge) = challenge.split_first_chunk::<4>()?;
        let challenge = challenge.first_chunk::<16>()?;
        // Below half of all numbers: the window begins at 0 and takes more for a step back.
        let from = u32::from_le_bytes(entropy.array()) & 0x3fff_ffff | 1;
        let data = [
            &[MD5, self.login.privilege.number()][..],
            challenge,
            &from.to_le_bytes(),
        ]
        .concat();
        self.session = u32::from_le_bytes(*session);
        self.state = State::Activating;
        Some(self.asks.ask(NetFn::App, app::ACTIVATE, &data))
    }

    fn activated(&mut self, data: &[u8]) -> Received {
        let fields = data
            .get(1..9)
            .and_then(|fields| fields.split_first_chunk::<4>());
        let Some((session, from)) =
            fields.and_then(|(session, from)| Some((session, from.first_chunk::<4>()?)))
        else {
            self.state = State::Closed;
            return Received::Refused(Refusal::NotOffered("a session"));
        };
        if data[0] != MD5 {
            self.state = State::Closed;
            return Received::Refused(Refusal::NotOffered("MD5 authentication for each message"));
        }
        self.session = u32::from_le_bytes(*session);
        self.sent = u32::from_le_bytes(*from).wrapping_sub(1);
        self.state = State::Open;
        Received::Opened
    }

    /// A request, to be sent with [`LegacySession::send`].
    pub fn ask(&mut self, netfn: NetFn, command: u8, data: &[u8]) -> Ask {
        self.asks.ask(netfn, command, data)
    }

    /// A datagram with the request, the first time or again; none unless the session is open.
    pub fn send(&mut self, ask: &Ask) -> Option<Vec<u8>> {
        self.is_open().then(|| self.datagram(ask))
    }

    /// A datagram that closes the session at the BMC; none if the BMC has none.
    pub fn close(&mut self) -> Option<Vec<u8>> {
        let was = std::mem::replace(&mut self.state, State::Closed);
        (was == State::Open).then(|| {
            let ask = self
                .asks
                .ask(NetFn::App, app::CLOSE, &self.session.to_le_bytes());
            self.state = State::Open;
            let datagram = self.datagram(&ask);
            self.state = State::Closed;
            datagram
        })
    }

    fn datagram(&mut self, ask: &Ask) -> Vec<u8> {
        let payload = encode(ask);
        let (auth, sequence) = match self.state {
            State::Asking | State::Challenging | State::Closed => (LegacyAuth::None, 0),
            State::Activating => (LegacyAuth::Md5(self.code(0, &payload)), 0),
            State::Open => {
                self.sent = self.sent.checked_add(1).unwrap_or(1);
                (LegacyAuth::Md5(self.code(self.sent, &payload)), self.sent)
            }
        };
        encode_legacy(&Legacy {
            auth,
            sequence,
            session: self.session,
            payload: &payload,
        })
    }

    /// The code of a packet (IPMI 2.0 §22.17.1): 16 bytes of password at both ends.
    fn code(&self, sequence: u32, payload: &[u8]) -> [u8; 16] {
        let password = &self.login.password[..16];
        Md5::new()
            .chain_update(password)
            .chain_update(self.session.to_le_bytes())
            .chain_update(payload)
            .chain_update(sequence.to_le_bytes())
            .chain_update(password)
            .finalize()
            .into()
    }
}
