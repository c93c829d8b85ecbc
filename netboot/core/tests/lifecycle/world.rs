//! One host with its BMC, and the shell that drives its lifecycle, all in simulated time.
//!
//! The shell here does what the real one does: it commits, then acts, one operation at a time. It
//! keeps count of what really happened, so that laws are judged by the world and not by the state.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use image_manifest::Digest;
use netboot_core::Timestamp;
use netboot_core::lifecycle::{
    Action, Changed, Deploy, Event, Generation, Goal, HostState, Image, Judgement, NoteKind,
    Operation, Outcome, Parameters, Phase, Policy, Power, PowerIntent, PowerOrder, Reason, Said,
    When, step,
};

/// What an image does when it is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It reports itself well, and goes on doing so.
    Well,
    /// It never asks for its script.
    NoBoot,
    /// It asks for its script, and is never heard of again.
    Mute,
    /// It boots, and its checks fail.
    Ill,
    /// stage1 gives up.
    GivesUp,
    /// It is well for a while, and then falls silent.
    Fades,
}

/// How a BMC behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bmc {
    /// As it should.
    Good,
    /// It takes so many seconds to obey.
    Lags(u64),
    /// It does not answer.
    Dead,
    /// It loses each second command, and each third answer.
    Lossy,
    /// It is another host's.
    Wrong,
    /// It refuses us.
    Refuses,
}

pub(crate) fn image(number: u8) -> Image {
    Image {
        name: format!("image{number}"),
        manifest: Digest::of(&[b'm', number]),
        tree: Digest::of(&[b't', number]),
    }
}

/// What the BMC is doing for us.
#[derive(Clone, Debug)]
struct Running {
    operation: Operation,
    intent: PowerIntent,
    ends: u64,
    /// When what acts is sent, after a look at who the BMC is; none when nothing has to be.
    sends: Option<u64>,
    answer: Option<Outcome>,
}

/// What a BMC was told, for which goal, and when it obeys.
#[derive(Clone, Debug)]
struct Effect {
    at: u64,
    on: bool,
    goal: Option<Goal>,
}

#[derive(Clone, Debug)]
struct Boot {
    id: String,
    generation: u32,
    image: Image,
    began: u64,
    last_report: u64,
}

pub(crate) struct World {
    pub(crate) policy: Policy,
    pub(crate) fates: Vec<Fate>,
    pub(crate) bmc: Bmc,
    pub(crate) state: HostState,
    disk: String,
    /// True time, and what the clock shows besides.
    pub(crate) now: u64,
    pub(crate) skew: i64,
    pub(crate) power: bool,
    /// Changes of power that a BMC was told and has not made yet.
    effects: Vec<Effect>,
    queue: VecDeque<(Operation, PowerIntent)>,
    running: Option<Running>,
    script_due: Option<u64>,
    boot: Option<Boot>,
    boots: u32,
    commands: u32,
    /// The appliance dies when it is on disk that power off is about to be sent, before it is.
    pub(crate) dies_sending: bool,
    /// Generations that truly reported themselves well, on their own tree.
    well: BTreeSet<u32>,
    /// Times that we switched it off since the goal began, or since somebody else touched its power.
    offs: u32,
    goal: Option<Goal>,
    pub(crate) generations_seen: u32,
    pub(crate) heals: u32,
    pub(crate) actions: u32,
    pub(crate) notes: Vec<(NoteKind, String)>,
}

impl World {
    pub(crate) fn new(policy: Policy, fates: Vec<Fate>) -> Self {
        let state = HostState::default();
        Self {
            policy,
            fates,
            bmc: Bmc::Good,
            disk: serde_json::to_string(&state).unwrap(),
            state,
            now: 1_795_250_533_000,
            skew: 0,
            power: false,
            effects: Vec::new(),
            queue: VecDeque::new(),
            running: None,
            script_due: None,
            boot: None,
            boots: 0,
            commands: 0,
            dies_sending: false,
            well: BTreeSet::new(),
            offs: 0,
            goal: None,
            generations_seen: 0,
            heals: 0,
            actions: 0,
            notes: Vec::new(),
        }
    }

    pub(crate) fn clock(&self) -> Timestamp {
        Timestamp(self.now.saturating_add_signed(self.skew))
    }

    /// Tells the lifecycle something; a crash may cut in after the commit.
    pub(crate) fn tell(&mut self, event: &Event) {
        self.tell_and(event, false);
    }

