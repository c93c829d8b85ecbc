//! Sensor data records, and the sensors that they describe (IPMI 2.0 §33, §35 and §43).
//!
//! It refuses to write: an empty repository is empty, not something to clear and rebuild.

mod reading;
mod record;

use std::collections::HashSet;

use crate::bmc::{Error, Health, Sensor};
use crate::command::Transact;
use crate::wire::{Code, NetFn};

pub use reading::{Reading, reading};
pub use record::{Kind, Linearisation, Record, Scale, SensorRecord};

/// Reserve SDR Repository.
const RESERVE: u8 = 0x22;
/// Get SDR.
const GET: u8 = 0x23;
/// Get Sensor Reading.
const GET_READING: u8 = 0x2d;
/// The reservation was lost: somebody changed the repository.
const RESERVATION_LOST: Code = Code(0xc5);
/// Large servers have a few hundred; a list that goes on is broken.
const RECORDS: usize = 1024;
/// How often a repository that changes is begun anew.
const ATTEMPTS: usize = 4;
/// How much of a record is asked for at once, and how little when a BMC takes offence at that.
const COUNT: u8 = 32;
const FEWEST: u8 = 4;

/// Reads all records.
///
/// # Errors
/// When the BMC does not answer, or its repository keeps changing.
pub async fn records(link: &mut impl Transact) -> Result<Vec<Record>, Error> {
    for _ in 0..ATTEMPTS {
        if let Some(records) = attempt(link).await? {
            return Ok(records);
        }
    }
    Err(Error::Busy {
        detail: "its sensor data records keep changing".to_owned(),
    })
}

/// Reads all records under one reservation; none when it was lost.
async fn attempt(link: &mut impl Transact) -> Result<Option<Vec<Record>>, Error> {
    let reserved = link.transact(NetFn::Storage, RESERVE, &[]).await?;
    let reservation = match reserved.code {
        // Where nobody can change anything, nothing needs to be reserved.
        Code::INVALID_COMMAND => [0, 0],
        _ => *reserved
            .well("sdr reservation")?
            .first_chunk()
            .ok_or_else(|| short("sdr reservation"))?,
    };
    let mut reader = Reader {
        link,
        reservation,
        count: COUNT,
    };
    let mut records = Vec::new();
    let mut seen = HashSet::new();
    let mut id = 0x0000;
    while id != 0xffff && seen.insert(id) && records.len() < RECORDS {
        match reader.record(id).await? {
            Part::Bytes(next, bytes) => {
                records.extend(Record::decode(&bytes));
                id = next;
            }
            // The first record of an empty repository.
            Part::Missing if records.is_empty() => break,
            Part::Missing | Part::Lost => return Ok(None),
        }
    }
    Ok(Some(records))
}

struct Reader<'a, T> {
    link: &'a mut T,
    reservation: [u8; 2],
    count: u8,
}

/// What came of asking for a record or a part of one.
enum Part {
    /// The id of the next record, and bytes.
    Bytes(u16, Vec<u8>),
    /// There is no such record.
    Missing,
    /// The reservation is void.
    Lost,
}

impl<T: Transact> Reader<'_, T> {
    /// A whole record, part by part: its header says how long it is.
    async fn record(&mut self, id: u16) -> Result<Part, Error> {
        let (mut next, mut record) = match self.part(id, 0, 5).await? {
            Part::Bytes(next, record) => (next, record),
            other => return Ok(other),
        };
        let Some(&[_, _, _, _, length]) = record.first_chunk() else {
            return Err(short("sdr"));
        };
        let whole = 5 + usize::from(length);
        while record.len() < whole {
            let offset = u8::try_from(record.len()).unwrap_or(u8::MAX);
            let left = u8::try_from(whole - record.len()).unwrap_or(u8::MAX);
            match self.part(id, offset, left).await? {
                Part::Bytes(_, bytes) if bytes.is_empty() => return Err(short("sdr")),
                Part::Bytes(after, bytes) => {
                    record.extend_from_slice(&bytes);
                    next = after;
                }
                other => return Ok(other),
            }
        }
        record.truncate(whole);
        Ok(Part::Bytes(next, record))
    }

    async fn part(&mut self, id: u16, offset: u8, wanted: u8) -> Result<Part, Error> {
        let ([low, high], [id_low, id_high]) = (self.reservation, id.to_le_bytes());
        loop {
            let count = wanted.min(self.count);
            let data = [low, high, id_low, id_high, offset, count];
            let reply = self.link.transact(NetFn::Storage, GET, &data).await?;
            match reply.code {
                RESERVATION_LOST => return Ok(Part::Lost),
                Code::NOT_PRESENT => return Ok(Part::Missing),
                code if crate::fru::wants_less(code) && self.count > FEWEST => self.count /= 2,
                _ => {
                    let data = reply.well("sdr")?;
                    let (&[low, high], bytes) =
                        data.split_first_chunk().ok_or_else(|| short("sdr"))?;
                    let bytes = bytes.get(..bytes.len().min(usize::from(count)));
                    let bytes = bytes.unwrap_or_default().to_vec();
                    return Ok(Part::Bytes(u16::from_le_bytes([low, high]), bytes));
                }
            }
        }
    }
}

fn short(what: &str) -> Error {
    Error::Protocol {
        detail: format!("the reply to {what} is too short"),
    }
}

/// Reads what each sensor of these records measures now.
///
/// # Errors
/// When the BMC does not answer; a sensor that cannot be read is told as one without a value.
pub async fn sensors(link: &mut impl Transact, records: &[Record]) -> Result<Vec<Sensor>, Error> {
    let mut sensors = Vec::new();
    for record in records {
        let Record::Sensor(record) = record else {
            continue;
        };
        // What another controller owns is not read through this one.
        if !record.is_local() {
            continue;
        }
        let reply = link
            .transact(NetFn::Sensor, GET_READING, &[record.number])
            .await?;
        let read = (reply.code == Code::OK).then(|| reading(record, &reply.data));
        let read = read.unwrap_or(Reading {
            value: None,
            health: Health::Unknown,
        });
        sensors.push(Sensor {
            name: record.name.clone(),
            value: read.value,
            unit: record.unit().to_owned(),
            health: read.health,
        });
    }
    Ok(sensors)
}
