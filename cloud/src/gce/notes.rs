//! What is noted about a target, to go on with after a kill.
//!
//! It refuses to print where an upload goes on: whoever knows that may write there.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::journal::Journal;

/// What is noted about a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum Note {
    /// An upload was begun. Who knows its URL may write to it.
    Session { object: String, url: Session },
    /// So much of it is kept, with the checksum of it.
    Kept { bytes: u64, crc32c: u32 },
    /// The upload is over.
    Over,
    /// So many times the cloud failed to make the image.
    Failed(u32),
}

/// Where an upload goes on. Who knows it may write there, so it does not tell.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Session(pub(super) String);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

/// The upload that was begun and is not over: its object and where it goes on.
pub(super) fn begun(notes: &[Note]) -> Option<(&str, &Session)> {
    let last = notes.iter().rev().find_map(|note| match note {
        Note::Session { object, url } => Some(Some((object.as_str(), url))),
        Note::Over => Some(None),
        Note::Kept { .. } | Note::Failed(_) => None,
    });
    last.flatten()
}

/// The notes of one target, read.
#[derive(Debug)]
pub(super) struct Notebook {
    pub(super) journal: Journal,
    pub(super) notes: Vec<Note>,
}

impl Notebook {
    pub(super) fn open(directory: &Path, key: &str, target: &str) -> Result<Self, Error> {
        let (journal, notes) = Journal::open(directory, key, target)?;
        Ok(Self { journal, notes })
    }

    pub(super) fn note(&mut self, note: Note) -> Result<(), Error> {
        self.journal.add(std::slice::from_ref(&note))?;
        self.notes.push(note);
        Ok(())
    }

    /// How often the cloud failed to make the image.
    pub(super) fn failed(&self) -> u32 {
        let failed = self.notes.iter().rev().find_map(|note| match note {
            Note::Failed(times) => Some(*times),
            _ => None,
        });
        failed.unwrap_or_default()
    }
}
