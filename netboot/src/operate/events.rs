//! What happened, by the page, and as it happens.
//!
//! It refuses to keep events in memory: they are read from the store, beside its writer.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::order::{EventView, Since};
use super::persist::{self, EventBody};
use crate::store::{Order, Page, Reader, RecordRow, StoreError};

/// Events of a page when nothing is said.
const PAGE: u32 = 100;

/// Reads events; clones share one reader.
#[derive(Clone, Debug)]
pub(super) struct Events {
    data: Arc<PathBuf>,
    reader: Arc<Mutex<Option<Reader>>>,
    /// Number of the newest event.
    newest: watch::Receiver<u64>,
}

impl Events {
    /// Makes the reader of a data directory's store.
    pub(super) fn new(data: PathBuf, newest: watch::Receiver<u64>) -> Self {
        Self {
            data: Arc::new(data),
            reader: Arc::default(),
            newest,
        }
    }

    /// Returns events, oldest first; waits for the first one as long as it is told to.
    pub(super) async fn read(&self, since: &Since) -> Result<Vec<EventView>, StoreError> {
        let mut newest = self.newest.clone();
        let follow = async {
            loop {
                let seen = *newest.borrow_and_update();
                let found = self.page(since).await?;
                // Without a host every later event is one that was asked for.
                if !found.is_empty() || since.after.is_none_or(|after| after > seen) {
                    return Ok(found);
                }
                if newest.changed().await.is_err() {
                    return Ok(found);
                }
            }
        };
        match timeout(since.wait(), follow).await {
            Ok(found) => found,
            Err(_) => self.page(since).await,
        }
    }

    async fn page(&self, since: &Since) -> Result<Vec<EventView>, StoreError> {
        let page = Page {
            subject: since.host.as_deref(),
            beyond: since.after,
            order: match since.after {
                Some(_) => Order::OldestFirst,
                None => Order::NewestFirst,
            },
            limit: since.limit.unwrap_or(PAGE),
        };
        let mut reader = self.reader.lock().await;
        if reader.is_none() {
            *reader = Reader::open(&self.data).await?;
        }
        let Some(open) = reader.as_mut() else {
            return Ok(Vec::new());
        };
        let read = open.records(persist::EVENT, &page).await;
        if read.is_err() {
            *reader = None;
        }
        let mut views = read?.iter().map(view).collect::<Result<Vec<_>, _>>()?;
        views.sort_by_key(|event| event.seq);
        Ok(views)
    }
}

fn view(row: &RecordRow) -> Result<EventView, StoreError> {
    let body: EventBody = serde_json::from_str(&row.body).map_err(|_| StoreError::Corrupt {
        what: format!("event {}", row.seq),
        field: "body",
        value: row.body.chars().take(200).collect(),
    })?;
    Ok(EventView {
        seq: row.seq,
        at_ms: row.at_ms,
        subject: row.subject.clone(),
        kind: body.kind,
        text: body.text,
    })
}
