//! The one task that owns the state of all hosts: what happens to them goes through it, in order.
//!
//! It refuses to act before the transaction that says so is on disk, and to wait for a BMC: those
//! are asked by tasks of their own, whose answers come back as events.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use image_manifest::Stage;
use image_manifest::layout::Layout;
use ipmi::Identity;
use netboot_core::lifecycle::{
    Event, Goal, HostState, NoteKind, Operation, Policy, PowerIntent, Said, Watch,
};
use netboot_core::site::Site;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::bmc::Problem;
use super::bmcs::HeardPower;
use super::clock::Clock;
use super::departed::{Departures, Look};
use super::metrics::Metrics;
use super::order::{Answer, Deed, Ledger, Refusal, Who};
use super::persist::{Answered, Loaded};
use super::power::{Asks, Ended, Job, Learned, Powers, Reached, Sending};
use super::rollouts::Kept;
use super::round::{Round, Told, is_alarming};
use super::{Chosen, Command, Place, Reported};
use crate::cli::report::chain;
use crate::images;
use crate::serve::HEARTBEAT_SECONDS;
use crate::store::{Change, StoreError, Urgency, Writer};

/// Commands that are taken in one transaction: a rack that starts at once is one.
const BATCH: usize = 256;

/// The state of a host of which nothing is known.
static UNKNOWN: LazyLock<HostState> = LazyLock::new(HostState::default);

/// Who waits until a round is on disk.
#[derive(Debug)]
enum Waiting {
    /// Who makes a script for a host.
    Boot(Result<Chosen, Refusal>, Answer<Chosen>),
    /// Who passes on a report of a host.
    Report(Answer<()>),
}

/// What the executor is made of.
#[derive(Debug)]
pub(super) struct Executor {
    pub(super) place: Place,
    pub(super) places: watch::Receiver<Place>,
    pub(super) clock: Clock,
    pub(super) images: Layout,
    pub(super) writer: Writer,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) metrics: Metrics,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) learned: mpsc::Receiver<Learned>,
    pub(super) sending: mpsc::Receiver<Sending>,
    pub(super) polled: mpsc::Receiver<super::poll::Polled>,
    pub(super) targets: watch::Sender<super::poll::Targets>,
    pub(super) wishes: mpsc::Sender<Arc<str>>,
    pub(super) powers: Powers,
    pub(super) hosts: BTreeMap<Arc<str>, HostState>,
    pub(super) rollouts: BTreeMap<Arc<str>, Kept>,
    pub(super) answers: BTreeMap<Arc<str>, Answered>,
    pub(super) identities: BTreeMap<Arc<str>, Identity>,
    /// BMCs that were made already.
    pub(super) reached: HashMap<Arc<str>, Reached>,
    /// What is wrong with BMCs, in words.
    pub(super) problems: HashMap<Arc<str>, Problem>,
    /// When BMCs told the power last.
    pub(super) heard_power: HashMap<Arc<str>, HeardPower>,
    /// Hosts that left the site.
    pub(super) departures: Departures,
    /// When each host's next tick is due.
    due: HashMap<Arc<str>, Instant>,
    /// The boots whose system reports, and when it did so last.
    heard: HashMap<Arc<str>, (String, Instant)>,
    /// What could not be stored, and is not forgotten.
    undelivered: Vec<(Arc<str>, Event)>,
    /// Number of the newest event, for who follows them.
    event: watch::Sender<u64>,
}

/// What an executor is given when it begins.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) places: watch::Receiver<Place>,
    pub(super) clock: Clock,
    /// The store that hosts boot from.
    pub(super) images: Layout,
    pub(super) writer: Writer,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) metrics: Metrics,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) polled: mpsc::Receiver<super::poll::Polled>,
    pub(super) targets: watch::Sender<super::poll::Targets>,
    /// Hosts whose power is to be read before the next round.
    pub(super) wishes: mpsc::Sender<Arc<str>>,
    pub(super) event: watch::Sender<u64>,
}

