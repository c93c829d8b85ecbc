//! Sending the blocks: as many at once as the way takes, as fast as the cloud allows, each until it arrived.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use image_manifest::block_map::Kind as BlockKind;
use image_manifest::{BlockMap, Digest};
use tokio::task::JoinSet;

use super::notes::{Note, Resumed};
use super::{Ended, Upload};
use crate::api::{Api, Outcome, Throttled};
use crate::aws::ebs;
use crate::aws::pace::Pace;
use crate::error::Error;
use crate::journal::Journal;
use crate::subject::Disk;

/// Notes are put on disk in batches of this many, or after [`SYNC`].
const BATCH: usize = 64;
/// A kill costs the blocks of at most this time.
const SYNC: Duration = Duration::from_secs(1);
/// How often a block may arrive broken.
const BROKEN: u32 = 3;

/// How sending ended.
pub(super) enum Sent {
    /// All blocks arrived.
    All,
    /// The snapshot takes no more blocks: somebody else completed it.
    Elsewhere,
    /// There is no such snapshot any more.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    index: u64,
    kind: BlockKind,
    broken: u32,
}

/// What came of one try.
type Tried = (Block, Result<(Outcome, Digest), Error>);

/// What to do about a block that did not arrive.
enum Then {
    Again(Block),
    End(Sent),
}

impl Upload<'_> {
    pub(super) async fn send(
        &self,
        id: &str,
        journal: &mut Journal,
        resumed: &mut Resumed,
    ) -> Result<Sent, Error> {
        let mut notes = Vec::new();
        let sent = self.send_all(id, journal, resumed, &mut notes).await;
        journal.add(&notes)?;
        sent
    }

    async fn send_all(
        &self,
        id: &str,
        journal: &mut Journal,
        resumed: &mut Resumed,
        notes: &mut Vec<Note>,
    ) -> Result<Sent, Error> {
        let api = self.client.api("ebs");
        let total = self.disk.blocks().written().count() as u64;
        let missing = self
            .disk
            .blocks()
            .written()
            .filter(|(index, _)| !resumed.blocks.contains_key(index));
        let missing: Vec<_> = missing.collect();
        let mut fresh = missing
            .into_iter()
            .map(|(index, kind)| Block {
                index,
                kind,
                broken: 0,
            })
            .peekable();
        let mut again: VecDeque<(Instant, Block)> = VecDeque::new();
        let mut flying: JoinSet<Tried> = JoinSet::new();
        let mut pace = Pace::default();
        let begun = Instant::now();
        let (mut alive, mut synced) = (begun, begun);
        let mut last = "no answer".to_owned();
        loop {
            let mut wake = None;
            while fresh.peek().is_some() || !again.is_empty() {
                let now = Instant::now();
                let Some(at) = pace.when(flying.len(), now - begun) else {
                    break;
                };
                let due = again.front().is_some_and(|(due, _)| *due <= now);
                let at = match again.front() {
                    Some((due, _)) if !due.le(&now) && fresh.peek().is_none() => {
                        (*due - begun).max(at)
                    }
                    _ => at,
                };
                if at > now - begun {
                    wake = Some(begun + at);
                    break;
                }
                let next = if due {
                    again.pop_front().map(|(_, block)| block)
                } else {
                    fresh.next()
                };
                let Some(block) = next else { break };
                pace.sent(now - begun);
                flying.spawn(self.one(&api, id, block));
            }
            if flying.is_empty() && fresh.peek().is_none() && again.is_empty() {
                return Ok(Sent::All);
            }
            let stalled = alive + self.bounds.stall;
            let tried = tokio::select! {
                Some(tried) = flying.join_next() => tried,
                () = sleep_until(wake) => continue,
                () = sleep_until(Some(stalled)) => {
                    return Err(Error::Deadline {
                        what: format!("for blocks of {id} to be taken"),
                        waited: self.bounds.stall,
                        last,
                    });
                }
            };
            let (block, outcome) =
                tried.map_err(|error| Error::Disk(std::io::Error::other(error)))?;
            let now = begun.elapsed();
            match outcome? {
                (Outcome::Done(answer), digest) => {
                    if ebs::told(&answer).is_some_and(|told| told != digest.as_bytes()) {
                        last = format!("block {} arrived broken", block.index);
                        again.push_back((Instant::now(), block.broken(&last)?));
                        continue;
                    }
                    pace.arrived(now);
                    alive = Instant::now();
                    resumed.blocks.insert(block.index, digest);
                    notes.push(Note::Block {
                        index: block.index,
                        digest,
                    });
                    if notes.len() >= BATCH || synced.elapsed() >= SYNC {
                        journal.add(notes)?;
                        notes.clear();
                        synced = Instant::now();
                        let done = resumed.blocks.len() as u64 * BlockMap::BLOCK;
                        self.progress
                            .bytes(self.target, done, total * BlockMap::BLOCK);
                    }
                }
                (
                    Outcome::Later {
                        throttled: Throttled::Yes,
                        ..
                    },
                    _,
                ) => {
                    pace.throttled(now);
                    again.push_back((Instant::now(), block));
                }
                (Outcome::Later { error, .. }, _) => {
                    tracing::debug!(snapshot = id, block = block.index, %error, "block is sent again");
                    pace.lost();
                    last = error.to_string();
                    again.push_back((Instant::now() + self.bounds.pause, block));
                }
                (Outcome::Never(error), _) => {
                    last = error.to_string();
                    match self.refused(id, block, error, resumed).await? {
                        Then::Again(block) => {
                            again.push_back((Instant::now() + self.bounds.pause, block))
                        }
                        Then::End(sent) => return Ok(sent),
                    }
                }
            }
        }
    }

    /// Reads and sends one block.
    fn one(
        &self,
        api: &Api,
        id: &str,
        block: Block,
    ) -> impl Future<Output = Tried> + Send + 'static {
        let (api, client) = (api.clone(), self.client.clone());
        let (disk, id, patience) = (Arc::clone(self.disk), id.to_owned(), self.bounds.block);
        async move {
            let read = match block.kind {
                BlockKind::Data => read(disk, block.index).await,
                BlockKind::MustBeZero | BlockKind::NeverWritten => Ok(zeros()),
            };
            let (bytes, digest) = match read {
                Ok(read) => read,
                Err(error) => return (block, Err(error)),
            };
            let mut call = client.put(&id, block.index, bytes, &digest);
            call.patience.attempt = patience;
            (block, Ok((api.attempt(&call).await, digest)))
        }
    }

    /// What a refusal of one block means for the whole.
    async fn refused(
        &self,
        id: &str,
        block: Block,
        error: Error,
        resumed: &Resumed,
    ) -> Result<Then, Error> {
        let Error::Refused { code, message, .. } = &error else {
            return Err(error);
        };
        match code.as_str() {
            // Right after its beginning not every server knows it yet.
            "ResourceNotFoundException" if self.is_young(resumed) => Ok(Then::Again(block)),
            "ResourceNotFoundException" => Ok(Then::End(Sent::Lost)),
            "ValidationException" | "ConflictException" => {
                let says = |word: &str| message.contains(word);
                if says("CONFLICTING_BLOCK_UPDATE") || says("WRITE_REQUEST_TIMEOUT") {
                    return Ok(Then::Again(block));
                }
                if says("hecksum") {
                    return Ok(Then::Again(block.broken(message)?));
                }
                if [
                    "INVALID_BLOCK",
                    "INVALID_CONTENT_ENCODING",
                    "INVALID_CUSTOMER_KEY",
                ]
                .iter()
                .any(|word| says(word))
                {
                    return Err(error);
                }
                // A snapshot that takes no blocks is completed or lost, or will be in a moment.
                match self.completed_soon(id).await {
                    Ok(Ended::Whole) => Ok(Then::End(Sent::Elsewhere)),
                    Ok(Ended::Lost) => Ok(Then::End(Sent::Lost)),
                    Err(Error::Deadline { .. }) => Err(error),
                    Err(other) => Err(other),
                }
            }
            _ => Err(error),
        }
    }
}

