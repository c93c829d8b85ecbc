//! What vendors' Redfish services do differently: one table, a row for each quirk, with its evidence.
//!
//! It refuses to hold code: a row says what is so, and the client does it. A vendor without rows gets the safe
//! minimum, which sends only what changes and settles `If-Match` with the service itself. Every row is replayed
//! against a simulator that behaves like that (`redfish/replay.rs`).

use std::time::Duration;

/// What is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `BootSourceOverrideEnabled` is sent even where it stays the same.
    SendEnabled,
    /// `BootSourceOverrideMode` is sent even where it stays the same, if the service has it at all.
    SendMode,
    /// The override is sent to the settings resource, although that does not show one.
    ToSettings,
    /// `If-Match` is not sent.
    NoIfMatch,
    /// The URI of HTTP Boot is this attribute of the firmware's setup, not `HttpBootUri`.
    HttpUri(&'static str),
    /// A refusal with this message passes by itself.
    Passes {
        /// The message's id, without registry and version.
        message: &'static str,
        /// When to try again.
        after: Duration,
    },
    /// A one-time override reads as a continuous one.
    OnceReadsContinuous,
    /// Nothing: the safe minimum settles it, and the replay proves that.
    Settled(Settled),
}

/// What the safe minimum settles with any service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// 428 where `If-Match` is missing.
    Required,
    /// 412 because of `If-Match`.
    Refused,
    /// 412 unless a weak ETag is sent back without its `W/`.
    Stripped,
    /// An empty ETag is offered, and 412 if it is sent back.
    Empty,
    /// 400 where the mode is sent without being offered.
    Mode,
    /// 400 where `HttpBootUri` is sent along with PXE.
    UriWithPxe,
    /// 400 for an override that was set nevertheless.
    SetAnyway,
    /// Ejecting media needs a body, if an empty one.
    EmptyBody,
    /// No session is free: go on without one.
    NoSession,
}

/// One quirk of one vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose it is, as [`named`] calls it.
    pub vendor: &'static str,
    /// What is different.
    pub rule: Rule,
    /// Who saw it.
    pub evidence: &'static str,
}

const fn row(vendor: &'static str, rule: Rule, evidence: &'static str) -> Row {
    Row {
        vendor,
        rule,
        evidence,
    }
}

const fn passes(message: &'static str, seconds: u64) -> Rule {
    Rule::Passes {
        message,
        after: Duration::from_secs(seconds),
    }
}

/// All quirks.
pub const TABLE: &[Row] = &[
    row("ami", Rule::ToSettings, "DMTF/Redfish-Tacklebox#144"),
    row(
        "ami",
        Rule::SendEnabled,
        "openstack/sushy: resources/system/system.py",
    ),
    row(
        "ami",
        Rule::SendMode,
        "openstack/sushy: resources/system/system.py",
    ),
    row("asrock", Rule::ToSettings, "DMTF/Redfish-Tacklebox#144"),
    row(
        "asrock",
        Rule::SendEnabled,
        "openstack/sushy: resources/system/system.py",
    ),
    row(
        "asrock",
        Rule::SendMode,
        "openstack/sushy: resources/system/system.py",
    ),
    row(
        "dell",
        Rule::HttpUri("HttpDev1Uri"),
        "dsx-ai-factory/libredfish#75",
    ),
    row(
        "dell",
        passes("ActionParameterValueConflict", 5),
        "openstack/ironic: 409 on On just after off (iDRAC 10)",
    ),
    row(
        "dell",
        passes("SYS518", 5),
        "openstack/sushy: SYS518, iDRAC not ready",
    ),
    row(
        "dell",
        Rule::Settled(Settled::NoSession),
        "bb-Ricardo/check_redfish#198",
    ),
    row(
        "dell",
        Rule::Settled(Settled::Refused),
        "stmcginnis/gofish#510",
    ),
    row(
        "dell",
        Rule::Settled(Settled::SetAnyway),
        "ansible-collections/community.general#5091",
    ),
    row(
        "hpe",
        Rule::HttpUri("UrlBootFile"),
        "dsx-ai-factory/libredfish#76",
    ),
    row(
        "hpe",
        passes("UnableToModifyDuringSystemPOST", 15),
        "ironcore-dev/metal-operator#997",
    ),
    row(
        "hpe",
        Rule::Settled(Settled::EmptyBody),
        "openstack/sushy: virtual media of iLO",
    ),
    row(
        "hpe",
        Rule::Settled(Settled::UriWithPxe),
        "stmcginnis/gofish#507",
    ),
    row(
        "huawei",
        Rule::Settled(Settled::Required),
        "stmcginnis/gofish#174",
    ),
    row(
        "lenovo",
        Rule::Settled(Settled::Required),
        "ansible/ansible#56150",
    ),
    row("openbmc", Rule::NoIfMatch, "openbmc/bmcweb#262"),
    row(
        "supermicro",
        Rule::SendEnabled,
        "openstack/sushy: resources/system/system.py",
    ),
    row("supermicro", Rule::SendMode, "DMTF/Redfishtool#106"),
    row(
        "supermicro",
        Rule::Settled(Settled::Mode),
        "ironcore-dev/metal-operator#982",
    ),
    row(
        "sushy",
        Rule::OnceReadsContinuous,
        "sushy-emulator 2.2.0: Enabled always reads Continuous",
    ),
    row(
        "any",
        Rule::Settled(Settled::Stripped),
        "openstack/sushy: etags without their W/",
    ),
    row(
        "any",
        Rule::Settled(Settled::Empty),
        "openstack/sushy: empty etags",
    ),
];

