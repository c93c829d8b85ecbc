//! The chain: which hash follows which, and where it breaks.
//!
//! It refuses to know where records are kept. A record's hash is the SHA-256 of its JSON with sorted keys, no spaces
//! and no field `hash`. In texts only `"`, `\` and what is below U+0020 is escaped (RFC 8259 §7): `jq -cSj 'del(.hash)' |
//! sha256sum` computes the same, but for texts with U+007F, which `jq` escapes and this does not.

use std::fmt::Write as _;

use image_manifest::Digest;
use serde_json::{Value, json};

use super::KIND;
use crate::store::{Change, RecordRow};

/// What stands before the first record.
const GENESIS: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The end of the chain: what the next record is tied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    seq: u64,
    hash: String,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            seq: 0,
            hash: GENESIS.to_owned(),
        }
    }
}

impl Chain {
    /// Goes on after the newest records of a store.
    ///
    /// A last record that cannot be read does not stop the log: what follows is tied to its text as it stands, and
    /// `audit verify` names it.
    #[must_use]
    pub fn after(newest: &[RecordRow]) -> Self {
        let Some(row) = newest.iter().find(|row| row.kind == KIND) else {
            return Self::default();
        };
        let hash = serde_json::from_str::<Value>(&row.body)
            .ok()
            .and_then(|body| body.get("hash").and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_else(|| Digest::of(row.body.as_bytes()).to_string());
        Self { seq: row.seq, hash }
    }

    /// Gives the audit entries among some changes their places.
    pub fn link(&mut self, changes: &mut [Change]) {
        for change in changes {
            if let Change::Append(row) = change
                && row.kind == KIND
            {
                self.append(row);
            }
        }
    }

    fn append(&mut self, row: &mut RecordRow) {
        let mut body = serde_json::from_str(&row.body).unwrap_or(Value::Null);
        let seq = self.seq + 1;
        if let Value::Object(fields) = &mut body {
            fields.insert("seq".to_owned(), json!(seq));
            fields.insert("previous".to_owned(), json!(self.hash));
        }
        let hash = hash(&body);
        if let Value::Object(fields) = &mut body {
            fields.insert("hash".to_owned(), json!(hash));
        }
        row.seq = seq;
        row.body = canonical(&body);
        *self = Self { seq, hash };
    }
}

/// A place in the log that was written down elsewhere: `SEQ:sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Number of the record.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl std::str::FromStr for Anchor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once(':').and_then(|(seq, hash)| {
            let digest: Digest = hash.parse().ok()?;
            Some(Self {
                seq: seq.parse().ok()?,
                hash: digest.to_string(),
            })
        });
        parsed.ok_or_else(|| {
            format!(
                "`{text}` is no anchor; it looks like `42:sha256:…`, as `audit verify` prints it"
            )
        })
    }
}

impl std::fmt::Display for Anchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

/// The first record that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Records are missing before this one.
    #[error("record {found} follows record {last}: what was between them is gone")]
    Gap {
        /// The last one that fits.
        last: u64,
        /// The one that follows.
        found: u64,
    },
    /// It was changed.
    #[error("record {seq} was changed: its hash is not that of its contents")]
    Changed {
        /// Its number.
        seq: u64,
    },
    /// It, or the one before it, was replaced.
    #[error("record {seq} does not follow the one before it: one of them was replaced")]
    Unlinked {
        /// Its number.
        seq: u64,
    },
    /// It is no record.
    #[error("record {seq} cannot be read")]
    Unreadable {
        /// Its number.
        seq: u64,
    },
    /// The log ends before the anchor.
    #[error(
        "the log ends at record {last}, and record {anchor} was written once: its end was cut off"
    )]
    Truncated {
        /// The last record.
        last: u64,
        /// The anchor's number.
        anchor: u64,
    },
    /// The record at the anchor is another one.
    #[error("record {seq} is not the one that the anchor names: the log was written anew")]
    Rewritten {
        /// Its number.
        seq: u64,
    },
}

/// A log that holds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many records there are.
    pub records: u64,
    /// Its end: to be written down elsewhere, and given at the next time.
    pub end: Anchor,
}

/// Checks records one by one, oldest first.
#[derive(Debug, Default)]
pub struct Verifier {
    chain: Chain,
    anchor: Option<Anchor>,
}

impl Verifier {
    /// Starts at the beginning of a log, whose record at the anchor is known.
    #[must_use]
    pub fn new(anchor: Option<Anchor>) -> Self {
        Self {
            chain: Chain::default(),
            anchor,
        }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn take(&mut self, row: &RecordRow) -> Result<(), Broken> {
        let seq = row.seq;
        let unreadable = || Broken::Unreadable { seq };
        let body: Value = serde_json::from_str(&row.body).map_err(|_| unreadable())?;
        let text = |field: &str| body.get(field).and_then(Value::as_str);
        let number = |field: &str| body.get(field).and_then(Value::as_u64);
        let (stored, previous) = text("hash").zip(text("previous")).ok_or_else(unreadable)?;
        // The columns are what the log is searched by: they must say what the body says.
        let columns = number("at-ms") == Some(row.at_ms)
            && text("object") == Some(&*row.subject)
            && number("seq") == Some(seq);
        // One text for one record: what is written twice would be read in one way here and in another elsewhere.
        if canonical(&body) != row.body {
            return Err(Broken::Changed { seq });
        }
        let mut bare = body.clone();
        if let Value::Object(fields) = &mut bare {
            fields.remove("hash");
        }
        if !columns || hash(&bare) != stored {
            return Err(Broken::Changed { seq });
        }
        let last = self.chain.seq;
        if seq != last + 1 {
            return Err(Broken::Gap { last, found: seq });
        }
        if previous != self.chain.hash {
            return Err(Broken::Unlinked { seq });
        }
        if let Some(anchor) = &self.anchor
            && anchor.seq == seq
            && anchor.hash != stored
        {
            return Err(Broken::Rewritten { seq });
        }
        self.chain = Chain {
            seq,
            hash: stored.to_owned(),
        };
        Ok(())
    }

    /// Ends the log.
    ///
    /// # Errors
    /// When it should be longer.
    pub fn finish(self) -> Result<Verified, Broken> {
        let last = self.chain.seq;
        match self.anchor {
            Some(anchor) if anchor.seq > last => Err(Broken::Truncated {
                last,
                anchor: anchor.seq,
            }),
            _ => Ok(Verified {
                records: last,
                end: Anchor {
                    seq: last,
                    hash: self.chain.hash,
                },
            }),
        }
    }
}

fn hash(body: &Value) -> String {
    Digest::of(canonical(body).as_bytes()).to_string()
}

/// Writes JSON with sorted keys and without spaces.
pub(super) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                // Writing to a string cannot fail.
                write!(text, "{}:", Value::from(key.as_str())).ok();
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(value, text);
            }
            text.push(']');
        }
        plain => {
            write!(text, "{plain}").ok();
        }
    }
}