impl Executor {
    /// Goes on where the store says that the last one stopped.
    pub(super) fn new(parts: Parts, loaded: Loaded) -> Self {
        let (learn, learned) = mpsc::channel(BATCH);
        let (send, sending) = mpsc::channel(BATCH);
        let asks = Asks {
            learn,
            sending: send,
        };
        let mut places = parts.places;
        let place = places.borrow_and_update().clone();
        parts.event.send_replace(loaded.event);
        let mut executor = Self {
            place,
            places,
            clock: parts.clock,
            images: parts.images,
            writer: parts.writer,
            ledger: parts.ledger,
            metrics: parts.metrics,
            commands: parts.commands,
            learned,
            sending,
            polled: parts.polled,
            targets: parts.targets,
            wishes: parts.wishes,
            powers: Powers::new(asks),
            hosts: loaded.states,
            rollouts: loaded.rollouts,
            answers: loaded.answers,
            identities: loaded.identities,
            reached: HashMap::new(),
            problems: HashMap::new(),
            heard_power: HashMap::new(),
            departures: Departures::new(loaded.departed),
            due: HashMap::new(),
            heard: HashMap::new(),
            undelivered: Vec::new(),
            event: parts.event,
        };
        executor.resume();
        executor
    }

    /// Takes up what the last executor left: each host is told, and each that reported is listened
    /// to again.
    fn resume(&mut self) {
        let now = Instant::now();
        for (name, state) in &self.hosts {
            if self.place.site.host(name).is_some() {
                let event = (Arc::clone(name), Event::Restarted);
                self.undelivered.push(event);
            }
            if let (Some(booted), Some(_)) = (&state.seen.boot, state.seen.tree) {
                let heard = (booted.boot.clone(), now);
                self.heard.insert(Arc::clone(name), heard);
            }
        }
        self.retarget();
    }

