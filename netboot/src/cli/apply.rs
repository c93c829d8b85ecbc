//! `netboot apply`: makes a site directory the site that is served, after showing what changes.
//!
//! It refuses to overwrite what somebody else applied after the plan was shown.

use clap::Args;
use hyper::Method;

use super::plan::{ask, show};
use super::{Exit, Failure, Format, SiteDirectory};
use crate::api::client::{Client, Target, block_on};
use crate::site::{ApplyRequest, Files, Plan};

/// Make a site directory the site that is served.
#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    site: SiteDirectory,
    #[command(flatten)]
    target: Target,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

impl Apply {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (files, _) = Files::read(&self.site.site)?;
        let client = Client::open(&self.target)?;
        block_on(async {
            let plan = ask(&client, &files).await?;
            show(&plan, self.format)?;
            if !self.dry_run {
                let request = ApplyRequest {
                    site: files.upload(),
                    expect: Some(plan.from),
                };
                let done: Plan = client
                    .send(Method::POST, "/v1/site", None, &request)
                    .await?;
                eprintln!("the appliance serves {}", done.to);
            }
            Ok(Exit::Done)
        })
    }
}
