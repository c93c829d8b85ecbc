//! The rack during a show: the operator's commands, the witnesses, and what they found.
//!
//! It refuses to stop at the first finding: whoever reads it wants all of them.

use std::fmt::Write as _;
use std::io;
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Error, tree};
use crate::appliance::Place;
use crate::chassis::PowerEvent;
use crate::enter;
use crate::images::Built;
use crate::namespace::Namespace;
use crate::poll;
use crate::process::Recorded;
use crate::qemu::Folder;
use crate::state::State;
use crate::stop::Stop;
use crate::up;
use crate::workspace::Workspace;

/// The longest that anything in a show may take: two boots of six emulated hosts and a deadline.
const LONGEST: Duration = Duration::from_mins(20);

/// One claim, and whether its witness agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is claimed.
    pub claim: String,
    /// What the witness said instead, if it did not agree.
    pub instead: Option<String>,
}

/// One line of the table of times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What took the time.
    pub what: String,
    /// For which host.
    pub host: String,
    /// How long.
    pub took: Duration,
}

/// What `netboot history --json` says of one generation, as far as the lab reads it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Generation {
    /// Its number.
    pub number: u32,
    /// Name of its image.
    pub image: String,
    /// Its tree digest.
    pub tree: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Why it was made.
    pub reason: String,
    /// What became of it.
    pub outcome: String,
    /// Why it failed.
    #[serde(default)]
    pub why: Option<String>,
    /// Milliseconds from the request to the healthy report.
    #[serde(default)]
    pub took_ms: Option<u64>,
}

/// The rack during a show.
#[derive(Debug)]
pub struct Stage {
    place: Place,
    namespace: Namespace,
    state: State,
    built: Vec<Built>,
    stop: Stop,
    /// What was claimed so far.
    pub findings: Vec<Finding>,
    /// How long things took.
    pub times: Vec<Row>,
}

impl Stage {
    pub(super) fn open(
        workspace: &Workspace,
        state: &State,
        built: Vec<Built>,
        stop: Stop,
    ) -> Result<Self, Error> {
        Ok(Self {
            place: up::place(workspace, state),
            namespace: enter::network(state)?,
            state: state.clone(),
            built,
            stop,
            findings: Vec::new(),
            times: Vec::new(),
        })
    }

