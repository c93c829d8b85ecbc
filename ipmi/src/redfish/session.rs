//! Who we are to a Redfish service: a session that is reused and surely closed, or Basic where it has none.
//!
//! It refuses to offer a password a second time to a service that has refused it: accounts lock.

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::link::{Answer, Ask, Link, Lost};
use super::resource::Resource;
use crate::bmc::{Credentials, Error};

const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// How requests show who we are.
#[derive(Debug)]
pub(super) enum Login {
    /// Not yet, or no more.
    None,
    /// By name and password in each request.
    Basic(HeaderValue),
    /// By the token of a session.
    Session {
        /// Its token.
        token: HeaderValue,
        /// Where it is closed.
        place: Option<String>,
    },
}

impl Login {
    /// The header that shows it.
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::None => None,
            Self::Basic(value) => Some((AUTHORIZATION, value.clone())),
            Self::Session { token, .. } => Some((TOKEN, token.clone())),
        }
    }
}

/// Logs in: with a session where the service has them and one is free, else with Basic.
pub(super) async fn log_in(
    link: &mut Link,
    root: &Resource,
    credentials: &Credentials,
) -> Result<Login, Error> {
    let Some(sessions) = root.link("/Links/Sessions") else {
        return basic(credentials);
    };
    let ask = Ask {
        method: Method::POST,
        path: sessions,
        body: Some(json!({
            "UserName": &*credentials.user,
            "Password": credentials.password.expose_secret(),
        })),
        headers: Vec::new(),
    };
    let answer = link.send(&ask).await.map_err(Lost::error)?;
    match StatusCode::from_u16(answer.status).unwrap_or_default() {
        // Some services answer 200 or 204 where the protocol says 201; the token is what counts.
        status if status.is_success() => session(&answer),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !is_full(&answer) => {
            Err(refused(&answer))
        }
        // No sessions here, or none free: Basic takes none.
        _ => basic(credentials),
    }
}

/// Logs out. It has its own short deadline: a session that is left behind is worse than a late answer.
pub(super) async fn log_out(link: &mut Link, login: Login) {
    let Some(header) = login.header() else {
        return;
    };
    let Login::Session {
        place: Some(place), ..
    } = login
    else {
        return;
    };
    let ask = Ask {
        method: Method::DELETE,
        path: place,
        body: None,
        headers: vec![header],
    };
    // Deleting twice does no harm.
    for _ in 0..2 {
        match link.send(&ask).await {
            Ok(_) => return,
            Err(lost) => tracing::debug!(error = %lost.error(), "session was not closed"),
        }
    }
}

/// Says why a login was refused, by ids alone: a message may repeat what was sent.
pub(super) fn refused(answer: &Answer) -> Error {
    let ids = answer.resource().message_ids();
    Error::Refused {
        detail: match ids.first() {
            Some(id) => format!("status {}, {id}", answer.status),
            None => format!("status {}", answer.status),
        },
    }
}

fn is_full(answer: &Answer) -> bool {
    let ids = answer.resource().message_ids();
    let full = [
        "SessionLimitExceeded",
        "RAC0218",
        "CreateLimitReachedForResource",
    ];
    ids.iter().any(|id| full.contains(&id.as_str()))
}

fn session(answer: &Answer) -> Result<Login, Error> {
    let mut token = answer
        .headers
        .get(TOKEN)
        .cloned()
        .ok_or_else(|| Error::Protocol {
            detail: "it opened a session and gave no token".to_owned(),
        })?;
    token.set_sensitive(true);
    // Services that do not say where the session is say who it is.
    let place = answer.location().or_else(|| answer.resource().id());
    Ok(Login::Session { token, place })
}

fn basic(credentials: &Credentials) -> Result<Login, Error> {
    use base64::Engine as _;
    let unfit = |detail: &str| Error::Credentials {
        detail: detail.to_owned(),
    };
    if credentials.user.contains(':') {
        return Err(unfit("a user name with a colon cannot be sent by Basic"));
    }
    let mut pair = zeroize::Zeroizing::new(String::with_capacity(256));
    pair.push_str(&credentials.user);
    pair.push(':');
    pair.push_str(credentials.password.expose_secret());
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair.as_bytes());
    let line = zeroize::Zeroizing::new(format!("Basic {encoded}"));
    let mut value =
        HeaderValue::from_str(&line).map_err(|_| unfit("they cannot be sent by Basic"))?;
    value.set_sensitive(true);
    Ok(Login::Basic(value))
}
