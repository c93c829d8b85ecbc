//! One place as its operator describes it: networks, roles and hosts, checked.
//!
//! It refuses half a site: either every file is right, or all problems are told at once.
//! A [`Site`] never changes; reloading makes a new one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use image_manifest::Digest;

use crate::selector::Selector;
use crate::{Guid, Mac};

mod check;
mod environment;
mod hosts;
mod networks;
mod policy;
mod power;
mod problem;
mod read;
mod roles;
mod secret;
mod subnet;
#[cfg(test)]
mod tests;
mod word;

pub use environment::{Environment, Parameter, Parameters};
pub(crate) use policy::MOST_ROLLBACKS;
pub use policy::{BootMethod, DeployPolicy, Heal, Limits};
pub use power::{Bmc, BmcAddress, BootFirmware, Protocol, Trust, Waiver};
pub use problem::{Location, Problem, ProblemKind, SourceFile};
pub use secret::SecretSource;
pub use subnet::Subnet;
pub use word::MalformedWord;

/// One place: what stands in the `*.toml` files of a site directory.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name.
    pub name: Arc<str>,
    /// How the appliance itself is reached.
    pub appliance: Appliance,
    /// The networks that it serves, in the order of the files.
    pub networks: Vec<Arc<Network>>,
    /// What hosts are for, by name.
    pub roles: BTreeMap<Arc<str>, Role>,
    /// Parts that change before or after others, by name.
    pub environments: BTreeMap<Arc<str>, Environment>,
    /// Where secrets come from, by name.
    pub secrets: BTreeMap<Arc<str>, SecretSource>,
    /// How much one change may touch.
    pub limits: Limits,
    /// Parameters of all hosts.
    pub parameters: Parameters,
    /// What is allowed and an operator should know, in the order of the files.
    pub advice: Vec<Problem>,
    /// Where files and secrets are named.
    pub places: Places,
    hosts: Vec<Arc<Host>>,
    by_name: HashMap<Arc<str>, usize>,
    by_mac: HashMap<Mac, usize>,
    by_guid: HashMap<Guid, usize>,
    by_address: HashMap<Ipv4Addr, usize>,
    by_base: BTreeMap<Ipv4Addr, usize>,
    appliances: HashSet<Ipv4Addr>,
}

/// Where a site names what only the shell can look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Where the source of each secret is given, by the secret's name.
    pub secrets: BTreeMap<Arc<str>, Location>,
    /// Where each file of authorities is first named, by its path.
    pub authorities: BTreeMap<Arc<str>, Location>,
}

/// How the appliance itself is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appliance {
    /// Port of the HTTP server, on the appliance's address in each network.
    pub http_port: u16,
    /// Port of the HTTPS server for hosts, on the appliance's address in each network.
    pub https_port: u16,
    /// Where operators reach the API.
    pub api: SocketAddr,
    /// Where the metrics are served.
    pub metrics: SocketAddr,
}

/// One network in which hosts are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: Arc<str>,
    /// Its addresses.
    pub subnet: Subnet,
    /// The address at which its hosts reach the appliance; in the subnet unless it is relayed.
    pub appliance: Ipv4Addr,
    /// Whether its packets come from a wire of ours or through a relay.
    pub reach: Reach,
    /// Whether we give addresses, or boot options beside a DHCP server that does.
    pub mode: Mode,
    /// Addresses for those without a reservation.
    pub pool: Option<Pool>,
    /// What an unlisted host gets.
    pub strangers: Strangers,
    /// How long an address is given.
    pub lease: Duration,
    /// The default router.
    pub router: Option<Ipv4Addr>,
    /// Name servers, in order.
    pub dns: Vec<Ipv4Addr>,
    /// Domain to search.
    pub domain: Option<Arc<str>>,
}

/// How a network's packets reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One of our interfaces holds [`Network::appliance`] and stands on its wire.
    Local,
    /// Only through relays.
    Relayed,
}

/// Whose addresses a network uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// We are its DHCP server.
    Authoritative,
    /// Another server gives addresses; we add boot options.
    Proxy,
}

/// What an unlisted host gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// Silence.
    Ignore,
    /// An address of the pool, and nothing to boot.
    Lease,
}

/// A range of addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// The lowest.
    pub first: Ipv4Addr,
    /// The highest.
    pub last: Ipv4Addr,
}

/// What hosts are for, and so which image they boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: Arc<str>,
    /// The image.
    pub image: ImageRef,
    /// Arguments that are added to the kernel's command line.
    pub command_line: Option<Arc<str>>,
    /// Public keys that may log in to its hosts.
    pub ssh_keys: Vec<Arc<str>>,
    /// Names of the secrets that its hosts are given at boot.
    pub secrets: Vec<Arc<str>>,
    /// Parameters of its hosts.
    pub parameters: Parameters,
    /// How its hosts are deployed.
    pub deploy: DeployPolicy,
}

