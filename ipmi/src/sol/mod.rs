//! Serial over LAN (IPMI 2.0 §15): its packets and its flow control, for both ends, and our end of it.
//!
//! It refuses to lose or repeat what was typed: each packet is acknowledged before the next one leaves.

mod client;
mod flow;
mod packet;

pub use client::open;
pub use flow::{Flow, Received};
pub use packet::{Flags, Packet};
