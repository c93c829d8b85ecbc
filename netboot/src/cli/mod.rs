//! The command line, one file per verb.
//!
//! It refuses to mix: standard output is data, standard error is narration.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod check;
pub mod report;
mod serve;
mod table;

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

impl Cli {
    /// Does what the command line asks.
    #[must_use]
    pub fn run(self) -> Exit {
        let done = match self.verb {
            Verb::Serve(verb) => verb.run(),
            Verb::Check(verb) => verb.run(),
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
