//! Where a BMC is, what it is trusted by, and who we are to it.
//!
//! No secret in here can be printed.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::Error;

/// What a BMC speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// IPMI 2.0 over UDP.
    Ipmi,
    /// Redfish over HTTPS.
    Redfish,
}

impl Protocol {
    /// The port where the protocol is expected.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Ipmi => 623,
            Self::Redfish => 443,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ipmi => "ipmi",
            Self::Redfish => "redfish",
        })
    }
}

/// Where a BMC is and how it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its address, or a name that resolves to it.
    pub host: Arc<str>,
    /// Its port, if not the protocol's.
    pub port: Option<u16>,
    /// The Redfish system to act on, by path or id; required when the BMC has several.
    pub system: Option<Arc<str>>,
    /// How its TLS certificate is judged; IPMI has none.
    pub trust: Trust,
    /// Weaknesses that this one host is allowed.
    pub waivers: Waivers,
    /// Its vendor, where it does not say so itself.
    pub vendor: Option<Arc<str>>,
}

impl Endpoint {
    /// The port to speak to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.protocol.port())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "{}://[{}]:{}", self.protocol, self.host, self.port())
        } else {
            write!(out, "{}://{}:{}", self.protocol, self.host, self.port())
        }
    }
}

/// How a BMC's TLS certificate is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its public key must be this one.
    Pinned(Fingerprint),
    /// It must be signed by one of these authorities (PEM).
    Authority(Arc<[u8]>),
    /// Whatever it shows is accepted, and told in [`super::Identity::certificate`] to be recorded.
    FirstUse,
}

/// The SHA-256 of a certificate's public key (its DER `SubjectPublicKeyInfo`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A text that is not `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not `sha256:` and 64 hexadecimal digits")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let digits = text.strip_prefix("sha256:").ok_or(NotAFingerprint)?;
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotAFingerprint);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NotAFingerprint)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NotAFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

impl serde::Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One weakness that a host may be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Waiver {
    /// IPMI 1.5: MD5 codes, no encryption.
    Ipmi15,
}

impl Waiver {
    /// The waiver that a site file calls `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "ipmi-1.5" => Some(Self::Ipmi15),
            _ => None,
        }
    }

    /// Its name in a site file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipmi15 => "ipmi-1.5",
        }
    }
}

/// The weaknesses that one host is allowed; none unless somebody wrote them down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waivers(pub BTreeSet<Waiver>);

impl Waivers {
    /// Whether `waiver` was given.
    #[must_use]
    pub fn allow(&self, waiver: Waiver) -> bool {
        self.0.contains(&waiver)
    }
}

impl FromIterator<Waiver> for Waivers {
    fn from_iter<I: IntoIterator<Item = Waiver>>(waivers: I) -> Self {
        Self(waivers.into_iter().collect())
    }
}

/// Who we are to a BMC.
#[derive(Clone)]
pub struct Credentials {
    /// The account's name.
    pub user: Arc<str>,
    /// Its password.
    pub password: SecretString,
    /// The BMC key of IPMI 2.0, if the BMC has one.
    pub kg: Option<SecretSlice<u8>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Checks that the BMC can take them as they are: what is too long is an error, never cut.
    ///
    /// # Errors
    /// Names what does not fit; never the contents.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), Error> {
        if endpoint.protocol == Protocol::Redfish {
            return Ok(());
        }
        // IPMI 2.0 keeps 20 bytes of a password, 1.5 keeps 16; both fill up with zeros.
        let longest = if endpoint.waivers.allow(Waiver::Ipmi15) {
            16
        } else {
            20
        };
        let password = self.password.expose_secret().as_bytes();
        let problem = if self.user.len() > 16 || !self.user.is_ascii() {
            "the user name is longer than 16 ASCII characters".to_owned()
        } else if password.len() > longest {
            format!("the password is longer than the {longest} bytes that IPMI keeps")
        } else if password.contains(&0) {
            "the password contains a zero byte, where IPMI ends it".to_owned()
        } else if self
            .kg
            .as_ref()
            .is_some_and(|kg| kg.expose_secret().len() > 20)
        {
            "the BMC key is longer than 20 bytes".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::Credentials { detail: problem })
    }
}
