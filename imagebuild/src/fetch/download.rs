//! One file into the cache: from the first source that has exactly these bytes.
//!
//! It refuses to stop at a bad source while another is left, and to keep anything of what a bad source sent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use image_manifest::Digest;

use cloud::http::chain;

use super::client::{Client, RequestError};
use super::progress::Progress;
use crate::cache::{Cache, Refused, Shelf};

/// Times that one source is asked.
const TRIES: u32 = 3;
/// Pause before the second time; it doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// One file that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) shelf: Shelf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Where it may be, best first.
    pub(crate) urls: Vec<String>,
}

/// What one source answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The source: a URL, or a directory.
    pub source: String,
    /// What came of it.
    pub outcome: String,
    /// What kind of answer that is.
    pub answer: Answer,
}

/// What kind of answer a source gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It does not have the file.
    Absent,
    /// It could not be asked, or did not answer well.
    Unreachable,
    /// It has other bytes under this name, or ones that no one of the keyring signed.
    Differs,
}

/// Why one source failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Failure {
    fn answer(&self) -> Answer {
        match self {
            Self::Request(error) => error.answer(),
            Self::Refused(_) => Answer::Differs,
        }
    }
}

/// Why no source gave the file.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The cache does not work; no source can change that.
    Cache(crate::cache::Error),
    /// All sources failed.
    Everywhere(Vec<Attempt>),
}

impl From<crate::cache::Error> for Failed {
    fn from(error: crate::cache::Error) -> Self {
        Self::Cache(error)
    }
}

/// Takes a file out of a directory of files named by digest, if it is there and good.
pub(crate) fn copy(
    cache: &Cache,
    wanted: &Wanted,
    files: &Path,
) -> Result<Result<PathBuf, Attempt>, Failed> {
    let source = files.join(wanted.digest.hex());
    let attempt = |outcome: String, answer| Attempt {
        source: files.display().to_string(),
        outcome,
        answer,
    };
    let mut file = match std::fs::File::open(&source) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(attempt("not there".to_owned(), Answer::Absent)));
        }
        Err(error) => return Ok(Err(attempt(error.to_string(), Answer::Unreachable))),
    };
    let mut incoming = cache.begin(wanted.shelf, wanted.digest, wanted.size)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match std::io::Read::read(&mut file, &mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) => return Ok(Err(attempt(error.to_string(), Answer::Unreachable))),
        };
        match incoming.write(&buffer[..count]) {
            Ok(()) => {}
            Err(Refused::Cache(error)) => return Err(error.into()),
            Err(refused) => return Ok(Err(attempt(refused.to_string(), Answer::Differs))),
        }
    }
    match incoming.finish() {
        Ok(path) => Ok(Ok(path)),
        Err(Refused::Cache(error)) => Err(error.into()),
        Err(refused) => Ok(Err(attempt(refused.to_string(), Answer::Differs))),
    }
}

/// Fetches a file from the first of its URLs that has it.
pub(crate) async fn download(
    client: &Client,
    cache: &Cache,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<PathBuf, Failed> {
    let mut attempts = Vec::new();
    for url in &wanted.urls {
        match patiently(client, cache, wanted, url, progress).await {
            Ok(path) => return Ok(path),
            Err(Failure::Refused(Refused::Cache(error))) => return Err(Failed::Cache(error)),
            Err(failure) => {
                tracing::debug!(url, error = %failure, "source failed");
                attempts.push(Attempt {
                    source: url.clone(),
                    outcome: failure.to_string(),
                    answer: failure.answer(),
                });
            }
        }
    }
    Err(Failed::Everywhere(attempts))
}

async fn patiently(
    client: &Client,
    cache: &Cache,
    wanted: &Wanted,
    url: &str,
    progress: &Progress,
) -> Result<PathBuf, Failure> {
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        match once(client, cache, wanted, url, progress).await {
            Err(failure) if tries < TRIES && is_passing(&failure) => {
                tracing::debug!(url, tries, error = %chain(&failure), "asking again");
                tokio::time::sleep(pause).await;
                pause *= 2;
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Request(error) => error.is_passing(),
        // Fewer bytes than promised: the connection was closed early.
        Failure::Refused(Refused::Size { expected, got }) => got < expected,
        Failure::Refused(_) => false,
    }
}

async fn once(
    client: &Client,
    cache: &Cache,
    wanted: &Wanted,
    url: &str,
    progress: &Progress,
) -> Result<PathBuf, Failure> {
    let mut answer = client.get(url).await?;
    let mut incoming = cache
        .begin(wanted.shelf, wanted.digest, wanted.size)
        .map_err(Refused::Cache)?;
    let mut counted = 0;
    let outcome = loop {
        match answer.next().await {
            Ok(None) => break Ok(()),
            Ok(Some(bytes)) => {
                counted += bytes.len() as u64;
                progress.add(bytes.len() as u64);
                if let Err(refused) = incoming.write(&bytes) {
                    break Err(refused.into());
                }
            }
            Err(error) => break Err(error.into()),
        }
    };
    let outcome = outcome.and_then(|()| incoming.finish().map_err(Failure::from));
    if outcome.is_err() {
        progress.take_back(counted);
    }
    outcome
}
