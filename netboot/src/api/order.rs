//! How a change is asked for: by whom, whether for real, against limits or within them, and under which key.
//!
//! It refuses keys that could not be told from one another in a log.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::Asked;
use super::client::IDEMPOTENCY_KEY;
use super::{Api, Problem};
use crate::operate::{Accepted, Limits, Order, Refusal, Run, Who};

/// Longest key.
const KEY_MAX: usize = 100;

/// How a change is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Manner {
    /// Tell the plan, and do nothing.
    dry_run: bool,
    /// Touch protected hosts and more hosts than the site's limits allow.
    override_limits: bool,
}

/// The part of an [`Order`] that is in a request's head.
pub(super) struct Ordered(pub(super) Order);

impl<S: Send + Sync> FromRequestParts<S> for Ordered {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Caller(who) = Caller::from_request_parts(parts, state).await?;
        let Asked(manner) = Asked::<Manner>::from_request_parts(parts, state).await?;
        let key = parts.headers.get(IDEMPOTENCY_KEY).map(|key| {
            key.to_str()
                .ok()
                .filter(|key| !key.is_empty() && key.len() <= KEY_MAX)
                .map(str::to_owned)
                .ok_or_else(|| {
                    let detail = format!("`{IDEMPOTENCY_KEY}` has 1 to {KEY_MAX} letters");
                    Problem::new(400, "key", "the key cannot be used", detail)
                })
        });
        Ok(Self(Order {
            who,
            run: if manner.dry_run { Run::Dry } else { Run::Real },
            limits: if manner.override_limits {
                Limits::Overridden
            } else {
                Limits::Held
            },
            key: key.transpose()?,
        }))
    }
}

/// Who was let in.
pub(super) struct Caller(pub(super) Who);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // A route without a guard has nobody to act for.
        parts.extensions.get().cloned().map(Self).ok_or_else(|| {
            Problem::new(401, "token", "who are you?", "this request was not let in")
        })
    }
}

/// An answer of JSON.
pub(super) struct Answer<T>(pub(super) StatusCode, pub(super) T);

impl<T> Answer<T> {
    /// An answer to a question.
    pub(super) fn of(answer: T) -> Self {
        Self(StatusCode::OK, answer)
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        (self.0, axum::Json(self.1)).into_response()
    }
}

impl Api {
    /// Answers an order, and records its refusal; what is accepted is recorded by who carries it out.
    pub(super) async fn settle(
        &self,
        order: &Order,
        action: &'static str,
        object: &str,
        request: Value,
        settled: Result<Accepted, Refusal>,
    ) -> Result<Answer<Accepted>, Problem> {
        match settled {
            Ok(accepted) => {
                let status = if accepted.done {
                    StatusCode::ACCEPTED
                } else {
                    StatusCode::OK
                };
                Ok(Answer(status, accepted))
            }
            Err(refusal) => {
                if order.run == Run::Real {
                    self.refused(&order.who, action, object, request, &refusal.to_string())
                        .await;
                }
                Err(refusal.into())
            }
        }
    }
}

impl std::convert::From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, title, help) = match &refusal {
            Refusal::Forbidden { .. } => (
                403,
                "the token is for other hosts",
                Some("ask an admin for a token for these hosts"),
            ),
            Refusal::Unknown { .. } => (404, "there is no such thing", None),
            Refusal::Invalid { .. } => (400, "this makes no sense", None),
            Refusal::Conflict { .. } => (409, "something else is under way", None),
            Refusal::TooWide { .. } => (
                409,
                "more hosts than the site's limits allow",
                Some("choose fewer hosts or a rollout, or say `--override-limits`"),
            ),
            Refusal::Protected { .. } => (
                409,
                "the host is protected",
                Some("say `--override-limits` if it is meant"),
            ),
            Refusal::Unavailable { .. } => (
                503,
                "the appliance cannot do it now",
                Some("nothing was done; ask again"),
            ),
            Refusal::Bmc { .. } => (502, "the BMC refuses", None),
        };
        let problem = Self::new(status, refusal.label(), title, refusal.to_string());
        match help {
            Some(help) => problem.help(help),
            None => problem,
        }
    }
}

impl std::convert::From<Infallible> for Problem {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
