//! One RMCP+ session over a UDP socket of its own.
//!
//! It refuses to give a command that acts twice, to open anything weaker than what once worked with a BMC,
//! and to leave a session behind: whoever drops a link closes it.
//!
//! A read that is lost is asked again under a new session number: any answer will do. A command that acts
//! gets one session number, and only the very same datagram goes out again when no answer comes: a BMC takes
//! each number of a session once (IPMI 2.0 §6.12.13), so that all copies are one command, however many arrive.
//! That is done for "off" and "on" alone, which do no more when they are obeyed twice at that moment: the
//! link is the only one that speaks with the BMC then, the copies stop before the power is read back, and are
//! void when the session ends, which it does before anything else is sent to that host's power.

mod conversation;
mod open;
mod patience;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use self::patience::Patience;
use crate::bmc::Error;
use crate::command::{Answered, Transact};
use crate::crypto::Suite;
use crate::session::{Answer, Ask, Kernel, LegacySession, Received, Session};
use crate::wire::{Code, Kind, MAX_PAYLOAD, NetFn};

pub(crate) use open::refused;
pub use open::{Legacy, open};

/// The least that the first try of a read waits.
const FIRST_WAIT: Duration = Duration::from_millis(150);
/// The longest that the first try of a read waits.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How many tries a session that gives no answer at all is worth: where half of all packets is lost, one of a
/// thousand requests is given up, which costs a session and all that was read in it.
const TRIES: u32 = 24;
/// How long the answer to a command that acts is waited for: some BMCs answer when they are done. Where copies of
/// it go out, half of that will do: by then one has arrived, and whether only the answer was lost a look tells.
const ACT_WAIT: Duration = Duration::from_secs(10);
const COPIES_WAIT: Duration = Duration::from_secs(5);
/// How long a close is waited for, and how often it is sent: a close that is lost costs the BMC one of its few
/// sessions for a minute.
const CLOSE_WAIT: Duration = Duration::from_millis(250);
const CLOSES: u32 = 4;
/// How long a BMC is left alone that said that it is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// More than the largest packet of either version.
const DATAGRAM: usize = MAX_PAYLOAD + 128;

/// What is remembered of one BMC between sessions.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Remembered>);

#[derive(Clone, Copy, Debug, Default)]
struct Remembered {
    suite: Option<Suite>,
    round_trip: Option<Duration>,
    line: Line,
}

/// What the line to a BMC was like when its last session was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Good,
    /// So many packets are lost that handshakes are.
    Lossy,
}

impl Memory {
    fn get(&self) -> Remembered {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, suite: Suite, round_trip: Duration, line: Line) {
        let remembered = Remembered {
            suite: Some(suite),
            round_trip: Some(round_trip),
            line,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = remembered;
    }

    /// The suites to try, best first: what worked once is the least that is accepted from then on.
    #[must_use]
    pub fn suites(&self) -> &'static [Suite] {
        match self.get().suite {
            None => &[Suite::Seventeen, Suite::Three],
            Some(Suite::Seventeen) => &[Suite::Seventeen],
            Some(Suite::Three) => &[Suite::Three],
        }
    }

    /// How long an answer is waited for: at least `least`, longer for a BMC that was seen to be slow.
    #[must_use]
    pub fn patience(&self, least: Duration) -> Duration {
        let slow = self.get().round_trip.unwrap_or_default() * 4;
        slow.clamp(least, LONGEST_WAIT.max(least))
    }

    /// Remembers that `suite` works.
    pub fn worked(&self, suite: Suite) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).suite = Some(suite);
    }
}

#[derive(Debug)]
enum Machine {
    Plus(Session),
    Legacy(LegacySession),
}

impl Machine {
    fn receive(&mut self, datagram: &[u8]) -> Received {
        match self {
            Self::Plus(session) => session.receive(datagram, &mut Kernel),
            Self::Legacy(session) => session.receive(datagram, &mut Kernel),
        }
    }

