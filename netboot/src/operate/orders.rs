//! Orders of people: who may give them, how wide they are, what they lead to, and their answer.
//!
//! It refuses an order as a whole: either every host of it is asked, or none.

use std::sync::Arc;

use netboot_core::lifecycle::{self, Deploy, Event, HostState, Policy, PowerOrder, When, plan_of};
use netboot_core::rollout::{TooWide, breadth, room};
use netboot_core::selector::{Selector, SelectorError};
use netboot_core::site::{Host, Site};
use serde_json::{Value, json};

use super::executor::Executor;
use super::order::{Accepted, Deed, HostPlan, Limits, Order, Power, Refusal, Run, Who};
use super::persist::{self, Answered};
use super::round::Round;
use super::views::{GenerationView, StateView};
use super::{Command, Enroll, Prepared};
use crate::store::Change;

/// Answers that are kept for keys; the oldest goes first.
const ANSWERS: usize = 1_000;

/// Longest key.
const KEY: usize = 200;

/// An order, ready to be judged.
pub(super) struct Wanted<'a> {
    pub(super) action: &'static str,
    pub(super) request: Value,
    /// Whether it may take hosts out of service.
    pub(super) touches: bool,
    /// What each host is asked, given the id of the order.
    pub(super) asks: Vec<(Arc<Host>, Event)>,
    pub(super) id: &'a str,
}

impl Executor {
    /// Takes one command of a person.
    pub(super) async fn order(&mut self, command: Command) {
        match command {
            Command::Deploy(order, prepared, answer) => {
                let done = self.deploy(&order, prepared).await;
                drop(answer.send(done));
            }
            Command::Rollback(order, hosts, answer) => {
                let done = self.rollback(&order, &hosts).await;
                drop(answer.send(done));
            }
            Command::Cancel(order, hosts, answer) => {
                let done = self.cancel(&order, &hosts).await;
                drop(answer.send(done));
            }
            Command::Power(order, hosts, power, answer) => {
                let done = self.power(&order, &hosts, power).await;
                drop(answer.send(done));
            }
            Command::RolloutStart(order, prepared, answer) => {
                let done = self.rollout_start(&order, prepared).await;
                drop(answer.send(done));
            }
            Command::RolloutControl(order, id, control, answer) => {
                let done = self.rollout_control(&order, &id, control).await;
                drop(answer.send(done));
            }
            Command::Recorded(order, host, seen, enroll, answer) => {
                let power = super::bmc::power(&seen.power);
                let done = self.enrolled(&order, &host, seen.identity, enroll).await;
                if done.is_ok() {
                    self.power_read(&host, power).await;
                }
                drop(answer.send(done));
            }
            question => self.question(question),
        }
    }

    /// Answers what changes nothing.
    fn question(&mut self, question: Command) {
        match question {
            Command::Rollouts(answer) => drop(answer.send(Ok(self.rollout_views()))),
            Command::States(answer) => {
                let site = Arc::clone(&self.place.site);
                let view = |host: &Arc<Host>| (Arc::clone(&host.name), self.view(host));
                drop(answer.send(Ok(site.hosts().map(view).collect())));
            }
            Command::History(host, answer) => drop(answer.send(self.history(&host))),
            Command::Reach(host, answer) => {
                let site = Arc::clone(&self.place.site);
                let reached = listed(&site, &host).and_then(|listed| {
                    self.reach(listed).map_err(|reason| Refusal::Bmc {
                        host: host.to_string(),
                        reason,
                    })
                });
                drop(answer.send(reached));
            }
            // Everything else is an order, or was taken before.
            _ => {}
        }
    }

    fn view(&self, host: &Arc<Host>) -> StateView {
        let unknown = HostState::default();
        let state = self.hosts.get(&host.name).unwrap_or(&unknown);
        let policy = Policy::of(&self.place.site, host);
        let problem = self.problems.get(&host.name);
        let bmc = problem.map(|problem| problem.text.clone());
        let view = StateView::with(state, &policy, bmc);
        match (&host.bmc, self.heard_power.get(&host.name)) {
            (None, _) => StateView {
                power: None,
                ..view
            },
            (Some(_), Some(heard)) if heard.is_fresh(self.clock) => view,
            // The poller is not heard while an operation is under way, which may take long.
            (Some(_), Some(heard)) if self.powers.is_busy(&host.name) && !heard.doubted => view,
            (Some(_), heard) => view.without_power(heard.map(|heard| heard.at)),
        }
    }

