//! The audit log: one record for each change and each refusal, chained by hashes.
//!
//! It refuses to hold what a request did not name: records are made of typed values, so that no header, password or
//! body can get in. It refuses to be rewritten unseen: each record holds the hash of the one before it.

mod chain;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::operate::{Deed, Later, Ledger};
use crate::store::{Change, RecordRow, StoreError, Urgency, Writer};

pub use chain::{Anchor, Broken, Chain, Verified, Verifier};

/// The kind of its records in the store.
pub const KIND: &str = "audit";

/// Longest text that comes from outside.
const TEXT_MAX: usize = 500;

/// The audit log of a running appliance.
#[derive(Clone, Debug)]
pub struct Log {
    writer: Writer,
}

impl Log {
    /// Makes the log of a store's writer, which gives each record its place in the chain.
    #[must_use]
    pub fn new(writer: Writer) -> Self {
        Self { writer }
    }
}

impl Ledger for Log {
    fn commit(&self, deed: Deed, mut changes: Vec<Change>) -> Later<'_, Result<(), StoreError>> {
        changes.push(change(&deed));
        let submitted = self.writer.submit(changes, Urgency::Urgent);
        Box::pin(async move {
            match submitted {
                Ok(commit) => commit.durable().await,
                Err(full) => Err(StoreError::Full(full)),
            }
        })
    }
}

/// Returns the change that adds a deed to the log.
pub(crate) fn change(deed: &Deed) -> Change {
    let object = cut(&deed.object);
    let body = json!({
        "at-ms": deed.at.0,
        "who": cut(&deed.who.name),
        "role": deed.who.role,
        "peer": deed.who.peer,
        "action": deed.action,
        "object": object,
        "request": deed.request,
        "outcome": cut(&deed.outcome),
    });
    Change::Append(RecordRow {
        kind: KIND.to_owned(),
        seq: 0,
        at_ms: deed.at.0,
        subject: object,
        body: body.to_string(),
    })
}

/// One record of the log, as programs and people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// Its number, counted from 1.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Name of the token, or of the part of the appliance.
    pub who: String,
    /// The role that was used.
    pub role: String,
    /// Where the request came from.
    #[schema(value_type = Option<String>)]
    pub peer: Option<IpAddr>,
    /// What was asked for.
    pub action: String,
    /// What it is about.
    pub object: String,
    /// The request.
    #[schema(value_type = Object)]
    pub request: Value,
    /// What became of it.
    pub outcome: String,
    /// Hash of the record before it.
    pub previous: String,
    /// SHA-256 of this record as JSON with sorted keys, without spaces and without this field.
    pub hash: String,
}

/// Shortens what came from outside.
fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
