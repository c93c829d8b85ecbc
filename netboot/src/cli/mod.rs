//! The command line, one file per verb.
//!
//! It refuses to mix: standard output is data, standard error is narration.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::store::StoreError;

mod apply;
mod audit;
mod backup;
mod cancel;
mod capture;
mod check;
mod console;
mod deploy;
mod enroll;
mod events;
mod explain;
mod follow;
mod history;
mod host;
mod hosts;
mod inventory;
mod order;
mod plan;
mod power;
mod promote;
pub mod report;
mod restore;
mod rollback;
mod rollout;
mod sample;
mod serve;
mod table;
mod timeline;
mod token;

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
    Plan(plan::PlanVerb),
    Apply(apply::Apply),
    Promote(promote::Promote),
    Enroll(enroll::Enroll),
    Deploy(deploy::Deploy),
    Rollback(rollback::Rollback),
    Rollout(rollout::Rollout),
    Cancel(cancel::Cancel),
    Power(power::Power),
    Console(console::Console),
    History(history::History),
    Inventory(inventory::Inventory),
    Events(events::Events),
    Audit(audit::Audit),
    Token(token::Token),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Explain(explain::Explain),
}

/// Where the site stands.
#[derive(Clone, Debug, Args)]
struct SiteDirectory {
    /// Directory with the site's `*.toml` files.
    #[arg(long, value_name = "DIR", env = "NETBOOT_SITE")]
    site: PathBuf,
}

/// Where the site stands, for verbs that can also ask a running appliance.
#[derive(Clone, Debug, Args)]
struct OfflineSite {
    /// Directory with the site's `*.toml` files: with it and `--data`, no appliance is asked.
    #[arg(long, value_name = "DIR", env = "NETBOOT_SITE")]
    site: Option<PathBuf>,
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

/// Makes a text fit for a part of a URL.
fn query(text: &str) -> String {
    let mut fit = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            fit.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(fit, "%{byte:02X}").ok();
        }
    }
    fit
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
            Verb::Plan(verb) => verb.run(),
            Verb::Apply(verb) => verb.run(),
            Verb::Promote(verb) => verb.run(),
            Verb::Enroll(verb) => verb.run(),
            Verb::Deploy(verb) => verb.run(),
            Verb::Rollback(verb) => verb.run(),
            Verb::Rollout(verb) => verb.run(),
            Verb::Cancel(verb) => verb.run(),
            Verb::Power(verb) => verb.run(),
            Verb::Console(verb) => verb.run(),
            Verb::History(verb) => verb.run(),
            Verb::Inventory(verb) => verb.run(),
            Verb::Events(verb) => verb.run(),
            Verb::Audit(verb) => verb.run(),
            Verb::Token(verb) => verb.run(),
            Verb::Backup(verb) => verb.run(),
            Verb::Restore(verb) => verb.run(),
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
