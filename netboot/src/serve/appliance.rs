//! Everything that the parts of a running appliance share: site, leases, boots, store, metrics.
//!
//! It refuses to wait while it holds a lock: decisions are made in memory, and the caller waits
//! for the store.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use image_manifest::layout::Layout;
use netboot_core::Timestamp;
use netboot_core::boot::What;
use netboot_core::dhcp::{
    Client, Decision, Kind, Lease, LeaseState, Leases, Note, Request, Silence, Tries, decide,
};
use netboot_core::site::{Host, Mode, Site};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use super::bind::Wires;
use super::boots::Boots;
use super::metrics::Metrics;
use super::rows::{lease_of, row_of};
use super::token::TokenKey;
use super::{ServeError, Writer, tls};
use crate::audit::{Chain, Log};
use crate::cli::report::chain;
use crate::clock::now;
use crate::operate::{Ledger, Operator, Surroundings};
use crate::secrets::Secrets;
use crate::store::{Change, Store, StoreError, Urgency};
use crate::tls::Tls;

/// What the parts of a running appliance share.
#[derive(Debug)]
pub(super) struct Appliance {
    place: RwLock<Arc<Place>>,
    state: Mutex<State>,
    pub(super) boots: Arc<Boots>,
    pub(super) images: Layout,
    pub(super) writer: Writer,
    pub(super) key: TokenKey,
    pub(super) tls: Arc<Tls>,
    pub(super) secrets: Arc<Secrets>,
    /// The audit log.
    pub(super) ledger: Arc<dyn Ledger>,
    /// What decides about hosts, their power and their images.
    pub(super) operator: Operator,
    pub(super) metrics: Metrics,
}

/// The site and where it is on this machine; replaced whole, never changed.
#[derive(Debug)]
struct Place {
    site: Arc<Site>,
    wires: Wires,
}

/// What decisions depend on besides the site.
#[derive(Debug)]
struct State {
    leases: Leases,
    tries: Tries,
    /// Hosts by the address that they hold, reserved or not.
    hosts: HashMap<Ipv4Addr, Arc<str>>,
    /// Hosts that get no address, with the reason that was last told.
    troubled: HashMap<Arc<str>, &'static str>,
}

/// A decision with what must be stored for it.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) decision: Decision,
    pub(super) changes: Vec<Change>,
    /// Whether the reply must wait until the changes are on disk.
    pub(super) durable: bool,
    /// What an operator should look at, once until it changes.
    pub(super) trouble: Option<Trouble>,
}

/// An address that is not given although it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The listed host that has it.
    pub(super) host: Option<Arc<str>>,
    /// Why the host gets no address; none when an address was declined.
    pub(super) silence: Option<Silence>,
}

/// A started appliance: itself, its metrics, the store's writer, and the executor.
pub(super) type Started = (Arc<Appliance>, Registry, JoinHandle<()>, JoinHandle<()>);

impl Appliance {
    /// Goes on where the store says that the last run stopped.
    pub(super) async fn start(
        site: Arc<Site>,
        images: Layout,
        data: &Path,
        mut store: impl Store,
        wires: Wires,
        tls: Arc<Tls>,
        secrets: Arc<Secrets>,
    ) -> Result<Started, ServeError> {
        let key = TokenKey::open(data)?;
        let stored = store.load().await?;
        let leases: Vec<Lease> = stored
            .leases
            .iter()
            .map(lease_of)
            .collect::<Result<_, StoreError>>()?;
        let before: Vec<(Arc<str>, Ipv4Addr)> = leases
            .iter()
            .map(|lease| (Arc::clone(&lease.network), lease.address))
            .collect();
        let boots = Boots::restore(stored.boots.clone())?;
        let restored = Leases::restore(&site, leases, now());
        let hosts = whereabouts(boots.addresses(), &restored, now());
        tracing::info!(
            leases = restored.iter().count(),
            boots = boots.len(),
            "state restored"
        );
        let mut changes = boots.restarted(now());
        changes.extend(gone(before, &restored));
        let (metrics, mut registry) = Metrics::new();
        let (writer, task) = Writer::spawn(store, Chain::after(&stored.newest));
        if !changes.is_empty() {
            // An empty queue has room; what is lost in a crash right now is done again next time.
            drop(writer.submit(changes, Urgency::Deferrable));
        }
        let ledger: Arc<dyn Ledger> = Arc::new(Log::new(writer.clone()));
        let surroundings = Surroundings {
            site: Arc::clone(&site),
            secrets: Arc::clone(&secrets),
            images: images.clone(),
            writer: writer.clone(),
            ledger: Arc::clone(&ledger),
            data: data.to_owned(),
        };
        let (operator, executor) = Operator::start(surroundings, &stored, &mut registry)?;
        let appliance = Arc::new(Self {
            place: RwLock::new(Arc::new(Place { site, wires })),
            state: Mutex::new(State {
                leases: restored,
                tries: Tries::new(),
                hosts,
                troubled: HashMap::new(),
            }),
            boots: Arc::new(boots),
            images,
            writer,
            key,
            tls,
            secrets,
            ledger,
            operator,
            metrics,
        });
        Ok((appliance, registry, task, executor))
    }

