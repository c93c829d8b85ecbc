//! The agent of a host that booted from its disk: it says on the console how the host is, and keeps it for programs.
//!
//! It speaks when something is new, and is silent otherwise: a console is read by people.

use std::path::Path;
use std::thread;
use std::time::Duration;

use image_manifest::{CheckResult, Digest, Stage, Verdict};

use super::{Health, STARTED, Watch};
use crate::checks::Checklist;
use crate::rootfs::IMAGE;
use crate::{console, systemd};

/// Says how the host is, until it ends.
pub(super) fn tell(tree: Digest, pause: Duration) -> ! {
    systemd::wait_until_started(STARTED);
    let checks = Checklist::read(Path::new(IMAGE));
    let names = checks.names();
    let mut watch = Watch::new(tree, checks);
    loop {
        let health = watch.look();
        if let Some(news) = watch.news(&health) {
            say(&verdict(tree, &names, &health, news));
        }
        thread::sleep(pause);
    }
}

/// Puts together how each check went: what does not fail has passed.
fn verdict(tree: Digest, names: &[String], health: &Health, news: Stage) -> Verdict {
    let result = |name: &String, problem: Option<String>| CheckResult {
        name: name.clone(),
        problem,
    };
    let problem = |name: &String| {
        let failed = health.failed.iter().find(|failed| failed.name == *name);
        failed.map(|failed| failed.reason.clone())
    };
    let mut checks: Vec<_> = names
        .iter()
        .map(|name| result(name, problem(name)))
        .collect();
    // Checks that could not even be read have no name in the list.
    let unnamed = health
        .failed
        .iter()
        .filter(|failed| !names.contains(&failed.name));
    checks.extend(unnamed.map(|failed| result(&failed.name, Some(failed.reason.clone()))));
    let units = match news {
        Stage::Unhealthy(unhealthy) => unhealthy.failed_units,
        _ => Vec::new(),
    };
    for unit in units {
        let name = format!("unit {unit}");
        if !checks.iter().any(|check| check.name == name) {
            checks.push(result(&name, Some("it failed".to_owned())));
        }
    }
    Verdict {
        healthy: health.is_good(),
        tree,
        state: health.state.clone(),
        checks,
    }
}

/// Says it where people and `imagebuild test` read it.
fn say(verdict: &Verdict) {
    if let Err(error) = verdict.save(Path::new(Verdict::PATH)) {
        eprintln!("verdict not kept in `{}`: {error}", Verdict::PATH);
    }
    console::open();
    for line in verdict.lines() {
        if verdict.healthy {
            console::info(&line);
        } else {
            console::fail(&line);
        }
    }
    console::close();
}

#[cfg(test)]
mod tests {
    use image_manifest::FailedCheck;

    use super::*;

    #[test]
    fn each_check_and_each_failed_unit_has_its_line() {
        let tree = Digest::of(b"tree");
        let failed = |name: &str| FailedCheck {
            name: name.to_owned(),
            reason: "why".to_owned(),
        };
        let health = Health {
            state: "degraded".to_owned(),
            failed: vec![failed("port 22"), failed("checks of the image")],
        };
        let names = ["unit ssh.service", "port 22"].map(str::to_owned);
        let news = Stage::Unhealthy(image_manifest::Unhealthy {
            tree,
            state: "degraded".to_owned(),
            failed_units: vec!["ssh.service".to_owned(), "x.mount".to_owned()],
            failed_checks: Vec::new(),
        });
        let lines = verdict(tree, &names, &health, news).lines();
        let expected = [
            "check passed: unit ssh.service",
            "check failed: port 22: why",
            "check failed: checks of the image: why",
            "check failed: unit x.mount: it failed",
        ];
        assert_eq!(lines[..4], expected);
        assert!(lines[4].starts_with("verdict: unhealthy, init degraded, tree sha256:"));
    }

    #[test]
    fn a_healthy_host_has_passed_everything() {
        let tree = Digest::of(b"tree");
        let health = Health {
            state: "running".to_owned(),
            failed: Vec::new(),
        };
        let names = ["port 22".to_owned()];
        let verdict = verdict(tree, &names, &health, Stage::Healthy { tree });
        assert!(verdict.healthy);
        assert_eq!(verdict.checks[0].problem, None);
    }
}
