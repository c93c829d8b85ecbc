//! RMCP, RMCP+ and IPMI messages as bytes, in both directions.
//!
//! It knows no keys, no state and no time: what it decodes is bounded, borrowed, and not to be believed yet.

mod handshake;
mod message;
mod packet;
mod reader;

#[cfg(test)]
mod tests;

pub use handshake::{
    Algorithms, BmcProof, OpenReply, OpenRequest, Opened, Rakp1, Rakp2, Rakp3, Rakp4, Role, Status,
};
pub use message::{Code, Message, NetFn, Reply, Request, app, chassis, transport};
pub use packet::{
    Datagram, Kind, Legacy, LegacyAuth, MAX_PAYLOAD, Packet, Ping, encode_legacy, encode_plain,
};
pub(crate) use packet::{UNCOVERED, begin_sealed};
pub use reader::Malformed;
pub(crate) use reader::Reader;
