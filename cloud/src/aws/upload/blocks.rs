//! Sending the blocks: as many at once as the way takes, as fast as the cloud allows, each until it arrived.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use image_manifest::block_map::Kind as BlockKind;
use image_manifest::{BlockMap, Digest};
use tokio::task::JoinSet;

use super::buffers::Buffers;
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

/// All that sending needs to remember.
struct Sending<'a> {
    upload: &'a Upload<'a>,
    id: &'a str,
    api: Api,
    fresh: std::iter::Peekable<std::vec::IntoIter<Block>>,
    again: VecDeque<(Instant, Block)>,
    flying: JoinSet<Tried>,
    buffers: Buffers,
    pace: Pace,
    begun: Instant,
    /// When the last one arrived.
    alive: Instant,
    /// When notes were put on disk.
    synced: Instant,
    notes: Vec<Note>,
    total: u64,
    /// What was seen last of what did not arrive.
    last: String,
}

impl Sending<'_> {
    /// Sends as many as may be; returns when the next one may, if that is not up to an answer.
    fn launch(&mut self) -> Option<Instant> {
        while self.fresh.peek().is_some() || !self.again.is_empty() {
            let now = Instant::now();
            let paced = self.begun + self.pace.when(self.flying.len(), now - self.begun)?;
            let due = self.again.front().map(|(due, _)| *due);
            let at = match due {
                Some(due) if due > now && self.fresh.peek().is_none() => due.max(paced),
                _ => paced,
            };
            if at > now {
                return Some(at);
            }
            let block = match due {
                Some(due) if due <= now => self.again.pop_front().map(|(_, block)| block),
                _ => self.fresh.next(),
            };
            self.pace.sent(now - self.begun);
            self.flying
                .spawn(self.upload.one(&self.api, &self.buffers, self.id, block?));
        }
        None
    }

    fn is_done(&mut self) -> bool {
        self.flying.is_empty() && self.again.is_empty() && self.fresh.peek().is_none()
    }

    /// Waits for the next answer; `None` when it is time to send.
    async fn next(&mut self, wake: Option<Instant>) -> Result<Option<Tried>, Error> {
        let stall = self.upload.bounds.stall;
        tokio::select! {
            Some(tried) = self.flying.join_next() => {
                let tried = tried.map_err(|error| Error::Disk(std::io::Error::other(error)))?;
                Ok(Some(tried))
            }
            () = sleep_until(wake) => Ok(None),
            () = sleep_until(Some(self.alive + stall)) => Err(Error::Deadline {
                what: format!("for blocks of {} to be taken", self.id),
                waited: stall,
                last: self.last.clone(),
            }),
        }
    }

    /// Takes what came of one try; ends with how sending ends.
    async fn take(
        &mut self,
        (block, outcome): Tried,
        journal: &mut Journal,
        resumed: &mut Resumed,
    ) -> Result<Option<Sent>, Error> {
        let now = self.begun.elapsed();
        let later = Instant::now() + self.upload.bounds.pause;
        match outcome? {
            (Outcome::Done(answer), digest) => {
                if ebs::told(&answer).is_some_and(|told| told != digest.as_bytes()) {
                    self.last = format!("block {} arrived broken", block.index);
                    self.again.push_back((later, block.broken(&self.last)?));
                    return Ok(None);
                }
                self.arrived(block.index, digest, journal, resumed)?;
            }
            (
                Outcome::Later {
                    throttled, error, ..
                },
                _,
            ) => {
                self.last = error.to_string();
                if throttled == Throttled::Yes {
                    self.pace.throttled(now);
                    self.again.push_back((Instant::now(), block));
                } else {
                    let (id, block_index) = (self.id, block.index);
                    tracing::debug!(snapshot = id, block = block_index, %error, "block is sent again");
                    self.pace.lost();
                    self.again.push_back((later, block));
                }
            }
            (Outcome::Never(error), _) => {
                self.last = error.to_string();
                match self.upload.refused(self.id, block, error, resumed).await? {
                    Then::Again(block) => self.again.push_back((later, block)),
                    Then::End(sent) => return Ok(Some(sent)),
                }
            }
        }
        Ok(None)
    }

    /// Notes that a block arrived.
    fn arrived(
        &mut self,
        index: u64,
        digest: Digest,
        journal: &mut Journal,
        resumed: &mut Resumed,
    ) -> Result<(), Error> {
        self.pace.arrived(self.begun.elapsed());
        self.alive = Instant::now();
        resumed.blocks.insert(index, digest);
        self.notes.push(Note::Block { index, digest });
        if self.notes.len() >= BATCH || self.synced.elapsed() >= SYNC {
            journal.add(&std::mem::take(&mut self.notes))?;
            self.synced = Instant::now();
            let done = resumed.blocks.len() as u64 * BlockMap::BLOCK;
            let of = self.total * BlockMap::BLOCK;
            self.upload.progress.bytes(self.upload.target, done, of);
        }
        Ok(())
    }
}

