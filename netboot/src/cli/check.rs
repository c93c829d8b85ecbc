//! `netboot check`: reads a site and tells everything that is wrong with it.
//!
//! It refuses to change anything.

use std::path::{Path, PathBuf};

use clap::Args;
use image_manifest::layout::Layout;
use netboot_core::site::Site;
use serde_json::json;

use super::report::chain;
use super::{Exit, Failure, Format, SiteDirectory};
use crate::secrets::{Reason, Secrets};
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
        let mut problems = exposed(&site, &self.site.site);
        let unsafe_secrets = !problems.is_empty();
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
        let advice: Vec<String> = site.advice.iter().map(ToString::to_string).collect();
        let bmcs = site.hosts().filter(|host| host.bmc.is_some()).count();
        if self.format.json {
            let summary = json!({
                "site": &*site.name,
                "networks": site.networks.len(),
                "roles": site.roles.len(),
                "environments": site.environments.len(),
                "hosts": site.hosts().count(),
                "bmcs": bmcs,
                "advice": advice,
                "problems": problems,
            });
            println!("{summary}");
        } else {
            for advice in &advice {
                eprintln!("note: {advice}");
            }
            println!(
                "site `{}`: {} networks, {} roles, {} hosts, {bmcs} with a BMC",
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
        if !unsafe_secrets {
            eprintln!("  help: build what is missing with `imagebuild build images/… --store …`");
        }
        Ok(Exit::Configuration)
    }
}

/// Finds secrets in the clear that others may read. One that is not here may be on the appliance.
fn exposed(site: &Site, directory: &Path) -> Vec<String> {
    let secrets = Secrets::beside(directory);
    let plain = site
        .secrets
        .iter()
        .filter(|(_, source)| source.site_file().is_some() && !source.is_sealed());
    plain
        .filter_map(|(name, _)| match secrets.bytes(site, name) {
            Err(error) if !matches!(error.reason, Reason::Read { .. }) => {
                let location = site.places.secrets.get(name)?;
                Some(format!("{location}: {}", chain(&error)))
            }
            _ => None,
        })
        .collect()
}
