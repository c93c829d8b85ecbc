//! The BMCs of the executor's hosts: how they are reached, who they are, and what is wrong with them.
//!
//! It refuses to keep a password that a BMC refused, and to overwrite who a host was without being
//! told to.

use std::sync::Arc;

use ipmi::Identity;
use netboot_core::lifecycle::Event;
use netboot_core::site::Host;

use super::bmc::Problem;
use super::executor::Executor;
use super::order::{Deed, Who};
use super::poll::{Polled, Targets};
use super::power::{Learned, Reached};
use super::round::Round;
use super::{bmc, persist};
use crate::cli::report::chain;
use crate::store::StoreError;

impl Executor {
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
        for (host, seen) in polled.0 {
            // An operation that is under way sees more, and in the right order.
            if self.powers.is_busy(&host) {
                continue;
            }
            match seen {
                Ok(power) => {
                    self.polled_problem(&host, None);
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
