//! How a host's power is reached: its BMC, as the site describes it.
//!
//! It refuses two hosts behind one BMC address, and never holds a password: only a secret's name.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use image_manifest::Digest;

use super::read::{Place, Placed, Problems, Table};
use super::word::{BmcUser, Label, Line, RelativePath, words};
use super::{BootMethod, Network, check};
use crate::Guid;

/// A host's BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bmc {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it listens.
    pub address: BmcAddress,
    /// The account.
    pub user: Arc<str>,
    /// Name of the secret that is the account's password.
    pub password: Arc<str>,
    /// Name of the secret that is the BMC's Kg key; IPMI only.
    pub kg: Option<Arc<str>>,
    /// Which system of the BMC the host is, when it has several; Redfish only.
    pub system: Option<Arc<str>>,
    /// How its certificate is believed; Redfish only.
    pub trust: Trust,
    /// Row of the table of vendors' quirks, when it cannot be told from the BMC.
    pub vendor: Option<Arc<str>>,
    /// Old protocols that are allowed for this one BMC.
    pub waivers: BTreeSet<Waiver>,
    /// Serial number that the BMC must say.
    pub serial: Option<Arc<str>>,
    /// System GUID that the BMC must say.
    pub guid: Option<Guid>,
    /// Firmware that the boot device is set for.
    pub firmware: BootFirmware,
    /// How this host boots from the network, when not as its role says.
    pub boot: Option<BootMethod>,
}

/// Where a BMC listens: an IP address or a name, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BmcAddress {
    /// The IP address without brackets, or the name.
    pub host: Arc<str>,
    /// The port, when it is not the protocol's own.
    pub port: Option<u16>,
}

/// What a BMC speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// IPMI 2.0 over LAN (RMCP+).
    Ipmi,
    /// Redfish over HTTPS.
    Redfish,
}

/// How a BMC's certificate is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It has this key: SHA-256 of the certificate's public key information.
    Pinned(Digest),
    /// An authority of this PEM file of the site signed it.
    Authority(Arc<str>),
    /// What is seen first is recorded, and must be seen from then on.
    FirstUse,
}

/// An old protocol that one BMC is allowed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waiver {
    /// IPMI 1.5 sessions: nothing is encrypted, MD5 at best.
    Ipmi15,
}

/// Firmware that a boot device is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BootFirmware {
    /// A BIOS, or a UEFI that boots as one.
    Bios,
    /// UEFI.
    Uefi,
}

words!(Protocol, "`ipmi` or `redfish`", "ipmi" => Ipmi, "redfish" => Redfish);
words!(Waiver, "`ipmi-1.5`", "ipmi-1.5" => Ipmi15);
words!(BootFirmware, "`bios` or `uefi`", "bios" => Bios, "uefi" => Uefi);

impl Protocol {
    /// The port that the protocol has of its own.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Ipmi => 623,
            Self::Redfish => 443,
        }
    }
}

impl FromStr for BmcAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an address such as `10.0.9.7`, `10.0.9.7:6230`, `[fd00::7]:443` or `bmc7.example.net`";
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => {
                host.parse::<Ipv6Addr>().map_err(|_| EXPECTED)?;
                (
                    host,
                    rest.strip_prefix(':').or(rest.is_empty().then_some("")),
                )
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some("")),
            },
        };
        let port = match port.ok_or(EXPECTED)? {
            "" if !text.ends_with(':') => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let port = digits.parse().ok().filter(|port: &u16| *port > 0);
                Some(port.ok_or(EXPECTED)?)
            }
            _ => return Err(EXPECTED),
        };
        let numbers = host
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        let good = host.contains(':')
            || if numbers {
                host.parse::<Ipv4Addr>().is_ok()
            } else {
                super::word::is_domain(host)
            };
        let host = host.into();
        good.then_some(Self { host, port }).ok_or(EXPECTED)
    }
}

impl fmt::Display for BmcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (false, None) => f.write_str(&self.host),
        }
    }
}

/// A BMC that was read, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) bmc: Bmc,
    address: Place,
    password: Place,
    kg: Option<Place>,
    pub(super) authority: Option<Place>,
}