    fn history(&self, host: &Arc<str>) -> Result<Vec<GenerationView>, Refusal> {
        listed(&self.place.site, host)?;
        let Some(state) = self.hosts.get(host) else {
            return Ok(Vec::new());
        };
        let view = |generation| GenerationView::of(generation, state.desired);
        Ok(state.generations.iter().rev().map(view).collect())
    }

    async fn deploy(&mut self, order: &Order, prepared: Prepared) -> Result<Accepted, Refusal> {
        let id = new_id()?;
        let when = if prepared.again {
            When::Always
        } else {
            When::Needed
        };
        let site = Arc::clone(&self.place.site);
        let mut asks = Vec::new();
        for target in prepared.targets {
            let host = Arc::clone(listed(&site, &target.host)?);
            let deploy = Deploy {
                intent: id.clone(),
                image: target.image,
                parameters: target.parameters,
                by: order.who.name.clone(),
                when,
            };
            asks.push((host, Event::Deploy(deploy)));
        }
        let wanted = Wanted {
            action: "deploy",
            request: prepared.request,
            touches: true,
            asks,
            id: &id,
        };
        self.carry_out(order, wanted).await
    }

    async fn rollback(&mut self, order: &Order, hosts: &Selector) -> Result<Accepted, Refusal> {
        let id = new_id()?;
        let by = order.who.name.clone();
        let event = Event::Rollback {
            intent: id.clone(),
            by,
        };
        self.same_for_all(order, hosts, "rollback", &id, event)
            .await
    }

    async fn power(
        &mut self,
        order: &Order,
        hosts: &Selector,
        power: Power,
    ) -> Result<Accepted, Refusal> {
        let id = new_id()?;
        let by = order.who.name.clone();
        let asked = match power {
            Power::On => PowerOrder::On,
            Power::Off => PowerOrder::Off,
            Power::ForceOff => PowerOrder::ForceOff,
            Power::Cycle => PowerOrder::Cycle,
        };
        let event = Event::Power { order: asked, by };
        self.same_for_all(order, hosts, asked.label(), &id, event)
            .await
    }

    async fn cancel(&mut self, order: &Order, hosts: &Selector) -> Result<Accepted, Refusal> {
        let id = new_id()?;
        let by = order.who.name.clone();
        self.same_for_all(order, hosts, "cancel", &id, Event::Cancel { by })
            .await
    }

    async fn same_for_all(
        &mut self,
        order: &Order,
        hosts: &Selector,
        action: &'static str,
        id: &str,
        event: Event,
    ) -> Result<Accepted, Refusal> {
        let site = Arc::clone(&self.place.site);
        let chosen = select(&site, hosts)?;
        let asks = chosen
            .into_iter()
            .map(|host| (Arc::clone(host), event.clone()));
        let wanted = Wanted {
            action,
            request: json!({ "hosts": hosts }),
            touches: !matches!(
                event,
                Event::Cancel { .. }
                    | Event::Power {
                        order: PowerOrder::On,
                        ..
                    }
            ),
            asks: asks.collect(),
            id,
        };
        self.carry_out(order, wanted).await
    }

    /// Judges an order, and makes it true if it may be and shall be.
    async fn carry_out(&mut self, order: &Order, wanted: Wanted<'_>) -> Result<Accepted, Refusal> {
        if let Some(accepted) = self.answered(order, &wanted.request, wanted.action)? {
            return Ok(accepted);
        }
        let hosts: Vec<&Arc<Host>> = wanted.asks.iter().map(|(host, _)| host).collect();
        permit(&order.who, &hosts)?;
        let (plans, touched) = self.plans(&wanted.asks)?;
        if wanted.touches {
            self.hold_limits(order, &touched)?;
        }
        let mut accepted = Accepted {
            done: order.run == Run::Real,
            id: None,
            hosts: plans,
            notes: Vec::new(),
        };
        if order.run == Run::Dry {
            return Ok(accepted);
        }
        accepted.id = Some(wanted.id.to_owned());
        let mut round = Round::new(self.clock.now());
        for (host, event) in &wanted.asks {
            self.take(&mut round, &host.name, event);
        }
        let names: Vec<&str> = hosts.iter().map(|host| &*host.name).collect();
        let object = names.join(" ");
        self.accept(
            order,
            round,
            wanted.action,
            object,
            wanted.request,
            accepted,
        )
        .await
    }

