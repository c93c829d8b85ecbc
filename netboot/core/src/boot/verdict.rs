//! What a timeline means, in words for the operator on call.
//!
//! It refuses to guess at what was not seen: the text says what was, and what is tried next.

use std::fmt::Write as _;
use std::time::Duration;

use image_manifest::{Digest, Stage, Unhealthy};
use serde::{Deserialize, Serialize};

use super::event::{Answer, Asked, Event, File, Transfer, What};
use super::progress::{Progress, Step};
use crate::Timestamp;
use crate::dhcp::{Firmware, Form, OFFERS_PER_FORM};

/// What became of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// In one word.
    pub state: State,
    /// In a sentence.
    pub text: String,
}

/// What became of a boot, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The host runs the tree that it should, and says that all is well.
    Healthy,
    /// It is on its way.
    Booting,
    /// It runs, and is not well or runs another tree.
    Unhealthy,
    /// It gave up.
    Failed,
    /// Nothing is heard of it.
    Silent,
}

impl State {
    /// Returns the word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Booting => "booting",
            Self::Unhealthy => "unhealthy",
            Self::Failed => "failed",
            Self::Silent => "silent",
        }
    }
}

/// What is expected of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The tree of the host's image; none when the image is not in the store.
    pub tree: Option<Digest>,
    /// Time between two heartbeats of the agent.
    pub heartbeat: Duration,
}

/// How long a boot may stand still before it counts as silent. Firmware repeats itself within 32 s;
/// the slowest step is a kernel that starts under software emulation.
fn patience(step: Step) -> Duration {
    Duration::from_secs(match step {
        Step::Firmware | Step::Ipxe | Step::Script => 90,
        Step::Loader | Step::Kernel | Step::Rootfs => 120,
        Step::Initrd | Step::Stage1 => 180,
        Step::SwitchRoot | Step::Agent | Step::Health => 300,
    })
}

/// Heartbeats that may get lost before a host counts as silent.
const LOST_HEARTBEATS: u32 = 3;

/// Judges the newest boot of a host.
#[must_use]
pub fn verdict(events: &[Event], expected: &Expectation, now: Timestamp) -> Verdict {
    let Some(progress) = Progress::of(events) else {
        return silent("no packet of this host was seen".to_owned());
    };
    let quiet = now.since(progress.last);
    if let Some(verdict) = reported(events, expected, now) {
        return verdict;
    }
    let told = Told::of(events);
    if progress.reached == Step::Firmware && told.ignored >= OFFERS_PER_FORM {
        return silent(told.ignored_offers());
    }
    let mut text = told.standing(progress.reached);
    if quiet > patience(progress.reached) {
        write!(text, "; nothing heard for {}", seconds(quiet)).ok();
        return silent(text);
    }
    Verdict {
        state: State::Booting,
        text,
    }
}

/// What the host said about itself last, if it did.
fn reported(events: &[Event], expected: &Expectation, now: Timestamp) -> Option<Verdict> {
    let (at, said) = events.iter().rev().find_map(|event| match &event.what {
        // Whether its files are changed is another question than whether it is well.
        What::Report(report) if !matches!(report.stage, Stage::Drift(_)) => {
            Some((event.at, &report.stage))
        }
        _ => None,
    })?;
    let (tree, ill) = match said {
        Stage::Failed { reason } => {
            return Some(Verdict {
                state: State::Failed,
                text: format!("stage1 gave up: {reason}"),
            });
        }
        Stage::Unhealthy(ill) => (ill.tree, Some(unwell(ill))),
        Stage::Healthy { tree } => (*tree, None),
        Stage::Heartbeat {
            tree,
            state,
            failed_checks,
        } => match state.as_str() {
            "running" if failed_checks.is_empty() => (*tree, None),
            "running" => (
                *tree,
                Some(format!("failing: {}", failed_checks.join(", "))),
            ),
            // systemd is not done yet; the agent reports when it is.
            "initializing" | "starting" => return None,
            state => (*tree, Some(format!("systemd says `{state}`"))),
        },
        Stage::Stage1 { .. }
        | Stage::RootFetched { .. }
        | Stage::SwitchRoot
        | Stage::AgentStarted { .. }
        | Stage::Drift(_) => return None,
    };
    // Its address is renewed by another program, so only reports count.
    let quiet = now.since(at);
    if quiet > expected.heartbeat * LOST_HEARTBEATS {
        let text = format!(
            "ran tree {}; no heartbeat for {}",
            tree.short(),
            seconds(quiet)
        );
        return Some(silent(text));
    }
    let (state, text) = match (ill, expected.tree) {
        (Some(text), _) => (State::Unhealthy, text),
        (None, Some(wanted)) if wanted != tree => {
            let (tree, wanted) = (tree.short(), wanted.short());
            let text = format!("runs tree {tree}, and its image is tree {wanted}");
            (State::Unhealthy, text)
        }
        (None, None) => {
            let text = format!(
                "runs tree {}, and its image is not in the store",
                tree.short()
            );
            (State::Unhealthy, text)
        }
        (None, Some(_)) => (State::Healthy, format!("runs tree {}", tree.short())),
    };
    Some(Verdict { state, text })
}

