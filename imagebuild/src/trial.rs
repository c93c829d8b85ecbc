//! Tries an image: its disk is booted in a virtual computer, and the verdict that the host says about itself is read.
//!
//! It waits for a bounded time, keeps the console in a file, and believes a verdict of the image's own tree only.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use image_manifest::{Console, Digest, Verdict};
use serde::Serialize;

pub mod junit;

/// A line of a console that is longer is read as several.
const LONGEST_LINE: u64 = 16 * 1024;
/// Lines that are read and not looked at yet.
const QUEUE: usize = 1024;

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// The verdict; absent where the host never came to one.
    pub verdict: Option<Verdict>,
    /// Why it did not come to one, or why the verdict does not count.
    pub failure: Option<String>,
    /// Milliseconds from power-on to the end of the trial.
    pub elapsed_ms: u128,
}

impl Outcome {
    /// Tells whether the image is well.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failure.is_none() && self.verdict.as_ref().is_some_and(|verdict| verdict.healthy)
    }
}

/// Why a trial could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The console could not be kept.
    #[error("failed to write `{}`", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The console could not be read.
    #[error("the computer has no console")]
    NoConsole,
    /// The computer could not be ended.
    #[error("failed to end the computer")]
    End(#[source] io::Error),
}

/// Follows a computer until its host has come to a verdict, it ends, or the time is over; then ends it.
///
/// # Errors
/// When its console cannot be read or kept.
pub fn follow(
    mut computer: Child,
    tree: &Digest,
    patience: Duration,
    log: &Path,
) -> Result<Outcome, Error> {
    let started = Instant::now();
    let console = computer.stdout.take().ok_or(Error::NoConsole)?;
    let failed = |source| Error::Log {
        path: log.to_owned(),
        source,
    };
    let mut log_file = File::create(log).map_err(failed)?;
    let (lines, said) = mpsc::sync_channel(QUEUE);
    let reader = thread::spawn(move || {
        let mut console = BufReader::new(console);
        loop {
            let mut line = Vec::new();
            let read = (&mut console)
                .take(LONGEST_LINE)
                .read_until(b'\n', &mut line);
            if !matches!(read, Ok(1..)) || lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut seen = Console::default();
    let end = loop {
        let left = patience.saturating_sub(started.elapsed());
        match said.recv_timeout(left) {
            Ok(line) => {
                log_file.write_all(&line).map_err(failed)?;
                seen.read(&String::from_utf8_lossy(&line));
                if seen.verdict.is_some() || seen.failure.is_some() {
                    break None;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("no verdict within {} s", patience.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                break Some(last_words(&mut computer));
            }
        }
    };
    computer.kill().map_err(Error::End)?;
    computer.wait().map_err(Error::End)?;
    // The reader may wait for room in the queue.
    drop(said);
    drop(reader.join());
    Ok(judge(seen, end, tree, started.elapsed()))
}

/// Says what the computer itself complained about.
fn last_words(computer: &mut Child) -> String {
    let mut text = String::new();
    if let Some(errors) = computer.stderr.take() {
        errors.take(LONGEST_LINE).read_to_string(&mut text).ok();
    }
    match text.trim() {
        "" => "it switched itself off or restarted before it came to a verdict".to_owned(),
        said => format!("QEMU ended: {said}"),
    }
}

fn judge(seen: Console, end: Option<String>, tree: &Digest, elapsed: Duration) -> Outcome {
    let other = seen
        .verdict
        .as_ref()
        .filter(|verdict| verdict.tree != *tree);
    let other = other.map(|verdict| format!("it runs another tree: {}", verdict.tree));
    Outcome {
        failure: seen.failure.or(end).or(other),
        verdict: seen.verdict,
        elapsed_ms: elapsed.as_millis(),
    }
}

#[cfg(test)]
mod tests;
