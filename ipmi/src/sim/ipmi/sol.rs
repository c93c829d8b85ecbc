//! The BMC's end of SOL: what the host prints goes to the session, what is typed goes to the host.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use crate::sim::Board;
use crate::sol::{Flow, Packet};

/// How many characters a packet carries at most; told in the reply to Activate Payload.
pub(super) const SIZE: u8 = 200;
/// How often the host's console is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// An activated SOL payload.
#[derive(Debug)]
pub(super) struct Sol {
    flow: Flow,
    console: Receiver<Bytes>,
    looked: Instant,
}

impl Sol {
    pub(super) fn new(board: &Board, now: Instant) -> Self {
        Self {
            flow: Flow::new(usize::from(SIZE)),
            console: board.console(),
            looked: now,
        }
    }

    /// Takes a packet from the console; the packets to answer with.
    pub(super) fn receive(&mut self, bytes: &[u8], board: &Board, now: Instant) -> Vec<Vec<u8>> {
        let Ok(packet) = Packet::decode(bytes) else {
            return Vec::new();
        };
        let received = self.flow.receive(&packet, usize::from(u8::MAX));
        if let Some(typed) = packet.characters.get(..received.taken)
            && !typed.is_empty()
        {
            board.type_in(typed);
        }
        received.answer.into_iter().chain(self.poll(now)).collect()
    }

    /// When there is something to do again.
    pub(super) fn wakes(&self) -> Instant {
        self.looked + LOOK
    }

    /// The packet to send now, if there is one.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.looked = now;
        // A console that is not read overruns, as a serial line does.
        while self.flow.room() > 0 {
            match self.console.try_recv() {
                Ok(printed) => {
                    self.flow.push(&printed);
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.flow.poll(now)
    }

    /// Whether the other end went away without a word.
    pub(super) fn is_dead(&self) -> bool {
        self.flow.is_stuck()
    }
}
