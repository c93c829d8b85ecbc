//! Opening a session: cipher suites, roles, lost messages and full BMCs.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{DATAGRAM, Line, Link, Machine, Memory};
use crate::bmc::Error;
use crate::command::Transact as _;
use crate::crypto::Suite;
use crate::session::{
    Entropy as _, Kernel, LegacySession, Login, Privilege, Received, Refusal, Session, addressee,
};
use crate::wire::{Code, NetFn, Status, app};

/// How long the first handshake waits for each message.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The least and the most that any handshake waits for a message.
const SHORTEST_WAIT: Duration = Duration::from_millis(150);
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long a BMC without room for a session is left alone, the first time.
const FULL_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_FULL_PAUSE: Duration = Duration::from_secs(8);

/// Whether IPMI 1.5 may be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legacy {
    /// No.
    Refuse,
    /// Yes, when the BMC does not speak 2.0: the host carries the waiver.
    Waived,
}

/// How long IPMI 2.0 is tried with a host that may speak 1.5: who knows only 1.5 is silent.
const BEFORE_LEGACY: Duration = Duration::from_secs(3);
/// After this many lost handshakes messages are repeated a few times before everything begins again. Many BMCs
/// answer RAKP 1 and 3 only once, so beginning again is the rule; but where half of all packets is lost, 63 of 64
/// handshakes of six messages are. Open Session is answered as often as it is asked; each of the other two gets
/// fewer tries, since after the first that arrived all further ones may be in vain.
const REPEAT_AFTER: u32 = 2;
const OPEN_REPEATS: u32 = 5;
const RAKP_REPEATS: u32 = 2;
/// How many handshakes that were given up are remembered.
const STALE: usize = 64;

/// Opens a session before the deadline.
///
/// # Errors
/// When the BMC does not answer, does not take us, or offers less than we accept.
pub async fn open(
    address: SocketAddr,
    login: &Login,
    memory: &Memory,
    legacy: Legacy,
    deadline: Instant,
) -> Result<Link, Error> {
    let mut opening = Opening::new(address, memory, deadline).await?;
    let machine = match legacy {
        Legacy::Refuse => opening.plus(login).await?,
        Legacy::Waived => {
            opening.deadline = deadline.min(Instant::now() + BEFORE_LEGACY);
            match opening.plus(login).await {
                Err(Error::Unreachable { .. } | Error::Unsupported { .. }) => {
                    opening.deadline = deadline;
                    opening.legacy(login).await?
                }
                other => other?,
            }
        }
    };
    let guid = match &machine {
        Machine::Plus(session) => session.guid().filter(|guid| *guid != [0; 16]),
        Machine::Legacy(_) => None,
    };
    let mut link = Link {
        socket: opening.socket,
        machine,
        deadline,
        guid,
        wait: opening.wait.clamp(super::FIRST_WAIT, super::LONGEST_WAIT),
    };
    raise(&mut link, login.privilege).await?;
    Ok(link)
}

/// Sessions begin with the privilege of a user, whatever was asked for in the handshake. An account that may
/// not have more can still read; what it may not do the BMC refuses then.
async fn raise(link: &mut Link, privilege: Privilege) -> Result<(), Error> {
    let answer = link
        .transact(NetFn::App, app::SET_PRIVILEGE, &[privilege.number()])
        .await?;
    if answer.code != Code::OK && privilege == Privilege::Administrator {
        link.transact(
            NetFn::App,
            app::SET_PRIVILEGE,
            &[Privilege::Operator.number()],
        )
        .await?;
    }
    Ok(())
}

/// How long a message is waited for, as the last session with the BMC suggests.
fn wait_of(memory: &Memory) -> Duration {
    memory.get().round_trip.map_or(FIRST_WAIT, |round_trip| {
        (round_trip * 8).clamp(SHORTEST_WAIT, LONGEST_WAIT)
    })
}

struct Opening<'a> {
    socket: UdpSocket,
    memory: &'a Memory,
    deadline: Instant,
    wait: Duration,
    /// Ids of handshakes that were given up: an answer to one of them says that we are too impatient.
    stale: VecDeque<u32>,
    impatient: bool,
    /// The slowest answer of these handshakes.
    seen: Option<Duration>,
    /// How many handshakes were lost in a row.
    lost: u32,
}

/// What one handshake came to.
enum Tried {
    Open(Machine),
    Lost,
    Refused(Refusal),
}

