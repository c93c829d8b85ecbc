//! `netboot rollout`: a deployment over many hosts, in batches, that stops when it goes wrong.
//!
//! It refuses to run anything itself: the appliance goes on when this command has ended.

use std::time::Duration;

use clap::{Args, Subcommand};
use netboot_core::Timestamp;
use netboot_core::boot::printable;

use super::deploy::{Image, image};
use super::order::{Change, Hosts, text};
use super::table::Table;
use super::token::span;
use super::{Exit, Failure, Format, follow, print};
use crate::api::client::{Client, ClientError, Target, block_on};
use crate::operate::{Control, DeployOrder, Pace, RolloutOrder, RolloutView};

/// Deploy to many hosts: a canary first, then batches; stop when too many fail.
#[derive(Debug, Args)]
pub(super) struct Rollout {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Begin a rollout.
    Start(Start),
    /// Show rollouts, or one with all its hosts.
    Status(Status),
    /// Take no further host for now.
    Pause(Told),
    /// Go on.
    Resume(Told),
    /// Take no further host for good.
    Halt(Told),
    /// Roll back what was touched.
    Undo(Told),
}

#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    hosts: Hosts,
    /// The image; that of each host's role and environment without it.
    #[arg(long, value_name = "NAME[@sha256:…]", value_parser = image)]
    image: Option<Image>,
    /// Boot hosts anew that run it already.
    #[arg(long)]
    again: bool,
    /// How many hosts go first, alone; one without it.
    #[arg(long, value_name = "N")]
    canary: Option<u32>,
    /// How many hosts a batch has: `5` or `20%`; a fifth of all without it.
    #[arg(long, value_name = "N|N%")]
    batch: Option<String>,
    /// How many hosts are deployed at the same time, at most; what the site's limits say without it.
    #[arg(long, value_name = "N")]
    at_once: Option<u32>,
    /// How many of one rack, at most; what the site's limits say without it.
    #[arg(long, value_name = "N")]
    at_once_per_rack: Option<u32>,
    /// With how many failed hosts it halts, one without it; a failed canary halts it at once.
    #[arg(long, value_name = "N")]
    max_failures: Option<u32>,
    /// How long a batch stays as it is before the next one begins, such as `10m`; not at all without it.
    #[arg(long, value_name = "TIME", value_parser = span)]
    soak: Option<Duration>,
    /// Stay, and print what happens, until it has ended.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Status {
    /// Its id.
    id: Option<String>,
    /// Stay, and print what happens, until it has ended.
    #[arg(long, requires = "id")]
    follow: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Told {
    /// Its id.
    id: String,
    #[command(flatten)]
    change: Change,
}

impl Rollout {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.what {
            What::Start(start) => start.run(),
            What::Status(status) => status.run(),
            What::Pause(told) => told.run(Control::Pause),
            What::Resume(told) => told.run(Control::Resume),
            What::Halt(told) => told.run(Control::Halt),
            What::Undo(told) => told.run(Control::Undo),
        }
    }
}

impl Start {
    fn run(self) -> Result<Exit, Failure> {
        let (image, digest) = match self.image {
            Some(image) => (Some(image.name), image.digest),
            None => (None, None),
        };
        let order = RolloutOrder {
            deploy: DeployOrder {
                hosts: self.hosts.selector()?,
                image,
                digest,
                again: self.again,
            },
            pace: Pace {
                canary: self.canary,
                batch: self.batch,
                at_once: self.at_once,
                at_once_per_rack: self.at_once_per_rack,
                max_failures: self.max_failures,
                soak_seconds: self.soak.map(|soak| soak.as_secs()),
            },
        };
        let client = Client::open(&self.change.target)?;
        block_on(async {
            let before = follow::newest_event(&client).await?;
            let accepted = self.change.ask(&client, "/v1/rollouts", &order).await?;
            match &accepted.id {
                Some(id) if accepted.done && self.follow => {
                    eprint!("{}", text(&accepted));
                    attend(&client, id, before, self.change.format).await
                }
                _ => {
                    self.change.show(&accepted)?;
                    Ok(Exit::Done)
                }
            }
        })
    }
}