    /// Returns the site as it is now.
    pub(super) fn site(&self) -> Arc<Site> {
        Arc::clone(&self.place().site)
    }

    /// Returns our address on the wire of an interface.
    pub(super) fn local(&self, interface: u32) -> Option<Ipv4Addr> {
        self.place().wires.local(interface)
    }

    fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the site; leases go on as far as the new one covers them.
    pub(super) fn swap(&self, site: Arc<Site>, wires: Wires) {
        let mut state = self.state();
        let leases: Vec<Lease> = state.leases.iter().cloned().collect();
        state.leases = Leases::restore(&site, leases, now());
        if let Err(error) = self.tls.rename(tls::names(&site, &wires), now()) {
            tracing::warn!(error = %chain(&error), "certificate stays as it was");
        }
        self.operator.swap(Arc::clone(&site));
        let place = Arc::new(Place { site, wires });
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Decides about one DHCP request and makes the change in memory.
    pub(super) fn decide(&self, request: &Request) -> Decided {
        let site = self.site();
        let now = now();
        let mut state = self.state();
        let decision = decide(request, &site, &state.leases, &state.tries, now);
        let mut changes = Vec::new();
        if let Some(change) = decision.change() {
            state.leases.apply(change);
            if let Some(lease) = change.durable() {
                state.remember(lease);
                changes.push(Change::Lease(row_of(lease)));
            }
        }
        state.overhear(request, &decision, &site);
        let trouble = state.trouble(request, &decision, &site);
        drop(state);
        let durable = !changes.is_empty();
        changes.extend(self.dhcp_event(&site, request, &decision));
        Decided {
            decision,
            changes,
            durable,
            trouble,
        }
    }

    /// Finds the host that holds an address.
    pub(super) fn host_at(&self, address: Ipv4Addr) -> Option<Arc<Host>> {
        let site = self.site();
        let name = self.state().hosts.get(&address).cloned();
        name.and_then(|name| site.host(&name).cloned())
            .or_else(|| site.reserved(address).cloned())
    }

    /// Tells who gives addresses at an address.
    pub(super) fn mode_at(&self, address: Ipv4Addr) -> Mode {
        let network = self.site().network_of(address).map(|network| network.mode);
        network.unwrap_or(Mode::Authoritative)
    }

    /// Tells whether a host is to be believed at an address.
    pub(super) fn presence(&self, host: &Host, address: Ipv4Addr) -> Presence {
        let site = self.site();
        let state = self.state();
        let holder = state.hosts.get(&address);
        let holder = holder.or_else(|| site.reserved(address).map(|host| &host.name));
        let Some(network) = site.network_of(address) else {
            return Presence::Elsewhere;
        };
        match holder {
            Some(holder) if *holder == host.name => Presence::Here,
            None if network.mode == Mode::Proxy => {
                let seen = state.hosts.values().any(|name| *name == host.name);
                if seen {
                    Presence::Moved
                } else {
                    Presence::Unseen
                }
            }
            _ => Presence::Elsewhere,
        }
    }

    /// Learns the address of a host that another server gave it.
    pub(super) fn arrived(&self, peer: Ipv4Addr, host: &Host) {
        self.state().arrived(peer, &host.name);
    }

    /// Lets the decisions know what a host did with an earlier one.
    pub(super) fn note_try(&self, host: &Arc<str>, what: &What) {
        self.state().tries.note(host, what);
    }
}

/// What is known about a host and an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// The host holds the address, or has it reserved.
    Here,
    /// Another server gives the address, and none was seen of the host.
    Unseen,
    /// Another server gives the address, and the host was seen with another one.
    Moved,
    /// The address is no one's or another host's.
    Elsewhere,
}

