//! A store that forgets: for tests of what stands around it.
//!
//! It refuses nothing and keeps every change, in order, for the test to look at.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Change, Store, StoreError, Stored};

/// A store in memory; clones look at the same changes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    changes: Arc<Mutex<Vec<Change>>>,
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
}

impl Store for Memory {
    async fn load(&mut self) -> Result<Stored, StoreError> {
        Ok(Stored::default())
    }

    async fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
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
