//! A simulated IPMI 2.0 BMC: sessions of suites 3 and 17, chassis, sensors, logs and console.
//!
//! It refuses weaker suites and IPMI 1.5 sessions. Its key exchange is the BMC's half only; what
//! judges it are ipmitool and freeipmi.

mod boot;
mod command;
mod firmware;
mod handshake;
mod parts;
mod records;
mod sensors;
mod sessions;
mod sol;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use super::Board;
use crate::crypto::{Key, Suite};

pub use crate::session::Privilege;
pub use firmware::Firmware;

/// No datagram of ours or of a client is longer.
const DATAGRAM: usize = 2048;

/// The privilege with this number; none of those that no account has here.
fn privilege(level: u8) -> Option<Privilege> {
    use Privilege::{Administrator, Operator, User};
    [User, Operator, Administrator]
        .into_iter()
        .find(|privilege| privilege.number() == level)
}

/// An account.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name; at most 16 bytes.
    pub name: Arc<str>,
    /// Its password; at most 20 bytes, or else nobody can log in with it.
    pub password: SecretString,
    /// How far it may go.
    pub limit: Privilege,
}

/// How a simulated BMC is configured.
#[derive(Clone)]
pub struct Config {
    /// The accounts.
    pub users: Vec<User>,
    /// The BMC's own key, beside the passwords.
    pub kg: Option<Key>,
    /// The suites that it speaks, in the order in which it tells them.
    pub suites: Vec<Suite>,
    /// How many sessions it has room for.
    pub sessions: usize,
    /// After how long an idle session ends (60 s ± 3 in IPMI 2.0 §6.12.15).
    pub idle: Duration,
    /// After how long boot flags lapse unless the host is started (60 s in IPMI 2.0 §28.12).
    pub boot_timer: Duration,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("users", &self.users)
            .field("suites", &self.suites)
            .field("sessions", &self.sessions)
            .field("idle", &self.idle)
            .field("boot_timer", &self.boot_timer)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// A BMC with these accounts, both suites, and the times of the specification.
    #[must_use]
    pub fn new(users: Vec<User>) -> Self {
        Self {
            users,
            kg: None,
            suites: vec![Suite::Three, Suite::Seventeen],
            sessions: 16,
            idle: Duration::from_mins(1),
            boot_timer: Duration::from_mins(1),
        }
    }
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub peer: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Answers on `socket` until dropped.
///
/// # Errors
/// When the socket fails for good.
pub async fn serve(
    socket: UdpSocket,
    board: Board,
    config: impl Into<Arc<Config>>,
) -> io::Result<Infallible> {
    let socket = Arc::new(socket);
    let mut firmware =
        Firmware::new(board.clone(), config.into()).at_port(socket.local_addr()?.port());
    let mut buffer = [0; DATAGRAM];
    loop {
        let wake = firmware.wakes().map(Instant::from_std);
        let outgoing = tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let (length, peer) = match received {
                    Ok(received) => received,
                    // An ICMP error for an earlier answer is no reason to stop.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                    Err(error) => return Err(error),
                };
                if board.faults().loses_this() {
                    continue;
                }
                let datagram = buffer.get(..length).unwrap_or_default();
                firmware.receive(peer, datagram, Instant::now().into_std())
            }
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                firmware.wake(Instant::now().into_std())
            }
        };
        for answer in outgoing {
            send(&socket, &board, answer);
        }
    }
}

/// Sends an answer as the faults have it.
fn send(socket: &Arc<UdpSocket>, board: &Board, mut answer: Outgoing) {
    let faults = board.faults();
    if faults.loses_this() {
        return;
    }
    if faults.shortens() {
        answer.bytes.truncate(answer.bytes.len() / 2);
    }
    let copies = if faults.duplicates() { 2 } else { 1 };
    let late = faults.late();
    if late.is_zero() {
        transmit(socket, &answer, copies);
        return;
    }
    let socket = Arc::clone(socket);
    tokio::spawn(async move {
        tokio::time::sleep(late).await;
        transmit(&socket, &answer, copies);
    });
}

fn transmit(socket: &UdpSocket, answer: &Outgoing, copies: usize) {
    for _ in 0..copies {
        // A full socket buffer loses the packet, as any network may.
        if let Err(error) = socket.try_send_to(&answer.bytes, answer.peer) {
            tracing::debug!(peer = %answer.peer, %error, "lost an answer");
        }
    }
}