/// Reads `[host.bmc]`.
pub(super) fn read(mut table: Table<'_>, problems: &mut Problems<'_>) -> Option<Draft> {
    let protocol = table.parsed::<Protocol>("protocol", problems);
    let protocol = table.required("protocol", protocol, problems);
    let address = table.parsed::<BmcAddress>("address", problems);
    let address = table.required("address", address, problems);
    let user = table.parsed::<BmcUser>("user", problems);
    let user = table.required("user", user, problems);
    let password = table.parsed::<Label>("password", problems);
    let password = table.required("password", password, problems);
    let kg = table.parsed::<Label>("kg", problems);
    let system = table.parsed::<Line>("system", problems);
    let certificate = table.parsed::<Digest>("certificate", problems);
    let authority = table.parsed::<RelativePath>("authority", problems);
    let vendor = table.parsed::<Label>("vendor", problems);
    let waivers = table.list::<Waiver>("waivers", problems);
    let serial = table.parsed::<Line>("serial", problems);
    let guid = table.parsed::<Guid>("guid", problems);
    let firmware = table.parsed::<BootFirmware>("firmware", problems);
    let boot = table.parsed::<BootMethod>("boot", problems);
    if let (Some(_), Some(authority)) = (&certificate, &authority) {
        let text = "a BMC is believed by `certificate` or by `authority`, not by both".to_owned();
        problems.contradiction(&authority.place, text);
    }
    if let Some(protocol) = &protocol {
        let redfish = [
            ("system", system.as_ref().map(|it| &it.place)),
            ("certificate", certificate.as_ref().map(|it| &it.place)),
            ("authority", authority.as_ref().map(|it| &it.place)),
        ];
        let ipmi = [("kg", kg.as_ref().map(|it| &it.place))];
        match protocol.value {
            Protocol::Ipmi => belongs(&redfish, "Redfish", problems),
            Protocol::Redfish => belongs(&ipmi, "IPMI", problems),
        }
        waived(protocol.value, &waivers, problems);
        user_fits(protocol.value, user.as_ref(), problems);
        if protocol.value == Protocol::Redfish && certificate.is_none() && authority.is_none() {
            let text = format!(
                "{} has neither `certificate` nor `authority`: the first certificate that is seen will be believed and recorded",
                table.title
            );
            problems.advise(&table.place, text);
        }
    }
    table.finish(problems);
    let (protocol, address, user, password) = (protocol?, address?, user?, password?);
    let trust = match (certificate, &authority) {
        (Some(certificate), _) => Trust::Pinned(certificate.value),
        (None, Some(authority)) => Trust::Authority(Arc::clone(&authority.value.0)),
        (None, None) => Trust::FirstUse,
    };
    Some(Draft {
        bmc: Bmc {
            protocol: protocol.value,
            address: address.value,
            user: user.value.0,
            password: password.value.0,
            kg: kg.as_ref().map(|kg| Arc::clone(&kg.value.0)),
            system: system.map(|system| system.value.0),
            trust,
            vendor: vendor.map(|vendor| vendor.value.0),
            waivers: waivers.into_iter().map(|waiver| waiver.value).collect(),
            serial: serial.map(|serial| serial.value.0),
            guid: guid.map(|guid| guid.value),
            firmware: firmware.map_or(BootFirmware::Uefi, |firmware| firmware.value),
            boot: boot.map(|boot| boot.value),
        },
        address: address.place,
        password: password.place,
        kg: kg.map(|kg| kg.place),
        authority: authority.map(|authority| authority.place),
    })
}

fn belongs(keys: &[(&str, Option<&Place>)], protocol: &str, problems: &mut Problems<'_>) {
    for (key, place) in keys {
        if let Some(place) = place {
            problems.contradiction(place, format!("`{key}` is only for {protocol}"));
        }
    }
}

fn waived(protocol: Protocol, waivers: &[Placed<Waiver>], problems: &mut Problems<'_>) {
    for waiver in waivers {
        let of = match waiver.value {
            Waiver::Ipmi15 => Protocol::Ipmi,
        };
        if of != protocol {
            let text = format!("the waiver `{}` is for {of} only", waiver.value);
            problems.contradiction(&waiver.place, text);
        }
    }
}

/// IPMI has 16 bytes for a name, and some clients cut longer ones without a word.
fn user_fits(protocol: Protocol, user: Option<&Placed<BmcUser>>, problems: &mut Problems<'_>) {
    if let Some(user) = user.filter(|user| user.value.0.len() > 16)
        && protocol == Protocol::Ipmi
    {
        let text = "a user of IPMI has at most 16 bytes".to_owned();
        problems.contradiction(&user.place, text);
    }
}

/// Checks all BMCs against each other and against the networks and hosts of the site.
pub(super) fn check(draft: &check::Draft, problems: &mut Problems<'_>) {
    let mut seen: HashMap<(Arc<str>, u16), Vec<&Draft>> = HashMap::new();
    for host in &draft.hosts {
        let Some(found) = &host.bmc else { continue };
        let bmc = &found.bmc;
        check::secret(draft, &bmc.password, &found.password, problems);
        if let (Some(kg), Some(place)) = (&bmc.kg, &found.kg) {
            check::secret(draft, kg, place, problems);
        }
        let port = bmc.address.port.unwrap_or(bmc.protocol.port());
        let key: Arc<str> = bmc.address.host.to_ascii_lowercase().into();
        let others = seen.entry((key, port)).or_default();
        // One chassis controller may answer for several systems, if each host names its own.
        let same = |other: &&&Draft| match (&other.bmc.system, &bmc.system) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        };
        if let Some(first) = others.iter().find(same) {
            let what = match &bmc.system {
                Some(system) if first.bmc.system.is_some() => {
                    format!("system `{system}` of BMC {}", bmc.address)
                }
                _ => format!("BMC {}", bmc.address),
            };
            problems.duplicate(&found.address, &first.address, what);
        }
        others.push(found);
        if let Ok(address) = bmc.address.host.parse() {
            collisions(address, &found.address, draft, problems);
        }
    }
}

/// A BMC's address is its own: nothing else of the site may have it or get it.
fn collisions(address: Ipv4Addr, place: &Place, draft: &check::Draft, problems: &mut Problems<'_>) {
    let owner = draft
        .hosts
        .iter()
        .find(|host| host.host.address == Some(address));
    if let Some(owner) = owner {
        let text = format!("address {address} is host `{}`'s", owner.host.name);
        problems.contradiction(place, text);
    }
    let networks = draft.networks.iter().map(|draft| &draft.network);
    let network = |network: &&Network| network.subnet.contains(address);
    let Some(network) = networks.into_iter().find(network) else {
        return;
    };
    if network.pool.is_some_and(|pool| pool.contains(address)) {
        let text = format!(
            "address {address} is in the pool of network `{}`",
            network.name
        );
        problems.contradiction(place, text);
    }
    for (whose, other) in [
        ("appliance", Some(network.appliance)),
        ("router", network.router),
    ] {
        if other == Some(address) {
            problems.contradiction(place, format!("address {address} is the {whose}'s"));
        }
    }
}
