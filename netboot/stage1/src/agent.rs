//! The agent on the running host: says which tree runs, how init and the image's own checks find the
//! host and which of its files were changed, and then that the host is still there.
//!
//! It tells an appliance, or on a host that booted from its disk the console.
//!
//! It takes no orders and changes nothing. While the appliance is away it waits, keeps what matters,
//! and drops heartbeats: only the next one is worth sending.

mod alone;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use image_manifest::{Digest, Drift, FailedCheck, Report, Stage, Unhealthy};
use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::checks::Checklist;
use crate::errors::chain;
use crate::handover::AgentConfig;
use crate::rootfs::{IMAGE, UPPER};
use crate::session::Session;
use crate::{drift, report, systemd};

/// An init that has not started everything by then never will.
const STARTED: Duration = Duration::from_mins(10);
/// The longest pause between two tries to reach the appliance.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Heartbeats faster than this tell nothing new, slower ones do not tell enough.
const HEARTBEAT: (u64, u64) = (1, 3600);
/// The configuration is written by stage1 and has a few hundred bytes beside undelivered reports.
const LONGEST_CONFIG: u64 = 1024 * 1024;
/// A check that fails right after a good one is tried again first: a service that is restarted is
/// back by then, and no alarm was needed.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// Runs until the host ends.
pub(crate) fn run(path: &Path) -> ExitCode {
    let (config, session) = match load(path) {
        Ok(loaded) => loaded,
        Err(problem) => {
            eprintln!(
                "error: the agent's configuration `{}` {problem}",
                path.display()
            );
            return ExitCode::FAILURE;
        }
    };
    let (fastest, slowest) = HEARTBEAT;
    let pause = u64::from(config.heartbeat_seconds).clamp(fastest, slowest);
    let pause = Duration::from_secs(pause);
    match session {
        Some(session) => tell(&config, &session, pause),
        None => alone::tell(config.tree, pause),
    }
}

/// Tells the appliance, until the host ends.
fn tell(config: &AgentConfig, session: &Session, pause: Duration) -> ! {
    let tree = config.tree;
    for report in &config.undelivered {
        deliver(session, report);
    }
    deliver(session, &report::now(Stage::AgentStarted { tree }));
    systemd::wait_until_started(STARTED);
    let mut watch = Watch::new(tree, Checklist::read(Path::new(IMAGE)));
    let mut heartbeats = Heartbeats::default();
    loop {
        let health = watch.look();
        if let Some(news) = watch.news(&health) {
            deliver(session, &report::now(news));
        }
        if let Some(drift) = watch.drift() {
            deliver(session, &report::now(Stage::Drift(drift)));
        }
        heartbeats.send(session, &report::now(health.heartbeat(tree)));
        thread::sleep(pause);
    }
}

fn load(path: &Path) -> Result<(AgentConfig, Option<Session>), String> {
    let size = fs::metadata(path)
        .map_err(|error| format!("is not readable: {error}"))?
        .len();
    if size > LONGEST_CONFIG {
        return Err(format!("has {size} bytes"));
    }
    let text = fs::read(path).map_err(|error| format!("is not readable: {error}"))?;
    let text = Zeroizing::new(text);
    // The parser's own message could repeat a part of the credential.
    let config: AgentConfig = serde_json::from_slice(&text)
        .map_err(|error| format!("is malformed in column {}", error.column()))?;
    let session = config
        .session()
        .map_err(|error| format!("is unusable: {}", chain(&error)))?;
    Ok((config, session))
}

/// How the host is, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Health {
    /// What init says.
    state: String,
    failed: Vec<FailedCheck>,
}

impl Health {
    fn is_good(&self) -> bool {
        self.state == "running" && self.failed.is_empty()
    }

    /// Tells whether an operator would see nothing new: what a check says may differ every time.
    fn is_as(&self, other: &Self) -> bool {
        let names = |health: &Self| {
            let names = health.failed.iter().map(|check| check.name.clone());
            names.collect::<Vec<_>>()
        };
        self.state == other.state && names(self) == names(other)
    }

    fn verdict(&self, tree: Digest) -> Stage {
        if self.is_good() {
            return Stage::Healthy { tree };
        }
        let failed_units = if self.state == "running" {
            Vec::new()
        } else {
            systemd::failed_units()
        };
        Stage::Unhealthy(Unhealthy {
            tree,
            state: self.state.clone(),
            failed_units,
            failed_checks: self.failed.clone(),
        })
    }

