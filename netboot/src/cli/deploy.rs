//! `netboot deploy`: puts an image on hosts, and waits until they say that they are well.
//!
//! It refuses to end well before the hosts said so, unless it is told not to wait.

use clap::Args;
use image_manifest::Digest;
use serde::Serialize;

use super::follow::{self, Ended};
use super::order::{Change, Hosts, text};
use super::{Exit, Failure, print};
use crate::api::client::{Client, block_on};
use crate::operate::{Accepted, DeployOrder};

/// Put an image on hosts: power off, boot from the network once, power on, wait for health.
///
/// A host that does not say in time that it is healthy is rolled back by itself. Ends with 1 when a host failed.
#[derive(Debug, Args)]
pub(super) struct Deploy {
    #[command(flatten)]
    hosts: Hosts,
    /// The image; that of each host's role and environment without it.
    #[arg(long, value_name = "NAME[@sha256:…]", value_parser = image)]
    image: Option<Image>,
    /// Boot hosts anew that run it already.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    change: Change,
}

/// Whether to wait for the end.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Wait {
    /// Wait until all hosts have come to an end (this is the default).
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as it is accepted.
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

/// An image on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) digest: Option<Digest>,
}

/// Reads `NAME` or `NAME@sha256:…`.
pub(super) fn image(text: &str) -> Result<Image, String> {
    let (name, digest) = match text.split_once('@') {
        None => (text, None),
        Some((name, digest)) => {
            let digest = digest
                .parse::<Digest>()
                .map_err(|error| error.to_string())?;
            (name, Some(digest))
        }
    };
    if name.is_empty() {
        return Err("an image has a name".to_owned());
    }
    let name = name.to_owned();
    Ok(Image { name, digest })
}

impl Deploy {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (image, digest) = match self.image {
            Some(image) => (Some(image.name), image.digest),
            None => (None, None),
        };
        let order = DeployOrder {
            hosts: self.hosts.selector()?,
            image,
            digest,
            again: self.again,
        };
        ask_and_wait(&self.change, self.wait, "/v1/deploy", &order)
    }
}

/// What `--json` prints of an order that was waited for.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    accepted: &'a Accepted,
    ended: &'a [Ended],
}

/// Hands an order in and waits for its end.
pub(super) fn ask_and_wait(
    change: &Change,
    wait: Wait,
    path: &str,
    order: &impl Serialize,
) -> Result<Exit, Failure> {
    let client = Client::open(&change.target)?;
    block_on(async {
        let before = follow::newest_event(&client).await?;
        let accepted = change.ask(&client, path, order).await?;
        if !accepted.done || wait.no_wait {
            change.show(&accepted)?;
            return Ok(Exit::Done);
        }
        eprint!("{}", text(&accepted));
        let ended = follow::wait(&client, &accepted, before).await?;
        if change.format.json {
            let report = Report {
                accepted: &accepted,
                ended: &ended,
            };
            let json = serde_json::to_string(&report).map_err(Failure::new)?;
            print(&(json + "\n"))?;
        } else {
            let lines = ended.iter().map(|end| follow::line(end) + "\n");
            print(&lines.collect::<String>())?;
        }
        Ok(if ended.iter().all(Ended::is_well) {
            Exit::Done
        } else {
            Exit::Failed
        })
    })
}