    /// Stores an order with all that it leads to, and its answer under its key.
    pub(super) async fn accept(
        &mut self,
        order: &Order,
        mut round: Round,
        action: &'static str,
        object: String,
        request: Value,
        accepted: Accepted,
    ) -> Result<Accepted, Refusal> {
        let answered = Answered {
            request: keyed(action, &request),
            accepted: accepted.clone(),
            at: round.now,
        };
        let name = order.key.as_deref().map(|key| keep_as(&order.who, key));
        let oldest = self.oldest_answer().filter(|_| name.is_some());
        if let Some(name) = &name {
            round.store(persist::put(persist::INTENT, name, &answered)?);
        }
        if let Some(oldest) = &oldest {
            round.store(Change::Remove {
                kind: persist::INTENT.to_owned(),
                name: oldest.to_string(),
            });
        }
        let deed = Deed {
            at: round.now,
            who: order.who.clone(),
            action,
            object,
            request,
            outcome: match &accepted.id {
                Some(id) => format!("accepted as {id}"),
                None => "accepted".to_owned(),
            },
        };
        self.commit(round, Some(deed)).await?;
        if let Some(oldest) = oldest {
            self.answers.remove(&oldest);
        }
        if let Some(name) = name {
            self.answers.insert(name, answered);
        }
        Ok(accepted)
    }

    fn oldest_answer(&self) -> Option<Arc<str>> {
        if self.answers.len() < ANSWERS {
            return None;
        }
        let oldest = self.answers.iter().min_by_key(|(_, answered)| answered.at);
        oldest.map(|(name, _)| Arc::clone(name))
    }

    /// Finds the answer that an order's key got before.
    pub(super) fn answered(
        &self,
        order: &Order,
        request: &Value,
        action: &str,
    ) -> Result<Option<Accepted>, Refusal> {
        let Some(key) = &order.key else {
            return Ok(None);
        };
        if key.is_empty() || key.len() > KEY {
            return Err(Refusal::Invalid {
                reason: format!("a key has 1 to {KEY} bytes"),
            });
        }
        match self.answers.get(&keep_as(&order.who, key)) {
            Some(answered) if answered.request == keyed(action, request) => {
                Ok(Some(answered.accepted.clone()))
            }
            Some(_) => Err(Refusal::Conflict {
                reason: format!("the key `{key}` was used for another request"),
            }),
            None => Ok(None),
        }
    }

    /// Says what each host would do, and which of them anything happens to.
    fn plans(
        &self,
        asks: &[(Arc<Host>, Event)],
    ) -> Result<(Vec<HostPlan>, Vec<Arc<Host>>), Refusal> {
        let (mut plans, mut touched) = (Vec::new(), Vec::new());
        let (site, unknown) = (&self.place.site, HostState::default());
        for (host, event) in asks {
            let state = self.hosts.get(&host.name).unwrap_or(&unknown);
            let steps = plan_of(state, &Policy::of(site, host), event, self.clock.now());
            let steps = steps.map_err(|refusal| Refusal::Conflict {
                reason: format!("`{}`: {refusal}", host.name),
            })?;
            if steps != [lifecycle::Step::Nothing] {
                touched.push(Arc::clone(host));
            }
            let to = steps.iter().find_map(|step| match step {
                lifecycle::Step::Generation { number, image, .. } => {
                    Some(format!("generation {number}, {image}"))
                }
                _ => None,
            });
            plans.push(HostPlan {
                host: host.name.to_string(),
                from: state
                    .boots()
                    .map(|boots| format!("generation {}, {}", boots.number, boots.image)),
                to,
                steps: steps.iter().map(ToString::to_string).collect(),
            });
        }
        Ok((plans, touched))
    }

