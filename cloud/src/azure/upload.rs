//! The upload: only what is data is sent, what was sent before a kill is not sent again, and at the end the cloud says
//! which bytes it has.
//!
//! It refuses to call a disk verified whose pages are not exactly those that were sent. A page is checked by its MD5 when it
//! is taken; once all are there the blob's sequence number is raised, after which no page can be written any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::blob::{Blob, SEALED, Seen, Written};
use super::names::{self, Desired};
use super::ranges::Ranges;
use crate::api::{Outcome, Throttled};
use crate::error::Error;
use crate::journal::Journal;
use crate::patience::{Patience, chance};
use crate::provider::Progress;
use crate::subject::Disk;

/// Largest write of pages that the cloud takes.
const PIECE: u64 = 4 << 20;
/// Writes that are on their way at once, at most: what is held in memory is so many times [`PIECE`].
const MOST: f64 = 8.0;

const MANIFEST: &str = "firstboot_manifest";
const IMAGE: &str = "firstboot_image";
const TARGET: &str = "firstboot_target";
const VHD: &str = "firstboot_vhd";
const UPLOAD: &str = "firstboot_upload";
const VERIFIED: &str = "firstboot_verified";

/// What is noted on disk while an upload goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// Which blob the other notes are about.
    Blob(String),
    /// The piece that begins here was taken.
    Piece(u64),
}

/// Whether a blob is ours and was found complete.
#[must_use]
pub fn is_verified(desired: &Desired, seen: &Seen) -> bool {
    seen.sequence == SEALED && seen.notes.get(VERIFIED) == Some(&desired.vhd.hex())
}

/// Whether a blob of our name holds this disk, or will.
#[must_use]
pub fn is_ours(desired: &Desired, seen: &Seen) -> bool {
    seen.pages && seen.size == desired.size && seen.notes.get(VHD) == Some(&desired.vhd.hex())
}

/// The manifest that a blob's notes name, when it is a disk of this target and of an image of this name.
#[must_use]
pub fn manifest<'a>(desired: &Desired, name: &str, seen: &'a Seen) -> Option<&'a str> {
    let note = |name: &str| seen.notes.get(name).map(String::as_str);
    let (vhd, target) = (note(VHD)?, desired.target.name.as_str());
    // Names of targets begin with each other: what was uploaded before targets were noted is told by its whole name.
    let ours = match note(TARGET) {
        Some(noted) => noted == target,
        None => name == names::blob(target, vhd),
    };
    let ours = ours && note(IMAGE) == Some(desired.image.as_str());
    note(MANIFEST).filter(|_| ours)
}

/// One upload.
#[derive(Debug)]
pub struct Upload<'a> {
    pub(super) desired: &'a Desired,
    pub(super) blob: &'a Blob,
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) patience: Patience,
}

impl Upload<'_> {
    /// Brings the blob to be complete and verified.
    ///
    /// # Errors
    /// When the cloud refuses, the disk cannot be read, or the blob is somebody else's.
    pub async fn run(
        &self,
        journal: &mut Journal,
        notes: Vec<Note>,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let seen = self.begun().await?;
        if is_verified(self.desired, &seen) {
            return Ok(());
        }
        let wanted = Ranges::of_vhd(self.disk.blocks());
        if seen.sequence == 0 {
            let taken = taken(&seen, notes, journal)?;
            let there = self.blob.ranges().await?;
            let left: Vec<Range<u64>> = wanted
                .pieces(PIECE)
                .filter(|piece| !(taken.contains(&piece.start) && there.covers(piece)))
                .collect();
            self.send(left, wanted.bytes(), journal, progress).await?;
            self.blob.seal().await?;
        }
        progress.waits(
            &self.desired.target.name,
            &format!("for the pages of `{}` to be compared", self.blob.url()),
        );
        let there = self.blob.ranges().await?;
        if let Some(difference) = there.difference(&wanted) {
            // Nobody can mend a sealed blob: the next run begins with a new one.
            self.blob.remove().await?;
            journal.clear()?;
            return Err(Error::Mismatch {
                what: format!("what was written of `{}`", self.blob.url()),
                found: difference,
                expected: "what was sent".to_owned(),
            });
        }
        self.verified().await
    }

    /// Makes the blob unless it exists, and looks at it.
    async fn begun(&self) -> Result<Seen, Error> {
        let mut seen = self.blob.look().await?;
        if seen.is_none() {
            let mut nonce = [0; 8];
            // Without randomness a blob that was made anew is taken for the one before, whose pages it then lacks: they
            // are listed before they are believed.
            getrandom::fill(&mut nonce).unwrap_or_default();
            let mut notes = self.notes();
            notes.insert(
                UPLOAD.to_owned(),
                format!("{:016x}", u64::from_be_bytes(nonce)),
            );
            self.blob.create(self.desired.size, &notes).await?;
            seen = self.blob.look().await?;
        }
        let seen = seen.ok_or_else(|| Error::Protocol {
            what: format!("create `{}`", self.blob.url()),
            reason: "it is not there after that".to_owned(),
        })?;
        if is_ours(self.desired, &seen) {
            return Ok(seen);
        }
        Err(Error::Foreign {
            what: format!("blob `{}`", self.blob.url()),
        })
    }

    fn notes(&self) -> BTreeMap<String, String> {
        let notes = [
            (MANIFEST, self.desired.manifest.clone()),
            (IMAGE, self.desired.image.clone()),
            (TARGET, self.desired.target.name.clone()),
            (VHD, self.desired.vhd.hex()),
        ];
        notes.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// Notes that the blob is complete; looks again when somebody else did at the same time.
    async fn verified(&self) -> Result<(), Error> {
        for _ in 0..3 {
            let Some(seen) = self.blob.look().await? else {
                break;
            };
            if is_verified(self.desired, &seen) {
                return Ok(());
            }
            let mut notes = seen.notes.clone();
            notes.insert(VERIFIED.to_owned(), self.desired.vhd.hex());
            self.blob.note(&seen, &notes).await?;
        }
        Err(Error::Protocol {
            what: format!("note that `{}` is complete", self.blob.url()),
            reason: "it changes meanwhile".to_owned(),
        })
    }

    async fn send(
        &self,
        left: Vec<Range<u64>>,
        of: u64,
        journal: &mut Journal,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let target = &self.desired.target.name;
        let coming: u64 = left.iter().map(|piece| piece.end - piece.start).sum();
        let mut done = of.saturating_sub(coming);
        let (mut left, mut limit) = (left.into_iter(), 2.0_f64);
        let mut sending = JoinSet::new();
        progress.bytes(target, done, of);
        loop {
            #[expect(clippy::cast_precision_loss, reason = "a handful of writes")]
            while (sending.len() as f64) < limit {
                let Some(piece) = left.next() else { break };
                let (blob, disk) = (self.blob.clone(), Arc::clone(self.disk));
                sending.spawn(write(blob, disk, piece, self.patience));
            }
            let Some(sent) = sending.join_next().await else {
                return Ok(());
            };
            let sent = sent.map_err(|error| Error::Disk(io::Error::other(error)))?;
            let Sent { piece, throttled } = sent?;
            let Some(piece) = piece else {
                // Somebody else completed it with the same bytes.
                return Ok(());
            };
            journal.add(&[Note::Piece(piece.start)])?;
            done += piece.end - piece.start;
            progress.bytes(target, done, of);
            limit = match throttled {
                Throttled::Yes => (limit / 2.0).max(1.0),
                Throttled::No => (limit + 1.0 / limit).min(MOST),
            };
        }
    }
}

