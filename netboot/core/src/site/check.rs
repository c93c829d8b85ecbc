//! From files to a site, or to everything that is wrong with them.
//!
//! It refuses to stop early: what can be read is checked, even when something else is wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use toml::de::DeTable;

use super::read::{Place, Placed, Problems, Table, parse};
use super::word::{Label, SshKey};
use super::{
    Appliance, Limits, Parameters, Places, Problem, ProblemKind, Site, SourceFile, Trust,
    environment, hosts, networks, policy, power, roles, secret,
};

/// Where metrics are served unless the site says otherwise: on the appliance itself.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9667);

/// Where operators reach the API unless the site says otherwise: on the appliance itself.
const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9443);

/// Syntax errors that are told of one file: one missing quote makes dozens.
const SYNTAX_ERRORS: usize = 3;

/// A part of a site that other parts name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Network,
    Role,
    Environment,
    Secret,
}

impl Part {
    const ALL: [Self; 4] = [Self::Network, Self::Role, Self::Environment, Self::Secret];
}

/// What was read so far, of all files.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) name: Option<Placed<Label>>,
    pub(super) appliance: Option<Placed<Appliance>>,
    pub(super) networks: Vec<networks::Draft>,
    /// Parts of which some could not be read: what names one of them may well be right.
    pub(super) unread: BTreeSet<Part>,
    pub(super) roles: BTreeMap<Arc<str>, Placed<roles::Draft>>,
    pub(super) environments: BTreeMap<Arc<str>, Placed<environment::Draft>>,
    pub(super) secrets: BTreeMap<Arc<str>, Placed<secret::Draft>>,
    pub(super) limits: Option<Placed<Limits>>,
    pub(super) parameters: Parameters,
    pub(super) hosts: Vec<hosts::Draft>,
    pub(super) ssh_keys: Vec<Arc<str>>,
}

/// Reads and checks all files.
pub(super) fn check(files: &[SourceFile]) -> Result<Site, Vec<Problem>> {
    let mut problems = Problems::new(files);
    let mut draft = Draft::default();
    for (index, file) in files.iter().enumerate() {
        let (table, errors) = DeTable::parse_recoverable(&file.text);
        for error in errors.iter().take(SYNTAX_ERRORS) {
            let span = error.span().unwrap_or(0..0);
            let place = Place { file: index, span };
            problems.add(&place, ProblemKind::Syntax(error.message().to_owned()));
        }
        // What follows a syntax error is guessed, so its keys prove nothing.
        if errors.is_empty() {
            let place = Place {
                file: index,
                span: 0..0,
            };
            let table = Table::new("a site file", place, table.get_ref());
            read(table, &mut draft, &mut problems);
        } else {
            draft.unread = Part::ALL.into();
        }
    }
    let nowhere = Place {
        file: 0,
        span: 0..0,
    };
    if draft.name.is_none() && problems.is_empty() {
        let table = "the site".to_owned();
        problems.add(&nowhere, ProblemKind::MissingKey { key: "site", table });
    }
    networks::check(&draft, &mut problems);
    roles::check(&draft, &mut problems);
    environment::check(&draft, &mut problems);
    hosts::check(&draft, &mut problems);
    power::check(&draft, &mut problems);
    match draft.name.take() {
        Some(name) if problems.is_empty() => {
            let places = places(&draft, &problems);
            let mut site = build(draft, name.value.0);
            site.places = places;
            site.advice = problems.into_advice();
            Ok(site)
        }
        _ => Err(problems.finish()),
    }
}

fn read(mut file: Table<'_>, draft: &mut Draft, problems: &mut Problems<'_>) {
    if let Some(table) = file.table("site", problems) {
        read_site(table, draft, problems);
    }
    if let Some(table) = file.table("appliance", problems) {
        read_appliance(table, draft, problems);
    }
    for table in file.tables("network", problems) {
        match networks::read(table, problems) {
            Some(network) => draft.networks.push(network),
            None => drop(draft.unread.insert(Part::Network)),
        }
    }
    for (name, table) in file.named("role", problems) {
        roles::read(&name, table, draft, problems);
    }
    let environments = &mut draft.environments;
    let read =
        |table: Table<'_>, problems: &mut Problems<'_>| Some(environment::read(table, problems));
    let unread = named(&mut file, "environment", environments, problems, read);
    draft.unread.extend(unread.map(|()| Part::Environment));
    let unread = named(
        &mut file,
        "secret",
        &mut draft.secrets,
        problems,
        secret::read,
    );
    draft.unread.extend(unread.map(|()| Part::Secret));
    if let Some(table) = file.table("limits", problems) {
        let place = table.place.clone();
        if let Some(first) = &draft.limits {
            problems.duplicate(&place, &first.place, "[limits]".to_owned());
        }
        let value = policy::read_limits(table, problems);
        draft.limits = Some(Placed { value, place });
    }
    for table in file.tables("host", problems) {
        draft.hosts.extend(hosts::read(table, problems));
    }
    draft.ssh_keys.extend(ssh_keys(&mut file, problems));
    file.finish(problems);
}

fn read_site(mut table: Table<'_>, draft: &mut Draft, problems: &mut Problems<'_>) {
    let name = table.parsed::<Label>("name", problems);
    let name = table.required("name", name, problems);
    if let (Some(first), Some(name)) = (&draft.name, &name) {
        problems.duplicate(&name.place, &first.place, "the site's name".to_owned());
    }
    if draft.name.is_none() {
        draft.name = name;
    }
    draft
        .parameters
        .extend(environment::read_parameters(&mut table, problems));
    table.finish(problems);
}

