//! How much one request may touch, and how much may be touched now.
//!
//! It refuses nothing itself: it tells what is too wide, and the operator may override it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::Timestamp;
use crate::lifecycle::{HostState, Reason};
use crate::site::{Host, Limits, Site};

/// Why a request needs an explicit override.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooWide {
    /// Too many hosts of one role.
    #[error("{chosen} of the {of} hosts of role `{role}` are more than {percent} %")]
    Role {
        /// Its name.
        role: Arc<str>,
        /// Hosts chosen.
        chosen: usize,
        /// Hosts that it has.
        of: usize,
        /// What the site allows.
        percent: u8,
    },
    /// Too many hosts of the site.
    #[error("{chosen} of the {of} hosts of the site are more than {percent} %")]
    Site {
        /// Hosts chosen.
        chosen: usize,
        /// Hosts that it has.
        of: usize,
        /// What the site allows.
        percent: u8,
    },
    /// A host that is protected.
    #[error("host `{0}` is protected")]
    Protected(Arc<str>),
}

/// Returns everything that makes a request too wide. One host is never too many.
#[must_use]
pub fn breadth(site: &Site, chosen: &[&Arc<Host>]) -> Vec<TooWide> {
    let mut problems = Vec::new();
    let mut roles: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for host in chosen {
        *roles.entry(&host.role).or_default() += 1;
        if host.protected {
            problems.push(TooWide::Protected(Arc::clone(&host.name)));
        }
    }
    for (role, chosen) in roles {
        let of = site.hosts().filter(|host| host.role == *role).count();
        let percent = site.limits.percent_of_role;
        if too_many(chosen, of, percent) {
            let role = Arc::clone(role);
            problems.push(TooWide::Role {
                role,
                chosen,
                of,
                percent,
            });
        }
    }
    let (chosen, of, percent) = (
        chosen.len(),
        site.hosts().len(),
        site.limits.percent_of_site,
    );
    if too_many(chosen, of, percent) {
        problems.push(TooWide::Site {
            chosen,
            of,
            percent,
        });
    }
    problems
}

fn too_many(chosen: usize, of: usize, percent: u8) -> bool {
    chosen > 1 && chosen.saturating_mul(100) > of.saturating_mul(usize::from(percent))
}

/// Returns how many further hosts may be begun now, by the site's limits and what all of its hosts
/// are doing and did within the last hour.
#[must_use]
pub fn room<'a>(
    limits: &Limits,
    states: impl IntoIterator<Item = &'a HostState>,
    now: Timestamp,
) -> u32 {
    const HOUR: Duration = Duration::from_hours(1);
    let (mut active, mut recent) = (0_u32, 0_u32);
    for state in states {
        if state.work().is_some() {
            active = active.saturating_add(1);
        }
        let within = |created: Timestamp| now.since(created) < HOUR;
        let begun = state
            .generations
            .iter()
            .rev()
            .any(|known| known.reason != Reason::Adopted && within(known.created));
        recent = recent.saturating_add(u32::from(begun));
    }
    let now = limits.hosts_at_once.saturating_sub(active);
    match limits.hosts_per_hour {
        Some(most) => now.min(most.saturating_sub(recent)),
        None => now,
    }
}
