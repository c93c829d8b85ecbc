//! Hosts whose power obeys at once, and a rollout over them; what it may not do is asserted while it goes on.

use std::collections::{BTreeMap, BTreeSet};

use netboot_core::Timestamp;
use netboot_core::lifecycle::{
    Control, Event, Goal, HostState, Parameters, Policy, Power, Said, Stage, step,
};
use netboot_core::rollout::{
    Command, Fleet, Mode, Planned, Progress, Rollout, Size, Spec, Target, plan, start,
};

use crate::world::image;

pub(crate) const START: u64 = 1_795_250_533_000;

/// What becomes of a host that boots the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Well,
    Bad,
}

/// Hosts whose power obeys at once, and whose boots take a while.
pub(crate) struct Rack {
    pub(crate) policy: Policy,
    pub(crate) hosts: BTreeMap<String, HostState>,
    pub(crate) fates: BTreeMap<String, Fate>,
    pub(crate) racks: BTreeMap<String, String>,
    pub(crate) now: u64,
    pub(crate) rollout: Rollout,
    /// What is on disk, and what the appliance has in memory besides is lost in a crash.
    pub(crate) disk: String,
    /// Hosts that this rollout deployed to, as the world saw it.
    pub(crate) touched: BTreeSet<String>,
    pub(crate) halted: bool,
}

pub(crate) fn spec() -> Spec {
    Spec {
        image: image(1),
        canary: 1,
        batch: Size::Count(2),
        at_once: 2,
        at_once_per_rack: None,
        max_failures: 2,
        soak_ms: 0,
    }
}

impl Rack {
    pub(crate) fn new(spec: Spec, fates: &[Fate]) -> Self {
        let policy = Policy {
            control: Control::Bmc,
            ..Policy::default()
        };
        let mut hosts = BTreeMap::new();
        let mut targets = Vec::new();
        let (mut named, mut racks) = (BTreeMap::new(), BTreeMap::new());
        for (index, fate) in fates.iter().enumerate() {
            let host = format!("web{index}");
            let rack = format!("r{}", index % 3);
            let mut state = HostState::default();
            let adopt = Event::Adopt {
                image: image(0),
                parameters: Parameters::new(),
                by: "role".to_owned(),
            };
            let boot = "boot0".to_owned();
            let began = Event::BootBegan {
                boot: boot.clone(),
                generation: 1,
            };
            let said = Said::Healthy {
                tree: image(0).tree,
            };
            for event in [adopt, began, Event::Reported { boot, said }] {
                state = step(&state, &policy, &event, Timestamp(START)).state;
            }
            assert!(state.boots().unwrap().is_proven());
            hosts.insert(host.clone(), state);
            named.insert(host.clone(), *fate);
            racks.insert(host.clone(), rack.clone());
            targets.push(Target {
                host,
                rack: Some(rack),
                parameters: Parameters::new(),
            });
        }
        let rollout = start(
            "r1",
            spec,
            targets,
            "alice",
            |host| hosts.get(host),
            Timestamp(START),
        )
        .unwrap();
        Self {
            policy,
            disk: serde_json::to_string(&rollout).unwrap(),
            hosts,
            fates: named,
            racks,
            now: START,
            rollout,
            touched: BTreeSet::new(),
            halted: false,
        }
    }

    pub(crate) fn plan(&self) -> Planned {
        let host = |name: &str| self.hosts.get(name);
        let fleet = Fleet {
            host: &host,
            room: 100,
        };
        plan(&self.rollout, &fleet, Timestamp(self.now))
    }

    pub(crate) fn tell(&mut self, host: &str, event: &Event) {
        let Some(state) = self.hosts.get(host) else {
            return;
        };
        let next = step(state, &self.policy, event, Timestamp(self.now));
        self.hosts.insert(host.to_owned(), next.state);
    }

    /// Asks the planner, stores its answer, and does as many of its actions as the crash allows.
    pub(crate) fn turn(&mut self, most: usize) {
        let planned = self.plan();
        self.rollout = planned.rollout;
        self.disk = serde_json::to_string(&self.rollout).unwrap();
        for action in planned.actions.iter().take(most) {
            let (host, event) = action.event(&self.rollout.by);
            if let Event::Deploy(_) = event {
                assert!(!self.halted, "{host} is begun after a halt");
                self.begin(host);
            }
            let host = host.to_owned();
            self.tell(&host, &event);
        }
        if planned.actions.len() > most {
            self.rollout = serde_json::from_str(&self.disk).unwrap();
        }
        self.halted |= matches!(
            self.rollout.mode,
            Mode::Halted { .. } | Mode::Undoing { .. }
        );
        if most > 0 {
            self.caps();
        }
    }

