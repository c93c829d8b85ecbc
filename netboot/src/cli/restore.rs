//! `netboot restore`: makes a data directory out of a backup.
//!
//! It refuses a directory that holds anything.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use netboot_core::Timestamp;
use serde_json::json;

use super::{DataDirectory, Exit, Failure, Format, print};
use crate::api::client::block_on;
use crate::backup::{self, BackupError};

/// Make a data directory out of a backup; start an appliance on it with `netboot serve --data DIR`.
///
/// Stop the old appliance first: two that think they are the same one give the same addresses.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup; `-` is standard input.
    file: PathBuf,
    #[command(flatten)]
    data: DataDirectory,
    #[command(flatten)]
    format: Format,
    /// Check the archive, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Restore {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let archive: Box<dyn Read> = if self.file == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(&self.file).map_err(|error| {
                Failure::new(error).help(format!("is `{}` the backup?", self.file.display()))
            })?)
        };
        let data = &self.data.data;
        let restored = if self.dry_run {
            backup::check(archive)
        } else {
            block_on(async { Ok(backup::restore(archive, data).await) })?
        };
        let manifest = restored.map_err(failure)?;
        if self.format.json {
            let json = json!({ "done": !self.dry_run, "manifest": manifest });
            print(&format!("{json}\n"))?;
        }
        let taken = Timestamp(manifest.taken_ms).utc();
        let files = manifest.entries.len();
        if self.dry_run {
            eprintln!("{files} files of {taken} are whole; nothing was written");
        } else {
            eprintln!(
                "{files} files of {taken} restored into `{}`",
                data.display()
            );
        }
        Ok(Exit::Done)
    }
}

fn failure(error: BackupError) -> Failure {
    let help = match &error {
        BackupError::NotEmpty { .. } => Some("restore into a new directory"),
        BackupError::Damaged { .. } | BackupError::Audit(_) => {
            Some("use another backup; nothing was restored")
        }
        _ => None,
    };
    let failure = Failure::new(error);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}
