//! Where orders are handed in, and hosts' boots and reports: the executor's front.
//!
//! It refuses to hold state: it looks images up, asks, and waits for the answer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use image_manifest::layout::Layout;
use ipmi::{Console, Inventory};
use netboot_core::lifecycle::Image;
use netboot_core::selector::Selector;
use netboot_core::site::{Host, ImageRef, Site};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::clock::Clock;
use super::events::Events;
use super::executor::{Executor, Parts};
use super::metrics::Metrics;
use super::order::{Accepted, Answer, EventView, HostPlan, Ledger, Order, Power, Refusal, Since};
use super::orders::{permit, select};
use super::power::Reached;
use super::views::{GenerationView, RolloutView, StateView};
use super::{
    Began, Chosen, Command, Control, DeployOrder, Enroll, Place, Prepared, Reported, RolloutOrder,
    Target, persist, poll,
};
use crate::cli::report::chain;
use crate::images;
use crate::secrets::Secrets;
use crate::store::{StoreError, Stored, Writer};

/// Commands that may wait: reports of a rack that is healthy at once, and some.
const QUEUE: usize = 4_096;

/// Hosts that may wait for the poller besides its rounds; more than these wait for the next round.
const WISHES: usize = 1_024;

/// What an identity may take to be read when a person waits for it.
const READ: Duration = Duration::from_secs(20);

/// Where operators' orders are handed in; clones hand them to the same executor.
#[derive(Clone, Debug)]
pub struct Operator {
    commands: mpsc::Sender<Command>,
    place: watch::Sender<Place>,
    images: Layout,
    events: Events,
}

/// What an executor works with.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) site: Arc<Site>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) images: Layout,
    pub(crate) writer: Writer,
    pub(crate) ledger: Arc<dyn Ledger>,
    /// Where the store is, for who reads events.
    pub(crate) data: PathBuf,
}

impl Operator {
    /// Starts the executor where the store says that the last one stopped, and the poller.
    ///
    /// Both end when the last [`Operator`] is dropped; what they were doing goes on at the next
    /// start.
    ///
    /// # Errors
    /// When the store holds what no version of this program writes.
    pub(crate) fn start(
        with: Surroundings,
        stored: &Stored,
        registry: &mut Registry,
    ) -> Result<(Self, JoinHandle<()>), StoreError> {
        Self::start_at(Clock::default(), with, stored, registry)
    }

