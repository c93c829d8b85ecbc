//! Sends an archive to a bucket in pieces, from where the bucket has it, and compares checksums at the end.
//!
//! It refuses to hold more than one piece in memory, to go on without an end when nothing moves, and to believe an upload
//! that nobody compared.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use image_manifest::FormKind;

use super::notes::{Note, Notebook, Session, begun};
use super::plan::{Desired, Object};
use super::storage::{DIGEST, Sent, Storage, Upload};
use crate::error::Error;
use crate::patience::{Patience, chance};
use crate::provider::Progress;
use crate::subject::Disk;

/// Bytes of one piece: a multiple of 256 KiB, which is all that Cloud Storage keeps.
const PIECE: u64 = 8 << 20;
/// Longest time in which nothing more is kept.
const STILL: Patience = Patience {
    attempt: Duration::from_mins(2),
    whole: Duration::from_mins(10),
    pause: Duration::from_millis(200),
    longest: Duration::from_secs(30),
};

/// One archive on its way.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    pub(super) storage: &'a Storage,
    pub(super) desired: &'a Desired,
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) notebook: &'a mut Notebook,
}

/// The bytes of the archive from some offset on, and the checksum of those before.
struct Place {
    at: u64,
    crc32c: u32,
    reader: Option<Box<dyn Read + Send>>,
    /// What was read last, as long as it is not known to be kept.
    piece: Bytes,
}

