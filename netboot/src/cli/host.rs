//! `netboot host`: one host with the timeline of its newest boot.
//!
//! It refuses to need a running appliance: it reads the store.

use std::fmt::Write as _;
use std::thread::sleep;

use clap::Args;
use netboot_core::boot::printable;
use serde_json::json;

use super::table::{self, Table};
use super::timeline::line;
use super::{DataDirectory, Exit, FOLLOW, Failure, Format, SiteDirectory, block_on, print};
use crate::hosts::{self, BootView, HostView};
use crate::{clock, site};

/// Show one host: its newest boot line by line, and what became of earlier ones.
#[derive(Debug, Args)]
pub(super) struct Host {
    /// Name of the host.
    name: String,
    #[command(flatten)]
    site: SiteDirectory,
    #[command(flatten)]
    data: DataDirectory,
    #[command(flatten)]
    format: Format,
    /// Go on: print what is new.
    #[arg(long)]
    follow: bool,
}

impl Host {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let site = site::load(&self.site.site)?;
        let Some(host) = site.host(&self.name) else {
            let known: Vec<&str> = site.hosts().map(|host| &*host.name).collect();
            return Err(
                Failure::new(format!("site `{}` has no host `{}`", site.name, self.name))
                    .help(format!("its hosts are: {}", known.join(", "))),
            );
        };
        let mut before = None;
        loop {
            let read = hosts::read_one(&site, host, &self.data.data, clock::now());
            let now = block_on(read)?;
            match &before {
                Some(before) if *before == now => {}
                Some((_, earlier)) if !self.format.json => print(&news(earlier, &now.1))?,
                _ => print(&self.show(&now.0, &now.1)?)?,
            }
            if !self.follow {
                return Ok(Exit::Done);
            }
            before = Some(now);
            sleep(FOLLOW);
        }
    }

    fn show(&self, host: &HostView, boots: &[BootView]) -> Result<String, Failure> {
        if !self.format.json {
            return Ok(text(host, boots));
        }
        let events = |boot: &BootView| json!(boot.events);
        let answer = json!({
            "host": host,
            "events": boots.first().map(events),
            "earlier": boots.get(1..).unwrap_or_default(),
        });
        let json = serde_json::to_string(&answer).map_err(Failure::new)?;
        Ok(json + "\n")
    }
}

fn text(host: &HostView, boots: &[BootView]) -> String {
    let mut text = format!(
        "host     {}\nmac      {}\naddress  {}\nrole     {}\nimage    {}\n",
        host.name,
        host.mac.map_or("-".to_owned(), |mac| mac.to_string()),
        host.address
            .map_or("-".to_owned(), |address| address.to_string()),
        host.role,
        host.image,
    );
    let Some((boot, earlier)) = boots.split_first() else {
        text.push_str("verdict  silent: no packet of this host was seen\n");
        return text;
    };
    writeln!(text, "boot     {}", boot.id).ok();
    if let Some(tree) = boot.tree {
        writeln!(text, "tree     {tree}").ok();
    }
    text.push_str(&verdict(boot));
    text.push('\n');
    for event in &boot.events {
        text.push_str(&line(boot.started_ms, event));
    }
    if !earlier.is_empty() {
        let mut table = Table::new(["earlier boot", "sent", "state", "verdict"]);
        for boot in earlier {
            table.row([
                boot.id.clone(),
                table::bytes(boot.bytes),
                boot.verdict.state.label().to_owned(),
                boot.verdict.text.clone(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.to_string());
    }
    text
}

fn verdict(boot: &BootView) -> String {
    let verdict = &boot.verdict;
    let text = printable(&verdict.text);
    format!("verdict  {}: {text}\n", verdict.state.label())
}

/// Returns what happened since the last look; an event that changed in place is shown again.
fn news(before: &[BootView], now: &[BootView]) -> String {
    let Some(boot) = now.first() else {
        return String::new();
    };
    let seen = before.first().filter(|before| before.id == boot.id);
    let mut text = String::new();
    if seen.is_none() {
        writeln!(text, "boot     {}", boot.id).ok();
    }
    for (index, event) in boot.events.iter().enumerate() {
        if seen.and_then(|seen| seen.events.get(index)) != Some(event) {
            text.push_str(&line(boot.started_ms, event));
        }
    }
    if seen.is_none_or(|seen| seen.verdict.state != boot.verdict.state) {
        text.push_str(&verdict(boot));
    }
    text
}