/// What became of a piece.
struct Sent {
    /// The piece; none when there is nothing to write any more.
    piece: Option<Range<u64>>,
    /// Whether too much was asked meanwhile.
    throttled: Throttled,
}

async fn write(
    blob: Blob,
    disk: Arc<dyn Disk>,
    piece: Range<u64>,
    patience: Patience,
) -> Result<Sent, Error> {
    let reading = piece.clone();
    let bytes = tokio::task::spawn_blocking(move || read(&*disk, &reading)).await;
    let bytes = bytes.unwrap_or_else(|error| Err(io::Error::other(error)));
    let bytes = Bytes::from(bytes.map_err(Error::Disk)?);
    let begun = Instant::now();
    let (mut attempt, mut throttled) = (0, Throttled::No);
    loop {
        let (kind, after, error) = match blob.write(piece.start, &bytes).await {
            Ok(Written::Yes) => {
                let piece = Some(piece);
                return Ok(Sent { piece, throttled });
            }
            Ok(Written::Sealed) => {
                return Ok(Sent {
                    piece: None,
                    throttled,
                });
            }
            Ok(Written::Gone) => {
                return Err(Error::Refused {
                    what: format!("write pages of `{}`", blob.url()),
                    status: 404,
                    code: "BlobNotFound".to_owned(),
                    message: "somebody removed it meanwhile".to_owned(),
                });
            }
            Err(Outcome::Later {
                throttled,
                after,
                error,
            }) => (throttled, after, error),
            Err(Outcome::Never(error)) => return Err(error),
            Err(Outcome::Done(_)) => continue,
        };
        if kind == Throttled::Yes {
            throttled = Throttled::Yes;
        }
        let wait = patience.wait(attempt, begun.elapsed(), after, chance());
        let Some(wait) = wait else { return Err(error) };
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

/// Reads a piece of the VHD: the disk, and the footer behind it.
fn read(disk: &dyn Disk, piece: &Range<u64>) -> io::Result<Vec<u8>> {
    let size = disk.blocks().size;
    let length = |bytes: u64| usize::try_from(bytes).map_err(io::Error::other);
    let mut bytes = vec![0; length(piece.end - piece.start)?];
    let of_disk = length(piece.end.min(size).saturating_sub(piece.start))?;
    let (raw, footer) = bytes.split_at_mut(of_disk);
    if !raw.is_empty() {
        disk.read_at(piece.start, raw)?;
    }
    if !footer.is_empty() {
        footer.copy_from_slice(&disk.vhd_footer());
    }
    Ok(bytes)
}

/// Pieces that were taken of this very blob; the notes of another one are forgotten.
fn taken(seen: &Seen, notes: Vec<Note>, journal: &mut Journal) -> Result<BTreeSet<u64>, Error> {
    let blob = seen.notes.get(UPLOAD).cloned().unwrap_or_default();
    if notes.first() != Some(&Note::Blob(blob.clone())) {
        journal.clear()?;
        journal.add(&[Note::Blob(blob)])?;
        return Ok(BTreeSet::new());
    }
    let pieces = notes.into_iter().filter_map(|note| match note {
        Note::Piece(at) => Some(at),
        Note::Blob(_) => None,
    });
    Ok(pieces.collect())
}
