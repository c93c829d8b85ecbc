//! What the facade needs of a protocol: one authenticated conversation with one BMC.

use std::future::Future;

use super::{BootOverride, Error, Identity, PowerState, ResetKind, Sent};

/// How much of its identity a BMC is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What costs next to nothing: the system GUID, the certificate.
    Quick,
    /// Serial numbers, names and hardware addresses too.
    Whole,
}

/// One authenticated conversation with one BMC; identity and act share it.
///
/// Reads are repeated by the protocol as it sees fit; what acts is sent at most once per call.
pub trait Conversation: Send {
    /// Who the BMC says it is, asked now.
    fn identity(&mut self, depth: Depth) -> impl Future<Output = Result<Identity, Error>> + Send;

    /// The power, asked now.
    fn power(&mut self) -> impl Future<Output = Result<PowerState, Error>> + Send;

    /// The boot override, asked now; none where the BMC does not tell.
    fn boot(&mut self) -> impl Future<Output = Result<Option<BootOverride>, Error>> + Send;

    /// Sets the boot override. Setting it again does no harm, so it may be repeated; it is read back by the caller.
    fn set_boot(&mut self, boot: &BootOverride) -> impl Future<Output = Result<(), Error>> + Send;

    /// Acts on the power: sent at most once. An error means that it surely had no effect.
    fn reset(&mut self, kind: ResetKind) -> impl Future<Output = Result<Sent, Error>> + Send;

    /// Firmware versions, as (what, version).
    fn firmware(&mut self) -> impl Future<Output = Result<Vec<(String, String)>, Error>> + Send;

    /// Ends the conversation; a conversation that is dropped ends itself as well as it can.
    fn close(self) -> impl Future<Output = ()> + Send;
}
