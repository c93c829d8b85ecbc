//! How much one request may touch, and how much may be touched now.
//!
//! It refuses nothing itself: it tells what is too wide, and the operator may override it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::lifecycle::{HostState, Stage, Watch};
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
/// are doing and did within the last hour, as watched: no jump of the clock lifts a limit or keeps it.
#[must_use]
pub fn room<'a>(limits: &Limits, states: impl IntoIterator<Item = &'a HostState>) -> u32 {
    let (mut active, mut recent) = (0_u32, 0_u32);
    for state in states {
        // Who waits for somebody to start it by hand serves on meanwhile, for a day if need be.
        if state
            .work()
            .is_some_and(|work| work.stage != Stage::Waiting)
        {
            active = active.saturating_add(1);
        }
        recent = recent.saturating_add(u32::from(state.began_within(Watch::HOUR)));
    }
    let now = limits.hosts_at_once.saturating_sub(active);
    match limits.hosts_per_hour {
        Some(most) => now.min(most.saturating_sub(recent)),
        None => now,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::Timestamp;
    use crate::lifecycle::{Control, Deploy, Event, Image, Parameters, Policy, When, step};
    use crate::site::SourceFile;
    use image_manifest::Digest;

    fn site(limits: &str) -> Site {
        let mut text = format!(
            "[site]\nname = \"lab\"\n[[network]]\nname = \"rack\"\nsubnet = \"10.0.0.0/24\"\n\
             appliance = \"10.0.0.1\"\n[role.web]\nimage = \"web\"\n[role.db]\nimage = \"db\"\n{limits}\n"
        );
        for index in 1..=6 {
            let role = if index <= 4 { "web" } else { "db" };
            write!(
                text,
                "[[host]]\nname = \"h{index}\"\nmacs = [\"52:54:00:00:00:0{index}\"]\n\
                 address = \"10.0.0.1{index}\"\nrole = \"{role}\"\nprotected = {}\n",
                index == 6
            )
            .unwrap();
        }
        let files = [SourceFile {
            path: "site.toml".into(),
            text: text.into(),
        }];
        Site::check(&files).unwrap()
    }

    #[test]
    fn too_much_of_a_role_or_of_the_site_needs_an_override() {
        let site = site("[limits]\npercent-of-role = 50\npercent-of-site = 34");
        let cases: [(&[&str], &[&str]); 5] = [
            (&["h1"], &[]),
            (&["h5"], &[]),
            (&["h1", "h2"], &[]),
            (
                &["h1", "h2", "h3"],
                &[
                    "3 of the 4 hosts of role `web` are more than 50 %",
                    "3 of the 6 hosts of the site are more than 34 %",
                ],
            ),
            (&["h6"], &["host `h6` is protected"]),
        ];
        for (chosen, wanted) in cases {
            let hosts: Vec<_> = chosen.iter().map(|name| site.host(name).unwrap()).collect();
            let told: Vec<String> = breadth(&site, &hosts)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(told, wanted, "{chosen:?}");
        }
    }

    #[test]
    fn room_is_what_limits_leave() {
        let limits = |at_once, per_hour| Limits {
            hosts_at_once: at_once,
            hosts_per_hour: per_hour,
            ..Limits::default()
        };
        let image = Image {
            name: "web".to_owned(),
            manifest: Digest::of(b"m"),
            tree: Digest::of(b"t"),
        };
        let deploy = Event::Deploy(Deploy {
            intent: "one".to_owned(),
            image,
            parameters: Parameters::new(),
            by: "alice".to_owned(),
            when: When::Needed,
        });
        let start = Timestamp(10_000_000);
        let control = |control| Policy {
            control,
            ..Policy::default()
        };
        let begun = |by| step(&HostState::default(), &control(by), &deploy, start).state;
        // Ticks of a watch, and a clock that goes wild at one of them.
        let after = |ticks: u64, jump: i64| {
            let mut state = begun(Control::Bmc);
            let mut now = start;
            for tick in 0..ticks {
                now = Timestamp(now.0.saturating_add(20_000));
                if tick == 3 {
                    now = Timestamp(now.0.saturating_add_signed(jump));
                }
                state = step(&state, &control(Control::Bmc), &Event::Tick, now).state;
            }
            [state, HostState::default()]
        };
        let year = 365 * 24 * 3_600_000;
        let hour = 182;
        let cases = [
            ("none is full", limits(5, None), after(3, 0), 4),
            ("all at once are under way", limits(1, None), after(3, 0), 0),
            (
                "the hour is full",
                limits(9, Some(1)),
                after(hour - 9, 0),
                0,
            ),
            ("the hour is over", limits(9, Some(1)), after(hour, 0), 1),
            (
                "a jump ahead lifts nothing",
                limits(9, Some(1)),
                after(9, year),
                0,
            ),
            (
                "a jump back keeps nothing",
                limits(9, Some(1)),
                after(hour, -9_000_000),
                1,
            ),
        ];
        for (name, limits, states, wanted) in cases {
            assert_eq!(room(&limits, &states), wanted, "{name}");
        }
        let by_hand = [begun(Control::Hands)];
        let left = room(&limits(1, None), &by_hand);
        assert_eq!(left, 1, "who waits for a person takes no room");
    }
}
