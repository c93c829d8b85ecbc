//! One snapshot, from its beginning until it is completed: begun once, gone on with after a kill, begun anew when it is lost.
//!
//! It refuses to leave out a block that somebody may read: only what was never written stays away.

mod blocks;
mod buffers;
mod compare;
mod notes;

pub(super) use compare::compare;
pub(super) use notes::Note;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use image_manifest::{BlockMap, Digest, Hasher};

use super::client::Client;
use super::ebs::Beginning;
use super::waiting::{Bounds, Waiting};
use crate::error::Error;
use crate::journal::Journal;
use crate::provider::Progress;
use crate::subject::Disk;
use blocks::Sent;
use notes::Resumed;

/// How often a snapshot is begun anew in one run.
const ATTEMPTS: u32 = 8;

/// One upload.
pub(super) struct Upload<'a> {
    pub client: &'a Client,
    pub target: &'a str,
    pub disk: &'a Arc<dyn Disk>,
    pub description: &'a str,
    pub tags: &'a [(String, String)],
    pub key: Option<&'a str>,
    pub bounds: Bounds,
    pub progress: &'a dyn Progress,
}

/// How an attempt ended.
enum Ended {
    /// It is completed.
    Whole,
    /// It is gone or broken.
    Lost,
}

/// Size of the volume that a disk needs, in GiB.
pub(super) fn gibibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30).max(1)
}

impl Upload<'_> {
    /// Brings a completed snapshot about.
    pub(super) async fn run(&self, journal: &mut Journal, notes: Vec<Note>) -> Result<(), Error> {
        let mut resumed = Resumed::of(notes);
        for _ in 0..ATTEMPTS {
            if resumed.snapshot.is_none() {
                self.begin(journal, &mut resumed).await?;
            }
            let id = resumed.snapshot.clone().unwrap_or_default();
            match self.fill(&id, journal, &mut resumed).await? {
                Ended::Whole => return Ok(()),
                Ended::Lost => {
                    tracing::warn!(
                        snapshot = id,
                        region = self.client.region,
                        "snapshot is lost, begun anew"
                    );
                    self.client.delete_snapshot(&id).await?;
                    resumed.lost();
                    journal.add(&[Note::Lost { snapshot: id }])?;
                }
            }
        }
        Err(Error::Mismatch {
            what: format!("the snapshot in {}", self.client.region),
            found: format!("lost {ATTEMPTS} times"),
            expected: "completed".to_owned(),
        })
    }

    async fn begin(&self, journal: &mut Journal, resumed: &mut Resumed) -> Result<(), Error> {
        let size = gibibytes(self.disk.blocks().size);
        let token = self.token(size, resumed.attempt);
        let beginning = Beginning {
            size,
            description: self.description,
            tags: self.tags,
            key: self.key,
            token: &token,
        };
        let begun = self.client.begin(&beginning).await?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole seconds of this age of the world"
        )]
        resumed.begun(&begun.snapshot_id, begun.start_time as i64);
        journal.add(&[Note::Begun {
            snapshot: begun.snapshot_id,
            attempt: resumed.attempt,
            at: resumed.at,
        }])
    }

    /// The same for everybody who publishes this image to this target, so that two of them share one snapshot. All that is
    /// asked for is in it: a token with another question is refused.
    fn token(&self, size: u64, attempt: u32) -> String {
        let (region, target) = (&self.client.region, self.target);
        let (tags, key) = (self.tags, self.key.unwrap_or_default());
        let asked = format!(
            "snapshot\n{target}\n{region}\n{size}\n{key}\n{tags:?}\n{}\n{attempt}",
            self.description
        );
        Digest::of(asked.as_bytes()).hex()
    }

    async fn fill(
        &self,
        id: &str,
        journal: &mut Journal,
        resumed: &mut Resumed,
    ) -> Result<Ended, Error> {
        let seen = self.client.snapshot(id).await?;
        match seen.as_ref().map(|snapshot| snapshot.state.as_str()) {
            Some("completed") => return Ok(Ended::Whole),
            Some("pending") => {}
            None if self.is_young(resumed) => {}
            _ => return Ok(Ended::Lost),
        }
        if !resumed.whole {
            match self.send(id, journal, resumed).await? {
                Sent::All => {}
                // Somebody else who publishes the same image was faster.
                Sent::Elsewhere => return self.completed(id).await,
                Sent::Lost => return Ok(Ended::Lost),
            }
            if !self.finish(id, resumed).await? {
                return Ok(Ended::Lost);
            }
            resumed.whole = true;
            journal.add(&[Note::Whole])?;
        }
        self.completed(id).await
    }

    /// Whether it may be there although it cannot be seen yet.
    fn is_young(&self, resumed: &Resumed) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        let begun = u64::try_from(resumed.at).unwrap_or_default();
        now.saturating_sub(begun) <= self.bounds.visible.as_secs()
    }

    /// Says that all blocks are there; `false` when there is no such snapshot any more.
    async fn finish(&self, id: &str, resumed: &Resumed) -> Result<bool, Error> {
        let digest = linear(&resumed.blocks);
        let count = resumed.blocks.len() as u64;
        match self.client.complete(id, count, &digest).await {
            Ok(()) => Ok(true),
            Err(Error::Refused { code, .. }) if code == "ResourceNotFoundException" => Ok(false),
            // It may have been completed: by a call whose answer was lost, or by somebody else.
            Err(error @ Error::Refused { .. }) => match self.completed_soon(id).await {
                Ok(Ended::Whole) => Ok(true),
                Ok(Ended::Lost) => Ok(false),
                Err(Error::Deadline { .. }) => Err(error),
                Err(other) => Err(other),
            },
            Err(error) => Err(error),
        }
    }

    /// The same, where it must be completed already or be about to.
    async fn completed_soon(&self, id: &str) -> Result<Ended, Error> {
        let mut bounds = self.bounds;
        bounds.task = bounds.visible;
        Upload { bounds, ..*self }.completed(id).await
    }

    async fn completed(&self, id: &str) -> Result<Ended, Error> {
        let what = format!("for {id} in {} to be completed", self.client.region);
        let mut waiting = Waiting::new(what, self.bounds.patience(self.bounds.task));
        loop {
            let seen = self.client.snapshot(id).await?;
            let state = seen.map_or_else(|| "not there".to_owned(), |snapshot| snapshot.state);
            match state.as_str() {
                "completed" => return Ok(Ended::Whole),
                "pending" | "not there" => {}
                _ => return Ok(Ended::Lost),
            }
            self.progress.waits(self.target, waiting.what());
            waiting.again(state).await?;
        }
    }
}

/// SHA-256 over the digests of the blocks in order: what `LINEAR` means.
fn linear(blocks: &BTreeMap<u64, Digest>) -> Digest {
    let mut hasher = Hasher::new();
    for digest in blocks.values() {
        hasher.update(digest.as_bytes());
    }
    hasher.finish()
}

const _: () = assert!(BlockMap::BLOCK == 512 << 10);