/// A handshake, which closes at the BMC what it may have opened there when it is given up.
struct Handshake<'a> {
    socket: &'a UdpSocket,
    machine: Option<Machine>,
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let Some(datagram) = self.machine.as_mut().and_then(Machine::close) else {
            return;
        };
        // Where a handshake is lost the close may be too: the same packet twice is one close.
        for _ in 0..2 {
            if let Err(error) = self.socket.try_send(&datagram) {
                tracing::debug!(%error, "could not close a bmc session");
            }
        }
    }
}

impl<'a> Opening<'a> {
    async fn new(
        address: SocketAddr,
        memory: &'a Memory,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let any: IpAddr = if address.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let failed = |error: std::io::Error| Error::Unreachable {
            detail: format!("no socket: {error}"),
        };
        let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
        socket.connect(address).await.map_err(failed)?;
        let wait = wait_of(memory);
        Ok(Self {
            socket,
            memory,
            deadline,
            wait,
            stale: VecDeque::new(),
            impatient: false,
            seen: None,
            lost: match memory.get().line {
                Line::Good => 0,
                Line::Lossy => REPEAT_AFTER,
            },
        })
    }

    /// A session of IPMI 2.0, with the best suite and role that the BMC gives us.
    async fn plus(&mut self, login: &Login) -> Result<Machine, Error> {
        let mut login = Arc::new(login.clone());
        let suites = self.memory.suites();
        for suite in suites {
            let refusal = match self.handshake(&login, Some(*suite)).await? {
                Ok(machine) => return Ok(machine),
                // The account may have less than we would like; reading is possible then.
                Err(Refusal::Status { status, .. })
                    if status.is_about_role() && login.privilege > Privilege::User =>
                {
                    login = Arc::new(login.with(Privilege::User));
                    match self.handshake(&login, Some(*suite)).await? {
                        Ok(machine) => return Ok(machine),
                        Err(refusal) => refusal,
                    }
                }
                Err(refusal) => refusal,
            };
            if !matches!(refusal, Refusal::Status { status, .. } if status.is_about_suite()) {
                return Err(refused(&refusal));
            }
        }
        let names = suites
            .iter()
            .map(Suite::to_string)
            .collect::<Vec<_>>()
            .join(" nor ");
        Err(Error::Insecure {
            detail: format!("the bmc does not take cipher suite {names}"),
        })
    }

    /// A session of IPMI 1.5.
    async fn legacy(&mut self, login: &Login) -> Result<Machine, Error> {
        let login = Arc::new(login.clone());
        self.handshake(&login, None)
            .await?
            .map_err(|refusal| refused(&refusal))
    }

    /// Handshakes until one is answered to the end: a lost message is not repeated, everything begins again.
    async fn handshake(
        &mut self,
        login: &Arc<Login>,
        suite: Option<Suite>,
    ) -> Result<Result<Machine, Refusal>, Error> {
        let mut full_pause = FULL_PAUSE;
        let mut last = "no answer".to_owned();
        let mut full = false;
        while Instant::now() < self.deadline {
            match self.attempt(login, suite).await {
                Tried::Open(machine) => return Ok(Ok(machine)),
                Tried::Lost => self.slow_down(),
                Tried::Refused(Refusal::Status { status, message }) if status.is_full() => {
                    (full, last) = (true, format!("{message}: {status}"));
                    sleep_until(self.deadline.min(Instant::now() + full_pause)).await;
                    full_pause = (full_pause * 2).min(LONGEST_FULL_PAUSE);
                }
                // It forgot the handshake half way: under load BMCs do.
                Tried::Refused(Refusal::Status {
                    status: Status::INVALID_SESSION,
                    message,
                }) => {
                    last = format!("{message}: {}", Status::INVALID_SESSION);
                    sleep_until(self.deadline.min(Instant::now() + self.wait)).await;
                }
                Tried::Refused(refusal) => return Ok(Err(refusal)),
            }
        }
        Err(if full {
            Error::Busy { detail: last }
        } else {
            Error::Unreachable { detail: last }
        })
    }

    fn slow_down(&mut self) {
        self.wait = if std::mem::take(&mut self.impatient) {
            (self.wait * 2).min(LONGEST_WAIT)
        } else {
            // Packets are lost rather than late: a little more patience each time will do, and none
            // where answers were seen to come soon.
            let most = match self.seen {
                Some(round_trip) => (round_trip * 8).max(SHORTEST_WAIT),
                None => Duration::from_secs(1),
            };
            (self.wait * 5 / 4).min(most.max(SHORTEST_WAIT))
        };
    }

    async fn attempt(&mut self, login: &Arc<Login>, suite: Option<Suite>) -> Tried {
        let console = u32::from_le_bytes(Kernel.array()) | 1;
        let (machine, mut next) = if let Some(suite) = suite {
            let (session, first) = Session::begin(Arc::clone(login), suite, console, &mut Kernel);
            (Machine::Plus(session), first)
        } else {
            let (session, first) = LegacySession::begin(Arc::clone(login));
            (Machine::Legacy(session), first)
        };
        let mut handshake = Handshake {
            socket: &self.socket,
            machine: Some(machine),
        };
        let mut slowest = Duration::ZERO;
        let lossy = self.lost >= REPEAT_AFTER;
        let mut repeats = if lossy { OPEN_REPEATS } else { 0 };
        let mut repeated = false;
        loop {
            let began = Instant::now();
            // A send that fails is a packet that is lost; what remains of the wait keeps us from spinning.
            if let Err(error) = self.socket.send(&next).await {
                tracing::debug!(%error, "could not send to a bmc");
            }
            let until = self.deadline.min(began + self.wait);
            let received = next_step(
                &self.socket,
                &mut handshake,
                until,
                &self.stale,
                &mut self.impatient,
            )
            .await;
            match received {
                Some(Received::Send(datagram)) => {
                    slowest = slowest.max(began.elapsed());
                    self.seen = Some(slowest.max(self.seen.unwrap_or_default()));
                    repeats = if lossy { RAKP_REPEATS } else { 0 };
                    next = datagram;
                }
                Some(Received::Opened) => {
                    let Some(machine) = handshake.machine.take() else {
                        break;
                    };
                    if let Some(suite) = suite {
                        let line = if lossy { Line::Lossy } else { Line::Good };
                        let round_trip = slowest.max(began.elapsed());
                        self.memory.set(suite, round_trip, line);
                    }
                    self.lost = 0;
                    self.wait = wait_of(self.memory);
                    return Tried::Open(machine);
                }
                // With RAKP 1 sent twice the BMC may be at another random number than we are.
                Some(Received::Refused(refusal)) if !(repeated && refusal.is_about_key()) => {
                    return Tried::Refused(refusal);
                }
                None if repeats > 0 && Instant::now() < self.deadline => {
                    repeats -= 1;
                    repeated = true;
                }
                _ => break,
            }
        }
        self.lost += 1;
        if self.stale.len() == STALE {
            self.stale.pop_front();
        }
        self.stale.push_back(console);
        Tried::Lost
    }
}

