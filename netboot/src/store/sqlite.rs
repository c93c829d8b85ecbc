//! The store in one SQLite file, and a reader of it for the command line.
//!
//! It refuses a schema that is newer than this program, and never gives up durability: WAL with
//! `synchronous = FULL`, so that what was promised to a client outlives a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Row, SqliteConnection};

use super::tables::{self, Page};
use super::{
    BOOTS_AT_START, BOOTS_PER_HOST, BootRow, Change, DocumentRow, EventRow, LeaseRow, RecordRow,
    Store, StoreError, Stored, StoredBoot,
};
use crate::durable;

/// Name of the file in the data directory.
pub(crate) const FILE: &str = "netboot.db";

/// How long a reader in another process may hold the file before a write fails.
const BUSY: Duration = Duration::from_secs(10);

/// Rows of one statement, largest first: few texts, so that each is prepared once.
const ROWS: [usize; 4] = [256, 32, 4, 1];

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The store in one SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    options: SqliteConnectOptions,
    /// `None` from a failed commit to the next one.
    connection: Option<SqliteConnection>,
}

impl Sqlite {
    /// Opens the store of a data directory, or makes it, and brings its schema up to date.
    ///
    /// # Errors
    /// When the file cannot be opened, or has a newer schema than this program knows.
    pub async fn open(data: &Path) -> Result<Self, StoreError> {
        let path = data.join(FILE);
        // Its logs get the mode that it has.
        let files = ["", "-wal", "-shm", "-journal"].map(|log| data.join(format!("{FILE}{log}")));
        durable::keep_private(&path, &files).map_err(|source| StoreError::Open {
            path: path.clone(),
            source: source.into(),
        })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let mut connection = connect(&options.clone().create_if_missing(true), &path).await?;
        migrate(&mut connection, path.clone()).await?;
        Ok(Self {
            path,
            options,
            connection: Some(connection),
        })
    }

    /// Forgets the boots of all hosts but these, and events that belong to no boot; returns how
    /// many boots there were.
    ///
    /// # Errors
    /// When the database fails: then all of them stay.
    pub async fn keep_boots_of(&mut self, hosts: &BTreeSet<&str>) -> Result<u64, StoreError> {
        let forgotten = forget(self.connection().await?, hosts).await;
        if forgotten.is_err() {
            self.abandon().await;
        }
        forgotten.map_err(|source| StoreError::Commit { rows: 0, source })
    }

    /// Returns the connection; after a failed commit, a new one.
    async fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.options, &self.path).await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Gives up the connection of a failed transaction.
    ///
    /// Who: `SQLite` with sqlx 0.9. What it does: on a full disk and on I/O errors it may roll back
    /// by itself, and the ROLLBACK of sqlx then fails, which leaves its depth of transactions at
    /// one: no later transaction can begin. What we do: end the connection and open another before
    /// the next commit. Proof: the test `a_full_store_goes_on_when_there_is_room`.
    async fn abandon(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(error = %error, "store connection did not close");
        }
    }
}

async fn connect(
    options: &SqliteConnectOptions,
    path: &Path,
) -> Result<SqliteConnection, StoreError> {
    options.connect().await.map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })
}

async fn migrate(connection: &mut SqliteConnection, path: PathBuf) -> Result<(), StoreError> {
    match MIGRATIONS.run(&mut *connection).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) => Err(StoreError::NewerSchema {
            path,
            found,
            known: newest_schema(),
        }),
        Err(source) => Err(StoreError::Migrate { path, source }),
    }
}

fn newest_schema() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or_default()
}

impl Store for Sqlite {
    async fn load(&mut self) -> Result<Stored, StoreError> {
        let connection = self.connection().await?;
        Ok(Stored {
            leases: read_leases(connection).await?,
            boots: read_newest_boots(connection).await?,
            documents: tables::documents(connection, None).await?,
            newest: tables::newest(connection).await?,
        })
    }

