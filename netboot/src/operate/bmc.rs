//! A host's BMC as the site describes it, made into one that can be spoken to.
//!
//! It refuses to keep a password anywhere but in [`ipmi::Credentials`], and to trust another
//! certificate than the one that was recorded.

use std::sync::Arc;
use std::time::Duration;

use ipmi::{
    BootDevice, BootFirmware, BootOverride, Credentials, Endpoint, Error, Expected, Fingerprint,
    Identity, Intent, Off, Persistence, PowerState, Protocol, Recorded, Trust, Waiver, Waivers,
};
use netboot_core::lifecycle::{BootBy, Outcome, Power, PowerIntent};
use netboot_core::site::{self, Site};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use crate::cli::report::chain;
use crate::secrets::Secrets;

/// Reads who we are to the BMC of a host.
///
/// # Errors
/// In words: which secret is missing. Never its contents.
pub(super) fn credentials(
    bmc: &site::Bmc,
    site: &Site,
    secrets: &Secrets,
) -> Result<Credentials, String> {
    let password = secrets
        .read(site, &bmc.password)
        .map_err(|error| chain(&error))?;
    let kg = bmc
        .kg
        .as_ref()
        .map(|kg| secrets.bytes(site, kg))
        .transpose();
    Ok(Credentials {
        user: Arc::clone(&bmc.user),
        password,
        kg: kg.map_err(|error| chain(&error))?,
    })
}

/// Tells whether a BMC would be shown the same.
pub(super) fn are_same(one: &Credentials, other: &Credentials) -> bool {
    let kg = |credentials: &Credentials| {
        let kg = credentials.kg.as_ref();
        kg.map(|kg| Zeroizing::new(kg.expose_secret().to_vec()))
    };
    one.user == other.user
        && one.password.expose_secret() == other.password.expose_secret()
        && kg(one) == kg(other)
}

/// Makes the BMC of a host.
///
/// # Errors
/// In words: which file is missing, or what does not fit. Never a secret's contents.
pub(super) fn reach(
    bmc: &site::Bmc,
    secrets: &Secrets,
    credentials: Credentials,
    recorded: Option<&Identity>,
) -> Result<ipmi::Bmc, String> {
    let endpoint = Endpoint {
        protocol: match bmc.protocol {
            site::Protocol::Ipmi => Protocol::Ipmi,
            site::Protocol::Redfish => Protocol::Redfish,
        },
        host: Arc::clone(&bmc.address.host),
        port: bmc.address.port,
        system: bmc.system.clone(),
        trust: trust(bmc, secrets, recorded)?,
        waivers: waivers(bmc)?,
        vendor: bmc.vendor.clone(),
    };
    ipmi::Bmc::new(endpoint, credentials).map_err(|error| chain(&error))
}

fn waivers(bmc: &site::Bmc) -> Result<Waivers, String> {
    let waiver = |waiver: &site::Waiver| {
        let name = waiver.to_string();
        Waiver::named(&name).ok_or_else(|| format!("the waiver `{name}` is not known"))
    };
    bmc.waivers.iter().map(waiver).collect()
}

/// What was recorded is pinned: another certificate ends the connection before a password is sent.
fn trust(bmc: &site::Bmc, secrets: &Secrets, recorded: Option<&Identity>) -> Result<Trust, String> {
    Ok(match &bmc.trust {
        site::Trust::Pinned(digest) => Trust::Pinned(fingerprint(digest)?),
        site::Trust::Authority(file) => {
            let pem = secrets.authority(file);
            Trust::Authority(pem.map_err(|error| chain(&error))?)
        }
        site::Trust::FirstUse => match recorded.and_then(|identity| identity.certificate) {
            Some(certificate) => Trust::Pinned(certificate),
            None => Trust::FirstUse,
        },
    })
}

fn fingerprint(digest: &image_manifest::Digest) -> Result<Fingerprint, String> {
    digest
        .to_string()
        .parse()
        .map_err(|error| format!("`certificate` is {error}"))
}

/// What the BMC must say about itself: everything that the site says and that was recorded.
pub(super) fn expected(bmc: &site::Bmc, recorded: &Identity) -> Expected {
    let mut expected = recorded.expected();
    if let Some(serial) = &bmc.serial {
        expected.serial = Some(serial.to_string());
    }
    if let Some(guid) = bmc.guid {
        expected.guid = Some(guid.wire());
    }
    expected.recorded = Recorded::Required;
    expected
}

