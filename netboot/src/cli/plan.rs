//! `netboot plan`: what applying a site directory would change, and what follows from it.
//!
//! It refuses to change anything.

use clap::Args;
use hyper::Method;

use super::{Exit, Failure, Format, SiteDirectory, print};
use crate::api::client::{Client, Target, block_on};
use crate::site::{Files, Plan};

/// Show what applying a site would change.
#[derive(Debug, Args)]
pub(super) struct PlanVerb {
    #[command(flatten)]
    site: SiteDirectory,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

impl PlanVerb {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (files, _) = Files::read(&self.site.site)?;
        let client = Client::open(&self.target)?;
        let plan = block_on(ask(&client, &files))?;
        show(&plan, self.format)?;
        Ok(Exit::Done)
    }
}

/// Asks the appliance what a site would change.
pub(super) async fn ask(client: &Client, files: &Files) -> Result<Plan, Failure> {
    let upload = files.upload();
    let plan = client.send(Method::POST, "/v1/site/plan", None, &upload);
    Ok(plan.await?)
}

/// Prints a plan: the difference is data, advice is narration.
pub(super) fn show(plan: &Plan, format: Format) -> Result<(), Failure> {
    for advice in &plan.advice {
        eprintln!("note: {advice}");
    }
    if format.json {
        let text = serde_json::to_string(plan).map_err(Failure::new)?;
        return print(&format!("{text}\n"));
    }
    if plan.empty {
        eprintln!("nothing changes");
    }
    print(&plan.difference.to_string())
}