/// The next step of a handshake; none when nothing came in time.
async fn next_step(
    socket: &UdpSocket,
    handshake: &mut Handshake<'_>,
    until: Instant,
    stale: &VecDeque<u32>,
    impatient: &mut bool,
) -> Option<Received> {
    let mut buffer = [0; DATAGRAM];
    loop {
        let Ok(read) = timeout_at(until, socket.recv(&mut buffer)).await else {
            return None;
        };
        let Ok(length) = read else {
            // Told unreachable, or the port is closed: that may pass.
            sleep_until(until).await;
            return None;
        };
        match handshake.machine.as_mut()?.receive(&buffer[..length]) {
            Received::Ignored(why) => {
                tracing::debug!(%why, "ignored a packet from a bmc");
                *impatient |=
                    addressee(&buffer[..length]).is_some_and(|console| stale.contains(&console));
            }
            step => return Some(step),
        }
    }
}

/// What a refusal means for who wanted a session.
pub(crate) fn refused(refusal: &Refusal) -> Error {
    let detail = refusal.to_string();
    match refusal {
        Refusal::Downgrade { .. } | Refusal::NotOffered(_) => Error::Insecure { detail },
        Refusal::Status { status, .. } if status.is_about_suite() => Error::Unsupported { detail },
        Refusal::Status { status, .. } if status.is_full() => Error::Busy { detail },
        Refusal::Status { status, .. } if !status.is_about_login() => Error::Protocol { detail },
        Refusal::Completion { code, .. } if code.is_transient() => Error::Busy { detail },
        Refusal::Status { .. }
        | Refusal::Password
        | Refusal::BmcKey
        | Refusal::Completion { .. } => Error::Refused { detail },
    }
}