    pub(crate) fn begin(&mut self, host: &str) {
        let member = self
            .rollout
            .members
            .iter()
            .find(|member| member.host == host);
        let batch = member.unwrap().batch;
        for earlier in self
            .rollout
            .members
            .iter()
            .filter(|other| other.batch < batch)
        {
            let state = self.hosts.get(&earlier.host);
            let by_hand = state.is_some_and(|state| self.rollout.waits_for_hands(earlier, state));
            let proven =
                self.rollout.members.iter().any(|other| {
                    other.batch == earlier.batch && other.progress == Progress::Healthy
                });
            assert!(
                earlier.progress.is_settled() || by_hand && earlier.batch > 0 && proven,
                "{} is open, {host} begins",
                earlier.host
            );
        }
        assert!(
            self.touched.insert(host.to_owned()),
            "{host} is begun twice"
        );
    }

    /// Counts by the hosts' own states, not by what the rollout believes.
    pub(crate) fn caps(&self) {
        let ours = |(name, state): &(&String, &HostState)| {
            let intents = [self.rollout.intent(name), self.rollout.undo_intent(name)];
            let numbers = intents.iter().filter_map(|intent| state.answers(intent));
            let numbers: Vec<u32> = numbers.map(|known| known.number).collect();
            // Who waits for a person serves on meanwhile.
            let work = state.work().filter(|work| work.stage != Stage::Waiting);
            work.is_some_and(|work| match work.goal {
                Goal::Deploy { generation } => numbers
                    .iter()
                    .any(|ours| *ours == generation || work.failed.contains(ours)),
                Goal::Power { .. } => false,
            })
        };
        let active: Vec<&String> = self
            .hosts
            .iter()
            .filter(ours)
            .map(|(name, _)| name)
            .collect();
        let most = usize::try_from(self.rollout.spec.at_once).unwrap();
        // What fails rolls itself back meanwhile, which is counted as well.
        assert!(active.len() <= most, "{active:?}");
        if let Some(cap) = self.rollout.spec.at_once_per_rack {
            let mut racks: BTreeMap<&String, u32> = BTreeMap::new();
            for host in active {
                *racks.entry(&self.racks[host]).or_default() += 1;
            }
            assert!(racks.values().all(|count| *count <= cap), "{racks:?}");
        }
    }

    /// Takes one host a step further, as a BMC and a boot would.
    pub(crate) fn advance(&mut self, host: &str) {
        self.now += 5_000;
        let Some(state) = self.hosts.get(host) else {
            return;
        };
        let Some(work) = state.work().cloned() else {
            return;
        };
        let boots = state.boots().unwrap().clone();
        let operation = work.pending.as_ref().map(|pending| pending.operation);
        let done = |power| Event::PowerDone {
            operation: operation.unwrap(),
            outcome: netboot_core::lifecycle::Outcome::Done { power },
        };
        let event = match work.stage {
            Stage::PoweringOff | Stage::SettingBoot => done(Power::Off),
            Stage::PoweringOn => done(Power::On),
            Stage::Booting if work.boot.is_none() => Event::BootBegan {
                boot: format!("boot{}", boots.number),
                generation: boots.number,
            },
            Stage::Waiting | Stage::Booting | Stage::Proving => {
                let bad = boots.image == image(1) && self.fates[host] == Fate::Bad;
                let said = if bad {
                    Said::Failed {
                        why: "no root file system".to_owned(),
                    }
                } else {
                    Said::Healthy {
                        tree: boots.image.tree,
                    }
                };
                Event::Reported {
                    boot: work.boot.unwrap_or_default(),
                    said,
                }
            }
        };
        self.tell(host, &event);
    }

    pub(crate) fn run(&mut self) {
        // Each of its batches may rest for half a minute, and a turn is a second.
        for _ in 0..1_000 {
            self.now += 1_000;
            self.turn(usize::MAX);
            if self.rollout.is_over() && self.hosts.values().all(|state| state.work().is_none()) {
                return;
            }
            let names: Vec<String> = self.hosts.keys().cloned().collect();
            for name in names {
                self.advance(&name);
            }
        }
        panic!("no end: {:?}", self.rollout);
    }

    /// Runs until the first batch has ended.
    pub(crate) fn run_canary(&mut self) {
        while !self.rollout.members[0].progress.is_settled() {
            self.turn(usize::MAX);
            self.advance("web0");
            // Or the next batch begins with this turn.
            if self.hosts["web0"].work().is_none() {
                return;
            }
        }
    }

    pub(crate) fn start_by_hand(&mut self, host: &str) {
        let generation = self.hosts[host].desired.unwrap();
        let boot = format!("boot{generation}");
        self.tell(host, &Event::BootBegan { boot, generation });
    }

    pub(crate) fn running(&self, number: u8) -> usize {
        let hosts = self.hosts.values();
        hosts
            .filter(|state| state.runs(&image(number), &Parameters::new()))
            .count()
    }

    pub(crate) fn command(&mut self, command: Command) {
        if let Ok(next) = self.rollout.command(command, "bob") {
            self.rollout = next;
            self.disk = serde_json::to_string(&self.rollout).unwrap();
            self.halted |= matches!(
                self.rollout.mode,
                Mode::Halted { .. } | Mode::Undoing { .. }
            );
        }
    }
}
