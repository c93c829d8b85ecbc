//! Who gets in: tokens, roles and pace, before anything is read of a request but its head.
//!
//! It refuses to say whether a token was wrong by a letter or altogether, and takes longer with each wrong one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use image_manifest::Digest;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Api, From, Problem};
use crate::auth::{Caller, Denied, Role, client};
use crate::clock::now;
use crate::operate::{Deed, Who};
use crate::store::Urgency;

/// Where somebody is whose address is not known.
const NOWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// Longest request that is written down when it is refused.
const REQUEST_MAX: usize = 2 << 10;

/// Admits who has the role, and tells the handlers who it is.
pub(super) async fn admit(
    State((api, needed)): State<(Arc<Api>, Role)>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request
        .extensions()
        .get::<From>()
        .map(|from| from.0.ip().to_canonical());
    let peer = peer.unwrap_or(NOWHERE);
    let asked = format!("{} {}", request.method(), request.uri().path());
    if let Err(wait) = api.by_peer.take(&client(peer), Instant::now()) {
        return too_fast(wait, "this address");
    }
    let caller = match api.identify(request.headers(), peer, &asked).await {
        Ok(caller) => caller,
        Err(problem) => return problem,
    };
    if let Err(wait) = api.by_token.take(&caller.name, Instant::now()) {
        return too_fast(wait, "this token");
    }
    let who = Who {
        name: caller.name,
        role: caller.role.label().to_owned(),
        peer: Some(peer),
        scope: caller.hosts,
    };
    if caller.role < needed {
        let reason = format!("it has the role {}, and this needs {needed}", caller.role);
        api.refused(&who, "request", &asked, Value::Null, &reason)
            .await;
        let detail = format!("the token `{}` may not do this: {reason}", who.name);
        return Problem::new(403, "role", "the role is too low", detail)
            .help("ask an admin for a token with that role: `netboot token create`")
            .into_response();
    }
    request.extensions_mut().insert(who);
    next.run(request).await
}

/// Lets a few whole sites be sent at once, before a byte of them is read.
pub(super) async fn one_of_few(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(turn) = Arc::clone(&api.uploads).try_acquire_owned() else {
        let detail = "other sites are being looked at; ask again in a moment";
        return Problem::new(503, "uploads", "too many sites at once", detail).into_response();
    };
    let response = next.run(request).await;
    drop(turn);
    response
}

/// Answers who asks for what is not there.
pub(super) async fn nothing() -> Problem {
    Problem::new(
        404,
        "route",
        "nothing is here",
        "nothing is served under this path",
    )
    .help("`/v1/openapi.json` says what is")
}

/// Answers who asks in a way that is not there.
pub(super) async fn method() -> Problem {
    Problem::new(
        405,
        "method",
        "not with this method",
        "this path has other methods",
    )
    .help("`/v1/openapi.json` says which")
}

fn too_fast(wait: Duration, who: &str) -> Response {
    let seconds = wait.as_secs() + 1;
    let detail = format!("{who} asks too often; wait {seconds} s");
    let mut response = Problem::new(429, "pace", "too many requests", detail).into_response();
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

impl Api {
    /// Finds out whose token a request shows.
    async fn identify(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        asked: &str,
    ) -> Result<Caller, Response> {
        let shown = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let admitted = match shown {
            None => Err((Denied::Missing, None)),
            Some(text) => self.tokens.admit(text.trim(), now()),
        };
        let (denied, name) = match admitted {
            Ok((caller, used)) => {
                if let Some(change) = used {
                    // Nobody waits for it, and one that is lost is written five minutes later.
                    drop(self.parts.writer.submit(vec![change], Urgency::Deferrable));
                }
                return Ok(caller);
            }
            Err(denied) => denied,
        };
        let wait = self.failures.count(client(peer), Instant::now());
        let stranger = Who {
            name: name.unwrap_or_default(),
            role: String::new(),
            peer: Some(peer),
            scope: None,
        };
        let reason = denied.to_string();
        self.refused(&stranger, "request", asked, Value::Null, &reason)
            .await;
        tokio::time::sleep(wait).await;
        let mut response = Problem::new(401, "token", "who are you?", reason)
            .help(help(denied))
            .into_response();
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Err(response)
    }

    /// Writes a refusal to the audit log; where there are too many, they are counted in the next one.
    pub(super) async fn refused(
        &self,
        who: &Who,
        action: &'static str,
        object: &str,
        request: Value,
        reason: &str,
    ) {
        let peer = client(who.peer.unwrap_or(NOWHERE));
        let known = Some(who.name.as_str()).filter(|name| !name.is_empty());
        let (token, asked) = (who.name.as_str(), who.peer);
        let Some(more) = self.refusals.take(known, peer, Instant::now()) else {
            tracing::debug!(token, peer = ?asked, action, object, reason, "request refused");
            return;
        };
        tracing::warn!(token, peer = ?asked, action, object, reason, "request refused");
        let more = match more {
            0 => String::new(),
            more => format!(" ({more} refusals before this one were not recorded)"),
        };
        let deed = Deed {
            at: now(),
            who: who.clone(),
            action,
            object: object.to_owned(),
            request: brief(request),
            outcome: format!("refused: {reason}{more}"),
        };
        if let Err(error) = self.parts.ledger.commit(deed, Vec::new()).await {
            tracing::warn!(error = %crate::cli::report::chain(&error), "refusal not recorded");
        }
    }
}

/// Says of what is long only how long it is: nothing was done, and what was refused must not fill the disk.
fn brief(request: Value) -> Value {
    if request.is_null() {
        return json!({});
    }
    let text = request.to_string();
    if text.len() <= REQUEST_MAX {
        return request;
    }
    json!({ "bytes": text.len(), "digest": Digest::of(text.as_bytes()) })
}

fn help(denied: Denied) -> &'static str {
    match denied {
        Denied::Missing => "show a token: `Authorization: Bearer fb_…`",
        Denied::Unknown => {
            "is it the token of this appliance? The first one is in `admin.token` of its data directory; others are \
             made with `netboot token create`"
        }
        Denied::Expired | Denied::Revoked => "ask an admin for another one: `netboot token create`",
    }
}

impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let media = [(axum::http::header::CONTENT_TYPE, super::problem::MEDIA_TYPE)];
        (status, media, body).into_response()
    }
}