    fn heartbeat(&self, tree: Digest) -> Stage {
        Stage::Heartbeat {
            tree,
            state: self.state.clone(),
            failed_checks: self.failed.iter().map(|check| check.name.clone()).collect(),
        }
    }
}

/// What was said about the host last.
struct Watch {
    tree: Digest,
    checks: Checklist,
    health: Option<Health>,
    drift: Option<Drift>,
}

impl Watch {
    fn new(tree: Digest, checks: Checklist) -> Self {
        Self {
            tree,
            checks,
            health: None,
            drift: None,
        }
    }

    /// Looks at the host, twice where it seems to have become unwell.
    fn look(&self) -> Health {
        let health = self.examine();
        let unwell = self.health.as_ref().is_some_and(|health| !health.is_good());
        if health.is_good() || unwell {
            return health;
        }
        thread::sleep(SECOND_LOOK);
        self.examine()
    }

    fn examine(&self) -> Health {
        Health {
            state: systemd::state(),
            failed: self.checks.run(),
        }
    }

    /// Returns what is worth a report of its own.
    fn news(&mut self, health: &Health) -> Option<Stage> {
        if self.health.as_ref().is_some_and(|said| said.is_as(health)) {
            return None;
        }
        self.health = Some(health.clone());
        Some(health.verdict(self.tree))
    }

    /// Returns which files were changed, when that is not what was said last.
    fn drift(&mut self) -> Option<Drift> {
        let found = drift::changes(Path::new(UPPER), Path::new(IMAGE));
        let drift = Drift {
            tree: self.tree,
            paths: found.paths,
            omitted: found.omitted,
        };
        let known = match &self.drift {
            Some(said) => *said == drift,
            None => drift.paths.is_empty(),
        };
        if known {
            return None;
        }
        self.drift = Some(drift.clone());
        Some(drift)
    }
}

/// Sends a report that must arrive, for as long as the host runs and the appliance may come back.
fn deliver(session: &Session, report: &Report) {
    let mut backoff = Backoff::new(LONGEST_PAUSE);
    let mut told = false;
    while let Err(error) = session.report(report) {
        if error.is_repetition() {
            // It arrived, and the answer to it did not; or this is the agent's second start.
            return;
        }
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
    fn send(&mut self, session: &Session, report: &Report) {
        let sent = session.report(report);
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

    fn health(state: &str, failed: &[(&str, &str)]) -> Health {
        let check = |(name, reason): &(&str, &str)| FailedCheck {
            name: (*name).to_owned(),
            reason: (*reason).to_owned(),
        };
        Health {
            state: state.to_owned(),
            failed: failed.iter().map(check).collect(),
        }
    }

    #[test]
    fn only_running_with_all_checks_is_healthy() {
        let tree = Digest::of(b"tree");
        let good = health("running", &[]);
        assert_eq!(good.verdict(tree), Stage::Healthy { tree });
        let bad = health("running", &[("port 22", "not listened on")]);
        let Stage::Unhealthy(unhealthy) = bad.verdict(tree) else {
            panic!("a failing check");
        };
        assert_eq!(unhealthy.failed_checks, bad.failed);
        for state in ["degraded", "maintenance", "unknown", ""] {
            let Stage::Unhealthy(unhealthy) = health(state, &[]).verdict(tree) else {
                panic!("{state}");
            };
            assert_eq!(unhealthy.state, state);
        }
    }

    #[test]
    fn news_are_changes_and_not_other_words_for_the_same() {
        let mut watch = Watch::new(Digest::of(b"tree"), Checklist::default());
        let cases = [
            ("first", health("running", &[]), true),
            ("the same", health("running", &[]), false),
            (
                "a check fails",
                health("running", &[("a", "took 3 s")]),
                true,
            ),
            (
                "it still does",
                health("running", &[("a", "took 4 s")]),
                false,
            ),
            (
                "another too",
                health("running", &[("a", ""), ("b", "")]),
                true,
            ),
            (
                "a unit too",
                health("degraded", &[("a", ""), ("b", "")]),
                true,
            ),
            ("well again", health("running", &[]), true),
        ];
        for (name, health, expected) in cases {
            assert_eq!(watch.news(&health).is_some(), expected, "{name}");
        }
    }

    #[test]
    fn a_malformed_configuration_is_refused_without_repeating_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.json");
        fs::write(&path, r#"{"credential": "s3cret""#).unwrap();
        let problem = load(&path).err().unwrap_or_default();
        assert!(problem.starts_with("is malformed"), "{problem}");
        assert!(!problem.contains("s3cret"));
    }
}