    /// Runs until nobody can ask it anything any more.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(self.clock.wait(Watch::TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                count = self.commands.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.serve(&mut batch).await;
                }
                ended = self.powers.ended() => self.ended(ended).await,
                Some(learned) = self.learned.recv() => self.learn(learned).await,
                Some(sending) = self.sending.recv() => self.sending(sending).await,
                Some(polled) = self.polled.recv() => self.polled(polled).await,
                Ok(()) = self.places.changed() => self.moved().await,
                at = ticks.tick() => self.tick(at).await,
            }
        }
    }

    /// Takes commands in order; what hosts do is stored together.
    ///
    /// Who had the site replaced and then asks is answered by the new one.
    async fn serve(&mut self, batch: &mut Vec<Command>) {
        if self.places.has_changed().unwrap_or(false) {
            self.moved().await;
        }
        let mut round = Round::new(self.clock.now());
        let mut waiting = Vec::new();
        for command in batch.drain(..) {
            match command {
                Command::Choose(host, answer) => {
                    drop(answer.send(Ok(self.chosen(&round, &host))));
                }
                Command::Began(began, answer) => {
                    let chosen = self.began(&mut round, began);
                    waiting.push(Waiting::Boot(chosen, answer));
                }
                Command::Reported(reported, answer) => {
                    self.reported(&mut round, reported);
                    waiting.push(Waiting::Report(answer));
                }
                Command::Heartbeat(heartbeat) => self.reported(&mut round, heartbeat),
                Command::Refused(host, text) => round.tell(&*host, "refused", text),
                other => {
                    let done = std::mem::replace(&mut round, Round::new(self.clock.now()));
                    self.settle(done, std::mem::take(&mut waiting)).await;
                    self.order(other).await;
                    round = Round::new(self.clock.now());
                }
            }
        }
        self.settle(round, waiting).await;
    }

    /// Stores what hosts did, and answers those that wait for it.
    async fn settle(&mut self, round: Round, waiting: Vec<Waiting>) {
        let stored = self.commit(round, None).await;
        let stored = stored.map_err(|error| Refusal::Unavailable {
            reason: chain(&error),
        });
        for one in waiting {
            let stored = stored.clone();
            match one {
                Waiting::Boot(chosen, answer) => drop(answer.send(stored.and(chosen))),
                Waiting::Report(answer) => drop(answer.send(stored)),
            }
        }
    }

    /// Returns a host's state, as a round leaves it.
    pub(super) fn state<'a>(&'a self, round: &'a Round, host: &str) -> &'a HostState {
        let before = || self.hosts.get(host).unwrap_or(&UNKNOWN);
        round.state(host).unwrap_or_else(before)
    }

    /// Lets something happen to a host; nothing does to one that the site does not have.
    pub(super) fn take(&self, round: &mut Round, host: &str, event: &Event) {
        let site: &Site = &self.place.site;
        if let Some(listed) = site.host(host) {
            let before = self.hosts.get(host).unwrap_or(&UNKNOWN);
            round.take(site, listed, before, event);
        }
    }

    fn chosen(&self, round: &Round, host: &str) -> Option<Chosen> {
        let boots = self.state(round, host).boots()?;
        Some(Chosen {
            generation: boots.number,
            image: boots.image.clone(),
            parameters: boots.parameters.clone(),
        })
    }

    /// A script is made for a host: what it boots is decided here and nowhere else.
    fn began(&self, round: &mut Round, began: super::Began) -> Result<Chosen, Refusal> {
        let changed = || Refusal::Conflict {
            reason: "what it boots was changed at this moment; it asks again".to_owned(),
        };
        let host = &began.host;
        match (&began.adopt, self.state(round, host).generations.is_empty()) {
            (Some((image, parameters)), true) => {
                let adopt = Event::Adopt {
                    image: image.clone(),
                    parameters: parameters.clone(),
                    by: "appliance".to_owned(),
                };
                self.take(round, host, &adopt);
            }
            (None, false) => {}
            _ => return Err(changed()),
        }
        let chosen = self.chosen(round, host).ok_or_else(|| Refusal::Conflict {
            reason: "no generation of it can be booted; deploy one".to_owned(),
        })?;
        if began.adopt.is_none() && chosen.generation != began.generation {
            return Err(changed());
        }
        let event = Event::BootBegan {
            boot: began.boot,
            generation: chosen.generation,
        };
        self.take(round, host, &event);
        Ok(chosen)
    }

    fn reported(&mut self, round: &mut Round, reported: Reported) {
        let Reported {
            host,
            boot,
            stage,
            changes,
        } = reported;
        for change in changes {
            round.store(change);
        }
        if reports_again(&stage) {
            let heard = (boot.clone(), Instant::now());
            self.heard.insert(Arc::clone(&host), heard);
        }
        if let Some(said) = Said::of(&stage) {
            self.take(round, &host, &Event::Reported { boot, said });
        }
    }

    /// Makes a round true: on disk first, then in memory, then in the world.
    ///
    /// # Errors
    /// When it could not be stored: then nothing of it is true.
    pub(super) async fn commit(
        &mut self,
        mut round: Round,
        deed: Option<Deed>,
    ) -> Result<(), StoreError> {
        let event = *self.event.borrow();
        let changes = round.changes(event)?;
        let deed = deed.or_else(|| own_deed(&round));
        let stored = match deed {
            Some(deed) => self.ledger.commit(deed, changes).await,
            None => store(&self.writer, changes).await,
        };
        if let Err(error) = stored {
            self.metrics.unstored.inc();
            tracing::warn!(error = %chain(&error), "nothing is done, it could not be stored");
            return Err(error);
        }
        let told = std::mem::take(&mut round.told);
        for told in &told {
            self.metrics.told(told.kind);
            let (host, text) = (told.subject.as_str(), told.text.as_str());
            if is_alarming(told.kind) {
                tracing::warn!(host, kind = told.kind, text, "host needs a look");
            } else {
                tracing::info!(host, kind = told.kind, text, "host went on");
            }
        }
        if !told.is_empty() {
            self.event.send_replace(event + told.len() as u64);
        }
        let actions = std::mem::take(&mut round.actions);
        let next = Instant::now();
        for (host, state) in round.into_states() {
            // What happens in between puts no tick off.
            let due = next + self.clock.wait(state.tick_within());
            let known = self.due.entry(Arc::clone(&host)).or_insert(due);
            *known = due.min(*known);
            self.powers
                .retain(&host, |operation| state.awaits(operation));
            self.hosts.insert(host, state);
        }
        for (host, operation, intent) in actions {
            self.act(&host, operation, intent);
        }
        Ok(())
    }

    fn act(&mut self, host: &Arc<str>, operation: Operation, intent: PowerIntent) {
        let site = Arc::clone(&self.place.site);
        let Some(listed) = site.host(host) else {
            return;
        };
        let bmc = self.reach(listed);
        self.powers.begin(Job {
            host: Arc::clone(host),
            operation,
            intent,
            deadline: self
                .clock
                .wait(Policy::of(&site, listed).operation(&intent)),
            bmc,
        });
    }

    /// Something is about to take the power from a host: it may, when that is on disk and still asked for, and the
    /// store still has what the host is to boot then.
    async fn sending(&mut self, sending: Sending) {
        let (host, operation) = (&sending.host, sending.operation);
        if let Err(gone) = self.boots_again(host).await {
            drop(sending.leave.send(Err(gone)));
            return;
        }
        let mut round = Round::new(self.clock.now());
        self.take(&mut round, host, &Event::Sending { operation });
        let stored = self.commit(round, None).await;
        let state = self.hosts.get(host);
        let awaited = state.is_some_and(|state| state.awaits(operation))
            && self.place.site.host(host).is_some();
        let leave = match stored {
            Err(error) => Err(chain(&error)),
            Ok(()) if !awaited => Err("it is no longer asked for".to_owned()),
            Ok(()) => Ok(()),
        };
        drop(sending.leave.send(leave));
    }

    /// Makes sure that what a host is being deployed to can be served: between the order and the power off somebody
    /// may have swept the store.
    async fn boots_again(&self, host: &str) -> Result<(), String> {
        let state = self.hosts.get(host);
        let work = state.and_then(HostState::work);
        let Some(Goal::Deploy { generation }) = work.map(|work| &work.goal) else {
            return Ok(());
        };
        let Some(known) = state.and_then(|state| state.generation(*generation)) else {
            return Ok(());
        };
        let (store, image) = (self.images.clone(), known.image.clone());
        let looked = tokio::task::spawn_blocking(move || images::look(&store, &image)).await;
        let gone = match looked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => chain(&error),
            Err(error) => chain(&error),
        };
        Err(format!(
            "it is not switched off, since it could not boot again: {gone}; bring the image back, or deploy another"
        ))
    }

    /// An operation on a host's power ended.
    async fn ended(&mut self, ended: Ended) {
        self.metrics
            .operated(&ended.intent, &ended.outcome, ended.problem);
        self.remember_problem(&ended.host, Problem::after(&ended.outcome));
        self.power_ended(&ended.host, &ended.outcome);
        if ended.problem == Some("refused") && self.renew(&ended.host) {
            self.retarget();
        }
        let event = Event::PowerDone {
            operation: ended.operation,
            outcome: ended.outcome,
        };
        self.deliver(vec![(ended.host, event)]).await;
    }

    /// Lets things happen to hosts that must not be forgotten: what cannot be stored now is tried
    /// again.
    pub(super) async fn deliver(&mut self, events: Vec<(Arc<str>, Event)>) {
        if events.is_empty() {
            return;
        }
        let mut round = Round::new(self.clock.now());
        for (host, event) in &events {
            self.take(&mut round, host, event);
        }
        if self.commit(round, None).await.is_err() {
            self.undelivered.extend(events);
        }
    }

    /// Lets time pass for all hosts that are due.
    ///
    /// The next tick is due a whole time after the moment `at` which this one was meant for: counted from when it
    /// was stored, each would miss its turn by a hair and come a second late, and so would all that counts them.
    async fn tick(&mut self, at: Instant) {
        let undelivered = std::mem::take(&mut self.undelivered);
        self.deliver(undelivered).await;
        let silent = self.silent();
        self.deliver(silent).await;
        self.departures().await;

        let mut round = Round::new(self.clock.now());
        let site = Arc::clone(&self.place.site);
        let mut ticked = Vec::new();
        for host in site.hosts() {
            let due = self.due.get(&host.name);
            if self.hosts.contains_key(&host.name) && due.is_none_or(|due| *due <= at) {
                self.take(&mut round, &host.name, &Event::Tick);
                ticked.push(Arc::clone(&host.name));
            }
        }
        // What could not be stored ticks again.
        if self.commit(round, None).await.is_ok() {
            for host in ticked {
                let within = self.hosts.get(&host).map(HostState::tick_within);
                let within = self.clock.wait(within.unwrap_or(Watch::TICK));
                self.due.insert(host, at + within);
            }
        }
        self.rollouts_go_on().await;
        self.metrics.phases(&site, &self.hosts, &self.problems);
    }

    /// Finds hosts whose system reported and no longer does.
    fn silent(&mut self) -> Vec<(Arc<str>, Event)> {
        let patience = Duration::from_secs(u64::from(HEARTBEAT_SECONDS) * 3);
        let patience = self.clock.wait(patience);
        let silent = self
            .heard
            .extract_if(|_, (_, at)| at.elapsed() > patience)
            .map(|(host, (boot, _))| (host, Event::Silent { boot }));
        silent.collect()
    }

    /// Forgets all of a host that left the site long ago.
    pub(super) fn forget(&mut self, host: &str) {
        self.hosts.remove(host);
        self.identities.remove(host);
        self.reached.remove(host);
        self.problems.remove(host);
        self.heard_power.remove(host);
        self.due.remove(host);
        self.heard.remove(host);
    }

    /// The site was replaced.
    async fn moved(&mut self) {
        let place = self.places.borrow_and_update().clone();
        let old = std::mem::replace(&mut self.place, place);
        let site = Arc::clone(&self.place.site);
        let mut events = Vec::new();
        for host in site
            .hosts()
            .filter(|host| self.hosts.contains_key(&host.name))
        {
            let name = Arc::clone(&host.name);
            match old.site.host(&host.name) {
                None => events.push((name, Event::Restarted)),
                Some(before) => {
                    if Policy::of(&old.site, before) != Policy::of(&site, host) {
                        events.push((name, Event::PolicyChanged));
                    }
                }
            }
        }
        // Secrets and authorities may have been replaced under their names.
        self.reached.clear();
        self.problems.clear();
        self.departures.look = Look::Due;
        self.retarget();
        self.deliver(events).await;
    }
}

/// Returns what the appliance did of its own accord, for the audit log.
fn own_deed(round: &Round) -> Option<Deed> {
    let own = [NoteKind::RolledBack, NoteKind::Healing].map(NoteKind::label);
    let told = || round.told.iter().filter(|told| own.contains(&told.kind));
    let action = told().next()?.kind;
    let joined = |each: fn(&Told) -> &str, by| told().map(each).collect::<Vec<_>>().join(by);
    Some(Deed {
        at: round.now,
        who: Who::appliance(),
        action,
        object: joined(|told| &told.subject, " "),
        request: serde_json::Value::Null,
        outcome: joined(|told| &told.text, "; "),
    })
}

/// Writes changes; none are on disk already.
async fn store(writer: &Writer, changes: Vec<Change>) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let commit = writer.submit(changes, Urgency::Urgent)?;
    commit.durable().await
}

/// Tells whether who reports this will report again, and again.
fn reports_again(stage: &Stage) -> bool {
    matches!(
        stage,
        Stage::AgentStarted { .. }
            | Stage::Healthy { .. }
            | Stage::Unhealthy(_)
            | Stage::Heartbeat { .. }
    )
}
