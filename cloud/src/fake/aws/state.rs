//! What is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::blocks::{Blocks, SnapshotDisk};
use super::instances::Instance;
use super::{KEY, Rules, SECRET};

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the interface")]
pub struct Image {
    pub id: String,
    pub region: String,
    pub name: String,
    pub description: String,
    pub state: String,
    pub reason: String,
    pub created: i64,
    pub architecture: String,
    pub virtualization: String,
    pub boot_mode: String,
    pub tpm: String,
    pub imds: String,
    pub ena: bool,
    pub root: String,
    pub snapshot: String,
    pub volume_type: String,
    pub size: u64,
    pub encrypted: bool,
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<i64>,
    pub protected: bool,
    /// What it was given to, as `userId`, `group`, `organizationArn`, `organizationalUnitArn` and a value.
    pub grants: BTreeSet<(String, String)>,
    /// How often it is still seen as pending.
    pub pending: u32,
    /// How often it is still not seen.
    pub hidden: u32,
    /// How many calls about it are still refused, as if it were not there.
    pub unknown: u32,
}

/// A snapshot.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of the interface")]
pub struct Snapshot {
    pub id: String,
    pub region: String,
    pub state: String,
    pub description: String,
    pub begun: i64,
    pub size: u64,
    pub key: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub accounts: BTreeSet<String>,
    /// Whether all blocks are said to be there.
    pub sealed: bool,
    pub pending: u32,
    pub hidden: u32,
    pub unknown: u32,
    pub(super) blocks: Arc<Blocks>,
}

impl Snapshot {
    /// How many blocks were written.
    #[must_use]
    pub fn written(&self) -> usize {
        self.blocks.digests().len()
    }

    pub(super) fn disk(&self) -> SnapshotDisk {
        SnapshotDisk::new(
            Arc::clone(&self.blocks),
            self.size << 30,
            self.key.is_some(),
        )
    }
}

/// A parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the interface")]
pub struct Parameter {
    pub value: String,
    pub data_type: String,
    pub version: u64,
    pub tags: BTreeMap<String, String>,
    /// A value that takes effect after it was not seen so often.
    pub(super) coming: Option<(String, u32)>,
}

/// Credentials.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub secret: String,
    pub token: Option<String>,
    /// How many calls they are still good for.
    pub left: Option<u32>,
}

#[derive(Debug)]
pub(super) struct State {
    pub rules: Rules,
    pub images: BTreeMap<String, Image>,
    pub snapshots: BTreeMap<String, Snapshot>,
    pub parameters: BTreeMap<(String, String), Parameter>,
    pub references: BTreeMap<String, Vec<String>>,
    pub instances: BTreeMap<String, Instance>,
    /// What was asked with a token, and what it made.
    pub tokens: BTreeMap<String, (String, String)>,
    pub keys: BTreeMap<String, Keys>,
    /// Tokens of GitHub that were not used yet.
    pub minted: BTreeSet<String>,
    next: u64,
}

impl State {
    pub(super) fn new(rules: Rules) -> Self {
        let keys = Keys {
            secret: SECRET.to_owned(),
            token: None,
            left: None,
        };
        Self {
            rules,
            images: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            parameters: BTreeMap::new(),
            references: BTreeMap::new(),
            instances: BTreeMap::new(),
            tokens: BTreeMap::new(),
            keys: BTreeMap::from([(KEY.to_owned(), keys)]),
            minted: BTreeSet::new(),
            next: 0,
        }
    }

    /// A new id.
    pub(super) fn id(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}-{:017x}", self.next)
    }
}

pub(super) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// A time as the interface writes it.
pub(super) fn written(at: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let text = at.format(&Rfc3339).unwrap_or_default();
    text.replace('Z', ".000Z")
}
