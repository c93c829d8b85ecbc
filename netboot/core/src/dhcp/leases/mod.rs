//! All leases in memory, shaped for one question: which address does this client get?
//!
//! It refuses to scan: every question takes one or two look-ups, and a search of a bitmap with a
//! summary. Only a listed host whose pool is used up has it looked through for what strangers claim. It refuses to grow: a pool has at most one lease an address, and only reserved
//! addresses of listed hosts have leases outside pools.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::Timestamp;
use crate::site::{Network, Pool, Site};

mod client;
mod free;

pub use client::{Client, Lease, LeaseState, MalformedLease};

use super::Change;
use free::FreeMap;

/// All leases of a site.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    pools: HashMap<Arc<str>, PoolLeases>,
    /// Leases outside pools: of reservations, and what a changed site has left over.
    fixed: HashMap<Ipv4Addr, Lease>,
}

/// Leases of the addresses of one pool.
#[derive(Clone, Debug)]
struct PoolLeases {
    pool: Pool,
    free: FreeMap,
    /// By index in the pool.
    leases: HashMap<u32, Lease>,
    /// The address that each client holds or held last.
    clients: HashMap<Client, u32>,
    /// When each lease ends, and so its address can go to another client.
    ends: BTreeSet<(Timestamp, u32)>,
}

impl Leases {
    /// Makes the empty leases of a site.
    #[must_use]
    pub fn new(site: &Site) -> Self {
        let pools = site.networks.iter().filter_map(|network| {
            let pool = PoolLeases::new(network.pool?);
            Some((Arc::clone(&network.name), pool))
        });
        Self {
            pools: pools.collect(),
            fixed: HashMap::new(),
        }
    }

    /// Makes the leases of a site out of stored ones, or of those of an earlier version of it.
    ///
    /// Leases that neither a pool nor a reservation covers now are kept until they end, so that
    /// their addresses go to no one else before.
    #[must_use]
    pub fn restore(site: &Site, leases: impl IntoIterator<Item = Lease>, now: Timestamp) -> Self {
        let mut all = Self::new(site);
        for mut lease in leases {
            let network = site.network_of(lease.address);
            if let Some(network) = network {
                lease.network = Arc::clone(&network.name);
            }
            let pooled = network
                .and_then(|network| network.pool)
                .is_some_and(|pool| pool.contains(lease.address));
            if pooled || site.reserved(lease.address).is_some() || lease.is_live(now) {
                all.put(lease);
            }
        }
        all
    }

    /// Makes a change that a decision asked for.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Put(lease) => self.put(lease.clone()),
            Change::Withdraw(lease) => self.withdraw(lease),
        }
    }

    /// Returns all leases, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        let pooled = self.pools.values().flat_map(|pool| pool.leases.values());
        pooled.chain(self.fixed.values())
    }

    /// Returns the lease of an address outside pools.
    pub(super) fn fixed(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.fixed.get(&address)
    }

    /// Returns the lease that a client has, or had last, in a network's pool.
    pub(super) fn of_client(&self, network: &Network, client: &Client) -> Option<&Lease> {
        let pool = self.pools.get(&network.name)?;
        pool.leases.get(pool.clients.get(client)?)
    }

    /// Tells whether a client could be given an address of a network's pool.
    pub(super) fn is_available(
        &self,
        network: &Network,
        address: Ipv4Addr,
        client: &Client,
        now: Timestamp,
    ) -> bool {
        let Some(pool) = self.pools.get(&network.name) else {
            return false;
        };
        pool.index(address)
            .is_some_and(|index| pool.is_available(index, client, now))
    }

    /// Chooses the address of a network's pool for a client, in the order of RFC 2131 §4.3.1: the
    /// one it has or had, the one it wants, one that no one ever had, the one that ended first.
    pub(super) fn choose(
        &self,
        network: &Network,
        client: &Client,
        wanted: Option<Ipv4Addr>,
        now: Timestamp,
    ) -> Option<Ipv4Addr> {
        let pool = self.pools.get(&network.name)?;
        let previous = self.of_client(network, client).map(|lease| lease.address);
        if let Some(address) = [previous, wanted]
            .into_iter()
            .flatten()
            .find(|address| self.is_available(network, *address, client, now))
        {
            return Some(address);
        }
        let start = client.preference() % u64::from(pool.pool.size().max(1));
        let fresh = pool.free.find(u32::try_from(start).ok()?);
        let index = fresh.or_else(|| {
            let &(until, index) = pool.ends.first()?;
            (until <= now).then_some(index)
        });
        let listed = !client.is_stranger();
        let index = index.or_else(|| listed.then(|| pool.claimed_by_stranger()).flatten())?;
        Some(pool.address(index))
    }

    fn put(&mut self, lease: Lease) {
        if let Some(pool) = self.pools.get_mut(&lease.network)
            && let Some(index) = pool.index(lease.address)
        {
            pool.put(index, lease);
        } else {
            self.fixed.insert(lease.address, lease);
        }
    }

    fn withdraw(&mut self, lease: &Lease) {
        if let Some(pool) = self.pools.get_mut(&lease.network)
            && let Some(index) = pool.index(lease.address)
            && pool.leases.get(&index) == Some(lease)
        {
            pool.remove(index);
        }
    }
}

impl PoolLeases {
    fn new(pool: Pool) -> Self {
        Self {
            pool,
            free: FreeMap::new(pool.size()),
            leases: HashMap::new(),
            clients: HashMap::new(),
            ends: BTreeSet::new(),
        }
    }

    fn index(&self, address: Ipv4Addr) -> Option<u32> {
        let pool = self.pool;
        pool.contains(address)
            .then(|| address.to_bits() - pool.first.to_bits())
    }

    fn address(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pool.first.to_bits().saturating_add(index))
    }

    fn is_available(&self, index: u32, client: &Client, now: Timestamp) -> bool {
        self.leases.get(&index).is_none_or(|lease| {
            !lease.is_live(now) || (lease.client == *client && lease.state != LeaseState::Declined)
        })
    }

    /// Finds an address that a stranger only claims: it has taken no lease of it, or says that it is
    /// in use. Packets with made-up hardware addresses cannot keep a listed host from those.
    fn claimed_by_stranger(&self) -> Option<u32> {
        let claimed = |state| {
            let ends = self.ends.iter().map(|&(_, index)| index);
            ends.into_iter().find(|index| {
                self.leases
                    .get(index)
                    .is_some_and(|lease| lease.state == state && lease.client.is_stranger())
            })
        };
        claimed(LeaseState::Offered).or_else(|| claimed(LeaseState::Declined))
    }

    fn put(&mut self, index: u32, lease: Lease) {
        self.remove(index);
        self.free.take(index);
        self.ends.insert((lease.until, index));
        // A client that declined an address wants another one, so it does not lead back here.
        if lease.state != LeaseState::Declined {
            self.forget_offer(&lease.client);
            self.clients.insert(lease.client.clone(), index);
        }
        self.leases.insert(index, lease);
    }

    /// An offer that its client did not take, because it was given another address, ends at once.
    fn forget_offer(&mut self, client: &Client) {
        if let Some(&index) = self.clients.get(client)
            && self
                .leases
                .get(&index)
                .is_some_and(|lease| lease.state == LeaseState::Offered)
        {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: u32) {
        let Some(lease) = self.leases.remove(&index) else {
            return;
        };
        self.ends.remove(&(lease.until, index));
        self.free.give(index);
        if self.clients.get(&lease.client) == Some(&index) {
            self.clients.remove(&lease.client);
        }
    }
}
