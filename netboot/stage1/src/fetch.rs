//! Fetching of the root file system: several connections, each piece checked as it arrives.
//!
//! It writes only where it is told to, and it never says that a root is there of which one piece
//! did not have its digest. A cut connection goes on where it stopped; while the appliance is
//! away it is asked again, for a bounded time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use image_manifest::{BootImage, Hasher};

use crate::backoff::Backoff;
use crate::errors::chain;
use crate::pieces::{Answer, Piece, Pieces, UnusablePieces, WrongPiece};
use crate::{console, http};

/// Enough to fill a fast link while one of them waits or hashes.
const CONNECTIONS: usize = 4;
/// One read and one write to memory; small enough to still be in the cache when it is hashed.
const BUFFER: usize = 256 * 1024;
/// An appliance that is replaced or repaired is back by then; a host that waits longer had
/// better start over and ask DHCP again.
const WITHOUT_PROGRESS: Duration = Duration::from_mins(10);
/// The longest pause between two tries: an appliance that is back is not kept waiting.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A "no" of the appliance may be one of a restart or an upload in progress; so often, it is not.
const REFUSALS: u32 = 5;
/// How often the same trouble is said again.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Why the root file system is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the initrd's list of pieces is unusable")]
    Unusable(#[from] UnusablePieces),
    #[error("the root file system is not what this initrd was built with, and is not booted")]
    Wrong(#[source] Box<WrongPiece>),
    #[error("the root file system is refused")]
    Refused(#[source] http::Error),
    #[error("no piece arrived for {} s", WITHOUT_PROGRESS.as_secs())]
    Away(#[source] http::Error),
    #[error("failed to keep the root file system in memory")]
    Keep(#[source] io::Error),
    #[error("fetching ended early")]
    Incomplete,
}

/// What it took.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// How long, from the first request on.
    pub(crate) elapsed: Duration,
    /// Pieces that had to be asked for again.
    pub(crate) retries: u32,
}

/// Fetches an image's root file system into a file.
pub(crate) fn fetch(
    server: SocketAddrV4,
    image: &BootImage,
    sink: &File,
) -> Result<Fetched, Error> {
    let started = Instant::now();
    let shared = Shared {
        path: format!("/blob/{}", image.rootfs),
        server,
        size: image.size,
        sink,
        state: Mutex::new(State {
            pieces: Pieces::new(image)?,
            failure: None,
            progress: started,
            cuts: 0,
            told: BTreeMap::new(),
        }),
    };
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS.min(image.chunks.digests.len()) {
            scope.spawn(|| shared.work());
        }
    });
    let state = shared.state.into_inner();
    let state = state.unwrap_or_else(PoisonError::into_inner);
    match state.failure {
        Some(failure) => Err(failure),
        None if state.pieces.is_complete() => Ok(Fetched {
            elapsed: started.elapsed(),
            retries: state.cuts.saturating_add(state.pieces.wrong_answers()),
        }),
        None => Err(Error::Incomplete),
    }
}

/// What the connections share.
struct Shared<'a> {
    server: SocketAddrV4,
    path: String,
    size: u64,
    sink: &'a File,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    pieces: Pieces<'a>,
    failure: Option<Error>,
    /// When the last piece arrived.
    progress: Instant,
    cuts: u32,
    /// The troubles that were said, and when.
    told: BTreeMap<String, Instant>,
}