    pub(super) fn start_at(
        clock: Clock,
        with: Surroundings,
        stored: &Stored,
        registry: &mut Registry,
    ) -> Result<(Self, JoinHandle<()>), StoreError> {
        let loaded = persist::load(&stored.documents, &stored.newest)?;
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (place, places) = watch::channel(Place {
            site: with.site,
            secrets: with.secrets,
        });
        let (event, follow) = watch::channel(loaded.event);
        let (targets, polling) = watch::channel(poll::Targets::default());
        let (polled, answers) = mpsc::channel(16);
        let (wishes, asked) = mpsc::channel(WISHES);
        let parts = Parts {
            places,
            clock,
            images: with.images.clone(),
            writer: with.writer,
            ledger: with.ledger,
            metrics: Metrics::new(registry),
            commands: inbox,
            polled: answers,
            targets,
            wishes,
            event,
        };
        let executor = Executor::new(parts, loaded);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = executor.run() => {}
                () = poll::run(polling, asked, polled, clock) => {}
            }
        });
        let operator = Self {
            commands,
            place,
            images: with.images,
            events: Events::new(with.data, follow),
        };
        Ok((operator, task))
    }

    /// Goes on with another site.
    pub(crate) fn swap(&self, site: Arc<Site>) {
        self.place.send_modify(|place| place.site = site);
    }

    fn site(&self) -> Arc<Site> {
        Arc::clone(&self.place.borrow().site)
    }

    /// Puts an image on hosts.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn deploy(&self, order: Order, deploy: DeployOrder) -> Result<Accepted, Refusal> {
        let prepared = self.prepare(&deploy).await?;
        self.ask(|answer| Command::Deploy(order, prepared, answer))
            .await
    }

    /// Returns hosts to their newest other generation that was healthy.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn rollback(&self, order: Order, hosts: Selector) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::Rollback(order, hosts, answer))
            .await
    }

    /// Calls off what is under way with hosts, and lets stopped ones go on.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn cancel(&self, order: Order, hosts: Selector) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::Cancel(order, hosts, answer))
            .await
    }

    /// Changes the power of hosts.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn power(
        &self,
        order: Order,
        hosts: Selector,
        power: Power,
    ) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::Power(order, hosts, power, answer))
            .await
    }

    /// Asks the BMCs of hosts who they are, and records it.
    ///
    /// # Errors
    /// At the first host where it fails: those before it are recorded.
    pub async fn enroll(
        &self,
        order: Order,
        hosts: Selector,
        enroll: Enroll,
    ) -> Result<Accepted, Refusal> {
        let site = self.site();
        let chosen = select(&site, &hosts)?;
        permit(&order.who, &chosen)?;
        let mut plans = Vec::new();
        for host in chosen {
            let reached = self.reach(&host.name).await?;
            let seen = reached.bmc.read(READ).await;
            let seen = seen.map_err(|error| refused(&host.name, &error))?;
            let (order, name) = (order.clone(), Arc::clone(&host.name));
            let seen = Box::new(seen);
            let outcome = self
                .ask(|answer| Command::Recorded(order, name, seen, enroll, answer))
                .await?;
            plans.push(HostPlan {
                host: host.name.to_string(),
                from: None,
                to: None,
                steps: vec![outcome],
            });
        }
        Ok(Accepted {
            done: order.run == super::Run::Real,
            id: None,
            hosts: plans,
            notes: Vec::new(),
        })
    }

    /// Begins a rollout.
    ///
    /// # Errors
    /// Why nothing is done at all.
    pub async fn rollout_start(
        &self,
        order: Order,
        rollout: RolloutOrder,
    ) -> Result<Accepted, Refusal> {
        let mut prepared = self.prepare(&rollout.deploy).await?;
        prepared.request = json!(rollout);
        prepared.rollout = Some(rollout.pace);
        self.ask(|answer| Command::RolloutStart(order, prepared, answer))
            .await
    }

    /// Pauses, resumes, halts or undoes a rollout.
    ///
    /// # Errors
    /// When there is no such rollout, or it has come too far.
    pub async fn rollout_control(
        &self,
        order: Order,
        id: String,
        control: Control,
    ) -> Result<Accepted, Refusal> {
        self.ask(|answer| Command::RolloutControl(order, id, control, answer))
            .await
    }

    /// Returns all rollouts that are kept, newest first.
    ///
    /// # Errors
    /// When the appliance stops.
    pub async fn rollouts(&self) -> Result<Vec<RolloutView>, Refusal> {
        self.ask(Command::Rollouts).await
    }

    /// Returns how each host of the site stands.
    ///
    /// # Errors
    /// When the appliance stops.
    pub async fn states(&self) -> Result<Vec<(Arc<str>, StateView)>, Refusal> {
        self.ask(Command::States).await
    }

    /// Returns the generations of a host, newest first.
    ///
    /// # Errors
    /// When the site has no such host.
    pub async fn history(&self, host: &Arc<str>) -> Result<Vec<GenerationView>, Refusal> {
        let host = Arc::clone(host);
        self.ask(|answer| Command::History(host, answer)).await
    }

    /// Returns events, oldest first; waits for the first one as long as it is told to.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events(&self, since: &Since) -> Result<Vec<EventView>, Refusal> {
        Ok(self.events.read(since).await?)
    }

    /// Opens the serial console of a host.
    ///
    /// # Errors
    /// When the host has none, or its BMC does not let us.
    pub async fn console(&self, host: &Arc<str>) -> Result<Console, Refusal> {
        let reached = self.reach(host).await?;
        let console = reached.bmc.console().await;
        console.map_err(|error| refused(host, &error))
    }

    /// Reads what a host's BMC knows of its parts, sensors and past.
    ///
    /// # Errors
    /// When the host has no BMC, or it does not let us.
    pub async fn inventory(&self, host: &Arc<str>) -> Result<Inventory, Refusal> {
        let reached = self.reach(host).await?;
        let inventory = reached.bmc.inventory().await;
        inventory.map_err(|error| refused(host, &error))
    }

    async fn reach(&self, host: &Arc<str>) -> Result<Reached, Refusal> {
        let host = Arc::clone(host);
        self.ask(|answer| Command::Reach(host, answer)).await
    }

    /// Returns what a host boots; none when it has to be adopted first.
    pub(crate) async fn choose(&self, host: &Arc<str>) -> Result<Option<Chosen>, Refusal> {
        let host = Arc::clone(host);
        self.ask(|answer| Command::Choose(host, answer)).await
    }

    /// Tells that a host is about to be given a script, and waits until that is on disk.
    pub(crate) async fn began(&self, began: Began) -> Result<Chosen, Refusal> {
        self.ask(|answer| Command::Began(began, answer)).await
    }

    /// Tells what a host reported in its running boot, and waits until that and what it leads to
    /// are on disk, in one transaction: who is answered does not report it again.
    pub(crate) async fn reported(&self, reported: Reported) -> Result<(), Refusal> {
        self.ask(|answer| Command::Reported(reported, answer)).await
    }

    /// Tells that a host lives. Since that repeats itself, nobody waits for it, and it is dropped
    /// when too much waits.
    pub(crate) fn heartbeat(&self, heartbeat: Reported) {
        let host = Arc::clone(&heartbeat.host);
        if self
            .commands
            .try_send(Command::Heartbeat(heartbeat))
            .is_err()
        {
            tracing::debug!(host = &*host, "heartbeat was not looked at");
        }
    }

    /// Tells operators that a host was refused what it asked for. It is dropped when too much waits.
    pub(crate) fn refused(&self, host: &Arc<str>, text: String) {
        let command = Command::Refused(Arc::clone(host), text);
        if self.commands.try_send(command).is_err() {
            tracing::warn!(host = &**host, "nobody is told that the host was refused");
        }
    }

    /// Looks up the image of each host.
    async fn prepare(&self, deploy: &DeployOrder) -> Result<Prepared, Refusal> {
        let site = self.site();
        let wish = match (&deploy.image, deploy.digest) {
            (Some(name), digest) => Some(ImageRef {
                name: name.as_str().into(),
                digest,
            }),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Refusal::Invalid {
                    reason: "a digest needs the name of its image".to_owned(),
                });
            }
        };
        let mut known: HashMap<ImageRef, Image> = HashMap::new();
        let mut targets = Vec::new();
        for host in select(&site, &deploy.hosts)? {
            let image = wish.as_ref().or_else(|| site.image_of(host));
            let image = image.ok_or_else(|| Refusal::Invalid {
                reason: format!("the role `{}` of `{}` has no image", host.role, host.name),
            })?;
            let found = match known.get(image) {
                Some(found) => found.clone(),
                None => self.resolve(image).await?,
            };
            known.insert(image.clone(), found.clone());
            targets.push(target(&site, host, found));
        }
        Ok(Prepared {
            request: json!(deploy),
            targets,
            again: deploy.again,
            rollout: None,
        })
    }

    async fn resolve(&self, image: &ImageRef) -> Result<Image, Refusal> {
        let (store, wish) = (self.images.clone(), image.clone());
        let invalid = |reason| Refusal::Invalid { reason };
        let found = tokio::task::spawn_blocking(move || images::resolve(&store, &wish))
            .await
            .map_err(|error| invalid(chain(&error)))?
            .map_err(|error| invalid(chain(&error)))?;
        Ok(images::identity(&found))
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Refusal> {
        let (answer, wait) = oneshot::channel();
        let stopping = || Refusal::Unavailable {
            reason: "the appliance stops".to_owned(),
        };
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| stopping())?;
        wait.await.map_err(|_| stopping())?
    }
}

fn target(site: &Site, host: &Arc<Host>, image: Image) -> Target {
    Target {
        host: Arc::clone(&host.name),
        image,
        parameters: site.parameters_of(host),
    }
}

fn refused(host: &str, error: &ipmi::Error) -> Refusal {
    Refusal::Bmc {
        host: host.to_owned(),
        reason: error.to_string(),
    }
}
