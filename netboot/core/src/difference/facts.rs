//! A site as a flat list of facts, which two sites are compared by.
//!
//! It refuses to forget: each type is taken apart by name, so that a new field does not compile
//! until it is a fact.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Version;
use crate::site::{
    Appliance, Bmc, DeployPolicy, Environment, Host, Limits, Network, Parameters, Protocol, Reach,
    Role, Site, Trust,
};

/// What a fact is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "name")]
pub enum Subject {
    /// The site as a whole.
    Site,
    /// The appliance.
    Appliance,
    /// The limits on changes.
    Limits,
    /// A network.
    Network(Arc<str>),
    /// An environment.
    Environment(Arc<str>),
    /// A role.
    Role(Arc<str>),
    /// A secret's place; never its content.
    Secret(Arc<str>),
    /// A host.
    Host(Arc<str>),
    /// A file beside the `*.toml`: an authority or an encrypted secret.
    File(Arc<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site => f.write_str("the site"),
            Self::Appliance => f.write_str("the appliance"),
            Self::Limits => f.write_str("the limits"),
            Self::Network(name) => write!(f, "network {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Role(name) => write!(f, "role {name}"),
            Self::Secret(name) => write!(f, "secret {name}"),
            Self::Host(name) => write!(f, "host {name}"),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}

/// Values as text, by key; what is not given is not there.
pub(super) type Facts = BTreeMap<String, String>;

/// Lists everything that a site says.
pub(super) fn of(version: Version<'_>) -> BTreeMap<Subject, Facts> {
    let Version { site, files } = version;
    let mut all = BTreeMap::new();
    let mut whole = Facts::new();
    whole.insert("name".to_owned(), site.name.to_string());
    parameters(&mut whole, &site.parameters);
    all.insert(Subject::Site, whole);
    all.insert(Subject::Appliance, appliance(&site.appliance));
    all.insert(Subject::Limits, limits(&site.limits));
    for one in &site.networks {
        all.insert(Subject::Network(Arc::clone(&one.name)), network(one));
    }
    for (name, one) in &site.environments {
        all.insert(Subject::Environment(Arc::clone(name)), environment(one));
    }
    for (name, one) in &site.roles {
        all.insert(Subject::Role(Arc::clone(name)), role(one));
    }
    for (name, source) in &site.secrets {
        let facts = Facts::from([("from".to_owned(), source.to_string())]);
        all.insert(Subject::Secret(Arc::clone(name)), facts);
    }
    for one in site.hosts() {
        all.insert(Subject::Host(Arc::clone(&one.name)), host(site, one));
    }
    for (path, digest) in files {
        let facts = Facts::from([("digest".to_owned(), digest.to_string())]);
        all.insert(Subject::File(Arc::clone(path)), facts);
    }
    all
}

fn put(facts: &mut Facts, key: &str, value: impl fmt::Display) {
    facts.insert(key.to_owned(), value.to_string());
}

fn put_some(facts: &mut Facts, key: &str, value: Option<impl fmt::Display>) {
    if let Some(value) = value {
        put(facts, key, value);
    }
}

fn put_list<T: fmt::Display>(facts: &mut Facts, key: &str, values: impl IntoIterator<Item = T>) {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    if !values.is_empty() {
        put(facts, key, values.join(", "));
    }
}

fn parameters(facts: &mut Facts, parameters: &Parameters) {
    for (name, value) in parameters {
        put(facts, &format!("parameters.{name}"), value);
    }
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

fn appliance(appliance: &Appliance) -> Facts {
    let Appliance {
        http_port,
        https_port,
        api,
        metrics,
    } = appliance;
    let mut facts = Facts::new();
    put(&mut facts, "http-port", http_port);
    put(&mut facts, "https-port", https_port);
    put(&mut facts, "api", api);
    put(&mut facts, "metrics", metrics);
    facts
}

fn limits(limits: &Limits) -> Facts {
    let Limits {
        hosts_per_hour,
        hosts_at_once,
        hosts_at_once_per_rack,
        percent_of_role,
        percent_of_site,
    } = limits;
    let mut facts = Facts::new();
    put_some(&mut facts, "hosts-per-hour", *hosts_per_hour);
    put(&mut facts, "hosts-at-once", hosts_at_once);
    put_some(
        &mut facts,
        "hosts-at-once-per-rack",
        *hosts_at_once_per_rack,
    );
    put(&mut facts, "percent-of-role", percent_of_role);
    put(&mut facts, "percent-of-site", percent_of_site);
    facts
}

fn network(network: &Network) -> Facts {
    let Network {
        name: _,
        subnet,
        appliance,
        reach,
        mode,
        pool,
        strangers,
        lease,
        router,
        dns,
        domain,
    } = network;
    let mut facts = Facts::new();
    put(&mut facts, "subnet", subnet);
    put(&mut facts, "appliance", appliance);
    put(&mut facts, "relayed", *reach == Reach::Relayed);
    put(&mut facts, "mode", mode);
    let pool = pool.map(|pool| format!("{} to {}", pool.first, pool.last));
    put_some(&mut facts, "pool", pool);
    put(&mut facts, "strangers", strangers);
    put(&mut facts, "lease", seconds(*lease));
    put_some(&mut facts, "router", *router);
    put_list(&mut facts, "dns", dns);
    put_some(&mut facts, "domain", domain.as_ref());
    facts
}

fn environment(environment: &Environment) -> Facts {
    let Environment {
        parameters: values,
        images,
    } = environment;
    let mut facts = Facts::new();
    parameters(&mut facts, values);
    for (role, image) in images {
        put(&mut facts, &format!("images.{role}"), image);
    }
    facts
}

fn role(role: &Role) -> Facts {
    let Role {
        name: _,
        image,
        command_line,
        ssh_keys,
        secrets,
        parameters: values,
        deploy,
    } = role;
    let mut facts = Facts::new();
    put(&mut facts, "image", image);
    put_some(&mut facts, "command-line", command_line.as_ref());
    put_list(&mut facts, "ssh.keys", ssh_keys);
    put_list(&mut facts, "secrets", secrets);
    parameters(&mut facts, values);
    let DeployPolicy {
        deadline,
        health_for,
        ill_for,
        max_rollbacks,
        shutdown,
        boot,
        heal,
    } = deploy;
    put(&mut facts, "deploy.deadline", seconds(*deadline));
    put(&mut facts, "deploy.health-for", seconds(*health_for));
    put(&mut facts, "deploy.ill-for", seconds(*ill_for));
    put(&mut facts, "deploy.max-rollbacks", max_rollbacks);
    put(&mut facts, "deploy.shutdown", seconds(*shutdown));
    put(&mut facts, "deploy.boot", boot);
    put_list(&mut facts, "deploy.heal", heal);
    facts
}

fn host(site: &Site, host: &Host) -> Facts {
    let Host {
        name: _,
        macs,
        guid,
        address,
        role,
        ssh_keys,
        login_keys,
        rack,
        environment,
        labels,
        protected,
        parameters: values,
        bmc,
    } = host;
    let mut facts = Facts::new();
    put_list(&mut facts, "macs", macs);
    put_some(&mut facts, "guid", *guid);
    put_some(&mut facts, "address", *address);
    put(&mut facts, "role", role);
    put_list(&mut facts, "ssh.keys", ssh_keys);
    // Keys of the role are its own fact; what is left is the site's, which has none.
    let of_role = site.role_of(host).map_or(&[][..], |role| &role.ssh_keys);
    let of_site = login_keys
        .len()
        .saturating_sub(of_role.len() + ssh_keys.len());
    put_list(&mut facts, "ssh.keys of the site", &login_keys[..of_site]);
    put_some(&mut facts, "rack", rack.as_ref());
    put_some(&mut facts, "environment", environment.as_ref());
    for (key, value) in labels {
        put(&mut facts, &format!("labels.{key}"), value);
    }
    put(&mut facts, "protected", protected);
    parameters(&mut facts, values);
    if let Some(bmc) = bmc {
        put_bmc(&mut facts, bmc);
    }
    facts
}

fn put_bmc(facts: &mut Facts, bmc: &Bmc) {
    let Bmc {
        protocol,
        address,
        user,
        password,
        kg,
        system,
        trust,
        vendor,
        waivers,
        serial,
        guid,
        firmware,
        boot,
    } = bmc;
    put(facts, "bmc.protocol", protocol);
    put(facts, "bmc.address", address);
    put(facts, "bmc.user", user);
    put(facts, "bmc.password", format_args!("secret {password}"));
    let kg = kg.as_ref().map(|kg| format!("secret {kg}"));
    put_some(facts, "bmc.kg", kg);
    put_some(facts, "bmc.system", system.as_ref());
    match trust {
        Trust::Pinned(certificate) => put(facts, "bmc.certificate", certificate),
        Trust::Authority(path) => put(facts, "bmc.authority", path),
        // IPMI has none.
        Trust::FirstUse if *protocol == Protocol::Ipmi => {}
        Trust::FirstUse => put(facts, "bmc.certificate", "the first that is seen"),
    }
    put_some(facts, "bmc.vendor", vendor.as_ref());
    put_list(facts, "bmc.waivers", waivers);
    put_some(facts, "bmc.serial", serial.as_ref());
    put_some(facts, "bmc.guid", *guid);
    put(facts, "bmc.firmware", firmware);
    put_some(facts, "bmc.boot", *boot);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bmc_that_has_a_certificate_is_trusted_by_one() {
        for (protocol, expected) in [("ipmi", false), ("redfish", true)] {
            let text = format!(
                "[site]\nname = \"lab\"\n[role.web]\nimage = \"host\"\n[[network]]\nname = \"rack\"\nsubnet = \"10.7.0.0/24\"\nappliance = \"10.7.0.1\"\n[secret.bmc]\nenv = \"X\"\n[[host]]\nname = \"web1\"\nmacs = [\"52:54:00:77:00:01\"]\naddress = \"10.7.0.9\"\nrole = \"web\"\n[host.bmc]\nprotocol = \"{protocol}\"\naddress = \"10.7.0.51\"\nuser = \"o\"\npassword = \"bmc\"\n"
            );
            let source = crate::site::SourceFile {
                path: "site.toml".into(),
                text: text.into(),
            };
            let site = Site::check(&[source]).unwrap();
            let host = site.host("web1").unwrap();
            let mut facts = Facts::new();
            put_bmc(&mut facts, host.bmc.as_ref().unwrap());
            let told = format!("{facts:?}").contains("bmc.certificate");
            assert_eq!(told, expected, "{protocol}: {facts:?}");
        }
    }

    #[test]
    fn durations_are_told_as_the_site_writes_them() {
        for (secs, text) in [
            (0, "0s"),
            (90, "90s"),
            (600, "10m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(seconds(Duration::from_secs(secs)), text);
        }
    }
}
