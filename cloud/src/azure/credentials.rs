//! Who asks: where credentials are looked for, and how a token is had for them.
//!
//! It refuses to keep a secret longer than a request, and to show one. What lives for minutes (a token of a CI job) is
//! asked for again each time.

mod source;

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::Mutex;

use crate::authorize::Authorize;
use crate::error::Error;
use crate::http::Http;
use crate::provider::Pending;

/// A token is renewed so long before its end, or after half of its life if that is shorter.
const MARGIN: Duration = Duration::from_mins(5);

/// The variables that credentials are looked for in; it does not tell them.
#[derive(Clone, Default)]
pub struct Environment(Arc<BTreeMap<String, String>>);

impl Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let all = std::env::vars_os();
        let text = all.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self(Arc::new(text.collect()))
    }

    /// One of these variables.
    #[must_use]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let owned = variables.iter();
        let owned = owned.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self(Arc::new(owned.collect()))
    }

    /// A variable that is there and not empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }
}

/// A token, and until when it is good.
pub(super) struct Token {
    text: SecretString,
    life: Duration,
}

/// Tokens of one audience, renewed before their end.
pub struct Tokens {
    http: Http,
    environment: Environment,
    login: Option<String>,
    audience: String,
    cached: Mutex<Option<Cached>>,
    stale: AtomicBool,
}

struct Cached {
    header: HeaderValue,
    until: Instant,
}

impl Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens for an audience such as `https://management.azure.com`, from a login server if not the usual one.
    #[must_use]
    pub fn new(
        http: Http,
        environment: Environment,
        login: Option<String>,
        audience: impl Into<String>,
    ) -> Self {
        Self {
            http,
            environment,
            login,
            audience: audience.into(),
            cached: Mutex::new(None),
            stale: AtomicBool::new(false),
        }
    }

    async fn header(&self) -> Result<HeaderValue, Error> {
        let mut cached = self.cached.lock().await;
        let stale = self.stale.swap(false, Ordering::Relaxed);
        if let Some(cached) = cached.as_ref().filter(|_| !stale)
            && Instant::now() < cached.until
        {
            return Ok(cached.header.clone());
        }
        let asked = Instant::now();
        let asking = source::Asking {
            http: &self.http,
            environment: &self.environment,
            login: self.login.as_deref(),
            audience: &self.audience,
        };
        let token = asking.token().await.map_err(refused)?;
        let header = HeaderValue::from_str(&format!("Bearer {}", token.text.expose_secret()));
        let mut header = header.map_err(|_| refused("the token is no text".to_owned()))?;
        header.set_sensitive(true);
        *cached = Some(Cached {
            header: header.clone(),
            until: asked + token.life.saturating_sub(MARGIN).max(token.life / 2),
        });
        Ok(header)
    }
}

fn refused(reason: String) -> Error {
    Error::Credentials {
        provider: "azure",
        reason,
    }
}

impl Authorize for Tokens {
    fn authorize<'a>(&'a self, head: &'a mut Parts) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            let header = self.header().await?;
            head.headers.insert(AUTHORIZATION, header);
            date(head);
            Ok(())
        })
    }

    fn renew(&self, _: Instant) {
        self.stale.store(true, Ordering::Relaxed);
    }
}

/// Sets the time at which a request is made, which the blobs' interface wants.
pub(super) fn date(head: &mut Parts) {
    let form = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let now = OffsetDateTime::now_utc().format(form).unwrap_or_default();
    if let Ok(now) = HeaderValue::from_str(&now) {
        head.headers
            .insert(HeaderName::from_static("x-ms-date"), now);
    }
}
