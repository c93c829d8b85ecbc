//! Rollouts on their way: asked for, taken further, and shown.
//!
//! It refuses to plan: `netboot_core::rollout` says what comes next, and a rollout's next state is
//! stored together with what it makes of its hosts.

use std::sync::Arc;

use netboot_core::Timestamp;
use netboot_core::lifecycle::HostState;
use netboot_core::rollout::{
    self, Command as Core, Fleet, Mode, Planned, Progress, Rollout, Size, Spec, Target, plan, room,
    start,
};
use serde_json::json;

use super::executor::Executor;
use super::order::{Accepted, HostPlan, Limits, Order, Refusal, Run};
use super::orders::{listed, new_id, permit};
use super::persist;
use super::round::Round;
use super::views::{RolloutHost, RolloutView};
use super::{Control, Prepared};
use crate::store::{Change, StoreError};

/// A rollout, as it is kept.
pub(super) type Kept = Rollout;

/// Rollouts that are over and are kept; the oldest goes first.
const KEPT: usize = 100;

impl Executor {
    /// Begins a rollout.
    pub(super) async fn rollout_start(
        &mut self,
        order: &Order,
        prepared: Prepared,
    ) -> Result<Accepted, Refusal> {
        const ACTION: &str = "rollout";
        if let Some(accepted) = self.answered(order, &prepared.request, ACTION)? {
            return Ok(accepted);
        }
        let id = new_id()?;
        let rollout = self.made(&id, order, &prepared)?;
        let site = Arc::clone(&self.place.site);
        let mut hosts = Vec::new();
        for member in &rollout.members {
            hosts.push(Arc::clone(listed(&site, &member.host)?));
        }
        permit(&order.who, &hosts.iter().collect::<Vec<_>>())?;
        if order.limits == Limits::Held {
            self.hold_breadth(&hosts)?;
        }
        let step = |batch: u32| match (batch, rollout.spec.canary) {
            (0, 1..) => "deployed as canary".to_owned(),
            (batch, 0) => format!("deployed in batch {}", batch.saturating_add(1)),
            (batch, _) => format!("deployed in batch {batch}"),
        };
        let plans = rollout.members.iter().map(|member| HostPlan {
            host: member.host.clone(),
            from: self.hosts.get(member.host.as_str()).and_then(|state| {
                let boots = state.boots()?;
                Some(format!("{} {}", boots.number, boots.image))
            }),
            to: Some(rollout.spec.image.to_string()),
            steps: vec![step(member.batch)],
        });
        let accepted = Accepted {
            done: order.run == Run::Real,
            id: (order.run == Run::Real).then(|| id.clone()),
            hosts: plans.collect(),
            notes: rollout.outline(),
        };
        if order.run == Run::Dry {
            return Ok(accepted);
        }
        let mut round = Round::new(self.clock.now());
        round.store(persist::put(persist::ROLLOUT, &id, &rollout)?);
        let oldest = self.oldest_rollout();
        if let Some(oldest) = &oldest {
            round.store(Change::Remove {
                kind: persist::ROLLOUT.to_owned(),
                name: oldest.to_string(),
            });
        }
        let text = format!("{} begins: {}", rollout.by, rollout.outline().join("; "));
        round.tell(subject(&id), "began", text);
        let (request, object) = (prepared.request, subject(&id));
        let accepted = self
            .accept(order, round, ACTION, object, request, accepted)
            .await?;
        if let Some(oldest) = oldest {
            self.rollouts.remove(&oldest);
        }
        self.rollouts.insert(id.into(), rollout);
        self.rollouts_go_on().await;
        Ok(accepted)
    }