    pub(crate) fn tell_and(&mut self, event: &Event, dies: bool) {
        let before = self.state.clone();
        let next = step(&before, &self.policy, event, self.clock());
        assert_eq!(
            next,
            step(&before, &self.policy, event, self.clock()),
            "the same question has the same answer"
        );
        self.judge(&before, &next.state, event);
        if next.changed == Changed::Time {
            assert!(next.actions.is_empty() && next.notes.is_empty());
        } else {
            self.disk = serde_json::to_string(&next.state).unwrap();
        }
        self.state = next.state;
        self.notes
            .extend(next.notes.into_iter().map(|note| (note.kind, note.text)));
        if dies {
            return self.crash();
        }
        for Action::Power { operation, intent } in next.actions {
            self.actions += 1;
            self.queue.push_back((operation, intent));
        }
    }

    /// The appliance dies and starts again: what was not committed is lost, and what a BMC was told
    /// happens all the same.
    pub(crate) fn crash(&mut self) {
        self.state = serde_json::from_str(&self.disk).unwrap();
        self.queue.clear();
        self.running = None;
        self.tell(&Event::Restarted);
    }

    /// Somebody else switches the host. A BMC has done what it was told once the host is as it was
    /// told: nobody can tell whose off it was, so none that comes later is held against us.
    pub(crate) fn by_hand(&mut self, on: bool) {
        self.offs = 0;
        self.effects.retain(|told| told.on != on);
        self.switch(on);
    }

    fn switch(&mut self, on: bool) {
        if self.power == on {
            return;
        }
        self.power = on;
        self.boot = None;
        self.script_due = on.then_some(self.now + 8_000);
    }

