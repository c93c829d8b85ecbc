//! One round of the executor: what happened to some hosts, made into one transaction.
//!
//! It refuses to let anything out before the transaction is on disk: neither states, nor actions,
//! nor answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use netboot_core::Timestamp;
use netboot_core::lifecycle::{
    Action, Changed, Event, HostState, Note, NoteKind, Operation, Policy, PowerIntent, step,
};
use netboot_core::site::{Host, Site};

use super::persist::{self, EventBody};
use crate::store::{Change, StoreError};

/// What happened to some hosts, and what comes of it.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) now: Timestamp,
    states: BTreeMap<Arc<str>, (HostState, Changed)>,
    pub(super) actions: Vec<(Arc<str>, Operation, PowerIntent)>,
    pub(super) told: Vec<Told>,
    changes: Vec<Change>,
}

/// Something to tell people, in the log and as an event.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) subject: String,
    pub(super) kind: &'static str,
    pub(super) text: String,
}

impl Round {
    /// Begins one.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            states: BTreeMap::new(),
            actions: Vec::new(),
            told: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Returns a host's state as this round leaves it, if it touches it.
    pub(super) fn state(&self, host: &str) -> Option<&HostState> {
        self.states.get(host).map(|(state, _)| state)
    }

    /// Lets something happen to a host.
    pub(super) fn take(
        &mut self,
        site: &Site,
        host: &Arc<Host>,
        before: &HostState,
        event: &Event,
    ) {
        self.follow(&host.name, &Policy::of(site, host), before, event);
    }

    /// Lets something happen to a host that the site does not have any more.
    pub(super) fn away(&mut self, host: &Arc<str>, before: &HostState, event: &Event) {
        self.follow(host, &Policy::default(), before, event);
    }

    fn follow(&mut self, host: &Arc<str>, policy: &Policy, before: &HostState, event: &Event) {
        let before = self.state(host).unwrap_or(before);
        let next = step(before, policy, event, self.now);
        for Action::Power { operation, intent } in next.actions {
            self.actions.push((Arc::clone(host), operation, intent));
        }
        let told = next.notes.into_iter().map(|note| told(host, note));
        self.told.extend(told);
        let changed = match self.states.get(host) {
            Some((_, Changed::State)) => Changed::State,
            _ => next.changed,
        };
        self.states.insert(Arc::clone(host), (next.state, changed));
    }

    /// Adds what must be stored besides.
    pub(super) fn store(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Adds something to tell people.
    pub(super) fn tell(&mut self, subject: impl Into<String>, kind: &'static str, text: String) {
        self.told.push(Told {
            subject: subject.into(),
            kind,
            text,
        });
    }

    /// Returns everything that must be on disk, with events numbered after `event`.
    ///
    /// # Errors
    /// When a state has no form on disk.
    pub(super) fn changes(&mut self, event: u64) -> Result<Vec<Change>, StoreError> {
        let mut changes = std::mem::take(&mut self.changes);
        for (host, (state, changed)) in &self.states {
            if *changed == Changed::State {
                changes.push(persist::put(persist::STATE, host, state)?);
            }
        }
        for (seq, told) in (event + 1..).zip(&self.told) {
            let body = EventBody {
                kind: told.kind.to_owned(),
                text: told.text.clone(),
            };
            changes.extend(persist::event(seq, self.now, &told.subject, &body));
        }
        Ok(changes)
    }

    /// Returns the states that it leads to.
    pub(super) fn into_states(self) -> impl Iterator<Item = (Arc<str>, HostState)> {
        self.states
            .into_iter()
            .map(|(host, (state, _))| (host, state))
    }
}

fn told(host: &Arc<str>, note: Note) -> Told {
    Told {
        subject: host.to_string(),
        kind: note.kind.label(),
        text: note.text,
    }
}

/// Whether an operator should look when this is told.
pub(super) fn is_alarming(kind: &str) -> bool {
    [
        NoteKind::Trouble,
        NoteKind::Failed,
        NoteKind::RolledBack,
        NoteKind::Stopped,
        NoteKind::Drift,
        NoteKind::Refused,
    ]
    .iter()
    .any(|alarming| alarming.label() == kind)
}
