//! `netboot power`: what the power of hosts is, and what it shall be.
//!
//! It refuses to toggle: what is asked for is a state, and a host that has it is left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::order::{self, Change, Hosts};
use super::table::{self, Table};
use super::{Exit, Failure, Format, print};
use crate::api::client::{Client, ClientError, Target, block_on};
use crate::api::{HostAnswer, PowerOrder};
use crate::operate::Power as Wanted;

/// How often hosts are looked at that are waited for, and for how long: a shutdown takes a minute, a slow BMC another.
const LOOK: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_mins(10);

/// Show or change the power of hosts.
#[derive(Debug, Args)]
pub(super) struct Power {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the power of hosts, as their BMCs said last.
    Status(Status),
    /// Switch hosts on that are off.
    On(Switch),
    /// Switch hosts off, after their systems had the time that their roles give them.
    Off(Off),
    /// Switch hosts off and on, once.
    Cycle(Switch),
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    hosts: Hosts,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Switch {
    #[command(flatten)]
    hosts: Hosts,
    #[command(flatten)]
    change: Change,
    /// Return as soon as it is accepted.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
struct Off {
    #[command(flatten)]
    switch: Switch,
    /// Do not ask the system first.
    #[arg(long)]
    force: bool,
}

/// The power of one host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown<'a> {
    host: &'a str,
    power: Option<&'a str>,
    power_was: Option<&'a str>,
    power_was_ms: Option<u64>,
    bmc: Option<&'a str>,
}

impl Power {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.what {
            What::Status(status) => status.run(),
            What::On(switch) => switch.run(Wanted::On),
            What::Off(Off {
                switch,
                force: false,
            }) => switch.run(Wanted::Off),
            What::Off(Off {
                switch,
                force: true,
            }) => switch.run(Wanted::ForceOff),
            What::Cycle(switch) => switch.run(Wanted::Cycle),
        }
    }
}

impl Status {
    fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let hosts =
            block_on(async { Ok(hosts(&client, &self.hosts.selector()?.to_string()).await?) })?;
        if self.format.json {
            let shown: Vec<Shown<'_>> = hosts.iter().map(shown).collect();
            let json = serde_json::to_string(&shown).map_err(Failure::new)?;
            print(&(json + "\n"))?;
        } else {
            let mut table = Table::new(["host", "power", "bmc"]);
            for host in &hosts {
                table.row([
                    host.name.clone(),
                    table::power(&host.deployment),
                    host.deployment.bmc.clone().unwrap_or_default(),
                ]);
            }
            print(&table.to_string())?;
        }
        Ok(Exit::Done)
    }
}

fn shown(host: &HostAnswer) -> Shown<'_> {
    Shown {
        host: &host.name,
        power: host.deployment.power.as_deref(),
        power_was: host.deployment.power_was.as_deref(),
        power_was_ms: host.deployment.power_was_ms,
        bmc: host.deployment.bmc.as_deref(),
    }
}

impl Switch {
    fn run(self, power: Wanted) -> Result<Exit, Failure> {
        let hosts = self.hosts.selector()?;
        let select = hosts.to_string();
        let order = PowerOrder { hosts, power };
        let client = Client::open(&self.change.target)?;
        block_on(async {
            let accepted = self.change.ask(&client, "/v1/power", &order).await?;
            if !accepted.done || self.no_wait {
                self.change.show(&accepted)?;
                return Ok(Exit::Done);
            }
            eprint!("{}", order::text(&accepted));
            let wanted = match power {
                Wanted::On | Wanted::Cycle => "on",
                Wanted::Off | Wanted::ForceOff => "off",
            };
            let ended = settle(&client, &select, wanted).await?;
            self.show(&ended, wanted)
        })
    }

    fn show(&self, hosts: &[HostAnswer], wanted: &str) -> Result<Exit, Failure> {
        if self.change.format.json {
            let shown: Vec<Shown<'_>> = hosts.iter().map(shown).collect();
            let json = serde_json::to_string(&shown).map_err(Failure::new)?;
            print(&(json + "\n"))?;
        }
        let mut exit = Exit::Done;
        for host in hosts {
            let power = host.deployment.power.as_deref().unwrap_or("unknown");
            if power == wanted {
                eprintln!("{} is {power}", host.name);
                continue;
            }
            exit = Exit::Failed;
            let why = [&host.deployment.bmc, &host.deployment.trouble];
            let why = why.into_iter().flatten().next();
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            eprintln!("{} is {power}, not {wanted}{why}", host.name);
        }
        Ok(exit)
    }
}

/// Waits until hosts are idle, and returns how they are then.
async fn settle(
    client: &Client,
    select: &str,
    wanted: &str,
) -> Result<Vec<HostAnswer>, ClientError> {
    let mut left = LONGEST;
    let mut told = BTreeMap::new();
    loop {
        let hosts = hosts(client, select).await?;
        let mut busy = false;
        for host in &hosts {
            let now = &host.deployment;
            let settled = matches!(now.phase.as_str(), "idle" | "stopped");
            busy |= !settled;
            let power = now.power.clone().unwrap_or_else(|| "unknown".to_owned());
            let state = format!("{}, power {power}", now.phase);
            if !settled && told.insert(host.name.clone(), state.clone()).as_ref() != Some(&state) {
                eprintln!("{}: {state}, wanted {wanted}", host.name);
            }
        }
        if !busy || left.is_zero() {
            return Ok(hosts);
        }
        tokio::time::sleep(LOOK).await;
        left = left.saturating_sub(LOOK);
    }
}

async fn hosts(client: &Client, select: &str) -> Result<Vec<HostAnswer>, ClientError> {
    let path = format!("/v1/hosts?select={}", super::query(select));
    client.get(&path).await
}