    async fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let written = write(self.connection().await?, changes).await;
        if written.is_err() {
            self.abandon().await;
        }
        written.map_err(|source| StoreError::Commit {
            rows: changes.len(),
            source,
        })
    }

    async fn close(self) -> Result<(), StoreError> {
        let Some(connection) = self.connection else {
            return Ok(());
        };
        connection
            .close()
            .await
            .map_err(|source| StoreError::Commit { rows: 0, source })
    }
}

async fn write(connection: &mut SqliteConnection, changes: &[Change]) -> Result<(), sqlx::Error> {
    let mut leases = BTreeMap::new();
    // In the order in which they began, which is also the order in which they are numbered.
    let mut boots: Vec<&BootRow> = Vec::new();
    let mut events = Vec::new();
    let mut tables = tables::Batch::default();
    for change in changes {
        match change {
            Change::Lease(row) => {
                leases.insert((row.network.as_str(), row.address), Some(row));
            }
            Change::Free { network, address } => {
                leases.insert((network.as_str(), *address), None);
            }
            Change::Boot(row) => match boots.iter_mut().find(|boot| boot.id == row.id) {
                Some(boot) => *boot = row,
                None => boots.push(row),
            },
            Change::Event(row) => events.push(row),
            Change::Put(_) | Change::Remove { .. } | Change::Append(_) | Change::Trim { .. } => {
                tables.take(change);
            }
        }
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for (key, _) in leases.iter().filter(|(_, row)| row.is_none()) {
        sqlx::query("DELETE FROM leases WHERE network = $1 AND address = $2")
            .bind(key.0)
            .bind(i64::from(key.1))
            .execute(&mut *transaction)
            .await?;
    }
    let held: Vec<&LeaseRow> = leases.into_values().flatten().collect();
    for rows in pieces(&held) {
        write_leases(&mut transaction, rows).await?;
    }
    for row in boots {
        write_boot(&mut transaction, row).await?;
    }
    for rows in pieces(&events) {
        write_events(&mut transaction, rows).await?;
    }
    tables.write(&mut transaction).await?;
    transaction.commit().await
}

async fn forget(
    connection: &mut SqliteConnection,
    hosts: &BTreeSet<&str>,
) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let stored: Vec<String> = sqlx::query_scalar("SELECT DISTINCT host FROM boots")
        .fetch_all(&mut *transaction)
        .await?;
    let mut boots = 0;
    for host in stored.iter().filter(|host| !hosts.contains(host.as_str())) {
        boots += sqlx::query("DELETE FROM boots WHERE host = $1")
            .bind(host.as_str())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
    }
    sqlx::query("DELETE FROM boot_events WHERE boot NOT IN (SELECT id FROM boots)")
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(boots)
}

/// Cuts rows into pieces of the sizes in [`ROWS`].
pub(super) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = ROWS.into_iter().find(|size| *size <= rows.len())?;
        let (piece, rest) = rows.split_at(size);
        rows = rest;
        Some(piece)
    })
}

async fn write_leases(
    connection: &mut SqliteConnection,
    rows: &[&LeaseRow],
) -> Result<(), sqlx::Error> {
    QueryBuilder::new("INSERT INTO leases (network, address, client, mac, state, until_ms) ")
        .push_values(rows, |mut row, lease| {
            row.push_bind(lease.network.as_str())
                .push_bind(i64::from(lease.address))
                .push_bind(lease.client.as_str())
                .push_bind(lease.mac.as_deref())
                .push_bind(lease.state.as_str())
                .push_bind(signed(lease.until_ms));
        })
        .push(
            " ON CONFLICT (network, address) DO UPDATE SET client = excluded.client, \
             mac = excluded.mac, state = excluded.state, until_ms = excluded.until_ms",
        )
        .build()
        .execute(connection)
        .await
        .map(drop)
}

