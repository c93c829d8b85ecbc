//! The BMCs of the executor's hosts: how they are reached, who they are, and what is wrong with them.
//!
//! It refuses to keep a password that a BMC refused, and to overwrite who a host was without being
//! told to.

use std::sync::Arc;

use ipmi::Identity;
use netboot_core::Timestamp;
use netboot_core::lifecycle::{Event, Outcome, Power};
use netboot_core::site::Host;
use tokio::time::Instant;

use super::bmc::Problem;
use super::clock::Clock;
use super::executor::Executor;
use super::order::{Deed, Who};
use super::poll::{Polled, Targets};
use super::power::{Learned, Reached};
use super::round::Round;
use super::{bmc, persist, poll};
use crate::cli::report::chain;
use crate::store::StoreError;

/// When a BMC told the power of its host.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeardPower {
    since: Instant,
    /// The same for people.
    pub(super) at: Timestamp,
    /// Whether an operation failed since: what was known may be so no longer.
    pub(super) doubted: bool,
}

impl HeardPower {
    /// Tells whether it still counts: longer than two polls it does not.
    pub(super) fn is_fresh(&self, clock: Clock) -> bool {
        !self.doubted && self.since.elapsed() <= clock.wait(poll::EVERY * 2)
    }
}

impl Executor {
    /// Notes that a host's BMC told the power just now.
    fn hear_power(&mut self, host: &Arc<str>) {
        let heard = HeardPower {
            since: Instant::now(),
            at: self.clock.now(),
            doubted: false,
        };
        self.heard_power.insert(Arc::clone(host), heard);
    }

    /// Takes the power that was read when a person had the BMC asked.
    pub(super) async fn power_read(&mut self, host: &Arc<str>, power: Power) {
        if self.powers.is_busy(host) {
            return;
        }
        self.hear_power(host);
        let mut round = Round::new(self.clock.now());
        self.take(&mut round, host, &Event::PowerSeen { power });
        // The next poll says it again.
        drop(self.commit(round, None).await);
    }

    /// Notes whether an operation told the power; one that failed leaves it in doubt, so that it is read at once.
    pub(super) fn power_ended(&mut self, host: &Arc<str>, outcome: &Outcome) {
        if matches!(outcome, Outcome::Done { .. }) {
            return self.hear_power(host);
        }
        if let Some(heard) = self.heard_power.get_mut(host) {
            heard.doubted = true;
        }
        // A poller that has more to do than it can reads it in its next round.
        self.wishes.try_send(Arc::clone(host)).ok();
    }

    /// Returns a host's BMC; it is made anew when the site or the record of it changed.
    pub(super) fn reach(&mut self, host: &Arc<Host>) -> Result<Reached, String> {
        let described = host.bmc.as_ref();
        let described = described.ok_or("the site names no BMC for it")?;
        let recorded = self.identities.get(&host.name).cloned();
        if let Some(known) = self.reached.get(&host.name)
            && *known.described == *described
            && known.recorded == recorded
        {
            return Ok(known.clone());
        }
        let place = &self.place;
        let credentials = bmc::credentials(described, &place.site, &place.secrets)?;
        let known = credentials.clone();
        let bmc = bmc::reach(described, &place.secrets, known, recorded.as_ref())?;
        let reached = Reached {
            bmc: Arc::new(bmc),
            described: Arc::new(described.clone()),
            credentials,
            recorded,
        };
        self.reached.insert(Arc::clone(&host.name), reached.clone());
        Ok(reached)
    }

    /// Reads a host's secrets again after its BMC refused them; tells whether they are others now.
    pub(super) fn renew(&mut self, host: &Arc<str>) -> bool {
        let Some(known) = self.reached.get(host) else {
            return false;
        };
        let place = &self.place;
        let now = bmc::credentials(&known.described, &place.site, &place.secrets);
        let renewed = now.is_ok_and(|now| !bmc::are_same(&now, &known.credentials));
        if renewed {
            self.reached.remove(host);
        }
        renewed
    }

    /// Keeps what is wrong with a host's BMC, for people.
    pub(super) fn remember_problem(&mut self, host: &Arc<str>, problem: Option<Problem>) {
        match problem {
            Some(problem) => drop(self.problems.insert(Arc::clone(host), problem)),
            None => drop(self.problems.remove(host)),
        }
    }

    /// Keeps what the poller found, beside what lasts: an operation or a person has to clear that.
    fn polled_problem(&mut self, host: &Arc<str>, problem: Option<String>) {
        let lasts = self.problems.get(host).is_some_and(|known| known.lasting);
        if !lasts {
            let lasting = false;
            let problem = problem.map(|text| Problem { text, lasting });
            self.remember_problem(host, problem);
        }
    }

    /// Records what a BMC said about itself when it was asked for the first time.
    pub(super) async fn learn(&mut self, learned: Learned) {
        let outcome = format!("recorded at first use: {}", learned.identity);
        let stored = self
            .record(&learned.host, learned.identity, &Who::appliance(), outcome)
            .await;
        let answer = stored.map_err(|error| chain(&error));
        drop(learned.recorded.send(answer));
    }

    /// Records who a host's BMC is.
    ///
    /// # Errors
    /// When it could not be stored.
    pub(super) async fn record(
        &mut self,
        host: &Arc<str>,
        identity: Identity,
        who: &Who,
        outcome: String,
    ) -> Result<(), StoreError> {
        let mut round = Round::new(self.clock.now());
        round.store(persist::put(persist::IDENTITY, host, &identity)?);
        round.tell(&**host, "enrolled", format!("its BMC was {outcome}"));
        let deed = Deed {
            at: round.now,
            who: who.clone(),
            action: "enroll",
            object: host.to_string(),
            request: serde_json::json!({ "identity": identity.to_string() }),
            outcome,
        };
        self.commit(round, Some(deed)).await?;
        self.identities.insert(Arc::clone(host), identity);
        self.reached.remove(host);
        self.problems.remove(host);
        self.retarget();
        Ok(())
    }

    /// Tells the poller which BMCs there are.
    pub(super) fn retarget(&mut self) {
        let site = Arc::clone(&self.place.site);
        let mut targets = Targets::default();
        for host in site.hosts().filter(|host| host.bmc.is_some()) {
            match self.reach(host) {
                Ok(reached) => targets.add(&host.name, reached),
                Err(text) => {
                    let lasting = true;
                    let problem = Problem { text, lasting };
                    self.remember_problem(&host.name, Some(problem));
                }
            }
        }
        self.targets.send_replace(targets);
    }

    /// The poller read the power of some hosts.
    pub(super) async fn polled(&mut self, polled: Polled) {
        let mut round = Round::new(self.clock.now());
        let mut refused = false;
        for (host, seen) in polled.reads {
            // An operation sees more, and in the right order.
            if self.powers.was_busy(&host, polled.began) {
                continue;
            }
            match seen {
                Ok(power) => {
                    self.polled_problem(&host, None);
                    self.hear_power(&host);
                    self.take(&mut round, &host, &Event::PowerSeen { power });
                }
                Err((label, problem)) => {
                    self.metrics.bmc_failed(label);
                    self.polled_problem(&host, Some(problem));
                    // The password may have been changed where it is kept.
                    if label == "refused" {
                        refused |= self.renew(&host);
                    }
                }
            }
        }
        if refused {
            self.retarget();
        }
        // The next poll says it again.
        drop(self.commit(round, None).await);
    }
}