    fn ask(&mut self, netfn: NetFn, command: u8, data: &[u8]) -> Ask {
        match self {
            Self::Plus(session) => session.ask(netfn, command, data),
            Self::Legacy(session) => session.ask(netfn, command, data),
        }
    }

    fn send(&mut self, ask: &Ask) -> Option<Vec<u8>> {
        match self {
            Self::Plus(session) => session.send(ask, &mut Kernel),
            Self::Legacy(session) => session.send(ask),
        }
    }

    fn close(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Plus(session) => session.close(&mut Kernel),
            Self::Legacy(session) => session.close(),
        }
    }
}

/// How often a command that acts is put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copies {
    /// Once.
    One,
    /// The same datagram again and again until there is an answer; the session makes them one command.
    Same,
}

/// A session with a BMC. One request is in flight at a time.
///
/// Dropping it tells the BMC that the session is over, also when the task is cancelled or panics.
#[derive(Debug)]
pub struct Link {
    socket: UdpSocket,
    machine: Machine,
    deadline: Instant,
    guid: Option<[u8; 16]>,
    /// How long the first try of a read waits: as this BMC's answers in the handshake suggest.
    wait: Duration,
}

impl Drop for Link {
    fn drop(&mut self) {
        // Cannot wait here; a lost close costs the BMC a minute of one session, its own limit ends it.
        if let Some(datagram) = self.machine.close()
            && let Err(error) = self.socket.try_send(&datagram)
        {
            tracing::debug!(%error, "could not close a bmc session");
        }
    }
}

/// What waiting for an answer came to.
enum Waited {
    Answer(Answer),
    Payload(Kind, Vec<u8>),
    Nothing,
}

