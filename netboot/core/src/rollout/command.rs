//! What operators can do with a rollout, and what they are told of it.
//!
//! It refuses to resume what was halted.

use serde::{Deserialize, Serialize};

use super::state::{Member, Mode, Progress, Rollout};

/// What an operator can do with a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Begin no further host for now.
    Pause,
    /// Go on.
    Resume,
    /// Begin no further host, ever; what is under way ends by itself.
    Halt,
    /// Roll back what was touched.
    Undo,
}

/// A command that has no sense now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rollout is {mode}, so it cannot be {wanted}")]
pub struct CommandRefused {
    mode: &'static str,
    wanted: &'static str,
}

impl Rollout {
    /// Takes a command; one that has been taken already changes nothing.
    ///
    /// # Errors
    /// When it has no sense now: what was halted is not resumed, but may be undone.
    pub fn command(&self, command: Command, by: &str) -> Result<Self, CommandRefused> {
        let by = by.to_owned();
        let refused = |wanted| CommandRefused {
            mode: self.mode.label(),
            wanted,
        };
        let mode = match (command, &self.mode) {
            (Command::Pause, Mode::Running) => Mode::Paused { by },
            (Command::Pause, Mode::Paused { .. })
            | (Command::Resume, Mode::Running)
            | (Command::Halt, Mode::Halted { .. })
            | (Command::Undo, Mode::Undoing { .. } | Mode::Undone) => self.mode.clone(),
            (Command::Pause, _) => return Err(refused("paused")),
            (Command::Resume, Mode::Paused { .. }) => Mode::Running,
            (Command::Resume, _) => return Err(refused("resumed")),
            (Command::Halt, Mode::Done | Mode::Undone) => return Err(refused("halted")),
            (Command::Halt, _) => Mode::Halted {
                why: format!("halted by {by}"),
            },
            (Command::Undo, _) => Mode::Undoing { by },
        };
        Ok(Self {
            mode,
            ..self.clone()
        })
    }

    /// Tells whether [`super::plan`] may still have something to say.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let active = self
            .members
            .iter()
            .any(|member| member.progress.is_active());
        let ended = !matches!(
            self.mode,
            Mode::Running | Mode::Paused { .. } | Mode::Undoing { .. }
        );
        ended && !active
    }

    /// The id of the request by which it deploys one of its hosts.
    #[must_use]
    pub fn intent(&self, host: &str) -> String {
        format!("rollout/{}/{host}", self.id)
    }

    /// The id of the request by which it rolls one of its hosts back.
    #[must_use]
    pub fn undo_intent(&self, host: &str) -> String {
        format!("rollout/{}/{host}/undo", self.id)
    }

    /// Returns its hosts that failed, in their order.
    pub fn failures(&self) -> impl Iterator<Item = &Member> {
        let failed = |member: &&Member| {
            matches!(
                member.progress,
                Progress::Failed { .. } | Progress::NotUndone { .. }
            )
        };
        self.members.iter().filter(failed)
    }

    /// Tells what it is going to do, a line a batch; for dry runs.
    #[must_use]
    pub fn outline(&self) -> Vec<String> {
        let hosts = match self.members.len() {
            1 => "1 host".to_owned(),
            hosts => format!("{hosts} hosts"),
        };
        let mut lines = vec![format!("deploy {} to {hosts}", self.spec.image)];
        let mut rest = self.members.as_slice();
        while let Some(first) = rest.first() {
            let end = rest.partition_point(|member| member.batch <= first.batch);
            let (batch, later) = rest.split_at(end);
            let hosts: Vec<&str> = batch.iter().map(|member| member.host.as_str()).collect();
            let name = match (first.batch, self.spec.canary) {
                (0, 1..) => "canary".to_owned(),
                (number, 0) => format!("batch {}", number.saturating_add(1)),
                (number, _) => format!("batch {number}"),
            };
            lines.push(format!("{name}: {}", hosts.join(", ")));
            rest = later;
        }
        lines.push(self.spec.to_string());
        lines
    }
}