/// Makes an intent of the lifecycle one of the BMC; none when the power is only to be read.
pub(super) fn intent(asked: PowerIntent, bmc: &site::Bmc) -> Option<Intent> {
    Some(match asked {
        PowerIntent::Observe
        | PowerIntent::BootOnce {
            by: BootBy::Keep, ..
        } => return None,
        PowerIntent::EnsureOn => Intent::EnsureOn,
        PowerIntent::EnsureOff { shutdown_ms: 0 } => Intent::EnsureOff(Off::Forced),
        PowerIntent::EnsureOff { shutdown_ms } => {
            let within = Duration::from_millis(shutdown_ms);
            Intent::EnsureOff(Off::Graceful { within })
        }
        PowerIntent::BootOnce { by } => {
            let (device, firmware) = match by {
                // UEFI HTTP Boot needs UEFI, whatever the site says of the firmware.
                BootBy::Http => (BootDevice::Http { uri: None }, BootFirmware::Uefi),
                BootBy::Pxe | BootBy::Keep => (BootDevice::Network, firmware(bmc.firmware)),
            };
            Intent::Boot(BootOverride {
                device,
                persistence: Persistence::Once,
                firmware,
            })
        }
    })
}

fn firmware(firmware: site::BootFirmware) -> BootFirmware {
    match firmware {
        site::BootFirmware::Bios => BootFirmware::Bios,
        site::BootFirmware::Uefi => BootFirmware::Uefi,
    }
}

/// Makes what a BMC says of the power what the lifecycle calls it.
pub(super) fn power(state: &PowerState) -> Power {
    match state {
        PowerState::On => Power::On,
        PowerState::Off => Power::Off,
        PowerState::Transition => Power::Changing,
        PowerState::Unknown { .. } => Power::Unknown,
    }
}

/// Tells what an error means for an operation: whether something may have been sent, and whether
/// it is worth trying again.
pub(super) fn outcome(error: &Error) -> Outcome {
    let why = error.to_string();
    match error {
        Error::Unreachable { .. } | Error::Busy { .. } | Error::Journal { .. } => {
            Outcome::NotSent { why }
        }
        Error::WrongHost { expected, found } => Outcome::WrongHost {
            expected: expected.clone(),
            found: found.clone(),
        },
        Error::Refused { .. }
        | Error::Credentials { .. }
        | Error::Insecure { .. }
        | Error::Unrecorded
        | Error::Unsupported { .. }
        | Error::Ambiguous { .. } => Outcome::Refused { why },
        // Whatever else there is or comes may have been sent: the state is read before anything
        // destructive follows.
        _ => Outcome::Unknown { why },
    }
}

/// What is wrong with a BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// In words.
    pub(super) text: String,
    /// Whether it stays although the BMC tells the power: another machine's BMC does that too.
    pub(super) lasting: bool,
}

impl Problem {
    /// What is wrong after an operation; nothing when it did what it was asked.
    pub(super) fn after(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Done { .. } => None,
            Outcome::NotSent { why } | Outcome::Unknown { why } => Some(Self {
                text: why.clone(),
                lasting: false,
            }),
            Outcome::Refused { why } => Some(Self {
                text: why.clone(),
                lasting: true,
            }),
            Outcome::WrongHost { expected, found } => Some(Self {
                text: format!("it belongs to another machine: expected {expected}, found {found}"),
                lasting: true,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_only_tried_again_when_nothing_was_sent() {
        let detail = || "x".to_owned();
        let cases = [
            (Error::Unreachable { detail: detail() }, "not sent"),
            (Error::Busy { detail: detail() }, "not sent"),
            (Error::Refused { detail: detail() }, "refused"),
            (Error::Insecure { detail: detail() }, "refused"),
            (Error::Unrecorded, "refused"),
            (
                Error::WrongHost {
                    expected: detail(),
                    found: detail(),
                },
                "wrong host",
            ),
            (
                Error::NotVerified {
                    wanted: detail(),
                    found: detail(),
                },
                "unknown",
            ),
            (Error::Protocol { detail: detail() }, "unknown"),
        ];
        for (error, expected) in cases {
            let found = match outcome(&error) {
                Outcome::NotSent { .. } => "not sent",
                Outcome::Refused { .. } => "refused",
                Outcome::WrongHost { .. } => "wrong host",
                Outcome::Unknown { .. } => "unknown",
                Outcome::Done { .. } => "done",
            };
            assert_eq!(found, expected, "{error}");
        }
    }
}
