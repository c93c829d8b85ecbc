//! The power of a fleet, read again and again without wearing anything out.
//!
//! IPMI BMCs share one socket and one task; the others are asked by a bounded number of tasks. It refuses to
//! speak with a BMC that somebody else is speaking with, that was spoken with a moment ago, or that has been
//! silent for long; and it never writes anything.

mod datagrams;
mod track;

#[cfg(all(test, feature = "sim"))]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bmc::{Bmc, Error, PowerState, Protocol, Waiver};

pub use track::Rest;
pub(crate) use track::Track;

/// How a fleet is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many IPMI BMCs may have their first try under way; those that kept silent once do not count.
    pub window: usize,
    /// How long an answer is waited for at first; a BMC that was seen to be slower gets longer.
    pub wait: Duration,
    /// How many tries a BMC gets in one sweep.
    pub tries: u32,
    /// The beginnings of a sweep are spread over this time.
    pub spread: Duration,
    /// How many BMCs that do not speak IPMI are asked at a time.
    pub tasks: usize,
    /// How long one of those may take.
    pub task: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            // What answers at once must fit the 208 KiB that Linux lets a socket buffer by default.
            window: 512,
            wait: Duration::from_millis(500),
            tries: 3,
            spread: Duration::ZERO,
            tasks: 32,
            task: Duration::from_secs(20),
        }
    }
}

/// What a sweep learned of one BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Its power, read just now.
    Power(PowerState),
    /// It was asked, and did not say.
    Failed(Error),
    /// It was left alone.
    Skipped(Rest),
}

/// Reads the power of a fleet.
#[derive(Debug)]
pub struct Poller {
    socket: UdpSocket,
    pace: Pace,
}

/// One BMC whose turn it is, held so that nobody else speaks with it.
struct Turn {
    index: usize,
    bmc: Arc<Bmc>,
    _gate: OwnedMutexGuard<()>,
}

impl Poller {
    /// A poller with a socket of its own.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn bind(pace: Pace) -> std::io::Result<Self> {
        /// Room for the answers of a whole window; the kernel gives what it may.
        const BUFFER: usize = 4 << 20;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            pace,
        })
    }

    /// Reads the power of `bmcs`, one answer for each, in their order.
    pub async fn sweep(&mut self, bmcs: &[Arc<Bmc>]) -> Vec<Reading> {
        let now = Instant::now();
        let mut readings = Vec::with_capacity(bmcs.len());
        let (mut datagrams, mut tasks) = (Vec::new(), Vec::new());
        for (index, bmc) in bmcs.iter().enumerate() {
            let Ok(gate) = Arc::clone(bmc.gate()).try_lock_owned() else {
                readings.push(Reading::Skipped(Rest::Busy));
                continue;
            };
            if let Err(rest) = bmc.track().begin(now.into_std()) {
                readings.push(Reading::Skipped(rest));
                continue;
            }
            readings.push(Reading::Failed(unfinished()));
            let turn = Turn {
                index,
                bmc: Arc::clone(bmc),
                _gate: gate,
            };
            match address(bmc) {
                Some(address) => datagrams.push((turn, address)),
                None => tasks.push(turn),
            }
        }
        let (mut of_datagrams, of_tasks) = tokio::join!(
            datagrams::sweep(&self.socket, self.pace, datagrams),
            ask_each(tasks, self.pace)
        );
        of_datagrams.extend(of_tasks);
        let now = Instant::now().into_std();
        for (index, reading) in of_datagrams {
            if let Some(bmc) = bmcs.get(index) {
                bmc.track().end(now, reading.is_ok());
            }
            if let Some(slot) = readings.get_mut(index) {
                *slot = reading.map_or_else(Reading::Failed, Reading::Power);
            }
        }
        readings
    }
}

fn unfinished() -> Error {
    Error::Unreachable {
        detail: "the sweep ended before it answered".to_owned(),
    }
}

/// The address of a BMC that is polled over the shared socket; none for those that need a conversation of their own.
fn address(bmc: &Bmc) -> Option<SocketAddr> {
    let endpoint = bmc.endpoint();
    let shared = endpoint.protocol == Protocol::Ipmi && !endpoint.waivers.allow(Waiver::Ipmi15);
    match endpoint.host.parse() {
        Ok(IpAddr::V4(address)) if shared => Some((address, endpoint.port()).into()),
        _ => None,
    }
}

async fn ask_each(turns: Vec<Turn>, pace: Pace) -> Vec<(usize, Result<PowerState, Error>)> {
    let room = Arc::new(Semaphore::new(pace.tasks.max(1)));
    let mut tasks = JoinSet::new();
    for turn in turns {
        let room = Arc::clone(&room);
        tasks.spawn(async move {
            let _room = room.acquire_owned().await;
            (
                turn.index,
                turn.bmc.ask_power(Instant::now() + pace.task).await,
            )
        });
    }
    let mut readings = Vec::with_capacity(tasks.len());
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(reading) => readings.push(reading),
            Err(error) => tracing::error!(%error, "a poll ended badly"),
        }
    }
    readings
}