    fn made(&self, id: &str, order: &Order, prepared: &Prepared) -> Result<Rollout, Refusal> {
        let invalid = |reason: String| Refusal::Invalid { reason };
        let site = &self.place.site;
        let mut targets = Vec::new();
        for target in &prepared.targets {
            let host = listed(site, &target.host)?;
            targets.push(Target {
                host: host.name.to_string(),
                rack: host.rack.as_ref().map(ToString::to_string),
                parameters: target.parameters.clone(),
            });
        }
        let images = || prepared.targets.iter().map(|target| &target.image);
        let image = images()
            .next()
            .ok_or_else(|| invalid("the selector names no host".to_owned()))?;
        if images().any(|other| other != image) {
            let text = "these hosts have different images; name one, or roll out role by role";
            return Err(invalid(text.to_owned()));
        }
        let wish = prepared.rollout.clone().unwrap_or_default();
        let limits = &site.limits;
        let batch = wish.batch.as_deref().map_or(Ok(Size::Percent(20)), size)?;
        let spec = Spec {
            image: image.clone(),
            canary: wish.canary.unwrap_or(1),
            batch,
            at_once: wish.at_once.unwrap_or(limits.hosts_at_once),
            at_once_per_rack: wish.at_once_per_rack.or(limits.hosts_at_once_per_rack),
            max_failures: wish.max_failures.unwrap_or(1),
            soak_ms: wish.soak_seconds.unwrap_or(0).saturating_mul(1_000),
        };
        let state = |host: &str| self.hosts.get(host);
        start(id, spec, targets, &order.who.name, state, self.clock.now())
            .map_err(|error| invalid(error.to_string()))
    }

    fn oldest_rollout(&self) -> Option<Arc<str>> {
        let over = || {
            self.rollouts
                .iter()
                .filter(|(_, rollout)| rollout.is_over())
        };
        if over().count() < KEPT {
            return None;
        }
        let oldest = over().min_by_key(|(_, rollout)| rollout.created);
        oldest.map(|(id, _)| Arc::clone(id))
    }

    /// Pauses, resumes, halts or undoes a rollout.
    pub(super) async fn rollout_control(
        &mut self,
        order: &Order,
        id: &str,
        control: Control,
    ) -> Result<Accepted, Refusal> {
        let (core, action) = match control {
            Control::Pause => (Core::Pause, "rollout pause"),
            Control::Resume => (Core::Resume, "rollout resume"),
            Control::Halt => (Core::Halt, "rollout halt"),
            Control::Undo => (Core::Undo, "rollout undo"),
        };
        let request = json!({ "rollout": id });
        if let Some(accepted) = self.answered(order, &request, action)? {
            return Ok(accepted);
        }
        let rollout = self.rollouts.get(id).ok_or_else(|| Refusal::Unknown {
            what: "rollout",
            name: id.to_owned(),
        })?;
        let site = Arc::clone(&self.place.site);
        let members = rollout.members.iter();
        let hosts: Vec<_> = members
            .filter_map(|member| site.host(&member.host))
            .collect();
        permit(&order.who, &hosts)?;
        let gone = rollout.members.iter();
        let mut gone = gone.filter(|member| site.host(&member.host).is_none());
        // Nobody can tell any more for whom a host was that left the site.
        if order.who.scope.is_some()
            && let Some(gone) = gone.next()
        {
            let host = gone.host.clone();
            return Err(Refusal::Forbidden { host });
        }
        let next = rollout.command(core, &order.who.name);
        let next = next.map_err(|error| Refusal::Conflict {
            reason: error.to_string(),
        })?;
        let accepted = Accepted {
            done: order.run == Run::Real,
            id: Some(id.to_owned()),
            hosts: Vec::new(),
            notes: vec![format!("the rollout is {}", next.mode.label())],
        };
        if order.run == Run::Dry {
            return Ok(accepted);
        }
        let mut round = Round::new(self.clock.now());
        round.store(persist::put(persist::ROLLOUT, id, &next)?);
        let text = format!("{} asks for {action}", order.who.name);
        round.tell(subject(id), "ordered", text);
        let accepted = self
            .accept(order, round, action, subject(id), request, accepted)
            .await?;
        self.rollouts.insert(id.into(), next);
        self.rollouts_go_on().await;
        Ok(accepted)
    }

    /// Takes all rollouts as far as they can go now.
    pub(super) async fn rollouts_go_on(&mut self) {
        let open = self
            .rollouts
            .iter()
            .filter(|(_, rollout)| !rollout.is_over());
        let open: Vec<Arc<str>> = open.map(|(id, _)| Arc::clone(id)).collect();
        for id in open {
            self.go_on(&id).await;
        }
    }

