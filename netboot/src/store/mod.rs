//! What the appliance remembers: leases, boots and their timelines, documents and records, on disk
//! before any reply that depends on them.
//!
//! It refuses to know what the rows mean: they are plain text and numbers here, so that every
//! database stores them alike. The hot path never reads it; memory is loaded once, at start.

mod memory;
mod sqlite;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::future::Future;
use std::path::PathBuf;

pub use memory::Memory;
pub(crate) use sqlite::FILE;
pub use sqlite::{Reader, Sqlite};
pub use tables::{Order, Page};
pub use writer::{Commit, QueueFull, Urgency, Writer};

/// Boots that are kept of each host; the oldest goes first.
pub const BOOTS_PER_HOST: u32 = 20;

/// Boots of each host that an appliance goes on with after its restart.
pub const BOOTS_AT_START: usize = 3;

/// Events that are kept of each boot; what comes later is counted and dropped.
///
/// A boot of three DHCP rounds, five files and all reports has about forty; an `iPXE` that retries
/// for an hour adds ten a minute.
pub const EVENTS_PER_BOOT: u32 = 1_000;

/// Bytes of events after which a boot gets no more of them, however few they are.
///
/// A boot of a thousand plain events stays below half of it.
pub const BYTES_PER_BOOT: usize = 512 * 1024;

/// One lease, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// Name of the network.
    pub network: String,
    /// The address, as a number.
    pub address: u32,
    /// Who holds it, in the core's own spelling.
    pub client: String,
    /// Hardware address that asked last.
    pub mac: Option<String>,
    /// State in the core's own spelling.
    pub state: String,
    /// When it ends, in milliseconds since 1970.
    pub until_ms: u64,
}

/// One boot, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootRow {
    /// Its id.
    pub id: String,
    /// Name of the host.
    pub host: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// All else that is known about it, as JSON.
    pub detail: String,
}

/// One event of a boot, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Id of the boot.
    pub boot: String,
    /// Its number in the boot, counted from 0.
    pub seq: u32,
    /// When it happened, in milliseconds since 1970.
    pub at_ms: u64,
    /// What happened, as JSON.
    pub event: String,
}

/// A value that is replaced whole, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentRow {
    /// What it is.
    pub kind: String,
    /// Its name among those of its kind.
    pub name: String,
    /// The value, as JSON.
    pub body: String,
}

/// Something that is only ever added, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRow {
    /// What it is.
    pub kind: String,
    /// Its number among those of its kind.
    pub seq: u64,
    /// When it happened, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it is about: mostly a host.
    pub subject: String,
    /// All else, as JSON.
    pub body: String,
}

/// One change of what is stored; applying it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes the lease of an address, whoever held it before.
    Lease(LeaseRow),
    /// Forgets the lease of an address.
    Free {
        /// Name of the network.
        network: String,
        /// The address, as a number.
        address: u32,
    },
    /// Writes a boot; older ones of the host than [`BOOTS_PER_HOST`] go.
    Boot(BootRow),
    /// Writes an event of a boot.
    Event(EventRow),
    /// Writes a document over the one with its kind and name.
    Put(DocumentRow),
    /// Forgets a document.
    Remove {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Adds a record; one with its number stays as it is.
    Append(RecordRow),
    /// Forgets the records of a kind up to and with a number.
    Trim {
        /// The kind.
        kind: String,
        /// The last number that goes.
        until: u64,
    },
}

/// A boot with its timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBoot {
    /// The boot.
    pub boot: BootRow,
    /// Its events, in order.
    pub events: Vec<EventRow>,
}

/// What an appliance needs to go on where it was: its memory at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// All leases.
    pub leases: Vec<LeaseRow>,
    /// The newest [`BOOTS_AT_START`] boots of each host, oldest first.
    pub boots: Vec<StoredBoot>,
    /// All documents, by kind and name.
    pub documents: Vec<DocumentRow>,
    /// The newest record of each kind.
    pub newest: Vec<RecordRow>,
}

/// A database that keeps the rows.
pub trait Store: Send + 'static {
    /// Reads what an appliance needs to go on.
    fn load(&mut self) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// Writes changes in one transaction, in order, and returns when they are on disk.
    fn commit(&mut self, changes: &[Change])
    -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends the connection in good order.
    fn close(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened.
    #[error("failed to open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date.
    #[error("failed to migrate `{}`", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: sqlx::migrate::MigrateError,
    },
    /// A newer version of this program wrote the database.
    #[error(
        "`{}` has schema {found}, and this program knows {known} and older; start the newer version that wrote it",
        path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// Changes could not be written.
    #[error("failed to write {rows} changes to the store")]
    Commit {
        /// How many changes.
        rows: usize,
        /// What the database said.
        source: sqlx::Error,
    },
    /// Rows could not be read.
    #[error("failed to read {what} from the store")]
    Read {
        /// Which rows.
        what: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
    /// A row holds what no version of this program writes.
    #[error("{what} in the store has `{value}` for `{field}`")]
    Corrupt {
        /// Which row.
        what: String,
        /// The column.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// Too much waits to be written.
    #[error(transparent)]
    Full(#[from] QueueFull),
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
    /// Another error, of a batch that this change was part of.
    #[error(transparent)]
    Batch(std::sync::Arc<StoreError>),
}
