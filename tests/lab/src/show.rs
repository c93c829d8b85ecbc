//! `lab show`: what an operator does with a rack, done by the operator's own commands and judged
//! from outside: by the power that really went off and on, and by what the hosts themselves run.
//!
//! It refuses to believe the appliance alone: each claim has a witness that the appliance cannot reach.

mod broken;
mod deploy;
mod rollout;
mod stage;

use std::time::Duration;

use clap::ValueEnum;

use crate::images::{self, Built};
use crate::rack;
use crate::state::State;
use crate::stop::Stop;
use crate::up::{self, Request};
use crate::workspace::Workspace;
use crate::{appliance, down, enter, namespace};

pub use stage::{Finding, Row, Stage};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A new image is deployed over IPMI and over Redfish, and rolled back.
    Deploy,
    /// Images that do not boot, fail their own check or are never heard of are rolled back by themselves.
    Broken,
    /// A rollout over six hosts stops at its second failure and leaves the others alone.
    Rollout,
    /// All of these, in one rack.
    All,
}

/// Why nothing could be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no rack.
    #[error(transparent)]
    Up(#[from] up::Error),
    /// The rack itself is not well.
    #[error("the rack did not come up:\n{0}")]
    Rack(String),
    /// An image is missing.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// The rack cannot be reached.
    #[error(transparent)]
    Enter(#[from] enter::Error),
    /// The appliance cannot be asked.
    #[error(transparent)]
    Appliance(#[from] appliance::Error),
    /// The rack's network is gone.
    #[error(transparent)]
    Network(#[from] namespace::Error),
    /// What is left cannot be removed.
    #[error(transparent)]
    State(#[from] crate::state::Error),
    /// An operator's command failed.
    #[error("`netboot {words}` failed ({code}):\n{said}")]
    Command {
        /// Its arguments.
        words: String,
        /// Its exit code.
        code: i32,
        /// What it said.
        said: String,
    },
    /// Someone pressed Ctrl-C, or the lab was told to end.
    #[error("interrupted")]
    Interrupted,
    /// An operator's command printed something unexpected.
    #[error("`netboot {words}` printed something unexpected")]
    Answer {
        /// Its arguments.
        words: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Something did not come to be.
    #[error("{what} did not come to be within {} s", within.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
    },
}

/// The lab's versions of `host`, beside which they are built.
const VERSIONS: [&str; 4] = ["next", "dead", "ailing", "mute"];

/// Racks hosts, shows a scenario and takes the rack down.
///
/// # Errors
/// When the rack does not come up or a command fails; what is not as it should be is a finding.
pub fn show(
    workspace: &Workspace,
    state: &State,
    scenario: Scenario,
    install: bool,
    keep: bool,
) -> Result<Stage, Error> {
    let shown = show_in_rack(workspace, state, scenario, install);
    if !keep {
        down::down(state)?;
    }
    shown
}

fn show_in_rack(
    workspace: &Workspace,
    state: &State,
    scenario: Scenario,
    install: bool,
) -> Result<Stage, Error> {
    let request = Request {
        hosts: scenario.hosts().iter().map(ToString::to_string).collect(),
        memory: 640,
        install,
        keep: true,
    };
    let stop = Stop::default();
    let outcome = up::up(workspace, state, &request, &stop)?;
    if !outcome.problems.is_empty() {
        return Err(Error::Rack(outcome.problems.join("\n")));
    }
    let mut built = vec![up::workshop(workspace, state).build("host")?];
    let versions = up::versions(workspace, state);
    for name in VERSIONS {
        built.push(versions.build(name)?);
    }
    let mut scene = Stage::open(workspace, state, built, stop)?;
    match scenario {
        Scenario::Deploy => deploy::show(&mut scene)?,
        Scenario::Broken => {
            let begun = broken::begin(&scene)?;
            broken::end(&mut scene, begun)?;
        }
        Scenario::Rollout => rollout::show(&mut scene)?,
        Scenario::All => {
            // What is broken is mostly waited for.
            let begun = broken::begin(&scene)?;
            deploy::show(&mut scene)?;
            broken::end(&mut scene, begun)?;
            rollout::show(&mut scene)?;
        }
    }
    Ok(scene)
}

impl Scenario {
    fn hosts(self) -> Vec<&'static str> {
        match self {
            Self::Deploy => deploy::HOSTS.to_vec(),
            Self::Broken => broken::CASES.map(|case| case.host).to_vec(),
            Self::Rollout | Self::All => rack::SLOTS.map(|slot| slot.name).to_vec(),
        }
    }
}

/// Finds an image that was built for the show.
fn tree(built: &[Built], name: &str) -> String {
    let found = built.iter().find(|image| image.name == name);
    found.map_or_else(String::new, |image| image.tree.to_string())
}
