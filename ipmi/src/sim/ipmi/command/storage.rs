//! SDR, SEL and FRU.

use super::{Call, LENGTH, RANGE};
use crate::sim::ipmi::{parts, sensors};
use crate::wire::{Code, Request};

/// The reservation is void.
const RESERVATION: Code = Code(0xc5);
/// More was asked for than fits in a reply.
const TOO_MUCH: Code = Code(0xca);
/// How many bytes of a record or inventory fit in a reply, as on BMCs with small buffers.
const FITS: usize = 32;

pub(super) fn execute(call: &mut Call<'_>, request: &Request<'_>) -> Result<Vec<u8>, Code> {
    let data = request.data;
    let records = &mut call.state.records;
    match request.command {
        0x10 => {
            let size = inventory(call, data)?.len();
            let [low, high] = u16::try_from(size).unwrap_or(u16::MAX).to_le_bytes();
            // Addressed by bytes.
            Ok(vec![low, high, 0x00])
        }
        0x11 => read_inventory(call, data),
        0x20 => Ok(repository_info()),
        0x22 | 0x42 => Ok(records.reserve().to_le_bytes().to_vec()),
        0x23 => sensor_record(call, data),
        0x40 => Ok(records.log_info()),
        0x43 => entry(call, data),
        0x44 => {
            let id = records.append(*data.first_chunk().ok_or(LENGTH)?);
            Ok(id.to_le_bytes().to_vec())
        }
        0x47 => clear(call, data),
        0x48 => Ok(records.clock().to_le_bytes().to_vec()),
        0x49 => {
            records.set_clock(u32::from_le_bytes(*data.first_chunk().ok_or(LENGTH)?));
            Ok(Vec::new())
        }
        _ => Err(Code::INVALID_COMMAND),
    }
}

/// The inventory of device 0, the only one.
fn inventory(call: &Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    match data.first() {
        Some(0) => Ok(parts::inventory(&call.board.identity())),
        Some(_) => Err(Code::NOT_PRESENT),
        None => Err(LENGTH),
    }
}

fn read_inventory(call: &Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    let &[_, low, high, count] = data.first_chunk().ok_or(LENGTH)?;
    if usize::from(count) > FITS {
        return Err(TOO_MUCH);
    }
    let inventory = inventory(call, data)?;
    let from = usize::from(u16::from_le_bytes([low, high]));
    let rest = inventory.get(from..).ok_or(RANGE)?;
    let bytes = &rest[..rest.len().min(usize::from(count))];
    let count = u8::try_from(bytes.len()).unwrap_or(0);
    Ok([&[count][..], bytes].concat())
}

fn repository_info() -> Vec<u8> {
    let count = u16::try_from(sensors::records().len()).unwrap_or(0);
    let [low, high] = count.to_le_bytes();
    // Version, count, free space, no changes ever, and that it takes reservations.
    vec![0x51, low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02]
}

/// What part of a record is asked for.
struct Part {
    id: u16,
    from: usize,
    count: u8,
}

fn part(call: &Call<'_>, data: &[u8]) -> Result<Part, Code> {
    let &[low, high, id_low, id_high, from, count] = data.first_chunk().ok_or(LENGTH)?;
    // A whole record needs no reservation; a part does, so that all parts are of one record.
    if from != 0
        && !call
            .state
            .records
            .is_reserved(u16::from_le_bytes([low, high]))
    {
        return Err(RESERVATION);
    }
    Ok(Part {
        id: u16::from_le_bytes([id_low, id_high]),
        from: usize::from(from),
        count,
    })
}

impl Part {
    fn cut<'r>(&self, record: &'r [u8]) -> Result<&'r [u8], Code> {
        let rest = record.get(self.from..).ok_or(RANGE)?;
        let count = match self.count {
            0xff => rest.len(),
            count => rest.len().min(usize::from(count)),
        };
        if count > FITS {
            return Err(TOO_MUCH);
        }
        Ok(&rest[..count])
    }
}

fn sensor_record(call: &Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    let part = part(call, data)?;
    let records = sensors::records();
    let index = match part.id {
        0x0000 => 0,
        0xffff => records.len().saturating_sub(1),
        id => usize::from(id) - 1,
    };
    let record = records.get(index).ok_or(Code::NOT_PRESENT)?;
    let next = match records.get(index + 1) {
        Some(_) => u16::try_from(index + 2).unwrap_or(u16::MAX),
        None => 0xffff,
    };
    Ok([&next.to_le_bytes()[..], part.cut(record)?].concat())
}

fn entry(call: &Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    let part = part(call, data)?;
    let (next, entry) = call.state.records.entry(part.id).ok_or(Code::NOT_PRESENT)?;
    Ok([&next.to_le_bytes()[..], part.cut(entry)?].concat())
}

fn clear(call: &mut Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    let &[low, high, c, l, r, action] = data.first_chunk().ok_or(LENGTH)?;
    let records = &mut call.state.records;
    if !records.is_reserved(u16::from_le_bytes([low, high])) {
        return Err(RESERVATION);
    }
    if [c, l, r] != *b"CLR" {
        return Err(Code::INVALID_FIELD);
    }
    match action {
        0xaa => records.clear(),
        // How the erasure goes.
        0x00 => {}
        _ => return Err(Code::INVALID_FIELD),
    }
    // Completed.
    Ok(vec![0x01])
}
