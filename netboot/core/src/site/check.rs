//! From files to a site, or to everything that is wrong with them.
//!
//! It refuses to stop early: what can be read is checked, even when something else is wrong.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use toml::de::DeTable;

use super::read::{Place, Placed, Problems, Table};
use super::word::{CommandLine, Label, SshKey};
use super::{Appliance, ImageRef, Problem, ProblemKind, Role, Site, SourceFile, hosts, networks};

/// Where metrics are served unless the site says otherwise: on the appliance itself.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9667);

/// Syntax errors that are told of one file: one missing quote makes dozens.
const SYNTAX_ERRORS: usize = 3;

/// What was read so far, of all files.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) name: Option<Placed<Label>>,
    pub(super) appliance: Option<Placed<Appliance>>,
    pub(super) networks: Vec<networks::Draft>,
    /// Some network could not be read, so that a host may well be in it.
    pub(super) unread_network: bool,
    /// Some role could not be read, so that a host may well have it.
    pub(super) unread_role: bool,
    pub(super) roles: BTreeMap<Arc<str>, Placed<Role>>,
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
            draft.unread_network = true;
            draft.unread_role = true;
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
    hosts::check(&draft, &mut problems);
    match draft.name.take() {
        Some(name) if problems.is_empty() => Ok(build(draft, name.value.0)),
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
            None => draft.unread_network = true,
        }
    }
    for (name, table) in file.named("role", problems) {
        read_role(&name, table, draft, problems);
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
    table.finish(problems);
}

fn read_appliance(mut table: Table<'_>, draft: &mut Draft, problems: &mut Problems<'_>) {
    let place = table.place.clone();
    if let Some(first) = &draft.appliance {
        problems.duplicate(&place, &first.place, "[appliance]".to_owned());
    }
    let http_port = table.integer("http-port", problems).map_or(80, |port| {
        u16::try_from(port.value)
            .ok()
            .filter(|port| *port > 0)
            .unwrap_or_else(|| {
                let reason = format!("{} is not a port, 1 to 65535", port.value);
                let key = "http-port".to_owned();
                problems.add(&port.place, ProblemKind::BadValue { key, reason });
                80
            })
    });
    let metrics = table.parsed::<SocketAddr>("metrics", problems);
    let value = Appliance {
        http_port,
        metrics: metrics.map_or(METRICS, |metrics| metrics.value),
    };
    draft.appliance = Some(Placed { value, place });
    table.finish(problems);
}

fn read_role(
    name: &Placed<String>,
    mut table: Table<'_>,
    draft: &mut Draft,
    problems: &mut Problems<'_>,
) {
    let image = table.parsed::<ImageRef>("image", problems);
    let image = table.required("image", image, problems);
    let command_line = table.parsed::<CommandLine>("command-line", problems);
    let ssh_keys = ssh_keys(&mut table, problems);
    table.finish(problems);
    let label: Label = match name.value.parse() {
        Ok(label) => label,
        Err(error) => {
            draft.unread_role = true;
            let key = "role".to_owned();
            let reason = format!("{error}");
            return problems.add(&name.place, ProblemKind::BadValue { key, reason });
        }
    };
    if let Some(first) = draft.roles.get(&label.0) {
        let what = format!("role `{}`", label.0);
        return problems.duplicate(&name.place, &first.place, what);
    }
    let role = Role {
        name: Arc::clone(&label.0),
        image: image.map_or_else(unnamed, |image| image.value),
        command_line: command_line.map(|line| line.value.0),
        ssh_keys,
    };
    let place = name.place.clone();
    draft.roles.insert(label.0, Placed { value: role, place });
}

/// Stands for an image that was told to be missing, so that hosts of the role are still checked.
fn unnamed() -> ImageRef {
    ImageRef {
        name: "".into(),
        digest: None,
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

fn build(draft: Draft, name: Arc<str>) -> Site {
    let networks: Vec<_> = draft
        .networks
        .into_iter()
        .map(|draft| Arc::new(draft.network))
        .collect();
    let roles: BTreeMap<_, _> = draft
        .roles
        .into_iter()
        .map(|(name, role)| (name, role.value))
        .collect();
    let mut site = Site {
        name,
        appliance: draft
            .appliance
            .map_or_else(default_appliance, |found| found.value),
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

fn default_appliance() -> Appliance {
    Appliance {
        http_port: 80,
        metrics: METRICS,
    }
}
