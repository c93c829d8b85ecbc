//! Which machine a BMC says it belongs to, and whether that is the one that was meant.

use std::fmt::{self, Write as _};

use super::{Depth, Error, Fingerprint};

/// What a BMC says about itself and its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Identity {
    /// The system GUID; none where the BMC gives zeros.
    pub guid: Option<[u8; 16]>,
    /// The system's serial number.
    pub serial: Option<String>,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// What it is called.
    pub product: Option<String>,
    /// The key of its TLS certificate.
    pub certificate: Option<Fingerprint>,
    /// Hardware addresses that it knows.
    pub macs: Vec<[u8; 6]>,
}

/// What a BMC must say about itself before anything is done to its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Expected {
    /// The system GUID.
    pub guid: Option<[u8; 16]>,
    /// The serial number.
    pub serial: Option<String>,
    /// The key of its TLS certificate.
    pub certificate: Option<Fingerprint>,
    /// Hardware addresses that must be among those it knows.
    pub macs: Vec<[u8; 6]>,
    /// What to do when nothing of the above was recorded.
    pub recorded: Recorded,
}

/// Whether an identity must have been recorded before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recorded {
    /// Yes: a host of which nothing is recorded is not touched.
    #[default]
    Required,
    /// No: whatever answers is taken, to be recorded from [`super::Done::identity`].
    FirstUse,
}

impl Identity {
    /// What to expect of this BMC from now on.
    #[must_use]
    pub fn expected(&self) -> Expected {
        Expected {
            guid: self.guid,
            serial: self.serial.clone(),
            certificate: self.certificate,
            macs: self.macs.clone(),
            recorded: Recorded::Required,
        }
    }
}

impl Expected {
    /// Whether nothing is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.guid.is_none()
            && self.serial.is_none()
            && self.certificate.is_none()
            && self.macs.is_empty()
    }

    /// How deep one must look to check it.
    #[must_use]
    pub fn depth(&self) -> Depth {
        if self.serial.is_some() || !self.macs.is_empty() || self.is_empty() {
            Depth::Whole
        } else {
            Depth::Quick
        }
    }

    /// Checks that `found` is the host that was meant: everything that is recorded must be said, and be the same.
    ///
    /// # Errors
    /// [`Error::WrongHost`] names the first that differs; [`Error::Unrecorded`] where nothing is recorded and that is not allowed.
    pub fn check(&self, found: &Identity) -> Result<(), Error> {
        if self.is_empty() {
            return match self.recorded {
                Recorded::FirstUse => Ok(()),
                Recorded::Required => Err(Error::Unrecorded),
            };
        }
        let differs = |what: &str, expected: String, found: Option<String>| {
            Err(Error::WrongHost {
                expected: format!("{what} {expected}"),
                found: found
                    .map_or_else(|| format!("no {what}"), |found| format!("{what} {found}")),
            })
        };
        if let Some(guid) = self.guid
            && found.guid != Some(guid)
        {
            return differs("guid", hex(&guid), found.guid.map(|guid| hex(&guid)));
        }
        if let Some(serial) = &self.serial
            && found.serial.as_deref().map(str::trim) != Some(serial.trim())
        {
            return differs("serial", serial.clone(), found.serial.clone());
        }
        if let Some(certificate) = self.certificate
            && found.certificate != Some(certificate)
        {
            return differs(
                "certificate",
                certificate.to_string(),
                found.certificate.map(|seen| seen.to_string()),
            );
        }
        if let Some(mac) = self.macs.iter().find(|mac| !found.macs.contains(mac)) {
            let known = found
                .macs
                .iter()
                .copied()
                .map(colons)
                .collect::<Vec<_>>()
                .join(" ");
            return differs("mac", colons(*mac), (!known.is_empty()).then_some(known));
        }
        Ok(())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
        write!(
            out,
            "{} {} serial {}",
            name(&self.manufacturer),
            name(&self.product),
            name(&self.serial)
        )?;
        match self.guid {
            Some(guid) => write!(out, " guid {}", hex(&guid)),
            None => Ok(()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
