//! The first-boot appliance and the operator's command line.

use std::process::ExitCode;

use clap::Parser as _;
use netboot::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run().into()
}