    /// Lets time pass, a second at a time.
    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1_000;
            let now = self.now;
            for Effect { on, goal, .. } in self
                .effects
                .extract_if(.., |told| told.at <= now)
                .collect::<Vec<_>>()
            {
                // What a goal before had sent is no second time of this one.
                if !on && self.power && goal == self.goal {
                    self.offs += 1;
                    assert!(self.offs <= 1, "switched off twice for {:?}", self.goal);
                }
                self.switch(on);
            }
            self.work();
            self.live();
            if self.now.is_multiple_of(10_000) {
                let power = self.read();
                if self.bmc != Bmc::Dead {
                    self.tell(&Event::PowerSeen { power });
                }
            }
            self.tell(&Event::Tick);
        }
    }

    fn read(&self) -> Power {
        if self.power { Power::On } else { Power::Off }
    }

    /// The shell's side of the BMC: one operation after the other.
    fn work(&mut self) {
        self.send();
        if let Some(running) = self.running.take() {
            if let Some(outcome) = self.ended(&running) {
                let operation = running.operation;
                self.tell(&Event::PowerDone { operation, outcome });
            } else {
                self.running = Some(running);
            }
        }
        if self.running.is_none()
            && let Some((operation, intent)) = self.queue.pop_front()
            && self.state.awaits(operation)
        {
            self.begin(operation, intent);
        }
    }

    fn begin(&mut self, operation: Operation, intent: PowerIntent) {
        self.commands += 1;
        let deadline = self.policy.operation(&intent);
        let ends = self.now + u64::try_from(deadline.as_millis()).unwrap();
        let why = || "it does not answer".to_owned();
        let mut answer = match self.bmc {
            Bmc::Dead => Some(Outcome::NotSent { why: why() }),
            Bmc::Refuses => Some(Outcome::Refused {
                why: "bad password".to_owned(),
            }),
            Bmc::Wrong => Some(Outcome::WrongHost {
                expected: "A".to_owned(),
                found: "B".to_owned(),
            }),
            Bmc::Good | Bmc::Lags(_) | Bmc::Lossy => None,
        };
        let acts = wanted(intent).is_some_and(|on| on != self.power) && answer.is_none();
        // Whoever is told without having been asked says nothing about what was sent.
        if self.bmc == Bmc::Lossy && self.commands.is_multiple_of(3) {
            answer = Some(Outcome::Unknown { why: why() });
        }
        self.running = Some(Running {
            operation,
            intent,
            ends,
            sends: acts.then_some(self.now + u64::from(self.commands % 3) * 1_000),
            answer,
        });
        self.send();
    }

    /// Sends what is due: power off only after that is on disk, and as long as it is waited for.
    fn send(&mut self) {
        let now = self.now;
        let Some(running) = &mut self.running else {
            return;
        };
        if running.sends.take_if(|sends| *sends <= now).is_none() {
            return;
        }
        let (operation, intent) = (running.operation, running.intent);
        let Some(on) = wanted(intent) else { return };
        if !on {
            let dies = std::mem::take(&mut self.dies_sending);
            self.tell_and(&Event::Sending { operation }, dies);
            if dies {
                return;
            }
            if !self.state.awaits(operation) {
                self.running = None;
                return;
            }
        }
        if on == self.power || self.bmc == Bmc::Lossy && self.commands.is_multiple_of(2) {
            return;
        }
        let lag = match self.bmc {
            Bmc::Lags(seconds) => seconds,
            _ => 2,
        };
        self.effects.push(Effect {
            at: self.now + lag * 1_000,
            on,
            goal: self.goal.clone(),
        });
    }

    fn ended(&self, running: &Running) -> Option<Outcome> {
        if let Some(answer) = running.answer.as_ref().filter(|_| running.sends.is_none()) {
            return Some(answer.clone());
        }
        let power = self.read();
        let reached = match running.intent {
            PowerIntent::EnsureOff { .. } => power == Power::Off,
            PowerIntent::EnsureOn => power == Power::On,
            PowerIntent::Observe | PowerIntent::BootOnce { .. } => true,
        };
        if reached {
            return Some(Outcome::Done { power });
        }
        (self.now >= running.ends).then(|| Outcome::Unknown {
            why: "sent, and not obeyed in time".to_owned(),
        })
    }

    /// The host's side: asks for its script, and reports.
    fn live(&mut self) {
        if !self.power {
            return;
        }
        if self.script_due.is_some_and(|due| due <= self.now) {
            self.script_due = None;
            self.ask_for_script();
        }
        let Some(mut boot) = self.boot.take() else {
            return;
        };
        let age = self.now - boot.began;
        let number = usize::from(boot.image.name.as_bytes()[5] - b'0');
        let tree = boot.image.tree;
        let said = match self.fates[number] {
            Fate::Well => Some(Said::Healthy { tree }),
            Fate::Fades if age < 60_000 => Some(Said::Healthy { tree }),
            Fate::Ill => Some(Said::Unhealthy {
                tree,
                why: "port 22 is closed".to_owned(),
            }),
            Fate::GivesUp => Some(Said::Failed {
                why: "no root file system".to_owned(),
            }),
            Fate::Fades | Fate::Mute | Fate::NoBoot => None,
        };
        let due = age >= 10_000 && self.now - boot.last_report >= 20_000;
        if let Some(said) = said.filter(|_| due) {
            boot.last_report = self.now;
            if matches!(said, Said::Healthy { .. }) {
                self.well.insert(boot.generation);
            }
            let id = boot.id.clone();
            self.boot = Some(boot);
            self.tell(&Event::Reported { boot: id, said });
        } else {
            self.boot = Some(boot);
        }
    }

    fn ask_for_script(&mut self) {
        if self.state.generations.is_empty() {
            self.tell(&Event::Adopt {
                image: image(0),
                parameters: Parameters::new(),
                by: "role".to_owned(),
            });
        }
        let Some(generation) = self.state.boots().cloned() else {
            return;
        };
        let number = usize::from(generation.image.name.as_bytes()[5] - b'0');
        if self.fates[number] == Fate::NoBoot {
            return;
        }
        self.boots += 1;
        let id = format!("boot{}", self.boots);
        self.boot = Some(Boot {
            id: id.clone(),
            generation: generation.number,
            image: generation.image,
            began: self.now,
            last_report: 0,
        });
        self.tell(&Event::BootBegan {
            boot: id,
            generation: generation.number,
        });
    }

    /// Somebody forges what no host said.
    pub(crate) fn forge(&mut self, kind: u8) {
        let seen = self.state.seen.boot.clone();
        let current = seen.map_or_else(|| "none".to_owned(), |seen| seen.boot);
        let wanted = self
            .state
            .boots()
            .map_or(Digest::of(b""), |known| known.image.tree);
        let (boot, tree) = match kind % 3 {
            // Another boot's credential.
            0 => ("boot0".to_owned(), wanted),
            // Another tree.
            1 => (current, Digest::of(b"another tree")),
            _ => (format!("{current}0"), wanted),
        };
        self.tell(&Event::Reported {
            boot,
            said: Said::Healthy { tree },
        });
        for operation in [0, 1, u64::MAX] {
            self.tell(&Event::PowerDone {
                operation: Operation(operation.wrapping_add(self.state.operation) | 1 << 40),
                outcome: Outcome::Done { power: Power::Off },
            });
        }
    }

    pub(crate) fn deploy(&mut self, number: u8, when: When, intent: &str) {
        self.tell(&deploy(number, when, intent));
    }

    /// Checks what must hold between two states.
    fn judge(&mut self, before: &HostState, after: &HostState, event: &Event) {
        let goal = after.work().map(|work| work.goal.clone());
        if goal != self.goal {
            self.goal = goal;
            self.offs = 0;
        }
        if matches!(event, Event::Power { .. }) {
            self.offs = 0;
        }
        for made in &after.generations {
            if let Judgement::Healthy { .. } = made.outcome {
                assert!(
                    self.well.contains(&made.number),
                    "generation {} counts as proven and never was, after {event:?}",
                    made.number
                );
            }
            if before.generation(made.number).is_none() {
                self.made(before, after, made);
            }
        }
        // What it boots is what was just made for it, or was truly healthy once.
        if let Some(desired) = after.desired.filter(|_| after.desired != before.desired) {
            assert!(
                before.generation(desired).is_none() || self.well.contains(&desired),
                "it boots generation {desired}, which was never healthy, after {event:?}"
            );
        }
        if let Some(work) = after.work() {
            let most = usize::try_from(self.policy.max_rollbacks).unwrap();
            assert!(work.failed.len() <= most, "rolled back too often: {work:?}");
        }
        if matches!(before.phase, Phase::Stopped { .. }) {
            let asked = matches!(
                event,
                Event::Deploy(_)
                    | Event::Rollback { .. }
                    | Event::Power { .. }
                    | Event::Cancel { .. }
                    | Event::Reported { .. }
            );
            assert!(
                asked || before.phase == after.phase,
                "went on without a person: {event:?}"
            );
        }
    }

    fn made(&mut self, before: &HostState, after: &HostState, made: &Generation) {
        self.generations_seen += 1;
        assert!(before.newest < made.number, "numbers only grow");
        match made.reason {
            Reason::Rollback { of } | Reason::Heal { of } => {
                let back = after
                    .generation(of)
                    .expect("it goes back to what is on record");
                assert!(back.is_proven(), "back to {of}, which was never healthy");
                assert_eq!(
                    (&back.image, &back.parameters),
                    (&made.image, &made.parameters)
                );
                let left = before.work().map(|work| &work.goal);
                let healed = matches!(made.reason, Reason::Heal { .. });
                if let (Some(Goal::Deploy { generation }), false) = (left, healed) {
                    let left = before.generation(*generation).unwrap();
                    assert_ne!(left.image, made.image, "rolled back to the same image");
                }
                self.heals += u32::from(healed);
            }
            Reason::Deploy | Reason::Adopted => {}
        }
        assert_eq!(after.desired, Some(made.number));
    }

    /// Lets the world go on until nothing is under way any more.
    pub(crate) fn end(&mut self, most: Duration) {
        for _ in 0..most.as_secs() {
            if !matches!(self.state.phase, Phase::Active(_)) {
                return;
            }
            self.pass(1);
        }
        panic!("no end within {most:?}: {:?}", self.state.phase);
    }
}

/// The power that an operation is to bring about.
fn wanted(intent: PowerIntent) -> Option<bool> {
    match intent {
        PowerIntent::EnsureOff { .. } => Some(false),
        PowerIntent::EnsureOn => Some(true),
        PowerIntent::Observe | PowerIntent::BootOnce { .. } => None,
    }
}

pub(crate) fn deploy(number: u8, when: When, intent: &str) -> Event {
    Event::Deploy(Deploy {
        intent: intent.to_owned(),
        image: image(number),
        parameters: Parameters::new(),
        by: "alice".to_owned(),
        when,
    })
}

pub(crate) fn order(number: u8) -> PowerOrder {
    match number % 5 {
        0 => PowerOrder::On,
        1 => PowerOrder::Off,
        2 => PowerOrder::ForceOff,
        3 => PowerOrder::Cycle,
        _ => PowerOrder::ForceCycle,
    }
}
