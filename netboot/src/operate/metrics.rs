//! Counters of what the executor does.
//!
//! It refuses labels without a bound: no host, no rollout, no text of a BMC.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use netboot_core::lifecycle::{HostState, Outcome, PowerIntent};
use netboot_core::site::Site;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::bmc::Problem;

/// All counters; clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    events: Family<Kind, Counter>,
    operations: Family<Operated, Counter>,
    bmc_errors: Family<Kind, Counter>,
    phases: Family<Phase, Gauge>,
    bmc_problems: Gauge,
    /// Rounds that could not be stored, so that nothing of them was done.
    pub(super) unstored: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operated {
    intent: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    phase: &'static str,
}

impl Metrics {
    /// Makes all counters and shows them in a registry.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = &metrics;
        registry.register("host_events", "Events of hosts by kind", m.events.clone());
        registry.register(
            "power_operations",
            "Operations on power by what was asked and how it ended",
            m.operations.clone(),
        );
        registry.register("bmc_errors", "Errors of BMCs by kind", m.bmc_errors.clone());
        registry.register("hosts", "Hosts by what is under way", m.phases.clone());
        registry.register(
            "bmc_problems",
            "Hosts whose BMC cannot be used now",
            m.bmc_problems.clone(),
        );
        registry.register(
            "operate_unstored",
            "Changes that were not made because they could not be stored",
            m.unstored.clone(),
        );
        metrics
    }

    /// Counts something that was told to people.
    pub(super) fn told(&self, kind: &'static str) {
        self.events.get_or_create(&Kind { kind }).inc();
    }

    /// Counts an operation on power that ended.
    pub(super) fn operated(
        &self,
        intent: &PowerIntent,
        outcome: &Outcome,
        problem: Option<&'static str>,
    ) {
        let intent = match intent {
            PowerIntent::Observe => "observe",
            PowerIntent::EnsureOff { .. } => "off",
            PowerIntent::BootOnce { .. } => "boot",
            PowerIntent::EnsureOn => "on",
        };
        let outcome = match outcome {
            Outcome::Done { .. } => "done",
            Outcome::NotSent { .. } => "not-sent",
            Outcome::Unknown { .. } => "unknown",
            Outcome::Refused { .. } => "refused",
            Outcome::WrongHost { .. } => "wrong-host",
        };
        self.operations
            .get_or_create(&Operated { intent, outcome })
            .inc();
        if let Some(problem) = problem {
            self.bmc_failed(problem);
        }
    }

    /// Counts an error of a BMC.
    pub(super) fn bmc_failed(&self, kind: &'static str) {
        self.bmc_errors.get_or_create(&Kind { kind }).inc();
    }

    /// Shows how many hosts of the site are in each phase.
    pub(super) fn phases(
        &self,
        site: &Site,
        hosts: &BTreeMap<Arc<str>, HostState>,
        problems: &HashMap<Arc<str>, Problem>,
    ) {
        let mut counts: BTreeMap<&'static str, i64> = BTreeMap::new();
        for host in site.hosts() {
            let phase = hosts.get(&host.name).map_or("idle", HostState::label);
            *counts.entry(phase).or_default() += 1;
        }
        self.phases.clear();
        for (phase, count) in counts {
            self.phases.get_or_create(&Phase { phase }).set(count);
        }
        let problems = i64::try_from(problems.len()).unwrap_or(i64::MAX);
        self.bmc_problems.set(problems);
    }
}
