//! `netboot hosts`: all hosts of a site and how their newest boots go.
//!
//! It refuses to need a running appliance: it reads the store.

use std::thread::sleep;

use clap::Args;
use netboot_core::site::Site;

use super::table::{self, Table};
use super::{DataDirectory, Exit, FOLLOW, Failure, Format, SiteDirectory, block_on, print};
use crate::hosts::{self, BootView, HostView};
use crate::{clock, site};

/// List all hosts with the verdict of their newest boot.
#[derive(Debug, Args)]
pub(super) struct Hosts {
    #[command(flatten)]
    site: SiteDirectory,
    #[command(flatten)]
    data: DataDirectory,
    #[command(flatten)]
    format: Format,
    /// Go on: print again whenever something has changed.
    #[arg(long)]
    follow: bool,
}

impl Hosts {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let site = site::load(&self.site.site)?;
        let mut before = Vec::new();
        loop {
            let hosts = block_on(hosts::read(&site, &self.data.data, clock::now()))?;
            if hosts != before {
                print(&self.show(&site, &hosts)?)?;
            }
            if !self.follow {
                return Ok(Exit::Done);
            }
            before = hosts;
            sleep(FOLLOW);
        }
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
