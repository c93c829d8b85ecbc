//! `netboot audit`: who asked for what, and whether the log was changed since.
//!
//! It refuses to trust the log's own word where an anchor is given.

use clap::{Args, Subcommand};
use netboot_core::Timestamp;

use super::table::Table;
use super::{Exit, Failure, Format, print};
use crate::api::Verification;
use crate::api::client::{Client, Target, block_on};
use crate::audit::{Anchor, Record};

/// Show the audit log, or check that it was not changed.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Audit {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show who asked for what, and what came of it (this is the default).
    List(Show),
    /// Check that no record was edited, removed or put in; names the first that does not fit.
    ///
    /// The end of a log can be cut off unseen, unless an anchor is given: the one that an earlier check printed and that
    /// was kept elsewhere.
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Show {
    /// Only about this object, such as a host.
    #[arg(long)]
    object: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only what came after this number.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Verify {
    /// A place that was written down: `SEQ:sha256:…`.
    #[arg(long)]
    anchor: Option<Anchor>,
    /// Read the data directory itself, without asking a running appliance.
    #[arg(long, requires = "data")]
    offline: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

impl Audit {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.what {
            Some(What::Verify(verify)) => verify.run(),
            Some(What::List(show)) => show.run(),
            None => self.show.run(),
        }
    }
}

impl Show {
    fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let mut path = format!("/v1/audit?limit={}", self.limit);
        if let Some(object) = &self.object {
            path = format!("{path}&object={}", super::query(object));
        }
        if let Some(after) = self.after {
            path = format!("{path}&after={after}");
        }
        let records: Vec<Record> = block_on(async { Ok(client.get(&path).await?) })?;
        if self.format.json {
            for record in &records {
                let json = serde_json::to_string(record).map_err(Failure::new)?;
                print(&(json + "\n"))?;
            }
            return Ok(Exit::Done);
        }
        let mut table = Table::new([
            "seq", "when", "who", "role", "from", "action", "object", "request", "outcome",
        ]);
        for record in records {
            table.row([
                record.seq.to_string(),
                Timestamp(record.at_ms).utc(),
                record.who,
                record.role,
                record.peer.map(|peer| peer.to_string()).unwrap_or_default(),
                record.action,
                record.object,
                record.request.to_string(),
                record.outcome,
            ]);
        }
        print(&table.to_string())?;
        Ok(Exit::Done)
    }
}

impl Verify {
    fn run(self) -> Result<Exit, Failure> {
        let found: Verification = match &self.target.data {
            Some(data) if self.offline => {
                super::block_on(crate::api::verify_store(data, self.anchor.clone()))?
            }
            _ => {
                let client = Client::open(&self.target)?;
                let anchor = self.anchor.as_ref().map(ToString::to_string);
                let query = anchor.map(|anchor| format!("?anchor={}", super::query(&anchor)));
                let path = format!("/v1/audit/verify{}", query.unwrap_or_default());
                block_on(async { Ok(client.get(&path).await?) })?
            }
        };
        if self.format.json {
            let json = serde_json::to_string(&found).map_err(Failure::new)?;
            print(&(json + "\n"))?;
        }
        match (&found.broken, &found.anchor) {
            (Some(broken), _) => Err(Failure::new(broken.clone()).help(
                "compare the log with a backup; what stands before that record is as it was written",
            )),
            (None, anchor) => {
                if !self.format.json {
                    let anchor = anchor.as_deref().unwrap_or_default();
                    print(&format!("{} records, unchanged\nanchor {anchor}\n", found.records))?;
                }
                Ok(Exit::Done)
            }
        }
    }
}
