//! `netboot hosts`: all hosts of a site, how their newest boots go, and what is under way with them.
//!
//! It refuses to need a running appliance: with `--site` and `--data` it reads the store.

use std::path::Path;
use std::thread::sleep;

use clap::Args;
use netboot_core::site::Site;

use super::table::{self, Table};
use super::{Exit, FOLLOW, Failure, Format, OfflineSite, block_on, print, query};
use crate::api::HostAnswer;
use crate::api::client::{self, Client, Target};
use crate::hosts::{self, BootView, HostView};
use crate::{clock, site};

/// Characters of a cell: a rack stays readable on a screen, and `netboot host` has the whole text.
const CELL: usize = 44;

/// List all hosts with the verdict of their newest boot; long texts are cut, `netboot host` has them whole.
#[derive(Debug, Args)]
pub(super) struct Hosts {
    /// Only these: `web1`, `role=web`, `rack=r1`, `environment=…`, `label.KEY=…`, several with `,` between.
    #[arg(value_name = "HOSTS", conflicts_with = "site")]
    words: Vec<String>,
    #[command(flatten)]
    site: OfflineSite,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
    /// Go on: print again whenever something has changed.
    #[arg(long)]
    follow: bool,
}

impl Hosts {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match (&self.site.site, &self.target.data) {
            (Some(site), Some(data)) => self.read(&site::load(site)?, data),
            _ => self.ask(),
        }
    }

    /// Reads the store.
    fn read(&self, site: &Site, data: &Path) -> Result<Exit, Failure> {
        let mut before = Vec::new();
        loop {
            let hosts = block_on(hosts::read(site, data, clock::now()))?;
            if hosts != before {
                print(&self.show(site, &hosts)?)?;
            }
            if !self.follow {
                return Ok(Exit::Done);
            }
            before = hosts;
            sleep(FOLLOW);
        }
    }

    /// Asks the appliance.
    fn ask(&self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let path = match self.words.as_slice() {
            [] => "/v1/hosts".to_owned(),
            words => format!("/v1/hosts?select={}", query(&words.join(" "))),
        };
        let mut before = Vec::new();
        loop {
            let hosts: Vec<HostAnswer> = client::block_on(async { Ok(client.get(&path).await?) })?;
            if hosts != before {
                print(&self.answer(&hosts)?)?;
            }
            if !self.follow {
                return Ok(Exit::Done);
            }
            before = hosts;
            sleep(FOLLOW);
        }
    }

    fn answer(&self, hosts: &[HostAnswer]) -> Result<String, Failure> {
        if self.format.json {
            let json = serde_json::to_string(hosts).map_err(Failure::new)?;
            return Ok(json + "\n");
        }
        let mut table = Table::new([
            "host",
            "address",
            "role",
            "generation",
            "deployment",
            "power",
            "state",
            "verdict",
            "drift",
        ]);
        for host in hosts {
            table.row(answered(host));
        }
        Ok(table.to_string())
    }

    fn show(&self, site: &Site, hosts: &[HostView]) -> Result<String, Failure> {
        if self.format.json {
            let json = serde_json::to_string(hosts).map_err(Failure::new)?;
            return Ok(json + "\n");
        }
        if hosts.is_empty() {
            return Ok(format!("site `{}` has no hosts\n", site.name));
        }
        let mut table = Table::new([
            "host", "address", "role", "firmware", "loader", "boot", "sent", "state", "verdict",
        ]);
        for host in hosts {
            table.row(row(host));
        }
        Ok(table.to_string())
    }
}

fn answered(host: &HostAnswer) -> [String; 9] {
    let now = &host.deployment;
    let boot = host.boot.as_ref();
    let deployment = match &now.trouble {
        Some(trouble) => format!("{}: {trouble}", now.phase),
        None => now.phase.clone(),
    };
    let power = now.power.as_deref().unwrap_or("no BMC");
    let power = match &now.bmc {
        Some(problem) => format!("{power}: {problem}"),
        None => power.to_owned(),
    };
    [
        host.name.clone(),
        host.address.clone().unwrap_or_default(),
        host.role.clone(),
        now.generation
            .map(|number| number.to_string())
            .unwrap_or_default(),
        table::short(&deployment, CELL),
        table::short(&power, CELL),
        boot.map_or("silent", |boot| &boot.state).to_owned(),
        table::short(boot.map_or("never seen", |boot| &boot.verdict), CELL),
        table::short(&now.drift.join("; "), CELL),
    ]
}

fn row(host: &HostView) -> [String; 9] {
    let boot = host.boot.as_ref();
    let verdict = boot.map(|boot| &boot.verdict);
    [
        host.name.clone(),
        host.address
            .map(|address| address.to_string())
            .unwrap_or_default(),
        host.role.clone(),
        host.firmware.unwrap_or_default().to_owned(),
        host.loader.clone().unwrap_or_default(),
        boot.map(took).unwrap_or_default(),
        boot.map(|boot| table::bytes(boot.bytes))
            .unwrap_or_default(),
        verdict
            .map_or("silent", |verdict| verdict.state.label())
            .to_owned(),
        verdict
            .map_or("never seen", |verdict| &verdict.text)
            .to_owned(),
    ]
}

/// Returns how long a boot took until its last stage began.
fn took(boot: &BootView) -> String {
    let last = boot.stages.last();
    last.map(|stage| table::millis(stage.at_ms))
        .unwrap_or_default()
}