fn read_appliance(mut table: Table<'_>, draft: &mut Draft, problems: &mut Problems<'_>) {
    let place = table.place.clone();
    if let Some(first) = &draft.appliance {
        problems.duplicate(&place, &first.place, "[appliance]".to_owned());
    }
    let mut value = Appliance::default();
    if let Some(port) = table.count("http-port", 1..=65535, problems) {
        value.http_port = port;
    }
    let https = table.integer("https-port", problems);
    if let Some(port) = &https {
        match u16::try_from(port.value).ok().filter(|port| *port > 0) {
            Some(number) if number != value.http_port => value.https_port = number,
            Some(_) => {
                let text = "HTTP and HTTPS need two ports".to_owned();
                problems.contradiction(&port.place, text);
            }
            None => {
                let key = "https-port".to_owned();
                let reason = format!("{} is not 1 to 65535", port.value);
                problems.add(&port.place, ProblemKind::BadValue { key, reason });
            }
        }
    }
    if let Some(api) = table.parsed::<SocketAddr>("api", problems) {
        value.api = api.value;
    }
    if let Some(metrics) = table.parsed::<SocketAddr>("metrics", problems) {
        value.metrics = metrics.value;
        if metrics.value == value.api {
            let text = format!("{} is the API's", metrics.value);
            problems.contradiction(&metrics.place, text);
        }
    }
    draft.appliance = Some(Placed { value, place });
    table.finish(problems);
}

/// Reads the tables `[KEY.NAME]` whose names are labels, and refuses a name that comes twice.
/// Returns something when one of them could not be read.
fn named<T>(
    file: &mut Table<'_>,
    key: &'static str,
    all: &mut BTreeMap<Arc<str>, Placed<T>>,
    problems: &mut Problems<'_>,
    mut read: impl FnMut(Table<'_>, &mut Problems<'_>) -> Option<T>,
) -> Option<()> {
    let mut unread = None;
    for (name, table) in file.named(key, problems) {
        let value = read(table, problems);
        let place = name.place.clone();
        let (Some(label), Some(value)) = (parse::<Label>(key, &name, problems), value) else {
            unread = Some(());
            continue;
        };
        if let Some(first) = all.get(&label.value.0) {
            let what = format!("{key} `{}`", label.value.0);
            problems.duplicate(&place, &first.place, what);
        } else {
            all.insert(label.value.0, Placed { value, place });
        }
    }
    unread
}

/// Says that a secret is named and not given.
pub(super) fn secret(draft: &Draft, name: &str, place: &Place, problems: &mut Problems<'_>) {
    if !draft.unread.contains(&Part::Secret) && !draft.secrets.contains_key(name) {
        problems.contradiction(place, format!("there is no secret `{name}`"));
    }
}

/// Reads `ssh.keys` of the site, a role or a host.
pub(super) fn ssh_keys(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<Arc<str>> {
    let Some(mut ssh) = table.table("ssh", problems) else {
        return Vec::new();
    };
    let keys = ssh.list::<SshKey>("keys", problems);
    ssh.finish(problems);
    keys.into_iter().map(|key| key.value.0).collect()
}

/// Keeps where files and secrets are named: only the shell can tell whether they are there.
fn places(draft: &Draft, problems: &Problems<'_>) -> Places {
    let secrets = draft.secrets.iter();
    let mut authorities = BTreeMap::new();
    for host in &draft.hosts {
        if let Some(bmc) = &host.bmc
            && let (Trust::Authority(path), Some(place)) = (&bmc.bmc.trust, &bmc.authority)
        {
            let path = Arc::clone(path);
            authorities
                .entry(path)
                .or_insert_with(|| problems.locate(place));
        }
    }
    Places {
        secrets: secrets
            .map(|(name, draft)| (Arc::clone(name), problems.locate(&draft.value.place)))
            .collect(),
        authorities,
    }
}

fn build(draft: Draft, name: Arc<str>) -> Site {
    let networks: Vec<_> = draft
        .networks
        .into_iter()
        .map(|draft| Arc::new(draft.network))
        .collect();
    let roles: BTreeMap<_, _> = draft
        .roles
        .into_iter()
        .map(|(name, draft)| (name, draft.value.role))
        .collect();
    let environments = draft.environments.into_iter();
    let secrets = draft.secrets.into_iter();
    let mut site = Site {
        name,
        appliance: draft
            .appliance
            .map_or_else(Appliance::default, |found| found.value),
        by_base: (0..)
            .zip(&networks)
            .map(|(index, network)| (network.subnet.base(), index))
            .collect(),
        appliances: networks.iter().map(|network| network.appliance).collect(),
        networks,
        hosts: Vec::with_capacity(draft.hosts.len()),
        by_name: HashMap::new(),
        by_mac: HashMap::new(),
        by_guid: HashMap::new(),
        by_address: HashMap::new(),
        roles,
        environments: environments
            .map(|(name, draft)| (name, draft.value.environment))
            .collect(),
        secrets: secrets
            .map(|(name, draft)| (name, draft.value.source))
            .collect(),
        limits: draft
            .limits
            .map_or_else(Limits::default, |found| found.value),
        parameters: draft.parameters,
        advice: Vec::new(),
        places: Places::default(),
    };
    for host in draft.hosts {
        let mut host = host.host;
        let of_role = site.roles.get(&host.role).map(|role| &role.ssh_keys[..]);
        let all = [
            &draft.ssh_keys[..],
            of_role.unwrap_or_default(),
            &host.ssh_keys,
        ];
        host.login_keys = all.concat();
        site.add(host);
    }
    site
}

impl Default for Appliance {
    fn default() -> Self {
        Self {
            http_port: 80,
            https_port: 443,
            api: API,
            metrics: METRICS,
        }
    }
}