    /// Says whether every witness agreed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|found| found.instead.is_none())
    }

    /// Returns the tree digest of an image that the lab built.
    pub(super) fn tree(&self, image: &str) -> String {
        tree(&self.built, image)
    }

    /// Runs `netboot` as the operator does; what it narrates goes to whoever watches.
    pub(super) fn netboot(&self, words: &[&str]) -> Result<String, Error> {
        let line = words.join(" ");
        eprintln!("lab: $ netboot {line}");
        let output = self.run(words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        eprint!("{said}");
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Command {
            words: line,
            code: output.status.code().unwrap_or(-1),
            said: said.into_owned(),
        })
    }

    /// Runs `netboot` to its end, or until someone wants the lab's.
    fn run(&self, words: &[&str]) -> Result<Output, Error> {
        let failed = |source| crate::appliance::Error::Run {
            program: "netboot".to_owned(),
            source,
        };
        let mut netboot = self.place.operator(&self.namespace);
        netboot.args(words);
        netboot.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = netboot.spawn().map_err(failed)?;
        let process = Recorded::now("netboot", child.id());
        let ended = thread::spawn(move || child.wait_with_output());
        while !ended.is_finished() {
            if self.stop.is_asked() {
                process.iter().for_each(Recorded::end);
                return Err(Error::Interrupted);
            }
            thread::sleep(Duration::from_millis(20));
        }
        let output = ended
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("it was not waited for")));
        Ok(output.map_err(failed)?)
    }

    /// Runs `netboot … --json` and reads what it prints.
    pub(super) fn ask<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T, Error> {
        let output = self.place.operator(&self.namespace).args(words).output();
        let output = output.map_err(|source| crate::appliance::Error::Run {
            program: "netboot".to_owned(),
            source,
        })?;
        let words = words.join(" ");
        if !output.status.success() {
            return Err(Error::Command {
                words,
                code: output.status.code().unwrap_or(-1),
                said: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        serde_json::from_slice(&output.stdout).map_err(|source| Error::Answer { words, source })
    }

    /// Returns the generations of a host, newest first.
    pub(super) fn history(&self, host: &str) -> Result<Vec<Generation>, Error> {
        self.ask(&["history", host, "--json"])
    }

    /// Waits for something that the appliance says.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        mut ask: impl FnMut(&Self) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let found = poll::until(LONGEST, || {
            // Twice a second is soon enough, and leaves the processors to the hosts.
            thread::sleep(Duration::from_millis(480));
            if self.stop.is_asked() {
                return Some(Err(Error::Interrupted));
            }
            ask(self).transpose()
        });
        eprintln!("lab: {what}: {} s", begun.elapsed().as_secs());
        found.unwrap_or_else(|| {
            Err(Error::Late {
                what: what.to_owned(),
                within: LONGEST,
            })
        })
    }

    /// Returns every change of a host's power so far, as its own process saw it.
    pub(super) fn power(&self, host: &str) -> Vec<PowerEvent> {
        Folder::of(self.state.path(), host).power_events()
    }

    /// Returns what the running host says its version is; `host` itself says none.
    pub(super) fn version(&self, host: &str) -> String {
        let script = "cat /etc/lab-version 2>/dev/null || echo host";
        let ran = enter::ssh_command(&self.state, &self.place, host)
            .map(|mut ssh| ssh.arg(script).output());
        match ran {
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Records a claim, and what the witness said instead when it does not hold.
    pub(super) fn claim(&mut self, claim: impl Into<String>, holds: Holds) {
        let finding = Finding {
            claim: claim.into(),
            instead: holds.0,
        };
        match &finding.instead {
            None => eprintln!("lab: shown: {}", finding.claim),
            Some(instead) => eprintln!("lab: NOT SHOWN: {}: {instead}", finding.claim),
        }
        self.findings.push(finding);
    }

    /// Claims that a host runs an image: the appliance says so, and so does the host itself.
    pub(super) fn claim_runs(&mut self, host: &str, image: &str) -> Result<(), Error> {
        let hosts = self.place.hosts()?;
        let view = hosts.into_iter().find(|view| view.name == host);
        let told = view.and_then(|view| view.boot?.tree);
        let told = told.map_or_else(|| "no tree".to_owned(), |tree| tree.to_string());
        self.claim(
            format!("{host} reports the tree of `{image}`"),
            Holds::equal(&told, &self.tree(image)),
        );
        let version = self.version(host);
        self.claim(
            format!("{host} holds `{image}`, read over ssh"),
            Holds::equal(&version, image),
        );
        Ok(())
    }

    /// Claims that a host's power changed like this since it had changed so often.
    pub(super) fn claim_power(&mut self, host: &str, before: usize, expected: &[&str]) {
        let events = self.power(host);
        let events = events.get(before..).unwrap_or_default();
        let changes: Vec<&str> = events.iter().map(|event| &*event.what).collect();
        self.claim(
            format!("the power of {host} went {}", expected.join(", ")),
            Holds::equal(&changes.join(", "), &expected.join(", ")),
        );
        let starts = events.iter().filter(|event| event.what == "on");
        let boots: Vec<_> = starts.map(|event| event.boot.clone()).collect();
        if !boots.is_empty() {
            let once = |boot: &Option<String>| {
                let text = boot.as_deref().unwrap_or_default();
                text.contains("once") && (text.contains("network") || text.contains("http"))
            };
            self.claim(
                format!("{host} was told to boot from the network, once each time"),
                Holds::that(boots.iter().all(once), || format!("{boots:?}")),
            );
        }
    }

    /// Lays out what was shown and how long it took.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for found in &self.findings {
            // Writing to a string cannot fail.
            match &found.instead {
                None => writeln!(text, "ok    {}", found.claim).ok(),
                Some(instead) => writeln!(text, "FAIL  {}: {instead}", found.claim).ok(),
            };
        }
        text.push('\n');
        for row in &self.times {
            let seconds = row.took.as_secs_f64();
            writeln!(text, "{:<44} {:<8} {seconds:>7.1} s", row.what, row.host).ok();
        }
        text
    }

    pub(super) fn took(&mut self, what: &str, host: &str, took_ms: u64) {
        self.times.push(Row {
            what: what.to_owned(),
            host: host.to_owned(),
            took: Duration::from_millis(took_ms),
        });
    }
}

/// Whether a witness agreed; what it said instead when it did not.
#[derive(Debug)]
pub(super) struct Holds(Option<String>);

impl Holds {
    pub(super) fn that(holds: bool, instead: impl FnOnce() -> String) -> Self {
        Self((!holds).then(instead))
    }

    pub(super) fn equal(found: &str, expected: &str) -> Self {
        Self::that(found == expected, || {
            format!("it is `{found}`, not `{expected}`")
        })
    }
}
