//! `netboot backup`: everything that a running appliance knows, in one file.
//!
//! It refuses to leave a half: the file gets its name when it is whole.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt as _;
use hyper::Method;

use super::table::bytes;
use super::{Exit, Failure};
use crate::api::client::{Client, Target, block_on};
use crate::backup;

/// How long nothing may come.
const STALLED: Duration = Duration::from_mins(1);

/// Write everything that a running appliance knows into one file: hosts, leases, generations, tokens, audit log, site, keys.
///
/// Keep it as safe as the appliance itself: it holds the key of its authority.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file, which is made; `-` is standard output.
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

impl Backup {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        if self.file == Path::new("-") {
            let mut out = std::io::stdout();
            if out.is_terminal() {
                return Err(Failure::new("an archive is nothing to look at")
                    .exit(Exit::Usage)
                    .help("name a file, or send it on: `netboot backup - | …`"));
            }
            block_on(receive(&client, &mut out))?;
            return Ok(Exit::Done);
        }
        if self.file.exists() {
            return Err(
                Failure::new(format!("`{}` is there already", self.file.display()))
                    .help("name another file"),
            );
        }
        let unfinished = self.file.with_added_extension("part");
        let written = write(&client, &unfinished).and_then(|length| {
            std::fs::rename(&unfinished, &self.file).map_err(Failure::new)?;
            Ok(length)
        });
        match written {
            Ok(length) => {
                eprintln!("{} in `{}`, checked", bytes(length), self.file.display());
                Ok(Exit::Done)
            }
            Err(failure) => {
                // It is of no use to anybody.
                std::fs::remove_file(&unfinished).ok();
                Err(failure)
            }
        }
    }
}

/// Writes the archive, and reads it again to compare each file with the manifest.
fn write(client: &Client, path: &Path) -> Result<u64, Failure> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(Failure::new)?;
    let length = block_on(receive(client, &mut file))?;
    file.sync_all().map_err(Failure::new)?;
    backup::check(File::open(path).map_err(Failure::new)?).map_err(Failure::new)?;
    Ok(length)
}

async fn receive(client: &Client, out: &mut impl Write) -> Result<u64, Failure> {
    let mut body = client.stream(Method::POST, "/v1/backup").await?;
    let mut length = 0;
    loop {
        let next = tokio::time::timeout(STALLED, body.frame()).await;
        let Some(frame) =
            next.map_err(|_| Failure::new("the appliance stopped sending").exit(Exit::Remote))?
        else {
            return Ok(length);
        };
        let frame = frame.map_err(|error| Failure::new(error).exit(Exit::Remote))?;
        if let Ok(piece) = frame.into_data() {
            out.write_all(&piece).map_err(Failure::new)?;
            length += piece.len() as u64;
        }
    }
}
