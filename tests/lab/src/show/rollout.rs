//! A rollout whose canary is well and whose first batch is not.

use serde::Deserialize;

use super::Error;
use super::stage::{Holds, Stage};
use crate::rack;

/// What `netboot rollout status --json` says, as far as the lab reads it.
#[derive(Debug, Deserialize)]
struct Rollout {
    id: String,
    state: String,
    hosts: Vec<Host>,
}

#[derive(Debug, Deserialize)]
struct Host {
    host: String,
    state: String,
}

/// The second failure stops it.
const MAX_FAILURES: &str = "2";

pub(super) fn show(stage: &mut Stage) -> Result<(), Error> {
    let before = rack::SLOTS.map(|slot| stage.power(slot.name).len());
    stage.netboot(&[
        "rollout",
        "start",
        "all",
        "--image",
        "ailing",
        "--canary",
        "1",
        "--batch",
        "2",
        "--max-failures",
        MAX_FAILURES,
        "--override-limits",
    ])?;
    let ended = stage.wait("the rollout has ended", |stage| {
        let mut rollouts: Vec<Rollout> = stage.ask(&["rollout", "status", "--json"])?;
        let newest = rollouts.drain(..).next();
        let busy = |rollout: &Rollout| {
            let waits = |host: &Host| matches!(&*host.state, "deploying" | "undoing");
            matches!(&*rollout.state, "running" | "paused") || rollout.hosts.iter().any(waits)
        };
        Ok(newest.filter(|rollout| !busy(rollout)))
    })?;
    stage.claim(
        format!("rollout {} stopped by itself", ended.id),
        Holds::equal(&ended.state, "halted"),
    );
    let failed = ended.hosts.iter().filter(|host| host.state == "failed");
    let failed = failed.count();
    stage.claim(
        "it stopped at the second failure",
        Holds::equal(&failed.to_string(), "2"),
    );
    let healthy = ended.hosts.iter().find(|host| host.state == "healthy");
    let canary = healthy.map_or("none", |host| &host.host).to_owned();
    stage.claim("the canary was healthy", Holds::equal(&canary, "bios1"));
    for (slot, before) in rack::SLOTS.into_iter().zip(before) {
        let found = ended.hosts.iter().find(|host| host.host == slot.name);
        match found.map_or("missing", |host| &host.state) {
            "healthy" => {
                stage.claim_power(slot.name, before, &["off", "on"]);
                stage.claim_runs(slot.name, "ailing")?;
            }
            "failed" => {
                let host = slot.name;
                stage.wait(&format!("{host} is back"), |stage| {
                    let history = stage.history(host)?;
                    let newest = history.into_iter().next();
                    Ok(newest.filter(|newest| newest.outcome == "healthy"))
                })?;
                stage.claim_runs(host, "host")?;
                stage.claim_power(host, before, &["off", "on", "off", "on"]);
            }
            _ => {
                let changes = stage.power(slot.name).len() - before;
                stage.claim(
                    format!("{} was left alone", slot.name),
                    Holds::equal(&changes.to_string(), "0"),
                );
            }
        }
    }
    Ok(())
}
