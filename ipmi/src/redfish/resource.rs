//! What Redfish resources say, read as leniently as is safe: a property of the wrong type is a property that is absent.
//!
//! It refuses to give a meaning to a value that it does not know, and to follow a link that leaves the BMC.

use serde_json::Value;

use crate::bmc::{
    BootDevice, BootFirmware, BootOverride, Health, Persistence, PowerState, ResetKind,
};

/// The longest path that is followed.
const LONGEST_PATH: usize = 1024;
/// The longest text that is repeated to people.
const LONGEST_TEXT: usize = 300;
/// The longest list that is read.
const LONGEST_LIST: usize = 1024;

/// Any Redfish resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource(Value);

impl From<Value> for Resource {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl Resource {
    /// Reads a resource.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn decode(body: &[u8]) -> Result<Self, serde_json::Error> {
        let object: serde_json::Map<String, Value> = serde_json::from_slice(body)?;
        Ok(Self(Value::Object(object)))
    }

    /// Returns what stands at a pointer such as `/Boot/HttpBootUri`, unless it is null.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer).filter(|value| !value.is_null())
    }

    /// Whether there is such a property, be it null.
    #[must_use]
    pub fn has(&self, pointer: &str) -> bool {
        self.0.pointer(pointer).is_some()
    }

    /// Returns a text, without the space around it; an empty one is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        let text = self.at(pointer)?.as_str()?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// Returns a number.
    #[must_use]
    pub fn number(&self, pointer: &str) -> Option<f64> {
        self.at(pointer)?.as_f64()
    }

    /// Returns the objects of a list.
    #[must_use]
    pub fn list(&self, pointer: &str) -> Vec<Self> {
        let items = self.at(pointer).and_then(Value::as_array);
        let items = items.into_iter().flatten().filter(|item| item.is_object());
        items.take(LONGEST_LIST).cloned().map(Self).collect()
    }

    /// Returns the texts of a list; none where there is no list, which is not the same as an empty one.
    #[must_use]
    pub fn texts(&self, pointer: &str) -> Option<Vec<&str>> {
        let items = self.at(pointer)?.as_array()?;
        let items = items.iter().take(LONGEST_LIST);
        Some(items.filter_map(Value::as_str).collect())
    }

    /// Returns where a link leads.
    #[must_use]
    pub fn link(&self, pointer: &str) -> Option<String> {
        path(self.at(pointer)?.get("@odata.id")?.as_str()?)
    }

    /// Returns where the resource itself is.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        path(self.at("/@odata.id")?.as_str()?)
    }

    /// Returns where the members of a collection, or of any list of links, are.
    #[must_use]
    pub fn members(&self, pointer: &str) -> Vec<String> {
        let members = self.list(pointer);
        members.iter().filter_map(Self::id).collect()
    }

    /// Returns what a service says went wrong, in one line that is fit to be shown.
    ///
    /// A message may repeat what was sent, so where secrets were sent only [`Self::message_ids`] may be shown.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let message = self
            .messages()
            .iter()
            .find_map(|message| message.text("/Message").map(printable));
        message.or_else(|| self.text("/error/message").map(printable))
    }

    /// Returns the ids of what a service says, without registry and version: `ActionParameterValueConflict`.
    #[must_use]
    pub fn message_ids(&self) -> Vec<String> {
        let messages = self.messages();
        let ids = messages.iter().filter_map(|message| {
            let id = message.text("/MessageId").or(message.text("/MessageID"))?;
            id.rsplit('.').next().map(printable)
        });
        let code = self.text("/error/code");
        ids.chain(code.and_then(|code| code.rsplit('.').next().map(printable)))
            .collect()
    }

    fn messages(&self) -> Vec<Self> {
        let mut messages = self.list("/error/@Message.ExtendedInfo");
        messages.extend(self.list("/@Message.ExtendedInfo"));
        messages
    }

    /// Returns the power of a system.
    #[must_use]
    pub fn power(&self) -> PowerState {
        match self.text("/PowerState") {
            Some("On") => PowerState::On,
            Some("Off") => PowerState::Off,
            // HPE says `Reset` between the two.
            Some("PoweringOn" | "PoweringOff" | "Reset") => PowerState::Transition,
            Some(other) => PowerState::Unknown {
                reason: format!("the bmc calls it `{}`", printable(other)),
            },
            None => PowerState::Unknown {
                reason: "the bmc does not tell".to_owned(),
            },
        }
    }

    /// Returns the boot override of a system or of its settings, with `set` for what the BMC has no property for.
    #[must_use]
    pub fn boot(&self, set: Option<&BootOverride>) -> Option<BootOverride> {
        let target = self.text("/Boot/BootSourceOverrideTarget");
        let enabled = self.text("/Boot/BootSourceOverrideEnabled");
        let firmware = match self.text("/Boot/BootSourceOverrideMode") {
            Some("Legacy") => BootFirmware::Bios,
            Some(_) => BootFirmware::Uefi,
            None => set.map_or(BootFirmware::Uefi, |set| set.firmware),
        };
        let persistence = match enabled {
            Some("Continuous") => Persistence::Persistent,
            _ => Persistence::Once,
        };
        let device = match (enabled, target) {
            (Some("Disabled"), _) | (_, Some("None")) => BootDevice::None,
            (_, Some("Pxe")) => BootDevice::Network,
            (_, Some("UefiHttp")) => BootDevice::Http {
                uri: self.http_uri(set),
            },
            (_, Some("Hdd")) => BootDevice::Disk,
            (_, Some("BiosSetup")) => BootDevice::Setup,
            _ => return None,
        };
        Some(BootOverride {
            device,
            persistence,
            firmware,
        })
    }

    fn http_uri(&self, set: Option<&BootOverride>) -> Option<String> {
        if self.has("/Boot/HttpBootUri") {
            return self.text("/Boot/HttpBootUri").map(str::to_owned);
        }
        match set.map(|set| &set.device) {
            Some(BootDevice::Http { uri }) => uri.clone(),
            _ => None,
        }
    }

    /// Returns what the service thinks of a resource.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.text("/Status/Health") {
            Some("OK") => Health::Good,
            Some("Warning") => Health::Warning,
            Some("Critical") => Health::Critical,
            _ => Health::Unknown,
        }
    }
}

