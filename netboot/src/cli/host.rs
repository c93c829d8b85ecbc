//! `netboot host`: one host with the timeline of its newest boot.
//!
//! It refuses to need a running appliance: with `--site` and `--data` it reads the store.

use std::fmt::Write as _;
use std::path::Path;
use std::thread::sleep;

use clap::Args;
use netboot_core::boot::printable;
use netboot_core::site::Site;
use serde_json::json;

use super::table::{self, Table};
use super::timeline::line;
use super::{Exit, FOLLOW, Failure, Format, OfflineSite, block_on, print, query};
use crate::api::HostDetail;
use crate::api::client::{self, Client, Target};
use crate::hosts::{self, BootView, HostView};
use crate::{clock, site};

/// Show one host: its newest boot line by line, and what became of earlier ones.
#[derive(Debug, Args)]
pub(super) struct Host {
    /// Name of the host.
    name: String,
    #[command(flatten)]
    site: OfflineSite,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
    /// Go on: print what is new.
    #[arg(long)]
    follow: bool,
}

impl Host {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match (&self.site.site, &self.target.data) {
            (Some(site), Some(data)) => self.read(&site::load(site)?, data),
            _ => self.ask(),
        }
    }

    /// Asks the appliance.
    fn ask(&self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let path = format!("/v1/hosts/{}", query(&self.name));
        let mut before: Option<HostDetail> = None;
        loop {
            let now: HostDetail = client::block_on(async { Ok(client.get(&path).await?) })?;
            if before.as_ref() != Some(&now) {
                print(&self.answer(&now)?)?;
            }
            if !self.follow {
                return Ok(Exit::Done);
            }
            before = Some(now);
            sleep(FOLLOW);
        }
    }

    fn answer(&self, detail: &HostDetail) -> Result<String, Failure> {
        if self.format.json {
            let json = serde_json::to_string(detail).map_err(Failure::new)?;
            return Ok(json + "\n");
        }
        Ok(answered(detail))
    }

    /// Reads the store.
    fn read(&self, site: &Site, data: &Path) -> Result<Exit, Failure> {
        let Some(host) = site.host(&self.name) else {
            let known: Vec<&str> = site.hosts().map(|host| &*host.name).collect();
            return Err(
                Failure::new(format!("site `{}` has no host `{}`", site.name, self.name))
                    .help(format!("its hosts are: {}", known.join(", "))),
            );
        };
        let mut before = None;
        loop {
            let read = hosts::read_one(site, host, data, clock::now());
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

fn answered(detail: &HostDetail) -> String {
    let host = &detail.host;
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let now = &host.deployment;
    let mut text = format!(
        "host        {}\nmac         {}\naddress     {}\nrole        {}\nimage       {}\npower       {}\ndeployment  {}\n",
        host.name,
        or_dash(&host.mac),
        or_dash(&host.address),
        host.role,
        host.image,
        printable(&match &now.bmc {
            Some(problem) => format!("{}: {problem}", table::power(now)),
            None => table::power(now),
        }),
        printable(&match &now.trouble {
            Some(trouble) => format!("{}: {trouble}", now.phase),
            None => now.phase.clone(),
        }),
    );
    if let Some(one) = detail.generations.iter().find(|one| one.desired) {
        let line = format!(
            "{} {} ({}, {})",
            one.number, one.image, one.reason, one.outcome
        );
        writeln!(text, "generation  {}", printable(&line)).ok();
    }
    for drift in &now.drift {
        writeln!(text, "drift       {}", printable(drift)).ok();
    }
    let Some(boot) = &host.boot else {
        text.push_str("verdict     silent: no packet of this host was seen\n");
        return text;
    };
    writeln!(text, "boot        {}", boot.id).ok();
    if let Some(tree) = &boot.tree {
        writeln!(text, "tree        {tree}").ok();
    }
    writeln!(
        text,
        "verdict     {}: {}\n",
        boot.state,
        printable(&boot.verdict)
    )
    .ok();
    for event in &detail.events {
        text.push_str(&line(boot.started_ms, event));
    }
    text
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
