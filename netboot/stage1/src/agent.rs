//! The agent on the running host: says which tree runs and how init finds the host, and then that
//! the host is still there.
//!
//! It takes no orders and changes nothing. While the appliance is away it waits, keeps what matters,
//! and drops heartbeats: only the next one is worth sending.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use image_manifest::{Digest, Report, Stage, Unhealthy};

use crate::backoff::Backoff;
use crate::cmdline::Appliance;
use crate::errors::chain;
use crate::handover::AgentConfig;
use crate::{report, systemd};

/// An init that has not started everything by then never will.
const STARTED: Duration = Duration::from_mins(10);
/// The longest pause between two tries to reach the appliance.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Heartbeats faster than this tell nothing new, slower ones do not tell enough.
const HEARTBEAT: (u64, u64) = (1, 3600);
/// The configuration is written by stage1 and has a few hundred bytes beside undelivered reports.
const LONGEST_CONFIG: u64 = 1024 * 1024;

/// Runs until the host ends.
pub(crate) fn run(path: &Path) -> ExitCode {
    let (config, appliance) = match load(path) {
        Ok(loaded) => loaded,
        Err(problem) => {
            eprintln!(
                "error: the agent's configuration `{}` {problem}",
                path.display()
            );
            return ExitCode::FAILURE;
        }
    };
    let tree = config.tree;
    for report in &config.undelivered {
        deliver(&appliance, report);
    }
    deliver(&appliance, &report::now(Stage::AgentStarted { tree }));
    let mut state = systemd::wait_until_started(STARTED);
    deliver(&appliance, &report::now(verdict(tree, &state)));

    let (fastest, slowest) = HEARTBEAT;
    let pause = u64::from(config.heartbeat_seconds).clamp(fastest, slowest);
    let mut heartbeats = Heartbeats::default();
    loop {
        thread::sleep(Duration::from_secs(pause));
        let now = systemd::state();
        if now != state {
            state = now;
            deliver(&appliance, &report::now(verdict(tree, &state)));
        }
        let heartbeat = Stage::Heartbeat {
            tree,
            state: state.clone(),
            failed_checks: Vec::new(),
        };
        heartbeats.send(&appliance, &report::now(heartbeat));
    }
}

fn load(path: &Path) -> Result<(AgentConfig, Appliance), String> {
    let size = fs::metadata(path)
        .map_err(|error| format!("is not readable: {error}"))?
        .len();
    if size > LONGEST_CONFIG {
        return Err(format!("has {size} bytes"));
    }
    let text = fs::read(path).map_err(|error| format!("is not readable: {error}"))?;
    // The parser's own message could repeat a part of the token.
    let config: AgentConfig = serde_json::from_slice(&text)
        .map_err(|error| format!("is malformed in column {}", error.column()))?;
    let appliance = config.appliance().ok_or("names no appliance")?;
    Ok((config, appliance))
}

/// What init's state means for the host.
fn verdict(tree: Digest, state: &str) -> Stage {
    if state == "running" {
        return Stage::Healthy { tree };
    }
    Stage::Unhealthy(Unhealthy {
        tree,
        state: state.to_owned(),
        failed_units: systemd::failed_units(),
        failed_checks: Vec::new(),
    })
}

/// Sends a report that must arrive, for as long as the host runs and the appliance may come back.
fn deliver(appliance: &Appliance, report: &Report) {
    let mut backoff = Backoff::new(LONGEST_PAUSE);
    let mut told = false;
    while let Err(error) = report::deliver(appliance, report) {
        if error.is_final() {
            eprintln!("report refused: {}", chain(&error));
            return;
        }
        if !told {
            eprintln!("report not delivered yet: {}", chain(&error));
            told = true;
        }
        thread::sleep(backoff.pause());
    }
}

/// Heartbeats are sent once each; their failures are said once.
#[derive(Default)]
struct Heartbeats {
    away: bool,
}

impl Heartbeats {
    fn send(&mut self, appliance: &Appliance, report: &Report) {
        let sent = report::deliver(appliance, report);
        match &sent {
            Err(error) if !self.away => eprintln!("heartbeat not delivered: {}", chain(error)),
            Ok(()) if self.away => eprintln!("heartbeats are delivered again"),
            _ => {}
        }
        self.away = sent.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_is_healthy() {
        let tree = Digest::of(b"tree");
        assert_eq!(verdict(tree, "running"), Stage::Healthy { tree });
        for state in ["degraded", "maintenance", "unknown", ""] {
            let Stage::Unhealthy(unhealthy) = verdict(tree, state) else {
                panic!("{state}");
            };
            assert_eq!(unhealthy.state, state);
        }
    }

    #[test]
    fn a_malformed_configuration_is_refused_without_repeating_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.json");
        fs::write(&path, r#"{"token": "s3cret""#).unwrap();
        let problem = load(&path).err().unwrap_or_default();
        assert!(problem.starts_with("is malformed"), "{problem}");
        assert!(!problem.contains("s3cret"));
    }
}
