//! What a host without an appliance says about itself on its console, and how that is read again.
//!
//! Lines are for people first, and they are stable: `imagebuild test` reads them, and so may anybody. A console mixes
//! them with the kernel's messages and a login prompt, so a line may begin anywhere.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// What every line of ours begins with.
const MARK: &str = "firstboot: ";

/// How a host found itself after its init had started everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// Whether init and all checks are well.
    pub healthy: bool,
    /// The tree that is mounted as root.
    pub tree: Digest,
    /// What `systemctl is-system-running` says.
    pub state: String,
    /// Each check of the image, in its order, and each unit that failed.
    pub checks: Vec<CheckResult>,
}

/// How one check went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckResult {
    /// Its name, such as `unit ssh.service`, `port 22` or `command database`.
    pub name: String,
    /// What was found instead; absent where it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Verdict {
    /// Where the running host keeps it, as JSON.
    pub const PATH: &str = "/run/firstboot/verdict.json";

    /// Writes it as the lines of a console, without what the console puts before them.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.checks.iter().map(ToString::to_string).collect();
        let word = if self.healthy { "healthy" } else { "unhealthy" };
        lines.push(format!(
            "verdict: {word}, init {}, tree {}",
            self.state, self.tree
        ));
        lines
    }

    /// Keeps it where programs of the host find it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        // Plain data: it always has a JSON form.
        fs::write(path, serde_json::to_vec(self).unwrap_or_default())
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            None => write!(f, "check passed: {}", self.name),
            Some(problem) => write!(f, "check failed: {}: {problem}", self.name),
        }
    }
}

/// What a console has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console {
    checks: Vec<CheckResult>,
    /// The verdict, once it was said.
    pub verdict: Option<Verdict>,
    /// Why firmware, stage1 or the kernel gave up, once one of them did.
    pub failure: Option<String>,
}

impl Console {
    /// Reads the next line of a console.
    pub fn read(&mut self, line: &str) {
        if let Some(at) = line.find("Kernel panic - not syncing") {
            self.failure
                .get_or_insert_with(|| line[at..].trim_end().to_owned());
        }
        // What the firmware of virtual computers says of a program that no enrolled key signed.
        let refused = ["Access Denied", "Security Violation"];
        if let Some(at) = line.find("BdsDxe: failed to ")
            && refused.iter().any(|reason| line[at..].contains(reason))
        {
            let said = format!("the firmware refuses it: {}", line[at..].trim_end());
            self.failure.get_or_insert(said);
        }
        let Some((_, said)) = line.split_once(MARK) else {
            return;
        };
        let said = said.trim_end();
        if let Some(reason) = said.strip_prefix("FAILED: ") {
            self.failure.get_or_insert_with(|| reason.to_owned());
        } else if let Some(name) = said.strip_prefix("check passed: ") {
            self.note(name, None);
        } else if let Some((name, problem)) = said
            .strip_prefix("check failed: ")
            .and_then(|rest| rest.split_once(": "))
        {
            self.note(name, Some(problem.to_owned()));
        } else if let Some(rest) = said.strip_prefix("verdict: ") {
            self.judge(rest);
        }
    }

    /// A line that is shown on two ways to the same console counts once.
    fn note(&mut self, name: &str, problem: Option<String>) {
        let result = CheckResult {
            name: name.to_owned(),
            problem,
        };
        if !self.checks.contains(&result) {
            self.checks.push(result);
        }
    }

    fn judge(&mut self, text: &str) {
        let mut parts = text.splitn(3, ", ");
        let (word, state, tree) = (parts.next(), parts.next(), parts.next());
        let healthy = match word {
            Some("healthy") => true,
            Some("unhealthy") => false,
            _ => return,
        };
        let state = state.and_then(|state| state.strip_prefix("init "));
        let tree = tree.and_then(|tree| tree.strip_prefix("tree ")?.parse().ok());
        if let (Some(state), Some(tree)) = (state, tree) {
            self.verdict.get_or_insert(Verdict {
                healthy,
                tree,
                state: state.to_owned(),
                checks: std::mem::take(&mut self.checks),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict() -> Verdict {
        let check = |name: &str, problem: Option<&str>| CheckResult {
            name: name.to_owned(),
            problem: problem.map(str::to_owned),
        };
        Verdict {
            healthy: false,
            tree: Digest::of(b"tree"),
            state: "degraded".to_owned(),
            checks: vec![
                check("unit ssh.service", None),
                check("port 22", Some("nothing listens on it")),
                check("command a", Some("exit status: 1: no: such file")),
            ],
        }
    }

    #[test]
    fn what_a_host_says_is_read_again_between_other_lines() {
        let said = verdict();
        let mut console = Console::default();
        console.read("[    1.0] systemd[1]: Started something.");
        for line in said.lines() {
            console.read(&format!(
                "localhost login: [   12.345678] firstboot: {line}\r"
            ));
            console.read(&format!("firstboot: {line}"));
        }
        assert_eq!(console.verdict, Some(said));
        assert_eq!(console.failure, None);
    }

    #[test]
    fn the_lines_are_stable() {
        let digest = Digest::of(b"tree");
        assert_eq!(
            verdict().lines(),
            [
                "check passed: unit ssh.service".to_owned(),
                "check failed: port 22: nothing listens on it".to_owned(),
                "check failed: command a: exit status: 1: no: such file".to_owned(),
                format!("verdict: unhealthy, init degraded, tree {digest}"),
            ]
        );
    }

    #[test]
    fn whoever_gives_up_first_is_the_reason() {
        let mut console = Console::default();
        console.read("[ 3.1] firstboot: FAILED: no root file system: this host shows no disk");
        console.read("[ 4.1] Kernel panic - not syncing: dm-verity device has corrupted blocks");
        let reason = console.failure.unwrap();
        assert_eq!(reason, "no root file system: this host shows no disk");
        assert_eq!(console.verdict, None);
    }

    #[test]
    fn firmware_that_refuses_a_signature_is_a_reason_and_other_misses_are_none() {
        let mut console = Console::default();
        console.read("BdsDxe: failed to load Boot0002 \"UEFI Misc Device 2\": Not Found");
        assert_eq!(console.failure, None);
        let line =
            "BdsDxe: failed to load Boot0001 \"UEFI Misc Device\" from Pci(0x1,0x0): Access Denied";
        console.read(&format!("\u{1b}[2J{line}\r"));
        let expected = format!("the firmware refuses it: {line}");
        assert_eq!(console.failure, Some(expected));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,40}(firstboot: )?(verdict: |check failed: )?.{0,80}") {
            Console::default().read(&line);
        }
    }
}