/// Writes a boot, and drops the oldest ones of its host.
///
/// Which one is older says the row's number, never the time: clocks go back.
async fn write_boot(connection: &mut SqliteConnection, row: &BootRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO boots (id, host, started_ms, detail) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET host = excluded.host, started_ms = excluded.started_ms, \
         detail = excluded.detail",
    )
    .bind(row.id.as_str())
    .bind(row.host.as_str())
    .bind(signed(row.started_ms))
    .bind(row.detail.as_str())
    .execute(&mut *connection)
    .await?;
    let old: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM boots WHERE host = $1 AND id <> $2 ORDER BY rowid DESC \
         LIMIT 1000 OFFSET $3",
    )
    .bind(row.host.as_str())
    .bind(row.id.as_str())
    .bind(i64::from(BOOTS_PER_HOST) - 1)
    .fetch_all(&mut *connection)
    .await?;
    for id in old {
        sqlx::query("DELETE FROM boot_events WHERE boot = $1")
            .bind(id.as_str())
            .execute(&mut *connection)
            .await?;
        sqlx::query("DELETE FROM boots WHERE id = $1")
            .bind(id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn write_events(
    connection: &mut SqliteConnection,
    rows: &[&EventRow],
) -> Result<(), sqlx::Error> {
    QueryBuilder::new("INSERT INTO boot_events (boot, seq, at_ms, event) ")
        .push_values(rows, |mut row, event| {
            row.push_bind(event.boot.as_str())
                .push_bind(i64::from(event.seq))
                .push_bind(signed(event.at_ms))
                .push_bind(event.event.as_str());
        })
        .push(
            " ON CONFLICT (boot, seq) DO UPDATE SET at_ms = excluded.at_ms, event = excluded.event",
        )
        .build()
        .execute(connection)
        .await
        .map(drop)
}

async fn read_leases(connection: &mut SqliteConnection) -> Result<Vec<LeaseRow>, StoreError> {
    let rows = sqlx::query("SELECT network, address, client, mac, state, until_ms FROM leases")
        .fetch_all(connection)
        .await
        .map_err(|source| StoreError::Read {
            what: "leases",
            source,
        })?;
    let lease = |row: SqliteRow| {
        let address: i64 = row.try_get(1)?;
        Ok(u32::try_from(address).ok().map(|address| {
            Ok::<_, sqlx::Error>(LeaseRow {
                network: row.try_get(0)?,
                address,
                client: row.try_get(2)?,
                mac: row.try_get(3)?,
                state: row.try_get(4)?,
                until_ms: unsigned(row.try_get(5)?),
            })
        }))
    };
    // A row whose address is no address was written by no version of this program: it is no lease.
    rows.into_iter()
        .filter_map(|row| lease(row).transpose())
        .map(|row| {
            row.and_then(|row| row).map_err(|source| StoreError::Read {
                what: "leases",
                source,
            })
        })
        .collect()
}

async fn read_newest_boots(
    connection: &mut SqliteConnection,
) -> Result<Vec<StoredBoot>, StoreError> {
    let failed = |source| StoreError::Read {
        what: "boots",
        source,
    };
    // Older by the row's number, as in `write_boot`.
    let rows = sqlx::query(
        "SELECT id, host, started_ms, detail FROM (\
           SELECT id, host, started_ms, detail, rowid AS number, \
             ROW_NUMBER() OVER (PARTITION BY host ORDER BY rowid DESC) AS age FROM boots\
         ) AS aged WHERE age <= $1 ORDER BY host, number",
    )
    .bind(i64::try_from(BOOTS_AT_START).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    let mut boots = Vec::with_capacity(rows.len());
    for row in &rows {
        let boot = boot(row).map_err(failed)?;
        let events = read_events(connection, &boot.id).await?;
        boots.push(StoredBoot { boot, events });
    }
    Ok(boots)
}

fn boot(row: &SqliteRow) -> Result<BootRow, sqlx::Error> {
    Ok(BootRow {
        id: row.try_get(0)?,
        host: row.try_get(1)?,
        started_ms: unsigned(row.try_get(2)?),
        detail: row.try_get(3)?,
    })
}

async fn read_events(
    connection: &mut SqliteConnection,
    boot: &str,
) -> Result<Vec<EventRow>, StoreError> {
    let failed = |source| StoreError::Read {
        what: "boot events",
        source,
    };
    sqlx::query("SELECT seq, at_ms, event FROM boot_events WHERE boot = $1 ORDER BY seq")
        .bind(boot)
        .fetch_all(connection)
        .await
        .map_err(failed)?
        .iter()
        .map(|row| {
            Ok(EventRow {
                boot: boot.to_owned(),
                seq: u32::try_from(row.try_get::<i64, _>(0)?).unwrap_or(u32::MAX),
                at_ms: unsigned(row.try_get(1)?),
                event: row.try_get(2)?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed)
}

/// Databases have no unsigned numbers; a time beyond 292 million years is that far away.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// Reads the store of a data directory while an appliance may be writing it.
#[derive(Debug)]
pub struct Reader {
    connection: SqliteConnection,
    schema: i64,
}

/// The schema that brought documents and records.
const WITH_TABLES: i64 = 2;

impl Reader {
    /// Opens the store for reading; `None` when there is none yet.
    ///
    /// # Errors
    /// When the file cannot be opened, or has a newer schema than this program knows.
    pub async fn open(data: &Path) -> Result<Option<Self>, StoreError> {
        let path = data.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let failed = |source| StoreError::Open {
            path: path.clone(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(failed)?;
        let applied = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
        let found: i64 = match sqlx::query_scalar(applied).fetch_one(&mut connection).await {
            Ok(found) => found,
            // A reader that may not write the directory cannot open a WAL that nobody else has
            // open; with no writer the file alone holds everything.
            Err(_) if !path.with_extension("db-wal").exists() => {
                connection = options.immutable(true).connect().await.map_err(failed)?;
                sqlx::query_scalar(applied)
                    .fetch_one(&mut connection)
                    .await
                    .map_err(failed)?
            }
            Err(source) => return Err(failed(source)),
        };
        let known = newest_schema();
        if found > known {
            return Err(StoreError::NewerSchema { path, found, known });
        }
        Ok(Some(Self {
            connection,
            schema: found,
        }))
    }

    /// Copies the whole store, as it is at this instant, into a new file.
    ///
    /// # Errors
    /// When the database fails, or the file is there.
    pub async fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
        sqlx::query("VACUUM INTO $1")
            .bind(path.to_string_lossy().into_owned())
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(|source| StoreError::Read {
                what: "a copy",
                source,
            })
    }

    /// Reads what an appliance would start with.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn read(&mut self) -> Result<Stored, StoreError> {
        Ok(Stored {
            leases: read_leases(&mut self.connection).await?,
            boots: read_newest_boots(&mut self.connection).await?,
            documents: self.documents(None).await?,
            newest: match self.schema {
                WITH_TABLES.. => tables::newest(&mut self.connection).await?,
                _ => Vec::new(),
            },
        })
    }

    /// Reads the documents of a kind, or all, by kind and name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn documents(&mut self, kind: Option<&str>) -> Result<Vec<DocumentRow>, StoreError> {
        if self.schema < WITH_TABLES {
            return Ok(Vec::new());
        }
        tables::documents(&mut self.connection, kind).await
    }

    /// Reads one page of the records of a kind.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn records(
        &mut self,
        kind: &str,
        page: &Page<'_>,
    ) -> Result<Vec<RecordRow>, StoreError> {
        if self.schema < WITH_TABLES {
            return Ok(Vec::new());
        }
        tables::records(&mut self.connection, kind, page).await
    }

    /// Reads all leases.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn leases(&mut self) -> Result<Vec<LeaseRow>, StoreError> {
        read_leases(&mut self.connection).await
    }

    /// Reads the boots of one host with their timelines, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn boots_of(&mut self, host: &str) -> Result<Vec<StoredBoot>, StoreError> {
        let failed = |source| StoreError::Read {
            what: "boots",
            source,
        };
        let rows = sqlx::query(
            "SELECT id, host, started_ms, detail FROM boots WHERE host = $1 \
             ORDER BY rowid DESC",
        )
        .bind(host)
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed)?;
        let mut boots = Vec::with_capacity(rows.len());
        for row in &rows {
            let boot = boot(row).map_err(failed)?;
            let events = read_events(&mut self.connection, &boot.id).await?;
            boots.push(StoredBoot { boot, events });
        }
        Ok(boots)
    }
}

#[cfg(test)]
mod tests;
