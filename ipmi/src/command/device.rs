//! What a BMC is, and which system it belongs to.

use super::{Answered, Transact, short};
use crate::bmc::Error;
use crate::wire::{Code, NetFn, app, transport};

/// The reply to Get Device ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId {
    /// The BMC's firmware, as major and minor.
    pub firmware: (u8, u8),
    /// The version of IPMI, as major and minor.
    pub ipmi: (u8, u8),
    /// Its maker, by IANA enterprise number.
    pub manufacturer: u32,
    /// The maker's number for it.
    pub product: u16,
}

impl DeviceId {
    /// Decodes the reply's data (IPMI 2.0 §20.1).
    ///
    /// # Errors
    /// When it is too short.
    pub fn decode(data: &[u8]) -> Result<Self, Error> {
        let [_, _, major, minor, version, _, m0, m1, m2, p0, p1, ..] = *data else {
            return Err(short("get device id"));
        };
        // The minor version is two decimal digits; who writes something else means a number.
        let decimal = (minor >> 4) * 10 + (minor & 0x0f);
        let minor = if minor >> 4 < 10 && minor & 0x0f < 10 {
            decimal
        } else {
            minor
        };
        Ok(Self {
            firmware: (major & 0x7f, minor),
            ipmi: (version & 0x0f, version >> 4),
            manufacturer: u32::from_le_bytes([m0, m1, m2 & 0x0f, 0]),
            product: u16::from_le_bytes([p0, p1]),
        })
    }

    /// The maker's name, for those that are met in racks.
    #[must_use]
    pub fn manufacturer_name(&self) -> Option<&'static str> {
        Some(match self.manufacturer {
            2 => "IBM",
            11 | 47_196 => "HPE",
            343 => "Intel",
            674 => "Dell",
            2011 => "Huawei",
            10_368 => "Fujitsu",
            10_876 | 47_488 => "Supermicro",
            15_370 => "Gigabyte",
            19_046 => "Lenovo",
            49_622 => "ASRock Rack",
            _ => return None,
        })
    }
}

/// Reads what the BMC is.
///
/// # Errors
/// When it does not say.
pub async fn device_id(link: &mut impl Transact) -> Result<DeviceId, Error> {
    let answer = link.transact(NetFn::App, app::DEVICE_ID, &[]).await?;
    DeviceId::decode(&answer.well("get device id")?)
}

/// Reads the system GUID; none where the BMC has none, or only zeros.
///
/// # Errors
/// When it does not answer.
pub async fn system_guid(link: &mut impl Transact) -> Result<Option<[u8; 16]>, Error> {
    let answer = link.transact(NetFn::App, app::SYSTEM_GUID, &[]).await?;
    if answer.code.is_transient() {
        return Err(super::refusal("get system guid", answer.code));
    }
    let guid = answer
        .data
        .first_chunk()
        .copied()
        .filter(|guid| *guid != [0; 16]);
    Ok(guid.filter(|_| answer.code == Code::OK))
}

/// Reads the hardware address of the BMC's LAN channel; none where it does not tell.
///
/// # Errors
/// When it does not answer.
pub async fn lan_mac(link: &mut impl Transact) -> Result<Option<[u8; 6]>, Error> {
    // Channel 0Eh is the one that this request comes in on; parameter 5 is its hardware address.
    let Answered { code, data } = link
        .transact(NetFn::Transport, transport::GET_LAN, &[0x0e, 5, 0, 0])
        .await?;
    if code.is_transient() {
        return Err(super::refusal("get lan parameters", code));
    }
    let mac = data.get(1..).and_then(<[u8]>::first_chunk).copied();
    Ok(mac.filter(|mac| code == Code::OK && *mac != [0; 6]))
}