    async fn go_on(&mut self, id: &Arc<str>) {
        let now = self.clock.now();
        let Some(planned) = self.planned(id, now) else {
            return;
        };
        let by = format!("rollout {id}");
        let mut round = Round::new(now);
        for action in &planned.actions {
            let (host, event) = action.event(&by);
            self.take(&mut round, host, &event);
        }
        if tell(&mut round, id, &planned).is_err() || self.commit(round, None).await.is_err() {
            // It is planned again with the next tick.
            return;
        }
        self.rollouts.insert(Arc::clone(id), planned.rollout);
    }

    fn planned(&self, id: &str, now: Timestamp) -> Option<Planned> {
        let rollout = self.rollouts.get(id)?;
        let site = &self.place.site;
        let room = room(&site.limits, self.states_of_site());
        let unknown = HostState::default();
        let host = |name: &str| {
            site.host(name)?;
            Some(self.hosts.get(name).unwrap_or(&unknown))
        };
        let fleet = Fleet { host: &host, room };
        Some(plan(rollout, &fleet, now))
    }

    /// The states of the hosts that the site has: one that left it does nothing any more, and no
    /// time passes for it.
    pub(super) fn states_of_site(&self) -> impl Iterator<Item = &HostState> {
        let listed = |(host, _): &(&Arc<str>, &HostState)| self.place.site.host(host).is_some();
        self.hosts.iter().filter(listed).map(|(_, state)| state)
    }

    /// Shows all rollouts, newest first.
    pub(super) fn rollout_views(&self) -> Vec<RolloutView> {
        let state = |host: &str| self.hosts.get(host);
        let view = |rollout| view(rollout, state);
        let mut views: Vec<RolloutView> = self.rollouts.values().map(view).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.began_ms));
        views
    }
}

/// Tells people what a rollout does, and stores it.
fn tell(round: &mut Round, id: &str, planned: &Planned) -> Result<(), StoreError> {
    for note in &planned.notes {
        let text = match &note.host {
            Some(host) => format!("{host}: {}", note.text),
            None => note.text.clone(),
        };
        round.tell(subject(id), "rollout", text);
    }
    if planned.changed {
        round.store(persist::put(persist::ROLLOUT, id, &planned.rollout)?);
    }
    Ok(())
}

/// What an event about a rollout is about.
fn subject(id: &str) -> String {
    format!("rollout/{id}")
}

/// Reads the size of a batch: `5` or `20%`.
fn size(text: &str) -> Result<Size, Refusal> {
    let size = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().map(Size::Percent),
        None => text.parse().ok().map(Size::Count),
    };
    size.ok_or_else(|| Refusal::Invalid {
        reason: format!("`{text}` is no size of a batch; it is a number, or a share such as `20%`"),
    })
}

fn view<'a>(rollout: &Rollout, state: impl Fn(&str) -> Option<&'a HostState>) -> RolloutView {
    let by_hand = |member: &&rollout::Member| {
        state(&member.host).is_some_and(|state| rollout.waits_for_hands(member, state))
    };
    let waiting = rollout.members.iter().filter(by_hand).count();
    let why = match &rollout.mode {
        Mode::Paused { by } => Some(format!("by {by}")),
        Mode::Undoing { by } => Some(format!("asked for by {by}")),
        Mode::Halted { why } => Some(why.clone()),
        Mode::Running => match waiting {
            0 => None,
            1 => Some("1 host waits for somebody to start it by hand".to_owned()),
            hosts => Some(format!(
                "{hosts} hosts wait for somebody to start them by hand"
            )),
        },
        Mode::Done | Mode::Undone => None,
    };
    let host = |member: &rollout::Member| RolloutHost {
        host: member.host.clone(),
        batch: member.batch,
        state: member.progress.label().to_owned(),
        why: match &member.progress {
            Progress::Failed { why } | Progress::Skipped { why } | Progress::NotUndone { why } => {
                Some(why.clone())
            }
            _ if by_hand(&member) => Some("it waits for somebody to start it by hand".to_owned()),
            _ => None,
        },
    };
    RolloutView {
        id: rollout.id.clone(),
        image: rollout.spec.image.to_string(),
        by: rollout.by.clone(),
        began_ms: rollout.created.0,
        state: rollout.mode.label().to_owned(),
        why,
        hosts: rollout.members.iter().map(host).collect(),
    }
}
