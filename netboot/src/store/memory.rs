//! A store in memory: for tests of what stands around it.
//!
//! It refuses nothing until it is told that it is full, and keeps every change, in order, for the
//! test to look at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{BOOTS_AT_START, Change, RecordRow, Store, StoreError, Stored, StoredBoot};

/// A store in memory; clones look at the same changes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    changes: Arc<Mutex<Vec<Change>>>,
    full: Arc<AtomicBool>,
}

impl Memory {
    /// Returns all changes so far.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes every commit fail, as on a full disk, until [`Memory::make_room`].
    pub fn fill(&self) {
        self.full.store(true, Ordering::SeqCst);
    }

    /// Lets commits succeed again.
    pub fn make_room(&self) {
        self.full.store(false, Ordering::SeqCst);
    }

    /// Returns the records of a kind, in order.
    #[must_use]
    pub fn records(&self, kind: &str) -> Vec<RecordRow> {
        let appended = self
            .changes()
            .into_iter()
            .filter_map(|change| match change {
                Change::Append(row) if row.kind == kind => Some((row.seq, row)),
                _ => None,
            });
        appended.collect::<BTreeMap<_, _>>().into_values().collect()
    }

    fn stored(&self) -> Stored {
        let mut leases = BTreeMap::new();
        let mut boots: Vec<StoredBoot> = Vec::new();
        let mut documents = BTreeMap::new();
        let mut newest: BTreeMap<String, RecordRow> = BTreeMap::new();
        for change in self.changes() {
            match change {
                Change::Lease(row) => drop(leases.insert((row.network.clone(), row.address), row)),
                Change::Free { network, address } => drop(leases.remove(&(network, address))),
                Change::Boot(row) => match boots.iter_mut().find(|boot| boot.boot.id == row.id) {
                    Some(boot) => boot.boot = row,
                    None => boots.push(StoredBoot {
                        boot: row,
                        events: Vec::new(),
                    }),
                },
                Change::Event(row) => {
                    if let Some(boot) = boots.iter_mut().find(|boot| boot.boot.id == row.boot) {
                        boot.events.retain(|event| event.seq != row.seq);
                        boot.events.push(row);
                        boot.events.sort_by_key(|event| event.seq);
                    }
                }
                Change::Put(row) => {
                    documents.insert((row.kind.clone(), row.name.clone()), row);
                }
                Change::Remove { kind, name } => drop(documents.remove(&(kind, name))),
                Change::Append(row) => drop(newest.insert(row.kind.clone(), row)),
                Change::Trim { .. } => {}
            }
        }
        Stored {
            leases: leases.into_values().collect(),
            boots: newest_of_each(boots),
            documents: documents.into_values().collect(),
            newest: newest.into_values().collect(),
        }
    }
}

fn newest_of_each(boots: Vec<StoredBoot>) -> Vec<StoredBoot> {
    let mut by_host: BTreeMap<String, Vec<StoredBoot>> = BTreeMap::new();
    for boot in boots {
        by_host
            .entry(boot.boot.host.clone())
            .or_default()
            .push(boot);
    }
    let newest = |boots: Vec<StoredBoot>| {
        let old = boots.len().saturating_sub(BOOTS_AT_START);
        boots.into_iter().skip(old)
    };
    by_host.into_values().flat_map(newest).collect()
}

impl Store for Memory {
    async fn load(&mut self) -> Result<Stored, StoreError> {
        Ok(self.stored())
    }

    async fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Commit {
                rows: changes.len(),
                source: sqlx::Error::Protocol("database or disk is full".to_owned()),
            });
        }
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(changes);
        Ok(())
    }

    async fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}
