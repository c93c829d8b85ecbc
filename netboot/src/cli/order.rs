//! What all verbs that change hosts have in common: how they ask, and how they show the plan.
//!
//! It refuses to plan: what `--dry-run` prints is the appliance's answer.

use std::fmt::Write as _;

use clap::Args;
use hyper::Method;
use netboot_core::boot::printable;
use netboot_core::selector::Selector;
use serde::Serialize;

use super::{Exit, Failure, Format, print};
use crate::api::client::{Client, ClientError, Target};
use crate::operate::Accepted;

/// Which hosts.
#[derive(Clone, Debug, Args)]
pub(super) struct Hosts {
    /// Hosts: `web1`, `role=web`, `rack=r1`, `environment=…`, `label.KEY=…`, several with `,` between, or `all`. Several
    /// words select what any of them selects.
    #[arg(value_name = "HOSTS", required = true)]
    words: Vec<String>,
}

impl Hosts {
    pub(super) fn selector(&self) -> Result<Selector, Failure> {
        Selector::of(&self.words).map_err(|error| Failure::new(error).exit(Exit::Usage))
    }
}

/// How a change is asked for.
#[derive(Clone, Debug, Args)]
pub(super) struct Change {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) format: Format,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Touch protected hosts too, and more hosts than the site's limits allow.
    #[arg(long)]
    override_limits: bool,
    /// Names this request: repeated with the same key, it is done once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Change {
    /// Hands an order in.
    pub(super) async fn ask(
        &self,
        client: &Client,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Accepted, ClientError> {
        let mut query = Vec::new();
        if self.dry_run {
            query.push("dry-run=true");
        }
        if self.override_limits {
            query.push("override-limits=true");
        }
        let path = match query.join("&") {
            query if query.is_empty() => path.to_owned(),
            query => format!("{path}?{query}"),
        };
        let key = self.idempotency_key.as_deref();
        client.send(Method::POST, &path, key, body).await
    }

    /// Hands an order in, and shows what was accepted; for verbs that do not wait.
    pub(super) fn run(&self, path: &str, body: &impl Serialize) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let accepted =
            crate::api::client::block_on(async { Ok(self.ask(&client, path, body).await?) })?;
        self.show(&accepted)?;
        Ok(Exit::Done)
    }

    /// Prints what was accepted.
    pub(super) fn show(&self, accepted: &Accepted) -> Result<(), Failure> {
        if self.format.json {
            let json = serde_json::to_string(accepted).map_err(Failure::new)?;
            return print(&(json + "\n"));
        }
        print(&text(accepted))
    }
}

/// Writes a plan as people read it.
pub(super) fn text(accepted: &Accepted) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for host in &accepted.hosts {
        let line = match (&host.from, &host.to) {
            (Some(from), Some(to)) => format!("{}: {from} -> {to}", host.host),
            (None, Some(to)) => format!("{}: {to}", host.host),
            _ => host.host.clone(),
        };
        writeln!(text, "{}", printable(&line)).ok();
        for step in &host.steps {
            writeln!(text, "  {}", printable(step)).ok();
        }
    }
    for note in &accepted.notes {
        writeln!(text, "note: {}", printable(note)).ok();
    }
    match (&accepted.id, accepted.done) {
        (_, false) => writeln!(text, "nothing was done: this was a dry run").ok(),
        (Some(id), true) => writeln!(text, "accepted as {id}").ok(),
        (None, true) => None,
    };
    text
}
