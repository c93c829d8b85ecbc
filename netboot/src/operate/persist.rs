//! What the executor keeps in the store, and how it is read back.
//!
//! It refuses to go on with a value that it cannot read: an operator has to look then.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipmi::Identity;
use netboot_core::Timestamp;
use netboot_core::lifecycle::HostState;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::order::Accepted;
use crate::store::{Change, DocumentRow, RecordRow, StoreError};

/// Kind of the documents with a host's state, by host.
pub(crate) const STATE: &str = "host-state";
/// Kind of the documents with what a BMC said about itself, by host.
pub(crate) const IDENTITY: &str = "bmc-identity";
/// Kind of the documents about hosts that left the site, by host.
pub(super) const DEPARTED: &str = "departed";
/// Kind of the documents with rollouts, by id.
pub(super) const ROLLOUT: &str = "rollout";
/// Kind of the documents with answers to keys, by who asked and key.
pub(super) const INTENT: &str = "intent";
/// Kind of the records with what happened.
pub(super) const EVENT: &str = "event";

/// Events that are kept: a site of a thousand hosts has some ten thousand a day when it is busy.
const EVENTS: u64 = 100_000;

/// Old events are forgotten when so many more have come, not with each.
const EVENTS_SLACK: u64 = 1_000;

/// An answer that was given to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Answered {
    /// What was asked, to tell another request with the same key.
    pub(super) request: serde_json::Value,
    /// What was answered.
    pub(super) accepted: Accepted,
    /// When.
    pub(super) at: Timestamp,
}

/// What the executor goes on with.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) states: BTreeMap<Arc<str>, HostState>,
    pub(super) identities: BTreeMap<Arc<str>, Identity>,
    pub(super) departed: BTreeMap<Arc<str>, super::departed::Departed>,
    pub(super) rollouts: BTreeMap<Arc<str>, super::rollouts::Kept>,
    pub(super) answers: BTreeMap<Arc<str>, Answered>,
    /// Number of the newest event.
    pub(super) event: u64,
}

/// Reads what the executor goes on with.
///
/// # Errors
/// When a document holds what no version of this program writes.
pub(super) fn load(documents: &[DocumentRow], newest: &[RecordRow]) -> Result<Loaded, StoreError> {
    let newest = newest.iter().find(|record| record.kind == EVENT);
    let mut loaded = Loaded {
        event: newest.map_or(0, |record| record.seq),
        ..Loaded::default()
    };
    for row in documents {
        let name: Arc<str> = row.name.as_str().into();
        match row.kind.as_str() {
            STATE => drop(loaded.states.insert(name, read(row)?)),
            IDENTITY => drop(loaded.identities.insert(name, read(row)?)),
            DEPARTED => drop(loaded.departed.insert(name, read(row)?)),
            ROLLOUT => drop(loaded.rollouts.insert(name, read(row)?)),
            INTENT => drop(loaded.answers.insert(name, read(row)?)),
            _ => {}
        }
    }
    Ok(loaded)
}

/// Reads the value of a document.
///
/// # Errors
/// When it holds what no version of this program writes.
pub(crate) fn read<T: DeserializeOwned>(row: &DocumentRow) -> Result<T, StoreError> {
    serde_json::from_str(&row.body).map_err(|_| StoreError::Corrupt {
        what: format!("the {} of `{}`", row.kind, row.name),
        field: "body",
        value: row.body.chars().take(200).collect(),
    })
}

/// Writes a value as a document.
///
/// # Errors
/// When the value has no form as JSON: then nothing may depend on it.
pub(super) fn put<T: Serialize>(kind: &str, name: &str, value: &T) -> Result<Change, StoreError> {
    let corrupt = |error: serde_json::Error| StoreError::Corrupt {
        what: format!("the {kind} of `{name}`"),
        field: "body",
        value: error.to_string(),
    };
    Ok(Change::Put(DocumentRow {
        kind: kind.to_owned(),
        name: name.to_owned(),
        body: serde_json::to_string(value).map_err(corrupt)?,
    }))
}

/// What an event says besides its number, time and subject; stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct EventBody {
    /// What kind of event.
    pub(super) kind: String,
    /// What happened.
    pub(super) text: String,
}

/// Writes an event as a record; now and then, old ones go.
pub(super) fn event(
    seq: u64,
    at: Timestamp,
    subject: &str,
    body: &EventBody,
) -> impl Iterator<Item = Change> {
    let append = Change::Append(RecordRow {
        kind: EVENT.to_owned(),
        seq,
        at_ms: at.0,
        subject: subject.to_owned(),
        // Two texts always have a form as JSON.
        body: serde_json::to_string(body).unwrap_or_default(),
    });
    let old = seq
        .checked_sub(EVENTS)
        .filter(|_| seq.is_multiple_of(EVENTS_SLACK));
    let trim = old.map(|until| Change::Trim {
        kind: EVENT.to_owned(),
        until,
    });
    [Some(append), trim].into_iter().flatten()
}
