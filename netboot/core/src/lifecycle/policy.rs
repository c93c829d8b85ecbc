//! How a host is deployed and watched, as its role says.
//!
//! It refuses nothing itself: the site model checks the values; [`super::step`] copes with any.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::transition::PowerIntent;
use crate::drift::Drift;
use crate::site::{BootMethod, Heal, Host, Site};

/// How a host is deployed and watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who can switch the host; the shell sets it from the host's `bmc`.
    pub control: Control,
    /// From power on until the host reports itself well.
    pub deadline: Duration,
    /// For how long it has to stay well to be proven.
    pub health_for: Duration,
    /// For how long it may report itself ill before the deadline is no longer waited for.
    pub ill_for: Duration,
    /// How often one deployment may roll back by itself.
    pub max_rollbacks: u32,
    /// How long the operating system has to shut itself down; zero switches it off at once.
    pub shutdown: Duration,
    /// Where it is told to boot from.
    pub boot: BootBy,
    /// How long one step on its power may take, retries included, besides `shutdown`.
    pub power: Duration,
    /// How long a BMC may take to obey a command that it did not confirm.
    pub settle: Duration,
    /// How long a host that nobody can switch is waited for.
    pub hands: Duration,
    /// Which drift is healed without a person.
    pub heal: BTreeSet<Drift>,
    /// How often drift is healed within [`Policy::heal_window`] before it is left to a person.
    pub max_heals: u32,
    /// For how long a heal counts.
    pub heal_window: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            control: Control::Hands,
            deadline: Duration::from_mins(10),
            health_for: Duration::ZERO,
            // Services may need a while after the system says that it is up.
            ill_for: Duration::from_mins(2),
            max_rollbacks: 1,
            shutdown: Duration::from_secs(30),
            boot: BootBy::Pxe,
            power: Duration::from_mins(5),
            // BMCs were seen to lag for 60 s.
            settle: Duration::from_secs(75),
            hands: Duration::from_hours(24),
            heal: BTreeSet::new(),
            max_heals: 3,
            heal_window: Duration::from_hours(24),
        }
    }
}

impl Policy {
    /// Returns the policy of a host of a site. What is protected is not healed without a person.
    #[must_use]
    pub fn of(site: &Site, host: &Host) -> Self {
        let deploy = site.deploy_policy(host);
        let heal = deploy.heal.iter().map(|heal| match heal {
            Heal::Power => Drift::Power,
            Heal::Tree => Drift::Tree,
            Heal::Overlay => Drift::Overlay,
        });
        Self {
            control: match host.bmc {
                Some(_) => Control::Bmc,
                None => Control::Hands,
            },
            deadline: deploy.deadline,
            health_for: deploy.health_for,
            ill_for: deploy.ill_for,
            max_rollbacks: deploy.max_rollbacks,
            shutdown: deploy.shutdown,
            boot: match deploy.boot {
                BootMethod::Pxe => BootBy::Pxe,
                BootMethod::Http => BootBy::Http,
            },
            heal: heal.filter(|_| !host.protected).collect(),
            ..Self::default()
        }
    }

    /// Returns how long the shell may take over an operation before it answers that its end is
    /// unknown. A little later the lifecycle takes that for granted.
    #[must_use]
    pub fn operation(&self, intent: &PowerIntent) -> Duration {
        match intent {
            // Time for a look over a line that loses half of all packets.
            PowerIntent::Observe => Duration::from_secs(40).min(self.settle),
            PowerIntent::EnsureOff { shutdown_ms } => {
                let shutdown = Duration::from_millis(*shutdown_ms);
                self.settle.saturating_add(shutdown)
            }
            PowerIntent::BootOnce { .. } | PowerIntent::EnsureOn => self.settle,
        }
    }
}

/// Who can switch a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// Its BMC.
    Bmc,
    /// Only a person who stands before it.
    Hands,
}

/// Where a host is told to boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootBy {
    /// Network, as firmware does it; the shell knows whether it is BIOS or UEFI.
    Pxe,
    /// UEFI HTTP Boot.
    Http,
    /// Nothing is set: the firmware's own order begins with the network.
    Keep,
}
