//! One RMCP+ session over a UDP socket of its own.
//!
//! It refuses to repeat a command that acts, to open anything weaker than what once worked with a BMC,
//! and to leave a session behind: whoever drops a link closes it.

mod conversation;
mod open;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::bmc::Error;
use crate::command::{Answered, Transact};
use crate::crypto::Suite;
use crate::session::{Answer, Ask, Kernel, LegacySession, Received, Session};
use crate::wire::{Code, Kind, MAX_PAYLOAD, NetFn};

pub(crate) use open::refused;
pub use open::{Legacy, open};

/// The least that the first try of a read waits; each further one a quarter longer.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest that any try waits.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How many tries a session that gives no answer at all is worth.
const TRIES: u32 = 12;
/// How long the answer to a command that acts is waited for: some BMCs answer when they are done.
const ACT_WAIT: Duration = Duration::from_secs(10);
/// How long a close is waited for; it is sent a second time then, and left at that.
const CLOSE_WAIT: Duration = Duration::from_millis(300);
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
}

impl Memory {
    fn get(&self) -> Remembered {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, suite: Suite, round_trip: Duration) {
        let remembered = Remembered {
            suite: Some(suite),
            round_trip: Some(round_trip),
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
        for _ in 0..2 {
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

    /// Sends a command that acts, once. None when no answer came: it may or may not have been obeyed.
    pub(crate) async fn act(
        &mut self,
        netfn: NetFn,
        command: u8,
        data: &[u8],
    ) -> Result<Option<Answered>, Error> {
        let ask = self.machine.ask(netfn, command, data);
        let datagram = self.machine.send(&ask).ok_or_else(closed)?;
        self.socket
            .send(&datagram)
            .await
            .map_err(|error| unsent(&error))?;
        let until = self.deadline.min(Instant::now() + ACT_WAIT);
        loop {
            match self.wait(until).await {
                Waited::Answer(answer) if ask.is_answered_by(&answer) => {
                    return Ok(Some(Answered {
                        code: answer.code,
                        data: answer.data,
                    }));
                }
                Waited::Answer(_) | Waited::Payload(..) => {}
                Waited::Nothing => return Ok(None),
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
        let mut wait = self.wait;
        for _ in 0..TRIES {
            let datagram = self.machine.send(&ask).ok_or_else(closed)?;
            // A send that fails is a packet that is lost.
            if let Err(error) = self.socket.send(&datagram).await {
                tracing::debug!(%error, "could not send to a bmc");
            }
            let until = self.deadline.min(Instant::now() + wait);
            loop {
                match self.wait(until).await {
                    Waited::Answer(answer) if ask.is_answered_by(&answer) => {
                        return Ok(Answered {
                            code: answer.code,
                            data: answer.data,
                        });
                    }
                    Waited::Answer(_) | Waited::Payload(..) => {}
                    Waited::Nothing => break,
                }
            }
            if Instant::now() >= self.deadline {
                break;
            }
            wait = (wait * 5 / 4).min(LONGEST_WAIT);
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
