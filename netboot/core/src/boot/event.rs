//! One line of a timeline.
//!
//! It refuses packets: an event says what one meant.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::dhcp::{Decision, Firmware, Form, Kind, Note, Profile, ReplyKind, Request};
use image_manifest::{Report, Stage};

/// Something that happened during a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen during a boot. It is stored as JSON, tagged by `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum What {
    /// The host asked for an address or boot options.
    Dhcp {
        /// What it asked.
        asked: Asked,
        /// What it got.
        answer: Answer,
        /// The program that asked.
        firmware: Firmware,
        /// In which form it was told what to load.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        form: Option<Form>,
        /// The form that is tried when it does not load from this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Form>,
    },
    /// The host loads a file.
    Fetch {
        /// What the file is for.
        file: File,
        /// The name that it asked for.
        name: String,
        /// How it asked.
        over: Protocol,
        /// How far it came.
        transfer: Transfer,
    },
    /// The host asked for something that it cannot have.
    Refused {
        /// Why, for the operator.
        reason: String,
    },
    /// stage1 or the agent reported.
    Report(Report),
    /// The appliance was started in the midst of this boot.
    Restarted,
}

/// What a host asked by DHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// Who gives addresses?
    Discover,
    /// This address, please.
    Request,
    /// Not this address.
    Decline,
    /// No address any more.
    Release,
    /// Everything but an address.
    Inform,
}

/// What a host was answered by DHCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// An offer.
    Offer,
    /// An acknowledgement.
    Ack,
    /// A refusal.
    Nak,
    /// Nothing, because nothing was asked.
    Noted,
    /// Nothing, for this reason.
    Silence(String),
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum File {
    /// What firmware loads.
    Loader,
    /// The host's `iPXE` script.
    Script,
    /// The kernel.
    Kernel,
    /// The initrd.
    Initrd,
    /// The root file system.
    Rootfs,
}

/// How a file is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TFTP.
    Tftp,
    /// HTTP.
    Http,
}

/// How far a transfer came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "step",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Transfer {
    /// The first byte is on its way.
    Started,
    /// The last byte was sent, and acknowledged where the protocol does that.
    Done {
        /// Bytes sent.
        bytes: u64,
        /// Milliseconds since it started.
        elapsed_ms: u64,
    },
    /// It ended early.
    Failed {
        /// Bytes sent.
        bytes: u64,
        /// Why, for the operator.
        reason: String,
    },
}

/// Longest reason that is kept, in characters.
const REASON: usize = 1024;
/// Longest word that is kept, such as a kernel's release or a unit's name.
const WORD: usize = 128;
/// Most failed units that are kept, and most failed checks.
const UNITS: usize = 32;
/// Longest reason of a failed check that is kept: some lines of a command's output.
const CHECK: usize = 256;
/// Most paths that are kept of what was changed on a host, and their longest.
const PATHS: usize = 64;
const PATH: usize = 256;

/// Returns a text as it may stand on an operator's terminal: without control characters, and
/// without those that turn the direction of what follows.
#[must_use]
pub fn printable(text: &str) -> String {
    let shown = |character: char| match character {
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        character if character.is_control() => '\u{fffd}',
        character => character,
    };
    text.chars().map(shown).collect()
}

fn cut(text: &mut String, length: usize) {
    *text = printable(text).chars().take(length).collect();
}

impl What {
    /// Makes the texts that come from a host printable, and cuts what is too long.
    #[must_use]
    pub fn tamed(mut self) -> Self {
        match &mut self {
            Self::Refused { reason } => cut(reason, REASON),
            Self::Fetch { name, transfer, .. } => {
                cut(name, WORD);
                if let Transfer::Failed { reason, .. } = transfer {
                    cut(reason, REASON);
                }
            }
            Self::Report(report) => tame(&mut report.stage),
            Self::Dhcp { .. } | Self::Restarted => {}
        }
        self
    }

    /// Says what a DHCP exchange of a listed host was; none when it asked nothing of a server.
    #[must_use]
    pub fn dhcp(request: &Request, decision: &Decision) -> Option<Self> {
        let asked = match request.kind {
            Kind::Discover => Asked::Discover,
            Kind::Request => Asked::Request,
            Kind::Decline => Asked::Decline,
            Kind::Release => Asked::Release,
            Kind::Inform => Asked::Inform,
            Kind::Other(_) => return None,
        };
        let (answer, about) = match decision {
            Decision::Send { reply, .. } => {
                let answer = match reply.kind {
                    ReplyKind::Offer => Answer::Offer,
                    ReplyKind::Ack => Answer::Ack,
                    ReplyKind::Nak => Answer::Nak,
                };
                (answer, Some(&reply.about))
            }
            Decision::Note {
                note: Note::Released | Note::Declined | Note::OfferDeclined,
                ..
            } => (Answer::Noted, None),
            Decision::Ignore(silence) => (Answer::Silence(silence.label().to_owned()), None),
        };
        Some(Self::Dhcp {
            asked,
            answer,
            firmware: Profile::of(request).firmware,
            form: about.and_then(|about| about.form),
            next: about.and_then(|about| about.next),
        })
    }
}

fn tame(stage: &mut Stage) {
    match stage {
        Stage::Stage1 { kernel, .. } => cut(kernel, WORD),
        Stage::Failed { reason } => cut(reason, REASON),
        Stage::Unhealthy(unwell) => {
            cut(&mut unwell.state, WORD);
            unwell.failed_units.truncate(UNITS);
            for unit in &mut unwell.failed_units {
                cut(unit, WORD);
            }
            unwell.failed_checks.truncate(UNITS);
            for check in &mut unwell.failed_checks {
                cut(&mut check.name, WORD);
                cut(&mut check.reason, CHECK);
            }
        }
        Stage::Heartbeat {
            state,
            failed_checks,
            ..
        } => {
            cut(state, WORD);
            failed_checks.truncate(UNITS);
            for check in failed_checks {
                cut(check, WORD);
            }
        }
        Stage::Drift(drift) => {
            let kept = drift.paths.len().min(PATHS);
            drift.omitted = drift
                .omitted
                .saturating_add((drift.paths.len() - kept) as u64);
            drift.paths.truncate(kept);
            for path in &mut drift.paths {
                cut(path, PATH);
            }
        }
        Stage::RootFetched { .. }
        | Stage::SwitchRoot
        | Stage::AgentStarted { .. }
        | Stage::Healthy { .. } => {}
    }
}