impl Sender<'_> {
    /// Sends what is missing; returns the generation of the object, or none when another publisher was faster.
    pub(super) async fn run(mut self, progress: &dyn Progress) -> Result<Option<String>, Error> {
        let (session, mut stands) = self.session().await?;
        let mut place = Place {
            at: 0,
            crc32c: 0,
            reader: None,
            piece: Bytes::new(),
        };
        let (mut moved, mut attempt) = (Instant::now(), 0);
        loop {
            let kept = match stands {
                Upload::Kept(kept) => kept,
                Upload::Whole(object) => {
                    self.finish(&mut place, &object).await?;
                    return Ok(Some(object.generation));
                }
                Upload::Taken => {
                    self.notebook.note(Note::Over)?;
                    return Ok(None);
                }
                Upload::Gone => {
                    self.notebook.note(Note::Over)?;
                    return Err(self.protocol("the bucket forgot the upload"));
                }
            };
            let before = place.at;
            self.seek(&mut place, kept).await?;
            if place.at > before {
                (moved, attempt) = (Instant::now(), 0);
                self.notebook.note(Note::Kept {
                    bytes: kept,
                    crc32c: place.crc32c,
                })?;
                progress.bytes(&self.desired.target, kept, self.desired.size);
            }
            stands = match self.piece(&mut place, &session).await? {
                Sent::Now(Upload::Kept(now)) if now <= kept => {
                    let error = self.protocol("the bucket keeps nothing of what is sent");
                    self.pause(&moved, &mut attempt, None, error).await?;
                    Upload::Kept(now)
                }
                Sent::Now(stands) => stands,
                Sent::Later(after, error) => {
                    self.pause(&moved, &mut attempt, after, error).await?;
                    let (name, size) = (&self.desired.object, self.desired.size);
                    self.storage.stands(name, &session, size).await?
                }
            };
        }
    }

    /// Sends the next piece, once.
    async fn piece(&self, place: &mut Place, session: &str) -> Result<Sent, Error> {
        let (name, size) = (&self.desired.object, self.desired.size);
        if place.at == size {
            let error = self.protocol("the bucket has every byte and makes no object of them");
            return Ok(Sent::Later(None, error));
        }
        self.fill(place).await?;
        let piece = place.piece.clone();
        self.storage
            .send(name, session, (place.at, size), piece)
            .await
    }

    /// Waits before the next attempt, or gives up.
    async fn pause(
        &self,
        moved: &Instant,
        attempt: &mut u32,
        after: Option<Duration>,
        error: Error,
    ) -> Result<(), Error> {
        let wait = STILL.wait(*attempt, moved.elapsed(), after, chance());
        let Some(wait) = wait else { return Err(error) };
        *attempt += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Takes up the upload that was begun, or begins one.
    async fn session(&mut self) -> Result<(String, Upload), Error> {
        if let Some((object, url)) = begun(&self.notebook.notes)
            && *object == self.desired.object
            && self.storage.is_ours(&url.0)
        {
            let url = url.0.clone();
            let (name, size) = (&self.desired.object, self.desired.size);
            let stands = self.storage.stands(name, &url, size).await?;
            if stands != Upload::Gone {
                return Ok((url, stands));
            }
        }
        let desired = self.desired;
        let mut metadata = serde_json::Map::new();
        for (key, value) in &desired.tags {
            metadata.insert(key.replace(':', "-"), value.as_str().into());
        }
        metadata.insert(DIGEST.to_owned(), desired.digest.as_str().into());
        let url = self
            .storage
            .begin(&desired.object, desired.size, &metadata.into())
            .await?;
        let Some(url) = url else {
            return Ok((String::new(), Upload::Taken));
        };
        self.notebook.note(Note::Session {
            object: desired.object.clone(),
            url: Session(url.clone()),
        })?;
        Ok((url, Upload::Kept(0)))
    }

    /// Goes to where the bucket is; what is left of the piece stays at hand.
    async fn seek(&self, place: &mut Place, kept: u64) -> Result<(), Error> {
        if kept > self.desired.size {
            return Err(self.protocol("more is kept than was sent"));
        }
        let ahead = kept
            .checked_sub(place.at)
            .and_then(|ahead| usize::try_from(ahead).ok());
        if let Some(ahead) = ahead.filter(|ahead| *ahead <= place.piece.len()) {
            let gone = place.piece.split_to(ahead);
            place.crc32c = crc32c::crc32c_append(place.crc32c, &gone);
            place.at = kept;
            return Ok(());
        }
        // The last upload is the one that goes on; notes of others do not fit it.
        let begun = self
            .notebook
            .notes
            .iter()
            .rposition(|note| matches!(note, Note::Session { .. }));
        let known = self.notebook.notes[begun.unwrap_or_default()..]
            .iter()
            .find_map(|note| match note {
                Note::Kept { bytes, crc32c } if *bytes == kept => Some(*crc32c),
                _ => None,
            });
        place.crc32c = match known {
            Some(crc32c) => crc32c,
            None => checksum(self.disk, kept).await?,
        };
        (place.at, place.reader, place.piece) = (kept, None, Bytes::new());
        Ok(())
    }

    /// Reads the next piece.
    async fn fill(&self, place: &mut Place) -> Result<(), Error> {
        let wanted = PIECE.min(self.desired.size - place.at);
        let missing = wanted - place.piece.len() as u64;
        if missing == 0 {
            return Ok(());
        }
        let (disk, from) = (Arc::clone(self.disk), place.at + place.piece.len() as u64);
        let (reader, mut piece) = (place.reader.take(), place.piece.to_vec());
        let read = tokio::task::spawn_blocking(move || {
            let mut reader = match reader {
                Some(reader) => reader,
                None => disk.open(FormKind::Gce, from)?,
            };
            let had = piece.len();
            piece.resize(had + usize::try_from(missing).unwrap_or_default(), 0);
            reader.read_exact(&mut piece[had..])?;
            Ok((reader, Bytes::from(piece)))
        });
        let read = read
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let (reader, piece) = read.map_err(Error::Disk)?;
        (place.reader, place.piece) = (Some(reader), piece);
        Ok(())
    }

    /// Compares what the bucket has with what was read.
    async fn finish(&mut self, place: &mut Place, object: &Object) -> Result<(), Error> {
        if object.size == self.desired.size {
            self.seek(place, object.size).await?;
        }
        self.notebook.note(Note::Over)?;
        let compared = compare(self.desired, object, place.crc32c);
        if compared.is_err() {
            self.storage
                .remove(&self.desired.object, &object.generation)
                .await?;
        }
        compared
    }

    fn protocol(&self, reason: &str) -> Error {
        Error::Protocol {
            what: format!("upload `{}`", self.desired.object),
            reason: reason.to_owned(),
        }
    }
}

/// Compares an object with an archive.
pub(super) fn compare(desired: &Desired, object: &Object, crc32c: u32) -> Result<(), Error> {
    let mismatch = |what: &str, found: String, expected: String| Error::Mismatch {
        what: format!("{what} of object `{}`", desired.object),
        found,
        expected,
    };
    if object.size != desired.size {
        return Err(mismatch(
            "size",
            object.size.to_string(),
            desired.size.to_string(),
        ));
    }
    if object.crc32c != crc32c {
        let text = |crc: u32| format!("{crc:08x}");
        return Err(mismatch("CRC32C", text(object.crc32c), text(crc32c)));
    }
    Ok(())
}

/// The checksum of the first bytes of the archive.
pub(super) async fn checksum(disk: &Arc<dyn Disk>, bytes: u64) -> Result<u32, Error> {
    let disk = Arc::clone(disk);
    let read = tokio::task::spawn_blocking(move || {
        let mut reader = disk.open(FormKind::Gce, 0)?.take(bytes);
        let (mut sum, mut read, mut buffer) = (0, 0, vec![0; 1 << 20]);
        loop {
            let length = reader.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            sum = crc32c::crc32c_append(sum, &buffer[..length]);
            read += length as u64;
        }
        if read < bytes {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(sum)
    });
    let read = read
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)));
    read.map_err(Error::Disk)
}