impl Link {
    /// How long the link may go on asking.
    pub fn extend(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// The system GUID that the BMC proved in the handshake.
    #[must_use]
    pub fn guid(&self) -> Option<[u8; 16]> {
        self.guid
    }

    /// Closes the session, and waits a moment for the BMC to say so.
    pub async fn close(mut self) {
        let Some(datagram) = self.machine.close() else {
            return;
        };
        let mut buffer = [0; DATAGRAM];
        for _ in 0..CLOSES {
            if self.socket.send(&datagram).await.is_err() {
                return;
            }
            // Its code cannot be checked any more; whatever comes now says that the packet arrived.
            if tokio::time::timeout(CLOSE_WAIT, self.socket.recv(&mut buffer))
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    /// Gives a command that acts, once. None when no answer came: it may or may not have been obeyed.
    pub(crate) async fn act(
        &mut self,
        (netfn, command): (NetFn, u8),
        data: &[u8],
        copies: Copies,
    ) -> Result<Option<Answered>, Error> {
        let ask = self.machine.ask(netfn, command, data);
        let datagram = self.machine.send(&ask).ok_or_else(closed)?;
        self.socket
            .send(&datagram)
            .await
            .map_err(|error| unsent(&error))?;
        // The sessions of IPMI 1.5 take a number that is a little older again.
        let copies = match self.machine {
            Machine::Plus(_) => copies,
            Machine::Legacy(_) => Copies::One,
        };
        let most = match copies {
            Copies::One => ACT_WAIT,
            Copies::Same => COPIES_WAIT.max(self.wait.saturating_mul(2)),
        };
        let end = self.deadline.min(Instant::now() + most);
        let mut patience = Patience::new(self.wait);
        loop {
            let until = match copies {
                Copies::One => end,
                Copies::Same => end.min(Instant::now() + patience.next()),
            };
            if let Some(answered) = self.answer(&ask, until).await {
                return Ok(Some(answered));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            if let Err(error) = self.socket.send(&datagram).await {
                tracing::debug!(%error, "could not send to a bmc");
            }
        }
    }

    /// Waits for the answer to a request.
    async fn answer(&mut self, ask: &Ask, until: Instant) -> Option<Answered> {
        loop {
            match self.wait(until).await {
                Waited::Answer(answer) if ask.is_answered_by(&answer) => {
                    return Some(Answered {
                        code: answer.code,
                        data: answer.data,
                    });
                }
                Waited::Answer(_) | Waited::Payload(..) => {}
                Waited::Nothing => return None,
            }
        }
    }

    /// Sends a payload that is not an IPMI message.
    ///
    /// # Errors
    /// When it could not be sent.
    pub async fn send_payload(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        let Machine::Plus(session) = &mut self.machine else {
            return Err(Error::Unsupported {
                detail: "payloads need ipmi 2.0".to_owned(),
            });
        };
        let datagram = session
            .payload(kind, payload, &mut Kernel)
            .ok_or_else(closed)?;
        self.socket
            .send(&datagram)
            .await
            .map_err(|error| unsent(&error))?;
        Ok(())
    }

    /// Waits for a payload that is not an IPMI message; none if there is none `within` that time.
    ///
    /// Nothing is lost if the wait is given up.
    ///
    /// # Errors
    /// Never at present: an unreachable BMC is one that says nothing.
    pub async fn receive_payload(
        &mut self,
        within: Duration,
    ) -> Result<Option<(Kind, Vec<u8>)>, Error> {
        let until = Instant::now() + within;
        loop {
            match self.wait(until).await {
                Waited::Payload(kind, payload) => return Ok(Some((kind, payload))),
                Waited::Answer(_) => {}
                Waited::Nothing => return Ok(None),
            }
        }
    }

    async fn wait(&mut self, until: Instant) -> Waited {
        let mut buffer = [0; DATAGRAM];
        loop {
            let length = match timeout_at(until, self.socket.recv(&mut buffer)).await {
                Ok(Ok(length)) => length,
                // The host is told unreachable, or the port closed: that may pass, and must not spin.
                Ok(Err(_)) => {
                    tokio::time::sleep_until(until.min(Instant::now() + Duration::from_millis(50)))
                        .await;
                    if Instant::now() >= until {
                        return Waited::Nothing;
                    }
                    continue;
                }
                Err(_) => return Waited::Nothing,
            };
            match self.machine.receive(&buffer[..length]) {
                Received::Reply(answer) => return Waited::Answer(answer),
                Received::Payload(kind, payload) => return Waited::Payload(kind, payload),
                Received::Ignored(why) => tracing::debug!(%why, "ignored a packet from a bmc"),
                Received::Send(_) | Received::Opened | Received::Refused(_) => {}
            }
        }
    }

    /// Asks until an answer comes: the same request again, with the same sequence, so that an answer to any try will do.
    async fn ask(&mut self, netfn: NetFn, command: u8, data: &[u8]) -> Result<Answered, Error> {
        let ask = self.machine.ask(netfn, command, data);
        let mut patience = Patience::new(self.wait);
        for _ in 0..TRIES {
            let datagram = self.machine.send(&ask).ok_or_else(closed)?;
            // A send that fails is a packet that is lost.
            if let Err(error) = self.socket.send(&datagram).await {
                tracing::debug!(%error, "could not send to a bmc");
            }
            let until = self.deadline.min(Instant::now() + patience.next());
            if let Some(answered) = self.answer(&ask, until).await {
                return Ok(answered);
            }
            if Instant::now() >= self.deadline {
                break;
            }
        }
        let detail = format!("no answer to {netfn:?} command {command:02X}h in an open session");
        Err(Error::Unreachable { detail })
    }
}

impl Transact for Link {
    async fn transact(
        &mut self,
        netfn: NetFn,
        command: u8,
        data: &[u8],
    ) -> Result<Answered, Error> {
        loop {
            let answered = self.ask(netfn, command, data).await?;
            let again = Instant::now() + BUSY_PAUSE;
            // "Out of space" to a read is a limit of that read, not of the moment.
            if !matches!(answered.code, Code::BUSY | Code::TIMEOUT | Code::STARTING)
                || again >= self.deadline
            {
                return Ok(answered);
            }
            tokio::time::sleep_until(again).await;
        }
    }
}

fn closed() -> Error {
    Error::Unreachable {
        detail: "the session is closed".to_owned(),
    }
}

fn unsent(error: &std::io::Error) -> Error {
    Error::Unreachable {
        detail: format!("could not send: {error}"),
    }
}
