//! Which step follows which, in words that dry runs and timelines share.
//!
//! It refuses to guess: a plan is what [`super::step`] answers, followed to its end.

use std::fmt;
use std::time::Duration;

use super::event::{Event, Power, PowerOrder, Refusal};
use super::generation::Image;
use super::orders::refusal;
use super::policy::{BootBy, Control, Policy};
use super::state::{Goal, HostState, Phase, Seen, Stage};
use super::transition::NoteKind;
use crate::Timestamp;

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A generation is made.
    Generation {
        /// Its number.
        number: u32,
        /// What it boots.
        image: Image,
        /// Why.
        reason: String,
    },
    /// The host is switched off.
    PowerOff {
        /// How long its system has to shut down.
        shutdown: Duration,
    },
    /// Its boot device is set.
    BootOnce {
        /// To what.
        by: BootBy,
    },
    /// The host is switched on.
    PowerOn,
    /// A person starts it.
    Hands {
        /// For how long that is waited for.
        within: Duration,
    },
    /// The generation is to report itself well.
    Healthy {
        /// Its number.
        generation: u32,
        /// Until when, from power on.
        deadline: Duration,
    },
    /// It is to stay well.
    Stay {
        /// For how long.
        for_: Duration,
    },
    /// What happens when it does not.
    Otherwise {
        /// The generation that it goes back to, and its image; none when nothing was proven yet, or
        /// when the policy allows none.
        back: Option<(u32, Image)>,
    },
    /// What is under way is called off.
    CallOff {
        /// What becomes of the host, in words.
        text: String,
    },
    /// Nothing is to be done.
    Nothing,
}

impl Step {
    /// Returns what a stage of some work does.
    pub(super) fn of(stage: Stage, goal: &Goal, policy: &Policy) -> Self {
        match stage {
            Stage::PoweringOff => Self::PowerOff {
                shutdown: shutdown(goal, policy),
            },
            Stage::SettingBoot => Self::BootOnce { by: policy.boot },
            Stage::PoweringOn => Self::PowerOn,
            Stage::Waiting => Self::Hands {
                within: policy.hands,
            },
            Stage::Booting => Self::Healthy {
                generation: match goal {
                    Goal::Deploy { generation } => *generation,
                    Goal::Power { .. } => 0,
                },
                deadline: policy.deadline,
            },
            Stage::Proving => Self::Stay {
                for_: policy.health_for,
            },
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generation {
                number,
                image,
                reason,
            } => write!(f, "make generation {number}: {image} ({reason})"),
            Self::PowerOff { shutdown } if shutdown.is_zero() => {
                f.write_str("make sure that it is off, at once")
            }
            Self::PowerOff { shutdown } => write!(
                f,
                "make sure that it is off, after at most {} to shut down",
                span(*shutdown)
            ),
            Self::BootOnce { by } => match by {
                BootBy::Pxe => f.write_str("set its next boot, once, to the network"),
                BootBy::Http => f.write_str("set its next boot, once, to HTTP"),
                BootBy::Keep => f.write_str("leave its boot order as it is"),
            },
            Self::PowerOn => f.write_str("make sure that it is on"),
            Self::Hands { within } => write!(
                f,
                "wait at most {} for somebody to start it by hand: it has no BMC, so reboot it yourself",
                span(*within)
            ),
            Self::Healthy {
                generation,
                deadline,
            } => write!(
                f,
                "wait at most {} for it to report itself well on generation {generation}",
                span(*deadline)
            ),
            Self::Stay { for_ } => write!(f, "see that it stays well for {}", span(*for_)),
            Self::Otherwise {
                back: Some((number, image)),
            } => {
                write!(
                    f,
                    "if it does not: roll back to generation {number}, {image}"
                )
            }
            Self::Otherwise { back: None } => {
                f.write_str("if it does not: stop, and leave it to a person")
            }
            Self::CallOff { text } => f.write_str(text),
            Self::Nothing => f.write_str("nothing: it is so already"),
        }
    }
}

/// Returns a span of time for people.
pub(crate) fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds @ 120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// How long the system has to shut down.
pub(super) fn shutdown(goal: &Goal, policy: &Policy) -> Duration {
    match goal {
        Goal::Power {
            order: PowerOrder::ForceOff | PowerOrder::ForceCycle,
            ..
        } => Duration::ZERO,
        _ => policy.shutdown,
    }
}

/// Where some work begins.
pub(super) fn first(goal: &Goal, policy: &Policy, seen: &Seen) -> Stage {
    match goal {
        Goal::Deploy { .. } if policy.control == Control::Hands => Stage::Waiting,
        // The boot device of a running host is left alone.
        Goal::Power {
            order: PowerOrder::On,
            ..
        } if seen.power != Some(Power::Off) || policy.boot == BootBy::Keep => Stage::PoweringOn,
        Goal::Power {
            order: PowerOrder::On,
            ..
        } => Stage::SettingBoot,
        Goal::Deploy { .. } | Goal::Power { .. } => Stage::PoweringOff,
    }
}

