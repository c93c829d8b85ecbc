//! Who is asking: firmware by its profile, and the forms in which each can be told what to load.
//!
//! It refuses to know hosts and addresses.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Request;
use crate::site::Mode;

/// The program that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// A PXE ROM under a BIOS.
    Bios,
    /// UEFI that loads by TFTP.
    UefiPxe,
    /// UEFI that loads by HTTP.
    UefiHttp,
    /// `iPXE`, from a ROM or loaded by us.
    Ipxe,
    /// An operating system, or anything else that does not boot from the network.
    Os,
}

impl Firmware {
    /// Returns a constant word for metrics, JSON and log fields.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::UefiPxe => "uefi-pxe",
            Self::UefiHttp => "uefi-http",
            Self::Ipxe => "ipxe",
            Self::Os => "os",
        }
    }

    /// Tells whether it must still load a loader before it can run a script.
    #[must_use]
    pub fn needs_loader(self) -> bool {
        matches!(self, Self::Bios | Self::UefiPxe | Self::UefiHttp)
    }
}

/// In which form the reply says what to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Only server and file name, as a plain DHCP server without PXE options answers.
    Plain,
    /// Option 60 and option 43 with discovery control 8: skip discovery, load the file.
    Direct,
    /// Option 60 without option 43: ask again at port 4011.
    Port4011,
    /// Option 60 `HTTPClient` and a URL.
    Http,
    /// The URL of a script for `iPXE`.
    Script,
}

impl Form {
    /// Says it for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Plain => "file name without PXE options",
            Self::Direct => "option 43 that skips discovery",
            Self::Port4011 => "port 4011",
            Self::Http => "HTTP URL",
            Self::Script => "script URL",
        }
    }
}

/// What is known about one kind of firmware.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name, for people and tests.
    pub name: &'static str,
    /// The program that asks.
    pub firmware: Firmware,
    /// File names of the loaders that it can run, the best first; none when there is none for it.
    pub loaders: &'static [&'static str],
    authoritative: &'static [Form],
    proxy: &'static [Form],
}

/// Offers in one form that a host ignores before the next form is tried.
///
/// EDK2 repeats a DISCOVER after 4, 8, 16 and 32 s, so the third is still the same try of a person
/// who watches, while a single lost packet does not change the form.
pub const OFFERS_PER_FORM: u32 = 3;

/// Times that a loader is fetched and does not run before the next one is tried: once may be a
/// person who switched the host off.
pub const FETCHES_PER_LOADER: u32 = 2;

impl Profile {
    /// Returns the loader to name after `lost` loaders were fetched and did not run.
    #[must_use]
    pub fn loader(&self, lost: u32) -> Option<&'static str> {
        turn(self.loaders, lost / FETCHES_PER_LOADER)
    }

    /// Returns the form to answer in after `ignored` offers led to nothing.
    #[must_use]
    pub fn form(&self, mode: Mode, ignored: u32) -> Option<Form> {
        let forms = match mode {
            Mode::Authoritative => self.authoritative,
            Mode::Proxy => self.proxy,
        };
        turn(forms, ignored / OFFERS_PER_FORM)
    }

    /// Returns the first architecture that a client names; 0, a BIOS, when it names none.
    #[must_use]
    pub fn architecture(request: &Request) -> u16 {
        architectures(request).next().unwrap_or_default()
    }

    /// Finds the profile of whoever sent a request.
    #[must_use]
    pub fn of(request: &Request) -> &'static Self {
        // iPXE repeats the whole DHCP exchange with the firmware's own architecture and option 60,
        // so it must be recognised first; otherwise it is handed iPXE again, forever.
        if is_ipxe(request) {
            return &IPXE;
        }
        let class = request.vendor_class.as_deref().unwrap_or_default();
        let (rows, unknown): (&[Row], _) = if class.starts_with(b"PXEClient") {
            (PXE, &UNKNOWN_PXE)
        } else if class.starts_with(b"HTTPClient") {
            (HTTP, &UNKNOWN_HTTP)
        } else {
            return &OS;
        };
        architectures(request)
            .find_map(|arch| rows.iter().find(|row| row.matches(arch, request)))
            .map_or(unknown, |row| &row.profile)
    }
}

/// Returns the value whose turn it is; none when there are none.
fn turn<T: Copy>(values: &[T], turn: u32) -> Option<T> {
    let turn = usize::try_from(turn).unwrap_or_default();
    values.get(turn.checked_rem(values.len())?).copied()
}

/// Returns the architectures that a client names, in option 93 or else inside option 60.
fn architectures(request: &Request) -> impl Iterator<Item = u16> {
    let in_class = if request.architectures.is_empty() {
        request.vendor_class.as_deref().and_then(class_architecture)
    } else {
        None
    };
    request.architectures.iter().copied().chain(in_class)
}

/// Reads `PXEClient:Arch:00007:UNDI:003000`.
fn class_architecture(class: &[u8]) -> Option<u16> {
    let mut parts = class.split(|&byte| byte == b':');
    parts.find(|part| *part == b"Arch")?;
    std::str::from_utf8(parts.next()?).ok()?.parse().ok()
}

