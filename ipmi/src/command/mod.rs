//! The IPMI commands that we send, as typed requests and replies.
//!
//! None of the reads writes: nothing here clears, rebuilds or re-arms anything.

mod boot;
mod device;

#[cfg(test)]
mod tests;

use std::future::Future;

pub use boot::{BootFlags, read_boot, set_boot};
pub use device::{DeviceId, device_id, lan_mac, system_guid};

use crate::bmc::{Error, PowerState, ResetKind};
use crate::wire::{Code, NetFn, chassis};

/// A reply with its completion code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// How it went.
    pub code: Code,
    /// What came with it.
    pub data: Vec<u8>,
}

impl Answered {
    /// The data of a command that went well.
    ///
    /// # Errors
    /// What its completion code means.
    pub fn well(self, what: &str) -> Result<Vec<u8>, Error> {
        match self.code {
            Code::OK => Ok(self.data),
            code => Err(refusal(what, code)),
        }
    }
}

/// What can ask a BMC something that may be asked again when no answer comes.
pub trait Transact: Send {
    /// Asks, as often as it takes; the completion code is the caller's to judge.
    fn transact(
        &mut self,
        netfn: NetFn,
        command: u8,
        data: &[u8],
    ) -> impl Future<Output = Result<Answered, Error>> + Send;

    /// Asks, and takes every completion code but 00h for an error.
    fn request(
        &mut self,
        netfn: NetFn,
        command: u8,
        data: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, Error>> + Send {
        async move {
            let what = format!("{netfn:?} command {command:02X}h");
            self.transact(netfn, command, data).await?.well(&what)
        }
    }
}

/// What a completion code means for who asked for `what`.
#[must_use]
pub fn refusal(what: &str, code: Code) -> Error {
    let detail = format!("{what}: {code}");
    match code {
        Code::PRIVILEGE => Error::Refused { detail },
        code if code.is_transient() || code == Code::STATE => Error::Busy { detail },
        _ => Error::Unsupported { detail },
    }
}

/// Reads whether the host has power (Get Chassis Status).
///
/// # Errors
/// When the BMC does not answer.
pub async fn power(link: &mut impl Transact) -> Result<PowerState, Error> {
    let status = link.transact(NetFn::Chassis, chassis::STATUS, &[]).await?;
    power_state(status.code, &status.data)
}

/// The power in a reply to Get Chassis Status.
///
/// # Errors
/// When the reply is a refusal, or too short.
pub fn power_state(code: Code, status: &[u8]) -> Result<PowerState, Error> {
    match (code, status) {
        (Code::OK, [current, _, _, ..]) if current & 1 != 0 => Ok(PowerState::On),
        (Code::OK, [_, _, _, ..]) => Ok(PowerState::Off),
        (Code::OK, _) => Err(short("chassis status")),
        // OpenBMC while it starts (openbmc/openbmc#1810): it answers, and does not know.
        (Code::UNSPECIFIED, _) => Ok(PowerState::Unknown {
            reason: format!("chassis status: {code}"),
        }),
        (code, _) => Err(refusal("chassis status", code)),
    }
}

/// The data of Chassis Control (IPMI 2.0 §28.3).
#[must_use]
pub fn control(kind: ResetKind) -> u8 {
    match kind {
        ResetKind::ForceOff => 0,
        ResetKind::On => 1,
        ResetKind::Cycle => 2,
        ResetKind::ForceRestart => 3,
        ResetKind::Nmi => 4,
        ResetKind::GracefulShutdown => 5,
    }
}

/// What Chassis Control asks for, where it is something that we know.
#[must_use]
pub fn controlled(data: u8) -> Option<ResetKind> {
    use ResetKind::{Cycle, ForceOff, ForceRestart, GracefulShutdown, Nmi, On};
    [On, ForceOff, GracefulShutdown, Cycle, ForceRestart, Nmi]
        .into_iter()
        .find(|kind| control(*kind) == data & 0x0f)
}

fn short(what: &str) -> Error {
    Error::Protocol {
        detail: format!("the reply to {what} is too short"),
    }
}
