//! What the timeline and the counters are told about each file that leaves.
//!
//! It refuses to make a transfer wait: who listens hands the values on and returns at once.

use std::net::IpAddr;
use std::time::Duration;

use image_manifest::Digest;
use netboot_core::boot::Protocol;

/// A file on its way to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Who gets it.
    pub peer: IpAddr,
    /// How it travels.
    pub over: Protocol,
    /// What it is.
    pub wanted: Wanted,
    /// First byte that was asked for.
    pub first: u64,
    /// How many bytes were asked for.
    pub length: u64,
    /// Bytes of the whole file.
    pub size: u64,
}

/// What a host asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A loader by name.
    Loader(String),
    /// An artifact by digest.
    Artifact(Digest),
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Bytes that were sent (HTTP) or acknowledged (TFTP).
    pub bytes: u64,
    /// Time since it began; for TFTP, since the request.
    pub elapsed: Duration,
    /// How.
    pub outcome: Outcome,
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The last byte was sent; over TFTP it was acknowledged too.
    Complete,
    /// It ended early, for this reason.
    Cut(String),
}

/// Listens to transfers. No call may block or wait: what is slow is handed on.
pub trait TransferLog: Send + Sync + 'static {
    /// The first byte is about to leave.
    fn began(&self, transfer: &Transfer);

    /// A transfer that began is over.
    fn ended(&self, transfer: &Transfer, end: &End);

    /// A request was answered with a reason instead of a file.
    fn refused(&self, peer: IpAddr, over: Protocol, asked: &str, reason: &str);

    /// A packet or connection was not answered; `why` is one of a few words, for a counter.
    fn ignored(&self, over: Protocol, why: &'static str);
}