pub(crate) fn unwell(ill: &Unhealthy) -> String {
    let checks = ill.failed_checks.iter();
    let checks: Vec<_> = checks
        .map(|check| format!("{}: {}", check.name, check.reason))
        .collect();
    let checks = checks.join("; ");
    match (ill.failed_units.as_slice(), ill.failed_checks.len()) {
        ([], 0) => format!("systemd says `{}`", ill.state),
        ([], _) => format!("systemd says `{}`, and failing: {checks}", ill.state),
        (units, 0) => format!("systemd says `{}`: {} failed", ill.state, units.join(", ")),
        (units, _) => format!(
            "systemd says `{}`: {} failed, and failing: {checks}",
            ill.state,
            units.join(", ")
        ),
    }
}

fn silent(text: String) -> Verdict {
    let state = State::Silent;
    Verdict { state, text }
}

fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// What the host was told on its way, as far as it explains where it stands.
#[derive(Debug, Default)]
struct Told<'a> {
    /// Offers of a loader since it last asked for one.
    ignored: u32,
    firmware: Option<Firmware>,
    form: Option<Form>,
    next: Option<Form>,
    /// The newest reason why it did not get something.
    trouble: Option<String>,
    loader: Option<&'a str>,
}

impl<'a> Told<'a> {
    fn of(events: &'a [Event]) -> Self {
        let mut told = Self::default();
        for event in events {
            told.note(&event.what);
        }
        told
    }

    fn note(&mut self, what: &'a What) {
        match what {
            What::Dhcp {
                asked,
                answer,
                firmware,
                form,
                next,
            } => {
                if firmware.needs_loader() {
                    self.firmware = Some(*firmware);
                }
                match answer {
                    Answer::Offer if firmware.needs_loader() && *asked == Asked::Discover => {
                        self.ignored = self.ignored.saturating_add(1);
                        (self.form, self.next) = (*form, *next);
                    }
                    Answer::Silence(reason) => self.trouble = Some(format!("no answer: {reason}")),
                    Answer::Nak => self.trouble = Some("its address was refused".to_owned()),
                    _ => self.trouble = None,
                }
            }
            What::Fetch {
                file,
                name,
                transfer,
                ..
            } => {
                if *file == File::Loader {
                    self.ignored = 0;
                    self.loader = Some(name);
                }
                self.trouble = match transfer {
                    Transfer::Failed { reason, .. } => Some(format!("`{name}` failed: {reason}")),
                    Transfer::Started | Transfer::Done { .. } => None,
                };
            }
            What::Refused { reason } => self.trouble = Some(reason.clone()),
            What::Report(_) => self.trouble = None,
            What::Restarted => {}
        }
    }

    fn ignored_offers(&self) -> String {
        let mut text = format!(
            "offer sent {} times, host never asked for the loader",
            self.ignored
        );
        if let Some(cause) = self.form.and_then(likely_cause) {
            write!(text, ": {cause}").ok();
        }
        if let Some(next) = self.next {
            write!(text, "; next try uses {}", next.text()).ok();
        }
        text
    }

    fn standing(&self, reached: Step) -> String {
        let mut text = match reached {
            Step::Firmware => "firmware asked for an address".to_owned(),
            Step::Loader => match self.loader {
                Some(name) => format!("firmware loads `{name}`"),
                None => "firmware loads the loader".to_owned(),
            },
            Step::Ipxe => "iPXE asked for an address".to_owned(),
            Step::Script => "iPXE runs the host's script".to_owned(),
            Step::Kernel => "iPXE loads the kernel".to_owned(),
            Step::Initrd => "iPXE loads the initrd, or the kernel starts".to_owned(),
            Step::Stage1 => "stage1 fetches the root file system".to_owned(),
            Step::Rootfs => "the root file system is fetched".to_owned(),
            Step::SwitchRoot => "the image's own init starts".to_owned(),
            Step::Agent | Step::Health => "the agent waits for the system to be up".to_owned(),
        };
        if let Some(trouble) = &self.trouble {
            write!(text, "; {trouble}").ok();
        }
        text
    }
}

fn likely_cause(form: Form) -> Option<&'static str> {
    match form {
        Form::Direct => Some("firmware ignores option 43"),
        Form::Port4011 => Some("firmware never came to port 4011"),
        Form::Plain => Some("firmware wants PXE options"),
        Form::Http | Form::Script => None,
    }
}
