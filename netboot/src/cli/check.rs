//! `netboot check`: reads a site and tells everything that is wrong with it.
//!
//! It refuses to change anything.

use std::path::PathBuf;

use clap::Args;
use image_manifest::layout::Layout;
use serde_json::json;

use super::report::chain;
use super::{Exit, Failure, Format, SiteDirectory};
use crate::{images, site};

/// Check a site, and that the store holds what it needs.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    site: SiteDirectory,
    /// Directory with the images: an OCI image layout.
    #[arg(long, value_name = "DIR", env = "NETBOOT_STORE")]
    store: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

impl Check {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let site = match site::load(&self.site.site) {
            Ok(site) => site,
            Err(site::SiteError::Wrong { problems, .. }) if self.format.json => {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                println!("{}", json!({ "problems": problems }));
                return Ok(Exit::Configuration);
            }
            Err(error) => return Err(error.into()),
        };
        let mut problems = Vec::new();
        if let Some(store) = &self.store {
            let missing = Layout::open(store)
                .and_then(|layout| images::check(&site, &layout))
                .map_err(|error| {
                    Failure::new(error)
                        .exit(Exit::Configuration)
                        .help("build images into it with `imagebuild build images/… --store …`")
                })?;
            problems.extend(missing.iter().map(|missing| chain(missing)));
        }
        if self.format.json {
            let summary = json!({
                "site": &*site.name,
                "networks": site.networks.len(),
                "roles": site.roles.len(),
                "hosts": site.hosts().count(),
                "problems": problems,
            });
            println!("{summary}");
        } else {
            println!(
                "site `{}`: {} networks, {} roles, {} hosts",
                site.name,
                site.networks.len(),
                site.roles.len(),
                site.hosts().count()
            );
        }
        if problems.is_empty() {
            return Ok(Exit::Done);
        }
        for problem in &problems {
            eprintln!("error: {problem}");
        }
        eprintln!("  help: build what is missing with `imagebuild build images/… --store …`");
        Ok(Exit::Configuration)
    }
}