impl Status {
    fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        block_on(async {
            let Some(id) = &self.id else {
                let rollouts: Vec<RolloutView> = client.get("/v1/rollouts").await?;
                return self.list(&rollouts);
            };
            if self.follow {
                let before = follow::newest_event(&client).await?;
                return attend(&client, id, before, self.format).await;
            }
            let rollout = rollout(&client, id).await?;
            show(&rollout, self.format)?;
            Ok(Exit::Done)
        })
    }

    fn list(&self, rollouts: &[RolloutView]) -> Result<Exit, Failure> {
        if self.format.json {
            let json = serde_json::to_string(rollouts).map_err(Failure::new)?;
            print(&(json + "\n"))?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new(["id", "image", "by", "began", "hosts", "state", "why"]);
        for rollout in rollouts {
            table.row([
                rollout.id.clone(),
                rollout.image.clone(),
                rollout.by.clone(),
                Timestamp(rollout.began_ms).utc(),
                rollout.hosts.len().to_string(),
                rollout.state.clone(),
                rollout.why.clone().unwrap_or_default(),
            ]);
        }
        print(&table.to_string())?;
        Ok(Exit::Done)
    }
}

impl Told {
    fn run(self, control: Control) -> Result<Exit, Failure> {
        let word = match control {
            Control::Pause => "pause",
            Control::Resume => "resume",
            Control::Halt => "halt",
            Control::Undo => "undo",
        };
        let path = format!("/v1/rollouts/{}/{word}", super::query(&self.id));
        self.change.run(&path, &serde_json::json!({}))
    }
}

/// Prints what happens until a rollout has ended; ends with 1 when it did not bring all hosts there.
async fn attend(
    client: &Client,
    id: &str,
    mut after: u64,
    format: Format,
) -> Result<Exit, Failure> {
    let subject = format!("rollout/{id}");
    loop {
        let now = rollout(client, id).await?;
        let under_way = |state: &str| matches!(state, "deploying" | "undoing");
        let over = matches!(now.state.as_str(), "done" | "halted" | "undone");
        // A halted one takes no further host, but those that it took come to their ends.
        if over && !now.hosts.iter().any(|host| under_way(&host.state)) {
            show(&now, format)?;
            let well = now.hosts.iter().all(|host| host.state == "healthy");
            return Ok(if now.state == "done" && well {
                Exit::Done
            } else {
                Exit::Failed
            });
        }
        for event in follow::events(client, after).await? {
            after = after.max(event.seq);
            let about =
                event.subject == subject || now.hosts.iter().any(|host| host.host == event.subject);
            if about {
                follow::narrate(&event);
            }
        }
    }
}

async fn rollout(client: &Client, id: &str) -> Result<RolloutView, ClientError> {
    let path = format!("/v1/rollouts/{}", super::query(id));
    follow::patiently(|| client.get(&path)).await
}

fn show(rollout: &RolloutView, format: Format) -> Result<(), Failure> {
    if format.json {
        let json = serde_json::to_string(rollout).map_err(Failure::new)?;
        return print(&(json + "\n"));
    }
    let why = rollout
        .why
        .as_ref()
        .map(|why| format!(": {}", printable(why)));
    print(&format!(
        "rollout  {}\nimage    {}\nstate    {}{}\n\n",
        rollout.id,
        rollout.image,
        rollout.state,
        why.unwrap_or_default()
    ))?;
    let mut table = Table::new(["batch", "host", "state", "why"]);
    for host in &rollout.hosts {
        let batch = match host.batch {
            0 => "canary".to_owned(),
            batch => batch.to_string(),
        };
        let why = host.why.clone().unwrap_or_default();
        table.row([batch, host.host.clone(), host.state.clone(), why]);
    }
    print(&table.to_string())
}
