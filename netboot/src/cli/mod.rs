//! The command line, one file per verb.
//!
//! It refuses to mix: standard output is data, standard error is narration.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::store::StoreError;

mod capture;
mod check;
mod explain;
mod host;
mod hosts;
pub mod report;
mod sample;
mod serve;
mod table;
mod timeline;

pub use report::{Exit, Failure};

/// The first-boot appliance: boots a rack's hosts into their images.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage, 3 bad configuration, 4 remote refused or unreachable.
#[derive(Debug, Parser)]
#[command(name = "netboot", version)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(serve::Serve),
    Check(check::Check),
    Hosts(hosts::Hosts),
    Host(host::Host),
    Explain(explain::Explain),
}

/// Where the site stands.
#[derive(Clone, Debug, Args)]
struct SiteDirectory {
    /// Directory with the site's `*.toml` files.
    #[arg(long, value_name = "DIR", env = "NETBOOT_SITE")]
    site: PathBuf,
}

/// Where the appliance keeps its state.
#[derive(Clone, Debug, Args)]
struct DataDirectory {
    /// Directory that holds the appliance's state.
    #[arg(long, value_name = "DIR", env = "NETBOOT_DATA")]
    data: PathBuf,
}

/// Whether the answer is for people or for programs.
#[derive(Clone, Copy, Debug, Args)]
struct Format {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How often a followed answer is looked up again: soon enough for eyes.
const FOLLOW: Duration = Duration::from_millis(500);

/// Runs what reads the store.
fn block_on<T>(future: impl Future<Output = Result<T, StoreError>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::new)?
        .block_on(future)
        .map_err(Failure::new)
}

/// Writes data to standard output. Whoever closes it has seen enough.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            std::process::exit(Exit::Done as i32)
        }
        written => written.map_err(Failure::new),
    }
}

impl Cli {
    /// Does what the command line asks.
    #[must_use]
    pub fn run(self) -> Exit {
        let done = match self.verb {
            Verb::Serve(verb) => verb.run(),
            Verb::Check(verb) => verb.run(),
            Verb::Hosts(verb) => verb.run(),
            Verb::Host(verb) => verb.run(),
            Verb::Explain(verb) => verb.run(),
        };
        match done {
            Ok(exit) => exit,
            Err(failure) => failure.report(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
