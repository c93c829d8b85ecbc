//! The networks of a site file, and what can contradict in them.
//!
//! It refuses networks that share addresses: an address alone must tell its network.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::read::{Place, Placed, Problems, Table};
use super::word::{Domain, Label, Span, words};
use super::{Mode, Network, Pool, Reach, Strangers, Subnet, check};

/// How long an address is given unless the network says otherwise.
const LEASE: Duration = Duration::from_mins(10);
/// Shorter leases end while a ROM still loads; longer ones never end in practice.
const LEASES: std::ops::RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(366 * 24);
/// Addresses of one pool: what a /12 has, in some 100 MB of leases.
const LARGEST_POOL: u32 = 1 << 20;
/// Name servers that fit a reply beside everything else; resolvers use three.
const MOST_DNS: usize = 8;

/// A network that was read, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) network: Network,
    name: Place,
    subnet: Place,
    appliance: Place,
    pool: Option<Place>,
    router: Option<Place>,
    strangers: Option<Place>,
}

words!(Mode, "`authoritative` or `proxy`", "authoritative" => Authoritative, "proxy" => Proxy);
words!(Strangers, "`ignore` or `lease`", "ignore" => Ignore, "lease" => Lease);

pub(super) fn read(mut table: Table<'_>, problems: &mut Problems<'_>) -> Option<Draft> {
    let name = table.parsed::<Label>("name", problems);
    let name = table.required("name", name, problems);
    if let Some(name) = &name {
        table.title = format!("[[network]] `{}`", name.value.0);
    }
    let subnet = table.parsed::<Subnet>("subnet", problems);
    let subnet = table.required("subnet", subnet, problems);
    let appliance = table.parsed::<Ipv4Addr>("appliance", problems);
    let appliance = table.required("appliance", appliance, problems);
    let relayed = table.truth("relayed", problems);
    let mode = table.parsed::<Mode>("mode", problems);
    let pool = read_pool(&mut table, problems);
    let strangers = table.parsed::<Strangers>("strangers", problems);
    let lease = table.parsed::<Span>("lease", problems);
    if let Some(lease) = lease
        .as_ref()
        .filter(|lease| !LEASES.contains(&lease.value.0))
    {
        problems.contradiction(&lease.place, "a lease lasts 60s to 366d".to_owned());
    }
    let router = table.parsed::<Ipv4Addr>("router", problems);
    let dns = table.list::<Ipv4Addr>("dns", problems);
    if let Some(more) = dns.get(MOST_DNS) {
        let text = format!("a network has at most {MOST_DNS} name servers");
        problems.contradiction(&more.place, text);
    }
    let domain = table.parsed::<Domain>("domain", problems);
    table.finish(problems);
    let (name, subnet, appliance) = (name?, subnet?, appliance?);
    Some(Draft {
        network: Network {
            name: name.value.0,
            subnet: subnet.value,
            appliance: appliance.value,
            reach: if relayed.is_some_and(|relayed| relayed.value) {
                Reach::Relayed
            } else {
                Reach::Local
            },
            mode: mode.map_or(Mode::Authoritative, |mode| mode.value),
            pool: pool.as_ref().map(|pool| pool.value),
            strangers: strangers
                .as_ref()
                .map_or(Strangers::Ignore, |found| found.value),
            lease: lease.map_or(LEASE, |lease| lease.value.0),
            router: router.as_ref().map(|router| router.value),
            dns: dns.into_iter().map(|server| server.value).collect(),
            domain: domain.map(|domain| domain.value.0),
        },
        name: name.place,
        subnet: subnet.place,
        appliance: appliance.place,
        pool: pool.map(|pool| pool.place),
        router: router.map(|router| router.place),
        strangers: strangers.map(|strangers| strangers.place),
    })
}

fn read_pool(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Placed<Pool>> {
    let mut pool = table.table("pool", problems)?;
    let first = pool.parsed::<Ipv4Addr>("first", problems);
    let first = pool.required("first", first, problems);
    let last = pool.parsed::<Ipv4Addr>("last", problems);
    let last = pool.required("last", last, problems);
    let place = pool.place.clone();
    pool.finish(problems);
    let value = Pool {
        first: first?.value,
        last: last?.value,
    };
    Some(Placed { value, place })
}

/// Checks each network, and all against each other.
pub(super) fn check(draft: &check::Draft, problems: &mut Problems<'_>) {
    let mut names = HashMap::new();
    for network in &draft.networks {
        if let Some(first) = names.insert(&network.network.name, &network.name) {
            let what = format!("network `{}`", network.network.name);
            problems.duplicate(&network.name, first, what);
        }
        check_addresses(network, problems);
        check_pool(network, problems);
    }
    check_overlaps(draft, problems);
}

/// Subnets in order of their first address overlap a neighbour if they overlap at all.
fn check_overlaps(draft: &check::Draft, problems: &mut Problems<'_>) {
    let mut sorted: Vec<_> = draft.networks.iter().collect();
    sorted.sort_by_key(|draft| (draft.network.subnet.base(), draft.network.subnet.prefix()));
    let Some((mut widest, rest)) = sorted.split_first() else {
        return;
    };
    for next in rest {
        if widest.network.subnet.overlaps(next.network.subnet) {
            let what = format!(
                "an address of `{}` and `{}`",
                widest.network.subnet, next.network.subnet
            );
            problems.duplicate(&next.subnet, &widest.subnet, what);
        }
        if next.network.subnet.last() > widest.network.subnet.last() {
            widest = next;
        }
    }
}

fn check_addresses(draft: &Draft, problems: &mut Problems<'_>) {
    let network = &draft.network;
    let subnet = network.subnet;
    if network.reach == Reach::Local && !subnet.gives(network.appliance) {
        let text = format!(
            "the appliance's address {} is no host's of {subnet}; a network behind a relay says `relayed = true`",
            network.appliance
        );
        problems.contradiction(&draft.appliance, text);
    }
    if let (Some(router), Some(place)) = (network.router, &draft.router)
        && !subnet.gives(router)
    {
        problems.contradiction(
            place,
            format!("the router {router} is no host's of {subnet}"),
        );
    }
}

fn check_pool(draft: &Draft, problems: &mut Problems<'_>) {
    let network = &draft.network;
    let strangers = draft.strangers.as_ref().unwrap_or(&draft.name);
    let (Some(pool), Some(place)) = (network.pool, &draft.pool) else {
        if network.strangers == Strangers::Lease {
            let text = "`strangers = \"lease\"` needs a pool to lease from".to_owned();
            problems.contradiction(strangers, text);
        }
        return;
    };
    let subnet = network.subnet;
    if network.mode == Mode::Proxy {
        let text = "a proxy gives no addresses, so it has no pool".to_owned();
        problems.contradiction(place, text);
    }
    if pool.first > pool.last {
        let text = format!(
            "the pool's first address {} is above its last {}",
            pool.first, pool.last
        );
        return problems.contradiction(place, text);
    }
    if !subnet.gives(pool.first) || !subnet.gives(pool.last) {
        problems.contradiction(place, format!("the pool reaches out of {subnet}"));
    }
    if pool.size() > LARGEST_POOL {
        let text = format!("a pool has at most {LARGEST_POOL} addresses");
        problems.contradiction(place, text);
    }
    let taken = [
        ("appliance", Some(network.appliance)),
        ("router", network.router),
    ];
    for (whose, address) in taken {
        if let Some(address) = address.filter(|address| pool.contains(*address)) {
            let text = format!("the pool holds the {whose}'s address {address}");
            problems.contradiction(place, text);
        }
    }
}