/// The Redfish name of what is done to the power, and what may stand for it.
#[must_use]
pub fn reset_types(kind: ResetKind) -> &'static [&'static str] {
    match kind {
        ResetKind::On => &["On", "ForceOn"],
        ResetKind::ForceOff => &["ForceOff"],
        ResetKind::GracefulShutdown => &["GracefulShutdown"],
        ResetKind::Cycle => &["PowerCycle"],
        ResetKind::ForceRestart => &["ForceRestart"],
        ResetKind::Nmi => &["Nmi"],
    }
}

/// The Redfish name of a boot device.
#[must_use]
pub fn boot_target(device: &BootDevice) -> &'static str {
    match device {
        BootDevice::Network => "Pxe",
        BootDevice::Http { .. } => "UefiHttp",
        BootDevice::Disk => "Hdd",
        BootDevice::Setup => "BiosSetup",
        BootDevice::None => "None",
    }
}

/// Reads a GUID; all zeros and all ones are what firmware says that has none.
#[must_use]
pub fn guid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let guid: [u8; 16] = hex(&digits)?;
    (guid != [0; 16] && guid != [0xff; 16]).then_some(guid)
}

/// Reads a hardware address.
#[must_use]
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !matches!(byte, b':' | b'-'))
        .collect();
    let mac: [u8; 6] = hex(&digits)?;
    (mac != [0; 6]).then_some(mac)
}

fn hex<const LENGTH: usize>(digits: &[u8]) -> Option<[u8; LENGTH]> {
    if digits.len() != 2 * LENGTH || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; LENGTH];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Returns the path of a link, by whatever host name it was written: requests never leave the connection.
#[must_use]
pub fn path(link: &str) -> Option<String> {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| link.strip_prefix(scheme));
    let path = match rest {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => link,
    };
    let path = path.split('#').next().unwrap_or_default();
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    (path.starts_with('/') && !path.starts_with("//") && is_plain && path.len() <= LONGEST_PATH)
        .then(|| path.to_owned())
}

/// Returns a text that is fit for logs and terminals.
#[must_use]
pub fn printable(text: &str) -> String {
    let text = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    text.take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests;