/// iPXE sends the four raw bytes; RFC 3004 asks for a length before each class.
fn is_ipxe(request: &Request) -> bool {
    let class = request.user_class.as_deref().unwrap_or_default();
    request.ipxe_options || class == b"iPXE" || prefixed_classes(class).any(|one| one == b"iPXE")
}

fn prefixed_classes(mut classes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, rest) = classes.split_first()?;
        let (one, after) = rest.split_at_checked(length.into())?;
        classes = after;
        Some(one)
    })
}

/// One kind of firmware and how it is recognised.
struct Row {
    architectures: &'static [u16],
    /// First octets of the hardware address; empty for any.
    macs: &'static [[u8; 3]],
    profile: Profile,
}

impl Row {
    fn matches(&self, architecture: u16, request: &Request) -> bool {
        let [a, b, c, ..] = request.chaddr;
        self.architectures.contains(&architecture)
            && (self.macs.is_empty() || self.macs.contains(&[a, b, c]))
    }
}

/// The plain form goes first where we are the DHCP server: it is what every server without PXE
/// support sends, so every ROM has been tried with it. Where we are not, the client must see option
/// 60, and UEFI is asked to come to port 4011 because much of it ignores option 43 (pixiecore,
/// dnsmasq); a PXE ROM under a BIOS knows option 43 by specification.
const PLAIN_FIRST: &[Form] = &[Form::Plain, Form::Direct];

/// iPXE with drivers of its own, or where those do not fit the hardware, with the firmware's.
const X64: &[&str] = &["ipxe.efi", "snponly.efi"];
const ARM64: &[&str] = &["ipxe-arm64.efi"];

const fn bios(name: &'static str, loaders: &'static [&'static str]) -> Profile {
    Profile {
        name,
        firmware: Firmware::Bios,
        loaders,
        authoritative: PLAIN_FIRST,
        proxy: &[Form::Direct, Form::Port4011],
    }
}

const fn uefi(name: &'static str, loaders: &'static [&'static str]) -> Profile {
    Profile {
        name,
        firmware: Firmware::UefiPxe,
        loaders,
        authoritative: PLAIN_FIRST,
        proxy: &[Form::Port4011, Form::Direct],
    }
}

const fn http(name: &'static str, loaders: &'static [&'static str]) -> Profile {
    Profile {
        name,
        firmware: Firmware::UefiHttp,
        loaders,
        authoritative: &[Form::Http],
        proxy: &[Form::Http],
    }
}

static IPXE: Profile = Profile {
    name: "ipxe",
    firmware: Firmware::Ipxe,
    loaders: &[],
    authoritative: &[Form::Script],
    proxy: &[Form::Script],
};

static OS: Profile = Profile {
    name: "os",
    firmware: Firmware::Os,
    loaders: &[],
    authoritative: &[],
    proxy: &[],
};

static UNKNOWN_PXE: Profile = uefi("pxe of another architecture", &[]);
static UNKNOWN_HTTP: Profile = http("http of another architecture", &[]);

/// First octets of the Raspberry Pi's hardware addresses (IEEE registry).
const RASPBERRY_PI: &[[u8; 3]] = &[
    [0xb8, 0x27, 0xeb],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x28, 0xcd, 0xc1],
    [0xd8, 0x3a, 0xdd],
    [0x2c, 0xcf, 0x67],
];

/// Clients whose option 60 begins with `PXEClient`; the first row that matches counts.
static PXE: &[Row] = &[
    // Raspberry Pi boot ROM: sends architecture 0, a BIOS, and cannot run what a BIOS runs.
    // It gets its address and nothing to load (raspberrypi/firmware#1265).
    Row {
        architectures: &[0, 41],
        macs: RASPBERRY_PI,
        profile: bios("raspberry pi", &[]),
    },
    Row {
        architectures: &[0],
        macs: &[],
        profile: bios("bios", &["undionly.kpxe"]),
    },
    // RFC 4578 printed 7 and 9 swapped, and firmware of both readings exists: both are x64.
    Row {
        architectures: &[7, 9],
        macs: &[],
        profile: uefi("uefi x64", X64),
    },
    Row {
        architectures: &[11],
        macs: &[],
        profile: uefi("uefi arm64", ARM64),
    },
];

/// Clients whose option 60 begins with `HTTPClient`.
static HTTP: &[Row] = &[
    Row {
        architectures: &[16],
        macs: &[],
        profile: http("uefi http x64", X64),
    },
    Row {
        architectures: &[19],
        macs: &[],
        profile: http("uefi http arm64", ARM64),
    },
];

/// Returns the names of all loaders that some firmware is told to load, each once.
#[must_use]
pub fn loaders() -> BTreeSet<&'static str> {
    let rows = PXE.iter().chain(HTTP);
    rows.flat_map(|row| row.profile.loaders.iter().copied())
        .collect()
}
