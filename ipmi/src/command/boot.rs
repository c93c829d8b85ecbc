//! System boot options (IPMI 2.0 §28.12 to §28.14).

use super::{Transact, refusal, short};
use crate::bmc::{BootDevice, BootFirmware, BootOverride, Error, Persistence};
use crate::wire::{Code, NetFn, chassis};

const SET_IN_PROGRESS: u8 = 0;
const VALID_CLEARING: u8 = 3;
const INFO_ACKNOWLEDGE: u8 = 4;
const BOOT_FLAGS: u8 = 5;

/// The boot flags: the five bytes of parameter 5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootFlags(pub [u8; 5]);

impl BootFlags {
    const VALID: u8 = 0x80;
    const PERSISTENT: u8 = 0x40;
    const EFI: u8 = 0x20;

    /// The flags for an override.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for devices that IPMI has no number for.
    pub fn from_override(boot: &BootOverride) -> Result<Self, Error> {
        let selector = match &boot.device {
            // "No override" is a cleared valid bit; selector 0 alone would be an override to nothing.
            BootDevice::None => return Ok(Self::default()),
            BootDevice::Network => 1,
            BootDevice::Disk => 2,
            BootDevice::Setup => 6,
            BootDevice::Http { .. } => {
                let detail = "ipmi has no boot device for uefi http boot".to_owned();
                return Err(Error::Unsupported { detail });
            }
        };
        let persistence = match boot.persistence {
            Persistence::Once => 0,
            Persistence::Persistent => Self::PERSISTENT,
        };
        let firmware = match boot.firmware {
            BootFirmware::Bios => 0,
            BootFirmware::Uefi => Self::EFI,
        };
        Ok(Self([
            Self::VALID | persistence | firmware,
            selector << 2,
            0,
            0,
            0,
        ]))
    }

    /// The override that the flags mean; none for devices that we have no word for.
    #[must_use]
    pub fn to_override(self) -> Option<BootOverride> {
        let [flags, device, ..] = self.0;
        let selector = if flags & Self::VALID == 0 {
            0
        } else {
            device >> 2 & 0x0f
        };
        Some(BootOverride {
            device: match selector {
                0 => BootDevice::None,
                1 => BootDevice::Network,
                2 => BootDevice::Disk,
                6 => BootDevice::Setup,
                _ => return None,
            },
            persistence: if flags & Self::PERSISTENT == 0 {
                Persistence::Once
            } else {
                Persistence::Persistent
            },
            firmware: if flags & Self::EFI == 0 {
                BootFirmware::Bios
            } else {
                BootFirmware::Uefi
            },
        })
    }
}

/// Reads the boot override; none where the BMC has no boot flags, or a device that we have no word for.
///
/// # Errors
/// When the BMC does not answer.
pub async fn read_boot(link: &mut impl Transact) -> Result<Option<BootOverride>, Error> {
    let answer = link
        .transact(NetFn::Chassis, chassis::GET_BOOT, &[BOOT_FLAGS, 0, 0])
        .await?;
    match answer.code {
        Code::OK => {}
        code if code.is_transient() || code == Code::PRIVILEGE => {
            return Err(refusal("get boot options", code));
        }
        _ => return Ok(None),
    }
    let [_, parameter, flags @ ..] = answer.data.as_slice() else {
        return Err(short("get boot options"));
    };
    if parameter & 0x7f != BOOT_FLAGS {
        return Err(Error::Protocol {
            detail: "the bmc tells another boot parameter than it was asked for".to_owned(),
        });
    }
    let flags = flags
        .first_chunk()
        .copied()
        .ok_or_else(|| short("get boot options"))?;
    // The top bit says that the parameter is locked or not valid.
    Ok((parameter & 0x80 == 0)
        .then_some(BootFlags(flags))
        .and_then(BootFlags::to_override))
}

/// Sets the boot override, in the order that ipmitool does it. The caller reads it back.
///
/// # Errors
/// When the BMC does not take the flags; what surrounds them is as good as the BMC can.
pub async fn set_boot(link: &mut impl Transact, boot: &BootOverride) -> Result<(), Error> {
    let BootFlags(flags) = BootFlags::from_override(boot)?;
    attempt(link, &[SET_IN_PROGRESS, 1]).await?;
    // Some servers need longer than 60 seconds to look at the flags, and some BMCs refuse to wait for them.
    attempt(link, &[VALID_CLEARING, 0x08]).await?;
    attempt(link, &[INFO_ACKNOWLEDGE, 1, 1]).await?;
    let set = link
        .transact(
            NetFn::Chassis,
            chassis::SET_BOOT,
            &[&[BOOT_FLAGS], &flags[..]].concat(),
        )
        .await;
    if matches!(&set, Ok(answer) if answer.code == Code::OK) {
        attempt(link, &[SET_IN_PROGRESS, 2]).await?;
    }
    attempt(link, &[SET_IN_PROGRESS, 0]).await?;
    set?.well("set boot options").map(|_| ())
}

async fn attempt(link: &mut impl Transact, data: &[u8]) -> Result<(), Error> {
    let answer = link
        .transact(NetFn::Chassis, chassis::SET_BOOT, data)
        .await?;
    match answer.code {
        Code::PRIVILEGE => Err(refusal("set boot options", answer.code)),
        _ => Ok(()),
    }
}
