//! What an upload notes down, and what the next one makes of it.

use std::collections::BTreeMap;

use image_manifest::Digest;
use serde::{Deserialize, Serialize};

/// One note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::aws) enum Note {
    /// A snapshot was begun; `at` is in seconds since 1970.
    Begun {
        snapshot: String,
        attempt: u32,
        at: i64,
    },
    /// A block arrived.
    Block { index: u64, digest: Digest },
    /// All blocks arrived, and that was said.
    Whole,
    /// The snapshot is gone or broken.
    Lost { snapshot: String },
}

/// Where an upload stands.
#[derive(Debug, Default)]
pub(super) struct Resumed {
    /// The snapshot that is filled.
    pub snapshot: Option<String>,
    /// How many were lost before it.
    pub attempt: u32,
    /// When it was begun.
    pub at: i64,
    /// The blocks that arrived.
    pub blocks: BTreeMap<u64, Digest>,
    /// Whether all did, and that was said.
    pub whole: bool,
}

impl Resumed {
    pub(super) fn of(notes: Vec<Note>) -> Self {
        let mut resumed = Self::default();
        for note in notes {
            match note {
                Note::Begun {
                    snapshot,
                    attempt,
                    at,
                } => {
                    resumed.attempt = attempt;
                    resumed.begun(&snapshot, at);
                }
                Note::Block { index, digest } => {
                    resumed.blocks.insert(index, digest);
                }
                Note::Whole => resumed.whole = true,
                Note::Lost { .. } => resumed.lost(),
            }
        }
        resumed
    }

    /// A snapshot was begun.
    pub(super) fn begun(&mut self, snapshot: &str, at: i64) {
        self.snapshot = Some(snapshot.to_owned());
        self.at = at;
        self.blocks.clear();
        self.whole = false;
    }

    /// The snapshot is gone: the next one has another token.
    pub(super) fn lost(&mut self) {
        self.snapshot = None;
        self.attempt += 1;
        self.blocks.clear();
        self.whole = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_tell_where_an_upload_stands() {
        let begun = |snapshot: &str, attempt| Note::Begun {
            snapshot: snapshot.to_owned(),
            attempt,
            at: 7,
        };
        let block = |index| Note::Block {
            index,
            digest: Digest::of(b"x"),
        };
        let lost = Note::Lost {
            snapshot: "a".to_owned(),
        };
        let cases = [
            ("nothing", vec![], None, 0, 0, false),
            (
                "begun",
                vec![begun("a", 0), block(1), block(1)],
                Some("a"),
                0,
                1,
                false,
            ),
            (
                "whole",
                vec![begun("a", 0), block(1), Note::Whole],
                Some("a"),
                0,
                1,
                true,
            ),
            (
                "lost",
                vec![begun("a", 0), block(1), lost.clone()],
                None,
                1,
                0,
                false,
            ),
            (
                "anew",
                vec![begun("a", 0), block(1), lost, begun("b", 1)],
                Some("b"),
                1,
                0,
                false,
            ),
        ];
        for (name, notes, snapshot, attempt, blocks, whole) in cases {
            let text: Vec<_> = notes
                .iter()
                .map(|note| serde_json::to_string(note).unwrap())
                .collect();
            let notes = text
                .iter()
                .map(|text| serde_json::from_str(text).unwrap())
                .collect();
            let found = Resumed::of(notes);
            assert_eq!(found.snapshot.as_deref(), snapshot, "{name}");
            assert_eq!(
                (found.attempt, found.blocks.len(), found.whole),
                (attempt, blocks, whole),
                "{name}"
            );
        }
    }
}
