//! `bench`: the product next to its peers, on one machine in one run.
//!
//! It refuses to print a number that was not measured without saying so.

mod bmc;
mod image;
mod memory;
mod publish;
mod timed;
mod usage;

use std::process::ExitCode;

use clap::Parser;

/// Measures the product next to its peers.
#[derive(Debug, Parser)]
#[command(name = "bench")]
enum Bench {
    /// Reads the power of simulated BMCs.
    Bmc(bmc::Options),
    /// Builds an image from packages on this computer.
    Image(image::Options),
    /// Finds the least memory that boots `host` from the network, in the virtual rack.
    Memory(memory::Options),
    /// Uploads a disk to Amazon's EBS direct interfaces.
    Publish(publish::Options),
    /// The part of `publish` whose memory is measured.
    #[command(hide = true)]
    Upload(publish::Upload),
}

fn main() -> ExitCode {
    let result: Result<(), Box<dyn std::error::Error>> = match Bench::parse() {
        Bench::Bmc(options) => bmc::run(&options).map_err(Into::into),
        Bench::Image(options) => image::run(&options).map_err(Into::into),
        Bench::Memory(options) => memory::run(&options).map_err(Into::into),
        Bench::Publish(options) => publish::run(&options).map_err(Into::into),
        Bench::Upload(options) => publish::upload(&options).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  caused by: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