/// Which stage follows; none when the goal is reached.
pub(super) fn after(stage: Stage, goal: &Goal, policy: &Policy) -> Option<Stage> {
    let deploy = matches!(goal, Goal::Deploy { .. });
    let ends_off = matches!(
        goal,
        Goal::Power {
            order: PowerOrder::Off | PowerOrder::ForceOff,
            ..
        }
    );
    match stage {
        Stage::PoweringOff if ends_off => None,
        Stage::PoweringOff if policy.boot == BootBy::Keep => Some(Stage::PoweringOn),
        Stage::PoweringOff => Some(Stage::SettingBoot),
        Stage::SettingBoot => Some(Stage::PoweringOn),
        Stage::PoweringOn | Stage::Waiting => deploy.then_some(Stage::Booting),
        Stage::Booting => (deploy && !policy.health_for.is_zero()).then_some(Stage::Proving),
        Stage::Proving => None,
    }
}

/// Returns what a request would do, step by step, and changes nothing.
///
/// # Errors
/// When the request would be refused.
pub fn plan_of(
    state: &HostState,
    policy: &Policy,
    request: &Event,
    now: Timestamp,
) -> Result<Vec<Step>, Refusal> {
    if let Some(refusal) = refusal(state, policy, request) {
        return Err(refusal);
    }
    let transition = super::step(state, policy, request, now);
    let after_it = transition.state;
    let new = |number| state.generation(number).is_none();
    let mut steps = Vec::new();
    if let Some(made) = after_it.generations.last().filter(|made| new(made.number)) {
        steps.push(Step::Generation {
            number: made.number,
            image: made.image.clone(),
            reason: made.reason.to_string(),
        });
    }
    if let Phase::Active(work) = &after_it.phase
        && after_it.phase != state.phase
    {
        let mut next = Some(work.stage);
        while let Some(stage) = next {
            steps.push(Step::of(stage, &work.goal, policy));
            next = after(stage, &work.goal, policy);
        }
        if let Goal::Deploy { generation } = work.goal {
            let back = after_it.fallback(&work.failed, generation);
            let back = back.filter(|_| policy.max_rollbacks > 0);
            let back = back.map(|known| (known.number, known.image.clone()));
            steps.push(Step::Otherwise { back });
        }
    }
    let called_off = transition.notes.into_iter();
    let called_off = called_off.filter(|note| note.kind == NoteKind::Cancelled);
    steps.extend(called_off.map(|note| Step::CallOff { text: note.text }));
    if steps.is_empty() {
        steps.push(Step::Nothing);
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case<'a> = (&'a str, Goal, &'a Policy, Option<Power>, &'a [Stage]);

    #[test]
    fn stages_follow_each_other_by_goal_and_policy() {
        use Stage::{Booting, PoweringOff, PoweringOn, Proving, SettingBoot, Waiting};
        let deploy = || Goal::Deploy { generation: 2 };
        let power = |order| Goal::Power {
            order,
            by: "alice".to_owned(),
        };
        let bmc = Policy {
            control: Control::Bmc,
            ..Policy::default()
        };
        let keep = Policy {
            boot: BootBy::Keep,
            health_for: Duration::from_secs(9),
            ..bmc.clone()
        };
        let hands = Policy::default();
        let off = Some(Power::Off);
        let cases: [Case<'_>; 9] = [
            (
                "deploy",
                deploy(),
                &bmc,
                None,
                &[PoweringOff, SettingBoot, PoweringOn, Booting],
            ),
            (
                "keep, and health for",
                deploy(),
                &keep,
                None,
                &[PoweringOff, PoweringOn, Booting, Proving],
            ),
            ("by hand", deploy(), &hands, None, &[Waiting, Booting]),
            ("off", power(PowerOrder::Off), &bmc, None, &[PoweringOff]),
            (
                "off at once",
                power(PowerOrder::ForceOff),
                &bmc,
                None,
                &[PoweringOff],
            ),
            (
                "cycle",
                power(PowerOrder::Cycle),
                &bmc,
                None,
                &[PoweringOff, SettingBoot, PoweringOn],
            ),
            (
                "on, and nobody knows",
                power(PowerOrder::On),
                &bmc,
                None,
                &[PoweringOn],
            ),
            (
                "on, and off",
                power(PowerOrder::On),
                &bmc,
                off,
                &[SettingBoot, PoweringOn],
            ),
            (
                "on, and off, keep",
                power(PowerOrder::On),
                &keep,
                off,
                &[PoweringOn],
            ),
        ];
        for (name, goal, policy, power, wanted) in cases {
            let seen = Seen {
                power,
                ..Seen::default()
            };
            let begin = first(&goal, policy, &seen);
            let stages = std::iter::successors(Some(begin), |stage| after(*stage, &goal, policy));
            assert_eq!(stages.collect::<Vec<_>>(), wanted, "{name}");
        }
    }

    #[test]
    fn spans_are_told_as_people_do() {
        let cases = [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (150, "2 min 30 s"),
            (7_200, "2 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
