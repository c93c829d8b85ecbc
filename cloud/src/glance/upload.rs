//! Streams a qcow2 into an image and hashes it on the way.
//!
//! It refuses to hold more than a few pieces in memory, and to go on without an end when nothing moves.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use image_manifest::FormKind;
use sha2::{Digest as _, Sha512};

use super::images::{Change, Images, Uploaded};
use super::plan::Desired;
use crate::error::Error;
use crate::http::{Content, Open};
use crate::patience::{Patience, chance};
use crate::provider::Progress;
use crate::subject::Disk;

/// Bounds of trying an upload again.
const UPLOAD: Patience = Patience {
    attempt: Duration::from_mins(5),
    whole: Duration::from_mins(30),
    pause: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};
/// How often is told how far it is.
const TELL: Duration = Duration::from_millis(500);

/// What was read of a stream so far.
#[derive(Debug, Default)]
struct Seen {
    bytes: AtomicU64,
    hash: Mutex<Option<String>>,
}

/// Hashes what is read through it.
struct Hashing {
    reader: Box<dyn Read + Send>,
    hasher: Sha512,
    left: u64,
    seen: Arc<Seen>,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.left = self.left.saturating_sub(length as u64);
        self.seen.bytes.fetch_add(length as u64, Ordering::Relaxed);
        if self.left == 0 {
            let hash = hex(&self.hasher.clone().finalize());
            *self
                .seen
                .hash
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(hash);
        }
        Ok(length)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into text cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// Streams the bytes; returns their SHA-512, or none when somebody else is at it.
pub(super) async fn upload(
    images: &Images,
    id: &str,
    (desired, disk): (&Desired, &Arc<dyn Disk>),
    progress: &dyn Progress,
) -> Result<Option<String>, Error> {
    let (begun, mut attempt) = (Instant::now(), 0);
    loop {
        let seen = Arc::new(Seen::default());
        let content = Content::Stream {
            open: opener(disk, desired.size, &seen),
            length: desired.size,
        };
        let sending = images.upload(id, content, desired.size);
        tokio::pin!(sending);
        let done = loop {
            tokio::select! {
                done = &mut sending => break done?,
                () = tokio::time::sleep(TELL) => {
                    progress.bytes(&desired.target, seen.bytes.load(Ordering::Relaxed), desired.size);
                }
            }
        };
        let (after, error) = match done {
            Uploaded::Now(Change::Done) => {
                progress.bytes(&desired.target, desired.size, desired.size);
                return Ok(seen
                    .hash
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take());
            }
            Uploaded::Now(Change::Conflict) => return Ok(None),
            Uploaded::Later(after, error) => (after, error),
        };
        let wait = UPLOAD.wait(attempt, begun.elapsed(), after, chance());
        let Some(wait) = wait else { return Err(error) };
        tokio::time::sleep(wait).await;
        attempt += 1;
        let image = images.image(id).await?;
        // Its answer was lost, or another publisher is at it.
        if image.is_none_or(|image| image.status != "queued") {
            return Ok(None);
        }
    }
}

fn opener(disk: &Arc<dyn Disk>, size: u64, seen: &Arc<Seen>) -> Open {
    let (disk, seen) = (Arc::clone(disk), Arc::clone(seen));
    Arc::new(move || {
        seen.bytes.store(0, Ordering::Relaxed);
        let reader = Hashing {
            reader: disk.open(FormKind::Qcow2, 0)?,
            hasher: Sha512::new(),
            left: size,
            seen: Arc::clone(&seen),
        };
        Ok(Box::new(reader))
    })
}

/// The SHA-512 of the qcow2, read once more.
pub(super) async fn hash(disk: &Arc<dyn Disk>, size: u64) -> Result<String, Error> {
    let seen = Arc::new(Seen::default());
    let open = opener(disk, size, &seen);
    let read =
        tokio::task::spawn_blocking(move || io::copy(&mut open()?.take(size), &mut io::sink()));
    let read = read
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    read.map_err(Error::Disk)?;
    let hash = seen
        .hash
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    hash.ok_or_else(|| Error::Disk(io::ErrorKind::UnexpectedEof.into()))
}
