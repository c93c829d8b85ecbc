//! TFTP as a state machine: requests, options and windows of RFC 1350, 2347, 2348, 2349 and 7440.
//!
//! It refuses to own a socket, a clock or a file: [`Engine::datagram`] and [`Engine::expire`] take bytes and
//! the time, and answer with packets and with ranges of blocks to send. It serves reads only.
//!
//! One [`Engine`] holds the transfers of one UDP port, keyed by the peer's address and port (single-port mode): a
//! transfer costs its entry and nothing else.

mod drill;
mod engine;
mod name;
mod netascii;
mod packet;
mod rto;
mod terms;
#[cfg(test)]
mod tests;
mod transfer;

pub use drill::drill;
pub use engine::{Engine, Event, Files, Limits, Output, Peer, Refusal, Silence};
pub use netascii::to_netascii;
pub use packet::{ErrorCode, Malformed, Mode, Packet, ReadRequest};
pub use terms::{Ask, MAX_BLOCK_SIZE, MAX_WINDOW, Terms};
pub use transfer::{Blocks, Outcome};