/// Parts of the names by which vendors call themselves, in lower case.
const NAMES: &[(&str, &str)] = &[
    ("american megatrends", "ami"),
    ("asrock", "asrock"),
    ("dell", "dell"),
    ("hewlett packard", "hpe"),
    ("huawei", "huawei"),
    ("lenovo", "lenovo"),
    ("openbmc", "openbmc"),
    ("supermicro", "supermicro"),
    ("super micro", "supermicro"),
    // The name of sushy-emulator's service.
    ("redvirt", "sushy"),
];

/// Names that are too short to be looked for inside others.
const EXACT: &[(&str, &str)] = &[
    ("ami", "ami"),
    ("hp", "hpe"),
    ("hpe", "hpe"),
    ("sushy", "sushy"),
];

/// Returns which vendor of the table calls itself like this.
#[must_use]
pub fn named(text: &str) -> Option<&'static str> {
    let text = text.trim().to_lowercase();
    let exact = EXACT.iter().find(|(name, _)| *name == text);
    let part = || NAMES.iter().find(|(part, _)| text.contains(part));
    exact.or_else(part).map(|(_, vendor)| *vendor)
}

/// The quirks of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    vendor: Option<&'static str>,
}

impl Profile {
    /// The profile of a service that calls itself by one of these names; the first that is known counts.
    #[must_use]
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            vendor: names.into_iter().find_map(named),
        }
    }

    /// The vendor, if it has rows.
    #[must_use]
    pub fn vendor(&self) -> Option<&'static str> {
        self.vendor
    }

    /// Whether a rule holds for this service.
    #[must_use]
    pub fn has(&self, rule: Rule) -> bool {
        self.rules().any(|own| own == rule)
    }

    /// The attribute of the firmware's setup that holds the URI of HTTP Boot, if not `HttpBootUri`.
    #[must_use]
    pub fn http_uri(&self) -> Option<&'static str> {
        self.rules().find_map(|rule| match rule {
            Rule::HttpUri(attribute) => Some(attribute),
            _ => None,
        })
    }

    /// When a refusal with one of these messages passes.
    #[must_use]
    pub fn passes(&self, messages: &[String]) -> Option<Duration> {
        self.rules().find_map(|rule| match rule {
            Rule::Passes { message, after } if messages.iter().any(|said| said == message) => {
                Some(after)
            }
            _ => None,
        })
    }

    fn rules(&self) -> impl Iterator<Item = Rule> {
        let vendor = self.vendor;
        let rows = TABLE.iter().filter(move |row| Some(row.vendor) == vendor);
        rows.map(|row| row.rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_are_known_by_the_names_they_use() {
        let cases = [
            ("Dell", Some("dell")),
            ("Dell Inc.", Some("dell")),
            ("HPE", Some("hpe")),
            ("Hewlett Packard Enterprise", Some("hpe")),
            ("Super Micro Computer, Inc.", Some("supermicro")),
            ("AMI", Some("ami")),
            ("Miami Computers", None),
            ("Contoso", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(named(name), expected, "{name}");
        }
    }

    #[test]
    fn every_vendor_of_the_table_can_be_named() {
        for row in TABLE {
            assert!(
                row.vendor == "any" || named(row.vendor) == Some(row.vendor),
                "{row:?}"
            );
            assert!(!row.evidence.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn an_unknown_vendor_has_no_rules() {
        let profile = Profile::of(["Contoso", "Banana"]);
        assert_eq!(profile.vendor(), None);
        assert_eq!(profile.rules().count(), 0);
        let named = Profile::of(["", "Contoso", "Lenovo"]);
        assert_eq!(named.vendor(), Some("lenovo"));
    }
}