impl State {
    /// Learns from what hosts say to another server, or to us beside it, which address they have.
    fn overhear(&mut self, request: &Request, decision: &Decision, site: &Site) {
        let Some(host) = site.identify(request.mac(), request.guid) else {
            return;
        };
        let beside = |address| {
            let network = site.network_of(address);
            network.is_some_and(|network| network.mode == Mode::Proxy)
        };
        match (request.kind, decision) {
            // It starts, and has no address until it gets one.
            (Kind::Discover, Decision::Send { reply, .. }) if reply.yiaddr.is_unspecified() => {
                self.hosts
                    .retain(|address, name| *name != host.name || !beside(*address));
            }
            (Kind::Request | Kind::Inform, _) => {
                let had = Some(request.ciaddr).filter(|address| !address.is_unspecified());
                if let Some(address) = had.or(request.requested).filter(|one| beside(*one)) {
                    self.arrived(address, &host.name);
                }
            }
            _ => {}
        }
    }

    /// Finds what an operator should be told, and has not been told already.
    fn trouble(&mut self, request: &Request, decision: &Decision, site: &Site) -> Option<Trouble> {
        let host = site.identify(request.mac(), request.guid);
        let host = host.map(|host| Arc::clone(&host.name));
        match decision {
            Decision::Note {
                note: Note::Declined,
                ..
            } => Some(Trouble {
                host,
                silence: None,
            }),
            Decision::Ignore(
                silence @ (Silence::PoolEmpty
                | Silence::AddressTaken { .. }
                | Silence::AddressDeclined { .. }),
            ) => {
                let host = host?;
                let told = self.troubled.insert(Arc::clone(&host), silence.label());
                (told != Some(silence.label())).then_some(Trouble {
                    host: Some(host),
                    silence: Some(*silence),
                })
            }
            Decision::Send { .. } => {
                self.troubled.remove(&host?);
                None
            }
            Decision::Note { .. } | Decision::Ignore(_) => None,
        }
    }

    /// Keeps the way from the one address that a host has to it.
    fn arrived(&mut self, address: Ipv4Addr, host: &Arc<str>) {
        self.hosts.retain(|_, name| name != host);
        self.hosts.insert(address, Arc::clone(host));
    }

    /// Keeps the way from an address to its host.
    fn remember(&mut self, lease: &Lease) {
        match held_by_host(lease) {
            Some((address, host)) => self.arrived(address, &host),
            None => drop(self.hosts.remove(&lease.address)),
        }
    }
}

/// Finds the one address of each host: where its boot was seen, unless it has a lease since.
fn whereabouts(
    seen: Vec<(Ipv4Addr, Arc<str>)>,
    leases: &Leases,
    now: Timestamp,
) -> HashMap<Ipv4Addr, Arc<str>> {
    let mut live: Vec<&Lease> = leases.iter().filter(|lease| lease.is_live(now)).collect();
    live.sort_by_key(|lease| (lease.until, lease.address));
    let held: HashMap<Arc<str>, Ipv4Addr> = live
        .into_iter()
        .filter_map(held_by_host)
        .map(|(address, host)| (host, address))
        .collect();
    let seen = seen
        .into_iter()
        .filter(|(_, host)| !held.contains_key(host));
    let mut hosts: HashMap<Ipv4Addr, Arc<str>> = seen.collect();
    hosts.extend(held.into_iter().map(|(host, address)| (address, host)));
    hosts
}

/// Forgets stored leases that the site covers no more and that have ended.
fn gone(before: Vec<(Arc<str>, Ipv4Addr)>, leases: &Leases) -> Vec<Change> {
    let kept: HashSet<(&str, Ipv4Addr)> = leases
        .iter()
        .map(|lease| (&*lease.network, lease.address))
        .collect();
    before
        .into_iter()
        .filter(|(network, address)| !kept.contains(&(&**network, *address)))
        .map(|(network, address)| Change::Free {
            network: network.to_string(),
            address: address.to_bits(),
        })
        .collect()
}

fn held_by_host(lease: &Lease) -> Option<(Ipv4Addr, Arc<str>)> {
    match (&lease.client, lease.state) {
        (Client::Host(host), LeaseState::Bound) => Some((lease.address, Arc::clone(host))),
        _ => None,
    }
}
