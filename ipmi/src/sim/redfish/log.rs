//! The event log of the simulated service: what was done to the power.
//!
//! It refuses to grow without end: the oldest entries go first.

use serde_json::{Value, json};

use super::resources::{SYSTEM, link};
use super::state::Service;
use crate::ResetKind;

/// How many entries are kept.
const LENGTH: usize = 128;

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    number: u32,
    /// In seconds since 1970.
    at: u64,
    kind: ResetKind,
}

/// Notes what was done to the power.
pub(super) fn note(service: &Service, kind: ResetKind) {
    let at = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut state = service.state();
    let number = state.take_number();
    state.log.push_back(Entry { number, at, kind });
    if state.log.len() > LENGTH {
        state.log.pop_front();
    }
}

pub(super) fn service() -> Value {
    json!({
        "@odata.id": format!("{SYSTEM}/LogServices/Log"),
        "@odata.type": "#LogService.v1_4_0.LogService",
        "Id": "Log",
        "Name": "Event log",
        "MaxNumberOfRecords": LENGTH,
        "OverWritePolicy": "WrapsWhenFull",
        "ServiceEnabled": true,
        "Entries": link(&format!("{SYSTEM}/LogServices/Log/Entries")),
    })
}

pub(super) fn entries(service: &Service) -> Value {
    let members: Vec<_> = service.state().log.iter().map(shown).collect();
    json!({
        "@odata.id": format!("{SYSTEM}/LogServices/Log/Entries"),
        "@odata.type": "#LogEntryCollection.LogEntryCollection",
        "Name": "Events",
        "Members@odata.count": members.len(),
        "Members": members,
    })
}

pub(super) fn entry(service: &Service, id: &str) -> Option<Value> {
    let number: u32 = id.parse().ok()?;
    let state = service.state();
    state
        .log
        .iter()
        .find(|entry| entry.number == number)
        .map(shown)
}

fn shown(entry: &Entry) -> Value {
    json!({
        "@odata.id": format!("{SYSTEM}/LogServices/Log/Entries/{}", entry.number),
        "@odata.type": "#LogEntry.v1_11_0.LogEntry",
        "Id": entry.number.to_string(),
        "Name": "Power",
        "EntryType": "Event",
        "Severity": "OK",
        "Created": time(entry.at),
        "Message": format!("The power was changed: {}.", entry.kind),
        "MessageId": "Simulator.1.0.PowerChanged",
    })
}

/// Writes seconds since 1970 as a time in UTC.
fn time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The civil calendar in eras of 400 years, counting years from March so that a leap day comes last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + carry;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_795_257_180, "2026-11-21T10:33:00Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(time(seconds), expected);
        }
    }
}
