//! The hosts of a site file, and what can contradict in them.
//!
//! It refuses two hosts that share a name, a hardware address, a GUID or an address.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::read::{Place, Placed, Problems, Table};
use super::word::{Label, LabelValue, ParameterName};
use super::{Host, Mode, ProblemKind, Site, check, environment, power};
use crate::{Guid, Mac};

/// Interfaces of one host; servers with more ports boot from a few of them.
const MOST_MACS: usize = 64;

/// A host that was read, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) host: Host,
    name: Place,
    macs: Vec<Placed<Mac>>,
    guid: Option<Placed<Guid>>,
    address: Option<Placed<Ipv4Addr>>,
    role: Place,
    pub(super) environment: Option<Place>,
    pub(super) bmc: Option<power::Draft>,
}

pub(super) fn read(mut table: Table<'_>, problems: &mut Problems<'_>) -> Option<Draft> {
    let name = table.parsed::<Label>("name", problems);
    let name = table.required("name", name, problems);
    if let Some(name) = &name {
        table.title = format!("[[host]] `{}`", name.value.0);
    }
    let macs = table.list::<Mac>("macs", problems);
    table.required("macs", macs.first().map(|_| ()), problems);
    if let Some(more) = macs.get(MOST_MACS) {
        let text = format!("a host has at most {MOST_MACS} hardware addresses");
        problems.contradiction(&more.place, text);
    }
    let guid = table.parsed::<Guid>("guid", problems);
    let address = table.parsed::<Ipv4Addr>("address", problems);
    let role = table.parsed::<Label>("role", problems);
    let role = table.required("role", role, problems);
    let ssh_keys = check::ssh_keys(&mut table, problems);
    let rack = table.parsed::<LabelValue>("rack", problems);
    let environment = table.parsed::<Label>("environment", problems);
    let labels = table.pairs::<ParameterName, LabelValue>("labels", problems);
    let protected = table.truth("protected", problems);
    let parameters = environment::read_parameters(&mut table, problems);
    let bmc = table.table("bmc", problems).and_then(|mut bmc| {
        if let Some(name) = &name {
            bmc.title = format!("[host.bmc] of `{}`", name.value.0);
        }
        power::read(bmc, problems)
    });
    if macs.is_empty() && table.has("macs") {
        let key = "macs".to_owned();
        let reason = "a host has at least one hardware address".to_owned();
        problems.add(&table.place, ProblemKind::BadValue { key, reason });
    }
    table.finish(problems);
    let (name, role) = (name?, role?);
    Some(Draft {
        host: Host {
            name: name.value.0,
            macs: macs.iter().map(|mac| mac.value).collect(),
            guid: guid.as_ref().map(|guid| guid.value),
            address: address.as_ref().map(|address| address.value),
            role: role.value.0,
            ssh_keys,
            login_keys: Vec::new(),
            rack: rack.map(|rack| rack.value.0),
            environment: environment.as_ref().map(|it| Arc::clone(&it.value.0)),
            labels: labels
                .into_iter()
                .map(|(key, value)| (key.value.0, value.value.0))
                .collect(),
            protected: protected.is_some_and(|protected| protected.value),
            parameters,
            bmc: bmc.as_ref().map(|draft| draft.bmc.clone()),
        },
        name: name.place,
        macs,
        guid,
        address,
        role: role.place,
        environment: environment.map(|environment| environment.place),
        bmc,
    })
}

/// Checks each host, and all against each other.
pub(super) fn check(draft: &check::Draft, problems: &mut Problems<'_>) {
    let mut names = HashMap::new();
    let mut macs = HashMap::new();
    let mut guids = HashMap::new();
    let mut addresses = HashMap::new();
    for host in &draft.hosts {
        let what = format!("host `{}`", host.host.name);
        unique(&mut names, &host.host.name, &host.name, what, problems);
        for mac in &host.macs {
            let what = format!("hardware address {}", mac.value);
            unique(&mut macs, mac.value, &mac.place, what, problems);
            if mac.value.0[0] & 1 == 1 || mac.value.0 == [0; 6] {
                let text = format!("{} is no interface's own address", mac.value);
                problems.contradiction(&mac.place, text);
            }
        }
        if let Some(guid) = &host.guid {
            let what = format!("GUID {}", guid.value);
            unique(&mut guids, guid.value, &guid.place, what, problems);
        }
        if let Some(address) = &host.address {
            let what = format!("address {}", address.value);
            unique(
                &mut addresses,
                address.value,
                &address.place,
                what,
                problems,
            );
        }
        if !draft.unread.contains(&check::Part::Role) && !draft.roles.contains_key(&host.host.role)
        {
            let text = format!("there is no role `{}`", host.host.role);
            problems.contradiction(&host.role, text);
        }
        check_address(host, draft, problems);
    }
}

fn unique<'a, K: std::hash::Hash + Eq>(
    seen: &mut HashMap<K, &'a Place>,
    key: K,
    place: &'a Place,
    what: String,
    problems: &mut Problems<'_>,
) {
    match seen.entry(key) {
        std::collections::hash_map::Entry::Occupied(first) => {
            problems.duplicate(place, first.get(), what);
        }
        std::collections::hash_map::Entry::Vacant(free) => {
            free.insert(place);
        }
    }
}

fn check_address(host: &Draft, draft: &check::Draft, problems: &mut Problems<'_>) {
    let mut networks = draft.networks.iter().map(|draft| &draft.network);
    let Some(address) = &host.address else {
        if !draft.unread.contains(&check::Part::Network)
            && !networks.any(|network| network.pool.is_some() || network.mode == Mode::Proxy)
        {
            let text = "the host has no address, and no network has a pool".to_owned();
            problems.contradiction(&host.name, text);
        }
        return;
    };
    let (ip, place) = (address.value, &address.place);
    let Some(network) = networks.find(|network| network.subnet.contains(ip)) else {
        if !draft.unread.contains(&check::Part::Network) {
            let text = format!("address {ip} is in no network of the site");
            problems.contradiction(place, text);
        }
        return;
    };
    if !network.subnet.gives(ip) {
        let text = format!(
            "address {ip} names the subnet {} or its broadcast",
            network.subnet
        );
        problems.contradiction(place, text);
    }
    if network.pool.is_some_and(|pool| pool.contains(ip)) {
        let text = format!("address {ip} is in the pool of network `{}`", network.name);
        problems.contradiction(place, text);
    }
    let taken = [
        ("appliance", Some(network.appliance)),
        ("router", network.router),
    ];
    for (whose, other) in taken {
        if other == Some(ip) {
            problems.contradiction(place, format!("address {ip} is the {whose}'s"));
        }
    }
}

impl Site {
    /// Adds a checked host to the indices.
    pub(super) fn add(&mut self, host: Host) {
        let index = self.hosts.len();
        self.by_name.insert(Arc::clone(&host.name), index);
        self.by_mac
            .extend(host.macs.iter().map(|mac| (*mac, index)));
        self.by_guid.extend(host.guid.map(|guid| (guid, index)));
        self.by_address
            .extend(host.address.map(|address| (address, index)));
        self.hosts.push(Arc::new(host));
    }
}
