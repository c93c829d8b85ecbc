//! `netboot history`: the generations of a host.
//!
//! It refuses to forget failures: they are listed with their reasons.

use clap::Args;
use netboot_core::Timestamp;

use super::table::{Table, millis};
use super::{Exit, Failure, Format, print};
use crate::api::client::{Client, Target, block_on};
use crate::operate::GenerationView;

/// Show what was deployed to a host, by whom, and what became of it; newest first.
#[derive(Debug, Args)]
pub(super) struct History {
    /// Name of the host.
    host: String,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

impl History {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let path = format!("/v1/hosts/{}/history", super::query(&self.host));
        let generations: Vec<GenerationView> = block_on(async { Ok(client.get(&path).await?) })?;
        if self.format.json {
            let json = serde_json::to_string(&generations).map_err(Failure::new)?;
            print(&(json + "\n"))?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new([
            "",
            "generation",
            "image",
            "tree",
            "when",
            "by",
            "reason",
            "outcome",
            "took",
            "why",
        ]);
        for one in generations {
            table.row([
                if one.desired {
                    "*".to_owned()
                } else {
                    " ".to_owned()
                },
                one.number.to_string(),
                one.image,
                one.tree
                    .trim_start_matches("sha256:")
                    .chars()
                    .take(12)
                    .collect(),
                Timestamp(one.created_ms).utc(),
                one.by,
                one.reason,
                one.outcome,
                one.took_ms.map(millis).unwrap_or_default(),
                one.why.unwrap_or_default(),
            ]);
        }
        print(&table.to_string())?;
        Ok(Exit::Done)
    }
}
