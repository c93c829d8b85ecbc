//! Documents and records: the two tables that know nothing of what they keep.
//!
//! It refuses to change a record that was written, and to read records but by the page.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, SqliteConnection};

use super::sqlite::{pieces, signed, unsigned};
use super::{Change, DocumentRow, RecordRow, StoreError};

/// Records that one page may have.
const PAGE: u32 = 1_000;

/// In which order records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they were written: to follow them.
    OldestFirst,
    /// The last one first: to look back.
    NewestFirst,
}

/// Which records to read.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Those about this only.
    pub subject: Option<&'a str>,
    /// Those after this number, oldest first, or before it, newest first.
    pub beyond: Option<u64>,
    /// In which order.
    pub order: Order,
    /// How many at most; a page has 1,000 at most.
    pub limit: u32,
}

/// What one transaction does to the two tables.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    documents: BTreeMap<(&'a str, &'a str), Option<&'a DocumentRow>>,
    records: Vec<&'a RecordRow>,
    trimmed: BTreeMap<&'a str, u64>,
}

impl<'a> Batch<'a> {
    /// Takes a change, if it is one of these tables.
    pub(super) fn take(&mut self, change: &'a Change) {
        match change {
            Change::Put(row) => {
                let key = (row.kind.as_str(), row.name.as_str());
                self.documents.insert(key, Some(row));
            }
            Change::Remove { kind, name } => {
                self.documents.insert((kind, name), None);
            }
            Change::Append(row) => self.records.push(row),
            Change::Trim { kind, until } => {
                let last = self.trimmed.entry(kind).or_default();
                *last = (*last).max(*until);
            }
            Change::Lease(_) | Change::Free { .. } | Change::Boot(_) | Change::Event(_) => {}
        }
    }

    /// Writes all that was taken.
    pub(super) async fn write(self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for (key, _) in self.documents.iter().filter(|(_, row)| row.is_none()) {
            sqlx::query("DELETE FROM documents WHERE kind = $1 AND name = $2")
                .bind(key.0)
                .bind(key.1)
                .execute(&mut *connection)
                .await?;
        }
        let kept: Vec<&DocumentRow> = self.documents.into_values().flatten().collect();
        for rows in pieces(&kept) {
            write_documents(connection, rows).await?;
        }
        for rows in pieces(&self.records) {
            write_records(connection, rows).await?;
        }
        for (kind, until) in self.trimmed {
            sqlx::query("DELETE FROM records WHERE kind = $1 AND seq <= $2")
                .bind(kind)
                .bind(signed(until))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

async fn write_documents(
    connection: &mut SqliteConnection,
    rows: &[&DocumentRow],
) -> Result<(), sqlx::Error> {
    QueryBuilder::new("INSERT INTO documents (kind, name, body) ")
        .push_values(rows, |mut row, document| {
            row.push_bind(document.kind.as_str())
                .push_bind(document.name.as_str())
                .push_bind(document.body.as_str());
        })
        .push(" ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body")
        .build()
        .execute(connection)
        .await
        .map(drop)
}

async fn write_records(
    connection: &mut SqliteConnection,
    rows: &[&RecordRow],
) -> Result<(), sqlx::Error> {
    QueryBuilder::new("INSERT INTO records (kind, seq, at_ms, subject, body) ")
        .push_values(rows, |mut row, record| {
            row.push_bind(record.kind.as_str())
                .push_bind(signed(record.seq))
                .push_bind(signed(record.at_ms))
                .push_bind(record.subject.as_str())
                .push_bind(record.body.as_str());
        })
        .push(" ON CONFLICT (kind, seq) DO NOTHING")
        .build()
        .execute(connection)
        .await
        .map(drop)
}

/// Reads the documents of a kind, or all.
pub(super) async fn documents(
    connection: &mut SqliteConnection,
    kind: Option<&str>,
) -> Result<Vec<DocumentRow>, StoreError> {
    let failed = |source| StoreError::Read {
        what: "documents",
        source,
    };
    let mut query = QueryBuilder::new("SELECT kind, name, body FROM documents");
    if let Some(kind) = kind {
        query.push(" WHERE kind = ").push_bind(kind);
    }
    query
        .push(" ORDER BY kind, name")
        .build()
        .fetch_all(connection)
        .await
        .map_err(failed)?
        .iter()
        .map(|row| {
            Ok(DocumentRow {
                kind: row.try_get(0)?,
                name: row.try_get(1)?,
                body: row.try_get(2)?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed)
}

/// Reads the newest record of each kind.
pub(super) async fn newest(
    connection: &mut SqliteConnection,
) -> Result<Vec<RecordRow>, StoreError> {
    let query = QueryBuilder::new(
        "SELECT records.kind, records.seq, at_ms, subject, body FROM records JOIN \
         (SELECT kind, MAX(seq) AS seq FROM records GROUP BY kind) AS last \
         ON records.kind = last.kind AND records.seq = last.seq ORDER BY records.kind",
    );
    fetch_records(connection, query).await
}

/// Reads one page of the records of a kind.
pub(super) async fn records(
    connection: &mut SqliteConnection,
    kind: &str,
    page: &Page<'_>,
) -> Result<Vec<RecordRow>, StoreError> {
    let (beyond, order) = match page.order {
        Order::OldestFirst => (" AND seq > ", " ORDER BY seq"),
        Order::NewestFirst => (" AND seq < ", " ORDER BY seq DESC"),
    };
    let mut query =
        QueryBuilder::new("SELECT kind, seq, at_ms, subject, body FROM records WHERE kind = ");
    query.push_bind(kind);
    if let Some(subject) = page.subject {
        query.push(" AND subject = ").push_bind(subject);
    }
    if let Some(seq) = page.beyond {
        query.push(beyond).push_bind(signed(seq));
    }
    query
        .push(order)
        .push(" LIMIT ")
        .push_bind(i64::from(page.limit.min(PAGE)));
    fetch_records(connection, query).await
}

async fn fetch_records(
    connection: &mut SqliteConnection,
    mut query: QueryBuilder<sqlx::Sqlite>,
) -> Result<Vec<RecordRow>, StoreError> {
    let failed = |source| StoreError::Read {
        what: "records",
        source,
    };
    query
        .build()
        .fetch_all(connection)
        .await
        .map_err(failed)?
        .iter()
        .map(record)
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed)
}

fn record(row: &SqliteRow) -> Result<RecordRow, sqlx::Error> {
    Ok(RecordRow {
        kind: row.try_get(0)?,
        seq: unsigned(row.try_get(1)?),
        at_ms: unsigned(row.try_get(2)?),
        subject: row.try_get(3)?,
        body: row.try_get(4)?,
    })
}
