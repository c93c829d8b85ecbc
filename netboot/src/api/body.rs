//! What requests carry, read into types.
//!
//! It refuses with a problem what is too long, comes too slowly or is not understood.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use super::{CONNECTIONS, Problem};

/// A body of JSON.
pub(super) struct Sent<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let wrong = |detail: String| {
            Problem::new(400, "body", "the request is not understood", detail)
                .help("`/v1/openapi.json` says what is expected")
        };
        let body = axum::RequestExt::into_limited_body(request).collect();
        let bytes = match tokio::time::timeout(CONNECTIONS.body, body).await {
            Ok(Ok(bytes)) => bytes.to_bytes(),
            Ok(Err(_)) => {
                return Err(Problem::new(
                    413,
                    "size",
                    "the request is too long",
                    "the request is longer than this route takes, or was cut",
                ));
            }
            Err(_) => return Err(slow(CONNECTIONS.body)),
        };
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| wrong(error.to_string()))
    }
}

fn slow(limit: Duration) -> Problem {
    let detail = format!("the request did not arrive in {} s", limit.as_secs());
    Problem::new(408, "slow", "the request came too slowly", detail)
}

/// The query of a URL.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(asked)| Self(asked))
            .map_err(|error| {
                Problem::new(
                    400,
                    "query",
                    "the query is not understood",
                    error.body_text(),
                )
                .help("`/v1/openapi.json` says what is expected")
            })
    }
}
