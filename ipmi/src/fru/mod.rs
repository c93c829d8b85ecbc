//! The FRU inventory: chassis, board and product with their names and numbers
//! (Platform Management FRU Information Storage Definition 1.0).
//!
//! It refuses to write, and to believe an area of which the sum does not fit.

mod area;
mod text;

use crate::bmc::{Error, Part};
use crate::command::Transact;
use crate::wire::{Code, NetFn};

use area::needed;
pub use area::{Area, Inventory};
pub(crate) use text::text;

/// Get FRU Inventory Area Info.
const INFO: u8 = 0x10;
/// Read FRU Data.
const READ: u8 = 0x11;
/// How many bytes are asked for at once, and how few when a BMC takes offence at that.
const COUNT: u8 = 32;
const FEWEST: u8 = 4;
/// What is read of an inventory: its three areas hold at most 2040 bytes each.
const LONGEST: usize = 8 * 1024;

/// Reads the inventory of one FRU device; none where there is no such device, or nothing in it.
///
/// # Errors
/// When the BMC does not answer, or breaks the protocol.
pub async fn read(link: &mut impl Transact, device: u8) -> Result<Option<Inventory>, Error> {
    let info = link.transact(NetFn::Storage, INFO, &[device]).await?;
    if !is_there(info.code) {
        return Ok(None);
    }
    let info = info.well("fru inventory area info")?;
    let Some(&[low, high, access]) = info.first_chunk() else {
        return Err(short("fru inventory area info"));
    };
    // Devices that are addressed by words count offsets and lengths in them.
    let word = if access & 1 == 0 { 1 } else { 2 };
    let size = usize::from(u16::from_le_bytes([low, high])).min(LONGEST);
    let Some(bytes) = read_bytes(link, device, (size, word)).await? else {
        return Ok(None);
    };
    Ok(Inventory::decode(&bytes))
}

fn is_there(code: Code) -> bool {
    // Invalid field is what some BMCs say for not present; 81h is a device that is busy or gone.
    !matches!(code, Code::NOT_PRESENT | Code::INVALID_FIELD | Code(0x81))
}

async fn read_bytes(
    link: &mut impl Transact,
    device: u8,
    (size, word): (usize, usize),
) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::with_capacity(size);
    let mut count = COUNT;
    // No further than the three areas go: many BMCs give kilobytes of which a hundred bytes are used.
    while bytes.len() < needed(&bytes).min(size) {
        let offset = u16::try_from(bytes.len() / word).unwrap_or(u16::MAX);
        let [low, high] = offset.to_le_bytes();
        let left = u8::try_from((size - bytes.len()) / word).unwrap_or(u8::MAX);
        let asked = count.min(left);
        if asked == 0 {
            break;
        }
        let reply = link
            .transact(NetFn::Storage, READ, &[device, low, high, asked])
            .await?;
        match reply.code {
            code if wants_less(code) && count > FEWEST => count /= 2,
            code if bytes.is_empty() && !is_there(code) => return Ok(None),
            _ => {
                let data = reply.well("fru data")?;
                let (&got, data) = data.split_first().ok_or_else(|| short("fru data"))?;
                let data = data
                    .get(..usize::from(got) * word)
                    .filter(|data| !data.is_empty())
                    .ok_or_else(|| short("fru data"))?;
                bytes.extend_from_slice(data);
            }
        }
    }
    bytes.truncate(size);
    Ok(Some(bytes))
}

/// Whether a BMC says that it was asked for more than it can give at once.
pub(crate) fn wants_less(code: Code) -> bool {
    matches!(code.0, 0xc7 | 0xc8 | 0xca | 0xff)
}

fn short(what: &str) -> Error {
    Error::Protocol {
        detail: format!("the reply to {what} is too short"),
    }
}

impl Inventory {
    /// The areas as parts of a host.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let part = |name: &str, area: &Area| {
            let known = [&area.maker, &area.name, &area.serial, &area.number];
            known.iter().any(|field| field.is_some()).then(|| Part {
                name: name.to_owned(),
                manufacturer: area.maker.clone(),
                model: area.name.clone(),
                serial: area.serial.clone(),
                number: area.number.clone(),
            })
        };
        let areas = [
            ("chassis", &self.chassis),
            ("board", &self.board),
            ("product", &self.product),
        ];
        areas
            .into_iter()
            .filter_map(|(name, area)| part(name, area.as_ref()?))
            .collect()
    }
}
