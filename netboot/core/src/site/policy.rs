//! How a role's hosts are deployed, and how much of the site one change may touch.
//!
//! It refuses to decide a deployment: `lifecycle` and `rollout` do, with these numbers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::read::{Placed, Problems, Table};
use super::word::{Span, words};

/// How hosts of a role are deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployPolicy {
    /// How long a host has from power-on to being healthy.
    pub deadline: Duration,
    /// How long it must stay healthy before the deployment is proven.
    pub health_for: Duration,
    /// How long it may report itself ill before the deadline is no longer waited for.
    pub ill_for: Duration,
    /// How often one deployment may be rolled back by itself.
    pub max_rollbacks: u32,
    /// How long the old system may shut down in order; zero cuts its power.
    pub shutdown: Duration,
    /// How the hosts boot from the network.
    pub boot: BootMethod,
    /// What is put right without a person.
    pub heal: BTreeSet<Heal>,
}

/// How firmware boots from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BootMethod {
    /// PXE: DHCP and TFTP.
    Pxe,
    /// UEFI HTTP Boot.
    Http,
}

/// A kind of drift that is put right without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Heal {
    /// The host is off and should be on.
    Power,
    /// It runs another tree than it should.
    Tree,
    /// Files of its image were changed in the overlay.
    Overlay,
}

words!(BootMethod, "`pxe` or `http`", "pxe" => Pxe, "http" => Http);
words!(Heal, "`power`, `tree` or `overlay`", "power" => Power, "tree" => Tree, "overlay" => Overlay);

impl Default for DeployPolicy {
    fn default() -> Self {
        Self {
            // Servers spend minutes in their firmware before the first packet.
            deadline: Duration::from_mins(15),
            health_for: Duration::ZERO,
            // Services may need a while after the system says that it is up.
            ill_for: Duration::from_mins(2),
            max_rollbacks: 1,
            shutdown: Duration::from_secs(30),
            boot: BootMethod::Pxe,
            heal: BTreeSet::new(),
        }
    }
}

/// How much one change may touch unless a person overrides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Hosts that are power-cycled in any one hour.
    pub hosts_per_hour: Option<u32>,
    /// Hosts that are deployed at the same time.
    pub hosts_at_once: u32,
    /// Hosts of one rack that are deployed at the same time.
    pub hosts_at_once_per_rack: Option<u32>,
    /// Share of a role's hosts that one request may touch, 1 to 100; one host always.
    pub percent_of_role: u8,
    /// Share of the site's hosts that one request may touch, 1 to 100; one host always.
    pub percent_of_site: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hosts_per_hour: None,
            hosts_at_once: 10,
            hosts_at_once_per_rack: None,
            percent_of_role: 50,
            percent_of_site: 50,
        }
    }
}

/// A host that is not up after a day will not come; half a minute is less than any firmware takes.
const DEADLINES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(30)..=Duration::from_hours(24);
/// A system that does not stop in an hour hangs.
const LONGEST_SHUTDOWN: Duration = Duration::from_hours(1);
/// Each rollback is a power cycle and a boot, and a site of healthy images has not more of them than this.
pub(crate) const MOST_ROLLBACKS: u32 = 8;
/// More than one appliance can serve at once.
const MOST_HOSTS: i64 = 100_000;

/// Reads `[role.X.deploy]`.
pub(super) fn read_deploy(mut table: Table<'_>, problems: &mut Problems<'_>) -> DeployPolicy {
    let mut policy = DeployPolicy::default();
    if let Some(deadline) = table.parsed::<Span>("deadline", problems) {
        policy.deadline = deadline.value.0;
        if !DEADLINES.contains(&deadline.value.0) {
            problems.contradiction(&deadline.place, "a deadline is 30s to 24h".to_owned());
        }
    }
    let health_for = table.parsed::<Span>("health-for", problems);
    if let Some(health_for) = health_for {
        policy.health_for = health_for.value.0;
        if health_for.value.0 >= policy.deadline {
            let text = "`health-for` must be shorter than `deadline`, or no host is ever proven";
            problems.contradiction(&health_for.place, text.to_owned());
        }
    }
    if let Some(ill_for) = table.parsed::<Span>("ill-for", problems) {
        policy.ill_for = ill_for.value.0;
        if ill_for.value.0 > *DEADLINES.end() {
            let text = "a host may be ill for at most 24h".to_owned();
            problems.contradiction(&ill_for.place, text);
        }
    }
    let rollbacks = table.count("max-rollbacks", 0..=i64::from(MOST_ROLLBACKS), problems);
    policy.max_rollbacks = rollbacks.unwrap_or(policy.max_rollbacks);
    if let Some(shutdown) = table.parsed::<Span>("shutdown", problems) {
        policy.shutdown = shutdown.value.0;
        if shutdown.value.0 > LONGEST_SHUTDOWN {
            let text = "a shutdown takes at most 1h; `0s` cuts the power".to_owned();
            problems.contradiction(&shutdown.place, text);
        }
    }
    if let Some(boot) = table.parsed::<BootMethod>("boot", problems) {
        policy.boot = boot.value;
    }
    let heal: Vec<Placed<Heal>> = table.list("heal", problems);
    policy.heal = heal.into_iter().map(|heal| heal.value).collect();
    table.finish(problems);
    policy
}

/// Reads `[limits]`.
pub(super) fn read_limits(mut table: Table<'_>, problems: &mut Problems<'_>) -> Limits {
    let mut limits = Limits {
        hosts_per_hour: table.count("hosts-per-hour", 1..=MOST_HOSTS, problems),
        ..Limits::default()
    };
    if let Some(hosts) = table.count("hosts-at-once", 1..=MOST_HOSTS, problems) {
        limits.hosts_at_once = hosts;
    }
    limits.hosts_at_once_per_rack = table.count("hosts-at-once-per-rack", 1..=MOST_HOSTS, problems);
    if let Some(percent) = table.count("percent-of-role", 1..=100, problems) {
        limits.percent_of_role = percent;
    }
    if let Some(percent) = table.count("percent-of-site", 1..=100, problems) {
        limits.percent_of_site = percent;
    }
    table.finish(problems);
    limits
}