impl Upload<'_> {
    /// Sends all blocks that did not arrive yet.
    pub(super) async fn send(
        &self,
        id: &str,
        journal: &mut Journal,
        resumed: &mut Resumed,
    ) -> Result<Sent, Error> {
        let blocks = self.disk.blocks().written();
        let missing = blocks.filter(|(index, _)| !resumed.blocks.contains_key(index));
        let missing = missing.map(|(index, kind)| Block {
            index,
            kind,
            broken: 0,
        });
        let missing: Vec<_> = missing.collect();
        let begun = Instant::now();
        let mut sending = Sending {
            upload: self,
            id,
            api: self.client.api("ebs"),
            total: (resumed.blocks.len() + missing.len()) as u64,
            fresh: missing.into_iter().peekable(),
            again: VecDeque::new(),
            flying: JoinSet::new(),
            buffers: Buffers::default(),
            pace: Pace::default(),
            begun,
            alive: begun,
            synced: begun,
            notes: Vec::new(),
            last: "no answer".to_owned(),
        };
        let sent = Self::send_all(&mut sending, journal, resumed).await;
        journal.add(&sending.notes)?;
        sent
    }

    async fn send_all(
        sending: &mut Sending<'_>,
        journal: &mut Journal,
        resumed: &mut Resumed,
    ) -> Result<Sent, Error> {
        loop {
            let wake = sending.launch();
            if sending.is_done() {
                return Ok(Sent::All);
            }
            if let Some(tried) = sending.next(wake).await?
                && let Some(sent) = sending.take(tried, journal, resumed).await?
            {
                return Ok(sent);
            }
        }
    }

    /// Reads and sends one block.
    fn one(
        &self,
        api: &Api,
        buffers: &Buffers,
        id: &str,
        block: Block,
    ) -> impl Future<Output = Tried> + Send + 'static {
        let (api, client, buffers) = (api.clone(), self.client.clone(), buffers.clone());
        let (disk, id, patience) = (Arc::clone(self.disk), id.to_owned(), self.bounds.block);
        async move {
            let read = match block.kind {
                BlockKind::Data => read(disk, &buffers, block.index).await,
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

/// A block, empty.
static ZEROS: [u8; 512 << 10] = [0; 512 << 10];

/// Reads one block, filled with zeros behind the end of the disk.
pub(super) async fn read(
    disk: Arc<dyn Disk>,
    buffers: &Buffers,
    index: u64,
) -> Result<(Bytes, Digest), Error> {
    let buffers = buffers.clone();
    let read = tokio::task::spawn_blocking(move || {
        let bytes = buffers.fill(|buffer| {
            let at = index * BlockMap::BLOCK;
            let length = disk.blocks().size.saturating_sub(at).min(BlockMap::BLOCK);
            let (part, behind) = buffer.split_at_mut(length as usize);
            behind.fill(0);
            disk.read_at(at, part)
        })?;
        let digest = Digest::of(&bytes);
        Ok((bytes, digest))
    });
    let read = read
        .await
        .map_err(|error| Error::Disk(std::io::Error::other(error)))?;
    read.map_err(Error::Disk)
}

/// A block that must read as zero.
fn zeros() -> (Bytes, Digest) {
    static DIGEST: std::sync::LazyLock<Digest> = std::sync::LazyLock::new(|| Digest::of(&ZEROS));
    (Bytes::from_static(&ZEROS), *DIGEST)
}
