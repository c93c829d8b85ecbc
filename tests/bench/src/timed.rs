//! Other programs, run under GNU `time`: what they and all that they waited for cost.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

/// What one run of a program cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    /// Seconds on the wall.
    pub wall_s: f64,
    /// Seconds of the processor, in user and system mode.
    pub cpu_s: f64,
    /// The most memory that one of its processes had, in KiB.
    pub peak_kib: u64,
}

/// Why a program was not measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be started.
    #[error("failed to run `{program}` under GNU `time` (Debian package `time`)")]
    Start { program: String, source: io::Error },
    /// It failed.
    #[error("`{program}` failed; its last words:\n{said}")]
    Failed { program: String, said: String },
    /// `time` did not say what it cost.
    #[error("`time` said `{0}`")]
    Unreadable(String),
}

/// Runs a program to its end; a failure is told with its last words.
pub(crate) fn run(command: &Command, scratch: &Path) -> Result<Run, Error> {
    let report = scratch.join("time");
    let program = command.get_program().to_string_lossy().into_owned();
    let mut timed = Command::new("time");
    timed
        .args(["--format", "%e %U %S %M", "--output"])
        .arg(&report)
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    if let Some(directory) = command.get_current_dir() {
        timed.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    let output = timed.output().map_err(|source| Error::Start {
        program: program.clone(),
        source,
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<_> = said.lines().rev().take(12).collect();
        let said = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        return Err(Error::Failed { program, said });
    }
    let text = fs::read_to_string(&report).unwrap_or_default();
    parse(&text).ok_or(Error::Unreadable(text))
}

fn parse(text: &str) -> Option<Run> {
    let mut fields = text.lines().last()?.split_ascii_whitespace();
    let [wall_s, user, system] =
        [fields.next()?, fields.next()?, fields.next()?].map(|field| field.parse::<f64>().ok());
    Some(Run {
        wall_s: wall_s?,
        cpu_s: user? + system?,
        peak_kib: fields.next()?.parse().ok()?,
    })
}
