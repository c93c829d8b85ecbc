//! `netboot events`: what happened.
//!
//! It refuses to invent order: events are numbered by the appliance.

use clap::Args;
use netboot_core::Timestamp;
use netboot_core::boot::printable;

use super::{Exit, Failure, Format, follow, print};
use crate::api::client::{Client, Target, block_on};
use crate::operate::EventView;

/// Show what happened to hosts, rollouts and the site.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Only about this: a host, `rollout/ID` or `site`.
    subject: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on: print what happens.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

impl Events {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let subject = self.subject.as_deref();
        let about = subject.map(|subject| format!("&subject={}", super::query(subject)));
        let path = format!(
            "/v1/events?limit={}{}",
            self.limit,
            about.unwrap_or_default()
        );
        block_on(async {
            let events: Vec<EventView> = client.get(&path).await?;
            self.show(&events)?;
            if !self.follow {
                return Ok(Exit::Done);
            }
            let mut after = match events.last() {
                Some(event) => event.seq,
                None => follow::newest_event(&client).await?,
            };
            loop {
                let events = follow::events(&client, after).await?;
                after = events.last().map_or(after, |event| event.seq);
                self.show(&events)?;
            }
        })
    }

    fn show(&self, events: &[EventView]) -> Result<(), Failure> {
        let subject = self.subject.as_deref();
        for event in events
            .iter()
            .filter(|event| subject.is_none_or(|subject| event.subject == subject))
        {
            let line = if self.format.json {
                serde_json::to_string(event).map_err(Failure::new)?
            } else {
                let at = Timestamp(event.at_ms).utc();
                format!(
                    "{at}  {:<16}  {:<16}  {}",
                    event.subject,
                    event.kind,
                    printable(&event.text)
                )
            };
            print(&(line + "\n"))?;
        }
        Ok(())
    }
}
