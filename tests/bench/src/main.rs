//! `bench`: the product next to its peers, on one machine in one run.
//!
//! It refuses to print a number that was not measured without saying so.

mod bmc;
mod usage;

use std::process::ExitCode;

use clap::Parser;

/// Measures the product next to its peers.
#[derive(Debug, Parser)]
#[command(name = "bench")]
enum Bench {
    /// Reads the power of simulated BMCs.
    Bmc(bmc::Options),
}

fn main() -> ExitCode {
    let result = match Bench::parse() {
        Bench::Bmc(options) => bmc::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("  caused by: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
