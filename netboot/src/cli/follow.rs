//! Follows deployments to their ends.
//!
//! It refuses to judge: a generation's outcome is what the appliance says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netboot_core::Timestamp;
use netboot_core::boot::printable;
use serde::Serialize;

use super::table::millis;
use crate::api::HostDetail;
use crate::api::client::{Client, ClientError};
use crate::operate::{Accepted, EventView};

/// How long one question for events waits.
const WAIT_SECONDS: u64 = 5;

/// After how many such questions hosts are looked at that nothing was heard of.
const QUIET_ROUNDS: u32 = 3;

/// How often it is asked again while the appliance is away, and how long between: it may be restarted meanwhile.
const RETRIES: u32 = 24;
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What became of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Ended {
    /// The host.
    pub(super) host: String,
    /// The generation that was asked for.
    pub(super) generation: u32,
    /// Its outcome.
    pub(super) outcome: String,
    /// Why it failed.
    pub(super) why: Option<String>,
    /// Milliseconds from the request to the healthy report.
    pub(super) took_ms: Option<u64>,
    /// The generation that the host has now, when it was rolled back.
    pub(super) rolled_back_to: Option<String>,
    /// Where the host stands: `idle` or `stopped`.
    pub(super) phase: String,
}

impl Ended {
    pub(super) fn is_well(&self) -> bool {
        self.outcome == "healthy"
    }
}

/// Returns the number of the newest event.
pub(super) async fn newest_event(client: &Client) -> Result<u64, ClientError> {
    let newest: Vec<EventView> = client.get("/v1/events?limit=1").await?;
    Ok(newest.last().map_or(0, |event| event.seq))
}

/// Waits until the hosts of an accepted order have come to an end; narrates what happens meanwhile.
pub(super) async fn wait(
    client: &Client,
    accepted: &Accepted,
    mut after: u64,
) -> Result<Vec<Ended>, ClientError> {
    let mut generations = BTreeMap::new();
    for host in accepted.hosts.iter().filter(|host| host.to.is_some()) {
        let detail = detail(client, &host.host).await?;
        if let Some(newest) = detail.generations.first() {
            generations.insert(host.host.clone(), newest.number);
        }
    }
    let mut ended = Vec::new();
    let mut due: BTreeSet<String> = generations.keys().cloned().collect();
    let mut rounds = 0;
    while !generations.is_empty() {
        for host in std::mem::take(&mut due) {
            let Some(number) = generations.get(&host) else {
                continue;
            };
            if let Some(end) = end(detail(client, &host).await?, *number) {
                eprintln!("{}", line(&end));
                ended.push(end);
                generations.remove(&host);
            }
        }
        if generations.is_empty() {
            break;
        }
        for event in events(client, after).await? {
            after = after.max(event.seq);
            if generations.contains_key(&event.subject) {
                narrate(&event);
                due.insert(event.subject);
            }
        }
        rounds += 1;
        if rounds % QUIET_ROUNDS == 0 {
            due.extend(generations.keys().cloned());
        }
    }
    ended.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(ended)
}

/// Prints an event as one line of narration.
pub(super) fn narrate(event: &EventView) {
    let at = Timestamp(event.at_ms).utc();
    eprintln!("{at}  {}  {}", event.subject, printable(&event.text));
}

/// Waits for the next events; an appliance that is being restarted is waited for.
pub(super) async fn events(client: &Client, after: u64) -> Result<Vec<EventView>, ClientError> {
    let path = format!("/v1/events?after={after}&wait-seconds={WAIT_SECONDS}");
    patiently(|| client.get(&path)).await
}

async fn detail(client: &Client, host: &str) -> Result<HostDetail, ClientError> {
    let path = format!("/v1/hosts/{host}");
    patiently(|| client.get(&path)).await
}

/// Asks again while the appliance is away.
pub(super) async fn patiently<T, F: Future<Output = Result<T, ClientError>>>(
    mut ask: impl FnMut() -> F,
) -> Result<T, ClientError> {
    let mut tries = 0;
    loop {
        match ask().await {
            Err(error) if error.may_pass() && tries < RETRIES => {
                if tries == 0 {
                    eprintln!("the appliance does not answer; waiting for it: {error}");
                }
                tries += 1;
                tokio::time::sleep(RETRY_AFTER).await;
            }
            answered => return answered,
        }
    }
}

/// Tells how a host ended, once it has.
fn end(detail: HostDetail, number: u32) -> Option<Ended> {
    let phase = detail.host.deployment.phase;
    let asked = detail.generations.iter().find(|one| one.number == number)?;
    let settled = phase == "idle" || phase == "stopped";
    if asked.outcome == "pending" || !(settled || asked.outcome == "healthy") {
        return None;
    }
    let now = detail.generations.iter().find(|one| one.desired);
    let back = now.filter(|now| now.number != number && now.outcome == "healthy");
    Some(Ended {
        host: detail.host.name,
        generation: number,
        outcome: asked.outcome.clone(),
        why: asked.why.clone(),
        took_ms: asked.took_ms,
        rolled_back_to: back.map(|now| format!("{} {}", now.number, now.image)),
        phase,
    })
}

/// Writes how a host ended, for people.
pub(super) fn line(end: &Ended) -> String {
    let mut text = format!(
        "{}: generation {} is {}",
        end.host, end.generation, end.outcome
    );
    if let Some(took) = end.took_ms {
        text.push_str(" after ");
        text.push_str(&millis(took));
    }
    if let Some(why) = &end.why {
        text.push_str(": ");
        text.push_str(&printable(why));
    }
    match (&end.rolled_back_to, end.phase.as_str()) {
        (Some(back), _) => text.extend(["; rolled back to generation ", back.as_str()]),
        (None, "stopped") => text.push_str("; stopped, and waits for a person"),
        _ => {}
    }
    text
}