impl Shared<'_> {
    /// Fetches pieces over one connection at a time until none is left or somebody failed.
    fn work(&self) {
        let mut line = Line {
            connection: None,
            buffer: vec![0; BUFFER],
        };
        while let Some(piece) = self.take() {
            if let Err(failure) = self.fetch_piece(&mut line, &piece) {
                self.with(|state| {
                    state.failure.get_or_insert(failure);
                });
                return;
            }
        }
    }

    fn fetch_piece(&self, line: &mut Line, piece: &Piece) -> Result<(), Error> {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        let mut refusals = 0;
        let mut arrived = Arrived::default();
        loop {
            if self.with(|state| state.failure.is_some()) {
                return Ok(());
            }
            let before = arrived.hasher.bytes();
            match self.receive(line, &piece.range, &mut arrived) {
                Ok(()) => {
                    let found = std::mem::take(&mut arrived).hasher.finish();
                    let answer = self.with(|state| state.pieces.arrived(piece, found));
                    match answer.map_err(Error::Wrong)? {
                        Answer::Right => {
                            self.with(|state| state.progress = Instant::now());
                            return Ok(());
                        }
                        Answer::AskAgain => {
                            let number = piece.number + 1;
                            self.tell(&format!("piece {number} is wrong and asked for again"));
                            // Another connection may lead to a healthy copy.
                            line.connection = None;
                        }
                    }
                }
                Err(Trouble::Keep(error)) => return Err(Error::Keep(error)),
                Err(Trouble::Http(error)) => {
                    line.connection = None;
                    refusals += u32::from(error.is_final());
                    if refusals >= REFUSALS {
                        return Err(Error::Refused(error));
                    }
                    let idle = self.with(|state| {
                        // A connection that was never made cut nothing.
                        let cut = !matches!(error, http::Error::Connect { .. });
                        state.cuts = state.cuts.saturating_add(u32::from(cut));
                        state.progress.elapsed()
                    });
                    if idle > WITHOUT_PROGRESS {
                        return Err(Error::Away(error));
                    }
                    if arrived.hasher.bytes() > before {
                        backoff.reset();
                    }
                    let left = WITHOUT_PROGRESS.saturating_sub(idle).as_secs();
                    self.tell(&format!("{}; trying for {left} s more", chain(&error)));
                    thread::sleep(backoff.pause());
                }
            }
        }
    }

    /// Receives the rest of a piece.
    fn receive(
        &self,
        line: &mut Line,
        range: &Range<u64>,
        arrived: &mut Arrived,
    ) -> Result<(), Trouble> {
        let rest = range.start + arrived.hasher.bytes()..range.end;
        let usable = line.connection.take().filter(http::Connection::is_reusable);
        let connection = match usable {
            Some(connection) => connection,
            None => http::Connection::open(self.server).map_err(Trouble::Http)?,
        };
        let connection = line.connection.insert(connection);
        connection
            .get_range(&self.path, &rest, self.size)
            .map_err(Trouble::Http)?;
        loop {
            let read = connection.read(&mut line.buffer).map_err(Trouble::Http)?;
            if read == 0 {
                return Ok(());
            }
            let bytes = &line.buffer[..read];
            self.sink
                .write_all_at(bytes, range.start + arrived.hasher.bytes())
                .map_err(Trouble::Keep)?;
            arrived.hasher.update(bytes);
        }
    }

    fn take(&self) -> Option<Piece> {
        self.with(|state| match state.failure {
            Some(_) => None,
            None => state.pieces.take(),
        })
    }

    /// Says what goes wrong, once for all connections and again after a while.
    fn tell(&self, trouble: &str) {
        // What differs from one time to the next stands behind the semicolon.
        let kind = trouble.split(';').next().unwrap_or_default();
        let news = self.with(|state| {
            let said = state.told.get(kind);
            let news = said.is_none_or(|at| at.elapsed() > SAY_AGAIN);
            if news {
                state.told.insert(kind.to_owned(), Instant::now());
            }
            news
        });
        if news {
            console::warn(trouble);
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State<'_>) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut state)
    }
}

/// One worker's connection and buffer.
struct Line {
    connection: Option<http::Connection>,
    buffer: Vec<u8>,
}

/// What has arrived of one piece, and its digest so far.
#[derive(Default)]
struct Arrived {
    hasher: Hasher,
}

enum Trouble {
    Http(http::Error),
    Keep(io::Error),
}

#[cfg(test)]
mod tests;