impl Block {
    /// It arrived as something else: once more, but not for ever.
    fn broken(mut self, reason: &str) -> Result<Self, Error> {
        self.broken += 1;
        if self.broken < BROKEN {
            return Ok(self);
        }
        Err(Error::Mismatch {
            what: format!("block {}, sent {BROKEN} times,", self.index),
            found: format!("not what was sent ({reason})"),
            expected: "taken".to_owned(),
        })
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Reads one block, filled with zeros behind the end of the disk.
pub(super) async fn read(disk: Arc<dyn Disk>, index: u64) -> Result<(Bytes, Digest), Error> {
    let read = tokio::task::spawn_blocking(move || {
        #[expect(clippy::cast_possible_truncation, reason = "half a MiB")]
        let mut buffer = vec![0; BlockMap::BLOCK as usize];
        let at = index * BlockMap::BLOCK;
        let length = disk.blocks().size.saturating_sub(at).min(BlockMap::BLOCK);
        #[expect(clippy::cast_possible_truncation, reason = "at most half a MiB")]
        let part = &mut buffer[..length as usize];
        disk.read_at(at, part)?;
        let digest = Digest::of(&buffer);
        Ok((Bytes::from(buffer), digest))
    });
    let read = read
        .await
        .map_err(|error| Error::Disk(std::io::Error::other(error)))?;
    read.map_err(Error::Disk)
}

/// A block that must read as zero.
fn zeros() -> (Bytes, Digest) {
    static ZEROS: [u8; 512 << 10] = [0; 512 << 10];
    static DIGEST: std::sync::LazyLock<Digest> = std::sync::LazyLock::new(|| Digest::of(&ZEROS));
    (Bytes::from_static(&ZEROS), *DIGEST)
}