    /// Checks that an order is not too wide.
    pub(super) fn hold_limits(&self, order: &Order, touched: &[Arc<Host>]) -> Result<(), Refusal> {
        if order.limits == Limits::Overridden {
            return Ok(());
        }
        self.hold_breadth(touched)?;
        let site = &self.place.site;
        let room = room(&site.limits, self.states_of_site());
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if touched.len() > room {
            let hourly = match site.limits.hosts_per_hour {
                Some(hosts) => format!(", and {hosts} in an hour"),
                None => String::new(),
            };
            return Err(Refusal::TooWide {
                limit: format!(
                    "the site allows {} hosts at once{hourly}: {room} more now; a rollout takes its turns",
                    site.limits.hosts_at_once
                ),
                hosts: touched.len(),
            });
        }
        Ok(())
    }

    /// Checks the share of site and roles, and protected hosts.
    pub(super) fn hold_breadth(&self, touched: &[Arc<Host>]) -> Result<(), Refusal> {
        let hosts: Vec<&Arc<Host>> = touched.iter().collect();
        match breadth(&self.place.site, &hosts).first() {
            None => Ok(()),
            Some(TooWide::Protected(host)) => Err(Refusal::Protected {
                host: host.to_string(),
            }),
            Some(wide) => Err(Refusal::TooWide {
                limit: wide.to_string(),
                hosts: touched.len(),
            }),
        }
    }

    /// Records an identity that a person asked to be recorded.
    async fn enrolled(
        &mut self,
        order: &Order,
        host: &Arc<str>,
        identity: ipmi::Identity,
        enroll: Enroll,
    ) -> Result<String, Refusal> {
        let known = self.identities.get(host);
        let outcome = match (known, enroll) {
            (Some(known), _) if *known == identity => {
                return Ok("is recorded so already".to_owned());
            }
            (Some(known), Enroll::Record) => {
                return Err(Refusal::Conflict {
                    reason: format!(
                        "`{host}` is recorded as {known}, and its BMC says {identity}; replace it explicitly if the machine was exchanged"
                    ),
                });
            }
            (Some(known), Enroll::Replace) => format!("recorded: {identity}, instead of {known}"),
            (None, _) => format!("recorded: {identity}"),
        };
        if order.run == Run::Real {
            self.record(host, identity, &order.who, outcome.clone())
                .await?;
        }
        Ok(outcome)
    }
}

/// Finds the hosts that somebody means.
pub(super) fn select<'a>(site: &'a Site, hosts: &Selector) -> Result<Vec<&'a Arc<Host>>, Refusal> {
    hosts.check(site).map_err(|error| match &error {
        SelectorError::Nobody { word, .. } => Refusal::Unknown {
            what: "host",
            name: word.clone(),
        },
        _ => Refusal::Invalid {
            reason: error.to_string(),
        },
    })?;
    Ok(site.hosts().filter(|host| hosts.selects(host)).collect())
}

/// Finds a host of the site.
pub(super) fn listed<'a>(site: &'a Site, host: &str) -> Result<&'a Arc<Host>, Refusal> {
    site.host(host).ok_or_else(|| Refusal::Unknown {
        what: "host",
        name: host.to_owned(),
    })
}

/// Checks that somebody may touch hosts.
pub(super) fn permit(who: &Who, hosts: &[&Arc<Host>]) -> Result<(), Refusal> {
    let Some(scope) = &who.scope else {
        return Ok(());
    };
    match hosts.iter().find(|host| !scope.selects(host)) {
        None => Ok(()),
        Some(host) => Err(Refusal::Forbidden {
            host: host.name.to_string(),
        }),
    }
}

/// Makes the id of an order: short enough to read out, and never the same twice.
pub(super) fn new_id() -> Result<String, Refusal> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| Refusal::Unavailable {
        reason: "the appliance has no randomness".to_owned(),
    })?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

/// Each token has keys of its own.
fn keep_as(who: &Who, key: &str) -> Arc<str> {
    format!("{}/{key}", who.name).into()
}

fn keyed(action: &str, request: &Value) -> Value {
    json!({ "action": action, "request": request })
}
