//! One token: its text, and what is stored of it.
//!
//! It refuses to show the text again: what is stored cannot be turned back into it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use image_manifest::Digest;
use netboot_core::Timestamp;
use netboot_core::selector::Selector;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Role;

/// The kind of the documents in the store.
pub const KIND: &str = "token";

/// The kind of those that say when a token was used: apart, so that writing it late cannot undo that the token was
/// revoked meanwhile.
pub(crate) const USED_KIND: &str = "token-used";

/// What every token begins with, so that a leaked one is found by its looks.
const PREFIX: &str = "fb_";
const BYTES: usize = 32;

/// Longest text that is looked at.
pub(super) const TEXT_MAX: usize = 64;

/// Makes a new token.
pub(super) fn make() -> Result<SecretString, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    getrandom::fill(&mut *bytes)?;
    let mut text = PREFIX.to_owned();
    URL_SAFE_NO_PAD.encode_string(*bytes, &mut text);
    Ok(text.into())
}

/// Returns what is stored of a token.
pub(super) fn digest(token: &SecretString) -> Digest {
    Digest::of(token.expose_secret().as_bytes())
}

/// Tells whether a text can be a token at all.
pub(super) fn is_plausible(text: &str) -> bool {
    text.len() <= TEXT_MAX
        && text
            .strip_prefix(PREFIX)
            .and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok())
            .is_some_and(|bytes| bytes.len() == BYTES)
}

/// A token, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenRow {
    /// Its name: it stands in the audit log.
    pub name: String,
    /// SHA-256 of its text.
    pub digest: Digest,
    /// What it may do.
    pub role: Role,
    /// To which hosts; to all, and to what is of no host, without one.
    pub hosts: Option<Selector>,
    /// When it was made.
    pub created: Timestamp,
    /// By which token.
    pub by: String,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// When it was used last, to five minutes; stored apart.
    #[serde(skip)]
    pub used: Option<Timestamp>,
}

impl TokenRow {
    /// Tells whether it admits anybody.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| now < end)
    }

    /// Returns what may be read about it.
    pub(crate) fn view(&self, now: Timestamp) -> TokenView {
        let state = match (self.revoked, self.is_live(now)) {
            (Some(_), _) => "revoked",
            (None, true) => "live",
            (None, false) => "expired",
        };
        TokenView {
            name: self.name.clone(),
            role: self.role,
            hosts: self.hosts.clone(),
            created_ms: self.created.0,
            by: self.by.clone(),
            expires_ms: self.expires.map(|at| at.0),
            used_ms: self.used.map(|at| at.0),
            state: state.to_owned(),
        }
    }
}

/// A token, as its owner reads about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TokenView {
    /// Its name: it stands in the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// To which hosts; to all without one.
    #[schema(value_type = Option<Vec<String>>)]
    pub hosts: Option<Selector>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// By which token.
    pub by: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// When it was used last, in milliseconds since 1970, to five minutes.
    pub used_ms: Option<u64>,
    /// `live`, `expired` or `revoked`.
    pub state: String,
}

/// A token that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wanted {
    /// Its name, such as `ci` or `anna`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// To which hosts; to all without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub hosts: Option<Selector>,
    /// For how many seconds; for ever without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_seconds: Option<u64>,
}