/// Names an image: by name, or by name and exact digest of its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    /// Its name.
    pub name: Arc<str>,
    /// Digest of the manifest, when it is pinned.
    pub digest: Option<Digest>,
}

/// One host of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name, without a domain.
    pub name: Arc<str>,
    /// Hardware addresses of its interfaces.
    pub macs: Vec<Mac>,
    /// What its firmware says in option 97.
    pub guid: Option<Guid>,
    /// Its reserved address; from a pool when there is none.
    pub address: Option<Ipv4Addr>,
    /// Name of its role, which the site has.
    pub role: Arc<str>,
    /// Public keys that may log in, besides those of site and role.
    pub ssh_keys: Vec<Arc<str>>,
    /// All keys that may log in: of the site, its role and its own.
    pub login_keys: Vec<Arc<str>>,
    /// The rack that it stands in.
    pub rack: Option<Arc<str>>,
    /// Name of its environment, which the site has.
    pub environment: Option<Arc<str>>,
    /// What else selectors can name it by.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether it is touched only when a person overrides this.
    pub protected: bool,
    /// Parameters of its own.
    pub parameters: Parameters,
    /// Its BMC; without one a person turns it on and off.
    pub bmc: Option<Bmc>,
}

impl Site {
    /// Reads and checks the files of a site.
    ///
    /// # Errors
    /// All problems of all files, in the order of the files.
    pub fn check(files: &[SourceFile]) -> Result<Self, Vec<Problem>> {
        check::check(files)
    }

    /// Returns all hosts, in the order of the files.
    #[must_use]
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = &Arc<Host>> {
        self.hosts.iter()
    }

    /// Finds a host by name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.get(*self.by_name.get(name)?)
    }

    /// Finds a host by one of its hardware addresses.
    #[must_use]
    pub fn host_by_mac(&self, mac: Mac) -> Option<&Arc<Host>> {
        self.hosts.get(*self.by_mac.get(&mac)?)
    }

    /// Finds the host with a hardware address, or else with a GUID.
    #[must_use]
    pub fn identify(&self, mac: Option<Mac>, guid: Option<Guid>) -> Option<&Arc<Host>> {
        let by_mac = mac.and_then(|mac| self.by_mac.get(&mac));
        let index = by_mac.or_else(|| self.by_guid.get(&guid?))?;
        self.hosts.get(*index)
    }

    /// Finds the host that an address is reserved for.
    #[must_use]
    pub fn reserved(&self, address: Ipv4Addr) -> Option<&Arc<Host>> {
        self.hosts.get(*self.by_address.get(&address)?)
    }

    /// Finds the network whose subnet holds an address.
    #[must_use]
    pub fn network_of(&self, address: Ipv4Addr) -> Option<&Arc<Network>> {
        // Subnets do not overlap, so only the last that begins at or before can hold it.
        let (_, &index) = self.by_base.range(..=address).next_back()?;
        let network = self.networks.get(index)?;
        network.subnet.contains(address).then_some(network)
    }

    /// Finds a network by name.
    #[must_use]
    pub fn network(&self, name: &str) -> Option<&Arc<Network>> {
        self.networks.iter().find(|network| &*network.name == name)
    }

    /// Tells whether an address is one at which hosts reach the appliance.
    #[must_use]
    pub fn is_appliance(&self, address: Ipv4Addr) -> bool {
        self.appliances.contains(&address)
    }

    /// Returns the role of a host.
    #[must_use]
    pub fn role_of(&self, host: &Host) -> Option<&Role> {
        self.roles.get(&host.role)
    }

    /// Returns how a host is deployed: as its role says, and as its own firmware boots.
    #[must_use]
    pub fn deploy_policy(&self, host: &Host) -> DeployPolicy {
        let role = self.roles.get(&host.role);
        let mut policy = role.map_or_else(DeployPolicy::default, |role| role.deploy.clone());
        if let Some(boot) = host.bmc.as_ref().and_then(|bmc| bmc.boot) {
            policy.boot = boot;
        }
        policy
    }

    /// Returns the hosts that a selector names, in the order of the files.
    #[must_use]
    pub fn select(&self, selector: &Selector) -> Vec<&Arc<Host>> {
        let named = |host: &&Arc<Host>| selector.selects(host);
        self.hosts.iter().filter(named).collect()
    }

    /// Returns `https://ADDRESS[:PORT]` of the appliance in a network.
    #[must_use]
    pub fn secure_url(&self, network: &Network) -> String {
        match self.appliance.https_port {
            443 => format!("https://{}", network.appliance),
            port => format!("https://{}:{port}", network.appliance),
        }
    }

    /// Returns `http://ADDRESS[:PORT]` of the appliance in a network.
    #[must_use]
    pub fn url(&self, network: &Network) -> String {
        match self.appliance.http_port {
            80 => format!("http://{}", network.appliance),
            port => format!("http://{}:{port}", network.appliance),
        }
    }
}
