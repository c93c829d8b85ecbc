//! What simulated vendors do differently, as a table of its own: what the client knows is tested against it.
//!
//! It refuses to share a row with the client's table; evidence of both is the same.

use std::time::Duration;

/// How long a passing refusal lasts, as the simulated services have it.
const SPELL: Duration = Duration::from_secs(2);

/// One oddity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A PATCH of the override without `BootSourceOverrideEnabled` is refused.
    NeedsEnabled,
    /// A PATCH of the override without the mode sets the mode to Legacy.
    ForgetsMode,
    /// There is no mode, and a PATCH with one is refused.
    NoMode,
    /// The override is taken by the settings resource only, which does not show it; target, enabled and mode
    /// must all be sent.
    SettingsOnly,
    /// A PATCH without `If-Match` is refused with 428.
    WantsIfMatch,
    /// An action with `If-Match` is refused with 412.
    NoIfMatchOnActions,
    /// `If-Match` breaks the service: the connection is closed.
    IfMatchCrashes,
    /// ETags are weak, and must be sent back without their `W/`.
    StrippedEtag,
    /// ETags are empty, and must not be sent back.
    EmptyEtag,
    /// For a while after power off, `On` is refused with 409.
    SlowOff(Duration),
    /// The first changes in this time are refused with SYS518.
    NotReady(Duration),
    /// For a while after power on, changes of the override are refused.
    InPost(Duration),
    /// `HttpBootUri` along with anything but `UefiHttp` is refused.
    NoUriWithPxe,
    /// There is no `HttpBootUri`; this attribute of the firmware's setup is the URI.
    UriInSetup(&'static str),
    /// The override is set, and the answer is 400.
    RefusesAnyway,
    /// An action without a body is refused.
    NeedsBody,
    /// No session is free.
    NoSessions,
    /// A one-time override reads as a continuous one.
    OnceReadsContinuous,
}

const TABLE: &[(&str, Manner, &str)] = &[
    ("ami", Manner::SettingsOnly, "DMTF/Redfish-Tacklebox#144"),
    ("asrock", Manner::SettingsOnly, "DMTF/Redfish-Tacklebox#144"),
    ("dell", Manner::NoIfMatchOnActions, "stmcginnis/gofish#510"),
    ("dell", Manner::SlowOff(SPELL), "openstack/ironic"),
    ("dell", Manner::NotReady(SPELL), "openstack/sushy: SYS518"),
    (
        "dell",
        Manner::UriInSetup("HttpDev1Uri"),
        "dsx-ai-factory/libredfish#75",
    ),
    (
        "dell",
        Manner::RefusesAnyway,
        "ansible-collections/community.general#5091",
    ),
    ("dell", Manner::NoSessions, "bb-Ricardo/check_redfish#198"),
    (
        "hpe",
        Manner::InPost(SPELL),
        "ironcore-dev/metal-operator#997",
    ),
    ("hpe", Manner::NoUriWithPxe, "stmcginnis/gofish#507"),
    (
        "hpe",
        Manner::UriInSetup("UrlBootFile"),
        "dsx-ai-factory/libredfish#76",
    ),
    ("hpe", Manner::NeedsBody, "openstack/sushy"),
    ("huawei", Manner::WantsIfMatch, "stmcginnis/gofish#174"),
    ("lenovo", Manner::WantsIfMatch, "ansible/ansible#56150"),
    ("openbmc", Manner::IfMatchCrashes, "openbmc/bmcweb#262"),
    ("supermicro", Manner::NeedsEnabled, "openstack/sushy"),
    ("supermicro", Manner::ForgetsMode, "DMTF/Redfishtool#106"),
    ("sushy", Manner::OnceReadsContinuous, "sushy-emulator 2.2.0"),
];

/// All the oddities of a vendor.
pub fn manners(vendor: &str) -> impl Iterator<Item = Manner> {
    let rows = TABLE.iter().filter(move |(name, ..)| *name == vendor);
    rows.map(|(_, manner, _)| *manner)
}
