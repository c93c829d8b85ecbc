//! How far a boot came, and when the next one begins.
//!
//! It refuses to go back: a boot's progress only grows, and a host that starts again makes a new one.

use std::time::Duration;

use image_manifest::Stage;

use super::event::{Asked, Event, File, What};
use crate::Timestamp;
use crate::dhcp::Firmware;
use crate::site::Mode;

/// How far a boot came, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Firmware asked for an address.
    Firmware,
    /// The loader is fetched.
    Loader,
    /// `iPXE` asked for an address.
    Ipxe,
    /// The script is fetched.
    Script,
    /// The kernel is fetched.
    Kernel,
    /// The initrd is fetched.
    Initrd,
    /// stage1 runs.
    Stage1,
    /// The root file system is fetched.
    Rootfs,
    /// stage1 handed over to the image's own init.
    SwitchRoot,
    /// The agent runs.
    Agent,
    /// The host reported its health.
    Health,
}

impl Step {
    /// Returns the word that timelines show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Loader => "loader",
            Self::Ipxe => "ipxe",
            Self::Script => "script",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Stage1 => "stage1",
            Self::Rootfs => "rootfs",
            Self::SwitchRoot => "switch-root",
            Self::Agent => "agent",
            Self::Health => "health",
        }
    }

    /// Tells which step an event shows; none when it shows none.
    #[must_use]
    pub fn of(what: &What) -> Option<Self> {
        match what {
            What::Dhcp { firmware, .. } => match firmware {
                Firmware::Bios | Firmware::UefiPxe | Firmware::UefiHttp => Some(Self::Firmware),
                Firmware::Ipxe => Some(Self::Ipxe),
                Firmware::Os => None,
            },
            What::Fetch { file, .. } => Some(match file {
                File::Loader => Self::Loader,
                File::Script => Self::Script,
                File::Kernel => Self::Kernel,
                File::Initrd => Self::Initrd,
                File::Rootfs => Self::Rootfs,
            }),
            What::Report(report) => match &report.stage {
                Stage::Stage1 { .. } => Some(Self::Stage1),
                Stage::RootFetched { .. } => Some(Self::Rootfs),
                Stage::SwitchRoot => Some(Self::SwitchRoot),
                Stage::AgentStarted { .. } => Some(Self::Agent),
                Stage::Healthy { .. } | Stage::Unhealthy(_) | Stage::Heartbeat { .. } => {
                    Some(Self::Health)
                }
                Stage::Failed { .. } | Stage::Drift(_) => None,
            },
            What::Refused { .. } | What::Restarted => None,
        }
    }
}

/// How far a boot came and when it was last heard of; the shell keeps one a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The furthest step.
    pub reached: Step,
    /// The newest event.
    pub last: Timestamp,
    /// Whether its own system reported, and so showed the boot's token.
    pub reported: bool,
}

impl Progress {
    /// Begins with the first event of a boot.
    #[must_use]
    pub fn new(first: &Event) -> Self {
        Self {
            reached: Step::of(&first.what).unwrap_or(Step::Firmware),
            last: first.at,
            reported: matches!(first.what, What::Report(_)),
        }
    }

    /// Takes the next event of the boot.
    pub fn note(&mut self, event: &Event) {
        if let Some(step) = Step::of(&event.what) {
            self.reached = self.reached.max(step);
        }
        self.last = self.last.max(event.at);
        self.reported |= matches!(event.what, What::Report(_));
    }

    /// Returns the progress of a whole timeline; none when it is empty.
    #[must_use]
    pub fn of(events: &[Event]) -> Option<Self> {
        let (first, rest) = events.split_first()?;
        let mut progress = Self::new(first);
        for event in rest {
            progress.note(event);
        }
        Some(progress)
    }
}

/// Firmware that is silent for longer was switched off meanwhile: EDK2 pauses for at most 32 s
/// between two DISCOVERs, and a person at a boot menu for some more.
const QUIET: Duration = Duration::from_mins(2);

/// Tells whether an event begins a new boot of its host, given the progress of its last one and who
/// gives addresses where it comes from.
///
/// Where we do, a host that starts asks us for an address first, and a file that is asked for out of
/// nothing belongs to no new boot: anyone at the host's address may ask, with the host up and well.
#[must_use]
pub fn begins(last: Option<&Progress>, event: &Event, mode: Mode) -> bool {
    // Reports name their boot, and everything else follows a question.
    let asks = match &event.what {
        What::Dhcp { asked, .. } => !matches!(asked, Asked::Decline | Asked::Release),
        What::Fetch { .. } => true,
        What::Refused { .. } | What::Report(_) | What::Restarted => false,
    };
    let Some(step) = Step::of(&event.what).filter(|_| asks) else {
        return false;
    };
    let Some(last) = last else {
        // A script names its boot, so there must be one: the appliance may have lost its data in
        // the midst of it.
        return mode == Mode::Proxy || matches!(step, Step::Firmware | Step::Ipxe | Step::Script);
    };
    match step {
        // Firmware asks again and again until it gets a loader that runs.
        Step::Firmware => last.reached >= Step::Ipxe || event.at.since(last.last) > QUIET,
        Step::Loader => mode == Mode::Proxy && last.reached >= Step::Ipxe,
        // After its script, iPXE fetches what stands there; it asks for an address only anew.
        Step::Ipxe => last.reached >= Step::Script,
        Step::Script => mode == Mode::Proxy && last.reached >= Step::Kernel,
        _ => false,
    }
}
