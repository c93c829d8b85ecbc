//! What `[test]` of a definition may say.
//!
//! It refuses checks that cannot be met, and more of them than a host can run between two heartbeats.

use image_manifest::{CheckCommand, Checks};

use super::check::{Check, is_word};
use super::document::{Command, Test};
use super::reader::Located;

/// Most checks of one kind.
const MOST: usize = 64;
/// Seconds that one command may take, and takes at most where nothing is said. All commands together have 50 on the
/// host.
const TIMEOUT: (u32, u32) = (1, 30);
const DEFAULT_TIMEOUT: u32 = 10;

impl Check<'_> {
    /// Checks what the hosts of the image are to check.
    pub(super) fn checks(&mut self, test: Test) -> Checks {
        self.bounded("units", &test.units);
        self.bounded("ports", &test.ports);
        let places: Vec<_> = test.commands.iter().map(|command| &command.place).collect();
        if let Some(place) = places.get(MOST) {
            let message = format!("more than {MOST} commands are no check of a running host");
            self.problems.push(place.problem(message));
        }
        let mut commands: Vec<CheckCommand> = Vec::new();
        for command in test.commands {
            let Some(checked) = self.command(&command) else {
                continue;
            };
            if commands.iter().any(|known| known.name == checked.name) {
                let message = format!("`{}` is given twice", checked.name);
                self.problems.push(command.name.problem(message));
            }
            commands.push(checked);
        }
        Checks {
            units: self.units(test.units),
            ports: self.ports(test.ports),
            commands,
        }
    }

    fn bounded<T>(&mut self, what: &str, values: &[Located<T>]) {
        if let Some(first) = values.get(MOST) {
            let message = format!("more than {MOST} {what} are no check of a running host");
            self.problems.push(first.problem(message));
        }
    }

    fn ports(&mut self, ports: Vec<Located<u32>>) -> Vec<u16> {
        let mut kept = Vec::new();
        for port in ports {
            match u16::try_from(port.value) {
                Ok(0) | Err(_) => {
                    let message = format!("`{}` is no port from 1 to 65535", port.value);
                    self.problems.push(port.problem(message));
                }
                Ok(number) if !kept.contains(&number) => kept.push(number),
                Ok(_) => {}
            }
        }
        kept
    }

    fn command(&mut self, command: &Command) -> Option<CheckCommand> {
        let name = &command.name;
        if !is_word(&name.value) || name.value.contains('/') || name.value.len() > MOST {
            let message = format!("`{}` is no short word", name.value);
            self.problems.push(name.problem(message));
        }
        let Some(program) = command.run.first() else {
            let message = "`run` is missing: a program and its arguments".to_owned();
            self.problems.push(command.place.problem(message));
            return None;
        };
        if program.value.is_empty() || program.value.contains(char::is_whitespace) {
            let message = format!(
                "`{}` is no program; no shell is between, each argument is a text of its own",
                program.value
            );
            self.problems.push(program.problem(message));
        }
        for word in command.run.iter().filter(|word| word.value.contains('\0')) {
            let message = "an argument has no NUL".to_owned();
            self.problems.push(word.problem(message));
        }
        let timeout_seconds = match &command.timeout {
            None => DEFAULT_TIMEOUT,
            Some(timeout) => self.timeout(timeout),
        };
        Some(CheckCommand {
            name: name.value.clone(),
            run: command.run.iter().map(|word| word.value.clone()).collect(),
            timeout_seconds,
        })
    }

    fn timeout(&mut self, timeout: &Located<String>) -> u32 {
        let (shortest, longest) = TIMEOUT;
        let digits = timeout.value.strip_suffix('s').filter(|digits| {
            // `parse` alone would take a sign.
            digits.bytes().all(|digit| digit.is_ascii_digit())
        });
        let seconds = digits.and_then(|digits| digits.parse().ok());
        let seconds = seconds.filter(|seconds| (shortest..=longest).contains(seconds));
        seconds.unwrap_or_else(|| {
            let message = format!(
                "`{}` is no time from `{shortest}s` to `{longest}s`",
                timeout.value
            );
            self.problems.push(timeout.problem(message));
            DEFAULT_TIMEOUT
        })
    }
}
