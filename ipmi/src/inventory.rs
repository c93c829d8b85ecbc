//! What a BMC knows of its host over IPMI: parts, sensors and the event log.
//!
//! It refuses to write: none of the commands behind it changes anything in the BMC.

use crate::bmc::{Error, Identity, Inventory, Part};
use crate::command::Transact;
use crate::{fru, sdr, sel};

/// The BMC's own FRU device.
const OWN: u8 = 0;
/// How many more FRU devices are read; each may take seconds on a slow bus.
const DEVICES: usize = 32;

/// Reads parts, sensors and events.
///
/// # Errors
/// When the BMC does not answer, or breaks the protocol. What it does not have is left out.
pub async fn read(link: &mut impl Transact, identity: Identity) -> Result<Inventory, Error> {
    let records = optional(sdr::records(link).await)?;
    Ok(Inventory {
        parts: parts(link, &records).await?,
        sensors: sdr::sensors(link, &records).await?,
        events: optional(sel::entries(link).await)?,
        identity,
    })
}

/// A BMC that has no such thing has nothing of it.
fn optional<T: Default>(read: Result<T, Error>) -> Result<T, Error> {
    match read {
        Err(Error::Unsupported { .. }) => Ok(T::default()),
        read => read,
    }
}

async fn parts(link: &mut impl Transact, records: &[sdr::Record]) -> Result<Vec<Part>, Error> {
    let own = optional(fru::read(link, OWN).await)?;
    let mut parts = own.map(|own| own.parts()).unwrap_or_default();
    let others = records.iter().filter_map(|record| match record {
        sdr::Record::Fru {
            device: Some(device),
            name,
        } if *device != OWN => Some((*device, name)),
        _ => None,
    });
    for (device, name) in others.take(DEVICES) {
        let Some(found) = optional(fru::read(link, device).await)? else {
            continue;
        };
        for mut part in found.parts() {
            part.name = format!("{name}: {}", part.name);
            parts.push(part);
        }
    }
    Ok(parts)
}
