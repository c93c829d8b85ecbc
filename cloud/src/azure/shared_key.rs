//! A storage account's key: for accounts without roles, and for emulators.
//!
//! It refuses to leave the blobs' interface: nothing else takes it.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

use super::credentials::date;
use crate::authorize::Authorize;
use crate::error::Error;
use crate::escape::unescape;
use crate::provider::Pending;

/// Signs with the key of an account.
pub struct SharedKey {
    account: String,
    key: SecretSlice<u8>,
}

impl Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKey")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl SharedKey {
    /// Takes the key as it is handed out, in base64.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(account: &str, key: &str) -> Result<Self, Error> {
        let key = STANDARD.decode(key.trim());
        let key = key.map_err(|_| Error::Credentials {
            provider: "azure",
            reason: "`AZURE_STORAGE_KEY` is no base64".to_owned(),
        })?;
        Ok(Self {
            account: account.to_owned(),
            key: key.into(),
        })
    }
}

impl Authorize for SharedKey {
    fn authorize<'a>(&'a self, head: &'a mut Parts) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            date(head);
            let text = to_sign(
                &self.account,
                &head.method,
                head.uri.path(),
                head.uri.query().unwrap_or_default(),
                &head.headers,
            );
            let signature = sign(self.key.expose_secret(), &text);
            let value = format!("SharedKey {}:{signature}", self.account);
            if let Ok(mut value) = HeaderValue::from_str(&value) {
                value.set_sensitive(true);
                head.headers.insert(AUTHORIZATION, value);
            }
            Ok(())
        })
    }
}

/// Signs text with a key.
#[must_use]
pub fn sign(key: &[u8], text: &str) -> String {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return String::new();
    };
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// What is signed of a request: "Authorize with Shared Key", version 2015-02-21 and later.
#[must_use]
pub fn to_sign(
    account: &str,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
) -> String {
    let value = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let length = value("content-length");
    let mut lines = vec![method.to_string()];
    lines.extend(["content-encoding", "content-language"].map(value));
    lines.push(if length == "0" { String::new() } else { length });
    lines.extend(["content-md5", "content-type"].map(value));
    let dated = headers.contains_key("x-ms-date");
    lines.push(if dated { String::new() } else { value("date") });
    let conditions = [
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ];
    lines.extend(conditions.map(value));
    let ours: BTreeMap<&str, String> = headers
        .keys()
        .map(hyper::header::HeaderName::as_str)
        .filter(|name| name.starts_with("x-ms-"))
        .map(|name| (name, value(name)))
        .collect();
    lines.extend(
        ours.iter()
            .map(|(name, value)| format!("{name}:{}", value.trim())),
    );
    lines.push(format!("/{account}{path}"));
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let values = parameters.entry(unescape(name).to_lowercase()).or_default();
        values.push(unescape(value));
    }
    for (name, mut values) in parameters {
        values.sort();
        lines.push(format!("{name}:{}", values.join(",")));
    }
    lines.join("\n")
}
