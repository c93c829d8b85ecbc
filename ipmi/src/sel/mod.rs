//! The system event log (IPMI 2.0 §31 and §32).
//!
//! It refuses to write: reading a log never clears it.

mod entry;
mod words;

use std::collections::HashSet;

use crate::bmc::{Error, LogEntry};
use crate::command::Transact;
use crate::wire::{Code, NetFn};

pub use entry::{Entry, Event};

/// Get SEL Entry.
const GET: u8 = 0x43;
/// Logs hold a few thousand; a list that goes on is broken.
const ENTRIES: usize = 4096;

/// Reads the log, oldest first.
///
/// # Errors
/// When the BMC does not answer, or breaks the protocol.
pub async fn entries(link: &mut impl Transact) -> Result<Vec<LogEntry>, Error> {
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    let mut id = 0x0000_u16;
    while id != 0xffff && seen.insert(id) && entries.len() < ENTRIES {
        let [low, high] = id.to_le_bytes();
        // Whole entries need no reservation.
        let reply = link
            .transact(NetFn::Storage, GET, &[0, 0, low, high, 0, 0xff])
            .await?;
        match reply.code {
            // The log is empty, or was cleared or ran over while it was read: what came is true.
            Code::NOT_PRESENT => break,
            // A BMC without a log.
            Code::INVALID_COMMAND if entries.is_empty() => break,
            _ => {}
        }
        let data = reply.well("sel entry")?;
        let Some((&[low, high], bytes)) = data.split_first_chunk() else {
            return Err(Error::Protocol {
                detail: "the reply to sel entry is too short".to_owned(),
            });
        };
        entries.extend(Entry::decode(bytes).map(Entry::into_words));
        id = u16::from_le_bytes([low, high]);
    }
    Ok(entries)
}
