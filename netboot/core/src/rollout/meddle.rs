//! What others did to a host while a rollout goes on.
//!
//! It refuses to call a heal or a roll back of the lifecycle's own somebody's doing.

use super::state::{Member, Progress, Rollout};
use crate::lifecycle::{Goal, HostState, Phase, Reason, Stage};

pub(super) fn skipped(why: &str) -> Progress {
    let why = why.to_owned();
    Progress::Skipped { why }
}

/// Tells whether the work under way on a host is about a generation.
pub(super) fn works_on(state: &HostState, number: u32) -> bool {
    let goal = state.work().map(|work| &work.goal);
    goal == Some(&Goal::Deploy { generation: number })
}

/// Says what somebody else did to a host since the rollout was asked for.
pub(super) fn meddled(state: &HostState, member: &Member, intent: &str) -> Option<String> {
    let by_person = state.generations.iter().rev().find(|known| {
        let ours = known.intents.iter().any(|id| id == intent);
        let asked = match known.reason {
            Reason::Deploy => true,
            Reason::Rollback { .. } => !known.intents.is_empty(),
            Reason::Heal { .. } | Reason::Adopted => false,
        };
        known.number > member.base && asked && !ours
    });
    if let Some(known) = by_person {
        return Some(format!("{} deployed {} meanwhile", known.by, known.image));
    }
    match &state.phase {
        Phase::Stopped { at, why } if Some(*at) != member.stopped => {
            Some(format!("it stopped meanwhile: {why}"))
        }
        _ => None,
    }
}

impl Rollout {
    /// Tells whether one of its hosts waits for somebody to start it by hand, for a day if need be:
    /// it serves on meanwhile, so it takes no room, and no later batch waits for it once another host
    /// of its own is healthy.
    #[must_use]
    pub fn waits_for_hands(&self, member: &Member, state: &HostState) -> bool {
        let Some(work) = state.work().filter(|work| work.stage == Stage::Waiting) else {
            return false;
        };
        let intents = [self.intent(&member.host), self.undo_intent(&member.host)];
        let mut ours = intents.iter().filter_map(|intent| state.answers(intent));
        ours.any(|ours| works_on(state, ours.number) || work.failed.contains(&ours.number))
    }
}
