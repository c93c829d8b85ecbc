//! The lab's command line.
//!
//! It refuses to hide a failure: every verb ends with a true exit code, and errors are told with all their causes.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lab::show::{self, Scenario};
use lab::state::State;
use lab::stop::Stop;
use lab::suites::{self, Suite};
use lab::up::{self, Request};
use lab::workspace::Workspace;
use lab::{bmcs, down, enter, timeline};

/// A virtual rack on one Linux machine: the appliance and hosts without disks, in real firmware.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Arguments {
    /// Where the lab keeps everything; `.lab` in the work tree unless given.
    #[arg(long, global = true, env = "LAB_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds what is missing, racks the hosts and follows them until each is healthy or is not.
    Up {
        /// Install missing tools from Debian packages (as root).
        #[arg(long)]
        install: bool,
        /// Leave the rack running.
        #[arg(long)]
        keep: bool,
        /// Rack only this host; may be given more than once.
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// Print the outcome as JSON.
        #[arg(long)]
        json: bool,
        /// Memory of each host in MiB.
        #[arg(long, value_name = "MIB", default_value_t = 1024)]
        ram: u32,
    },
    /// Removes everything that a rack left, also after a crash; images stay.
    Down,
    /// Logs in to a host, or runs a command there.
    Ssh {
        /// The host.
        host: String,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Connects to a host's serial console; Ctrl-] leaves it.
    Console {
        /// The host.
        host: String,
    },
    /// Says what runs and how the hosts are.
    Status {
        /// Print what the appliance knows as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows what an operator does with a rack, and judges it from outside.
    Show {
        /// What is shown.
        scenario: Scenario,
        /// Install missing tools from Debian packages (as root).
        #[arg(long)]
        install: bool,
        /// Leave the rack running.
        #[arg(long)]
        keep: bool,
    },
    /// Runs the operator's command line against the rack that is up.
    #[command(disable_help_flag = true)]
    Netboot {
        /// A verb of `netboot` and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Simulates the rack's BMCs; `up` starts it.
    #[command(hide = true)]
    Bmcs,
    /// Runs the tests, all of them unless suites are named.
    Test {
        /// Install missing tools from Debian packages (as root).
        #[arg(long)]
        install: bool,
        /// Run only this suite; may be given more than once.
        #[arg(long, value_name = "SUITE")]
        only: Vec<Suite>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            report(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let workspace = Workspace::find()?;
    let state = State::open(
        &arguments
            .state
            .unwrap_or_else(|| workspace.root.join(".lab")),
    )?;
    let place = up::place(&workspace, &state);
    match arguments.verb {
        Verb::Up {
            install,
            keep,
            hosts,
            json,
            ram,
        } => {
            let request = Request {
                hosts,
                memory: ram,
                install,
                keep,
            };
            let outcome = up::up(&workspace, &state, &request, &Stop::default())?;
            if json {
                println!("{}", serde_json::to_string_pretty(&outcome.hosts)?);
            } else {
                print!("{}", timeline::table(&outcome.slots, &outcome.hosts));
            }
            for problem in &outcome.problems {
                eprintln!("error: {problem}");
            }
            if keep {
                eprintln!(
                    "lab: it stays up; `cargo lab ssh HOST`, `cargo lab console HOST`, `cargo lab down`"
                );
            }
            Ok(if outcome.problems.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Verb::Down => {
            eprintln!("lab: {}", down::summary(down::down(&state)?));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Show {
            scenario,
            install,
            keep,
        } => {
            let shown = show::show(&workspace, &state, scenario, install, keep)?;
            print!("{}", shown.table());
            Ok(if shown.is_good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Verb::Netboot { words } => {
            enter::operator(&state, &place, &words)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Bmcs => {
            bmcs::serve(&state)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Ssh { host, command } => {
            enter::ssh(&state, &place, &host, &command)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Console { host } => {
            enter::console(&state, &host)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Status { json } => {
            let (processes, hosts) = enter::status(&state, &place)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&hosts)?);
            } else {
                print_status(&processes, &hosts);
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Test { install, only } => {
            let tally = suites::run(&workspace, &state, &only, install)?;
            println!("{} passed, {} failed", tally.passed, tally.failed);
            Ok(if tally.failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

fn print_status(processes: &[String], hosts: &[lab::hosts::HostView]) {
    if processes.is_empty() {
        println!("the lab is not up");
    }
    for line in processes {
        println!("{line}");
    }
    for host in hosts {
        let verdict = host
            .boot
            .as_ref()
            .map_or("never booted", |boot| boot.verdict.text.as_str());
        println!("{}: {verdict}", host.name);
    }
}

fn report(error: &(dyn Error + 'static)) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  caused by: {error}");
        cause = error.source();
    }
}
