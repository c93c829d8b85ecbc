//! Tokens: made, listed, revoked.
//!
//! It refuses to show a token twice, and to let a token for some hosts make one for more.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::body::Sent;
use super::openapi::Refusals;
use super::order::{Answer, Caller, Ordered};
use super::{Api, Problem};
use crate::auth::{TokenError, TokenView, Wanted};
use crate::clock::now;
use crate::operate::{Deed, Order, Refusal, Run, Who};

/// A token that was made.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct NewToken {
    /// Its text; it is shown now, and never again. None of a dry run.
    pub(crate) token: Option<String>,
    /// What can be read about it later too.
    pub(crate) about: TokenView,
}

impl Drop for NewToken {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.token);
    }
}

/// Shows all tokens, but not their texts.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", tag = "tokens", security(("token" = ["admin"])),
    responses((status = 200, description = "The tokens.", body = Vec<TokenView>), Refusals))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
) -> Result<Answer<Vec<TokenView>>, Problem> {
    api.asks_whole_site(&who, "GET /v1/tokens").await?;
    Ok(Answer::of(api.tokens.views(now())))
}

/// Makes a token.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "tokens", security(("token" = ["admin"])), params(super::order::Manner),
    request_body = Wanted,
    responses((status = 201, description = "It is made.", body = NewToken),
        (status = 200, description = "A dry run.", body = NewToken), Refusals))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Sent(wanted): Sent<Wanted>,
) -> Result<Answer<NewToken>, Problem> {
    let request = json!(wanted);
    let _one = api.token_changes.lock().await;
    let made = match whole_site(&order.who) {
        Ok(()) => {
            let known = match &wanted.hosts {
                Some(hosts) => hosts.check(&api.site()).map_err(|error| {
                    Problem::new(
                        400,
                        "selector",
                        "the hosts are not known",
                        error.to_string(),
                    )
                }),
                None => Ok(()),
            };
            known.and_then(|()| Ok(api.tokens.make(&wanted, &order.who.name, now())?))
        }
        Err(problem) => Err(problem),
    };
    let made = api
        .judged(&order, "token create", &wanted.name, &request, made)
        .await?;
    let (token, row, changes) = made;
    let about = row.view(now());
    if order.run == Run::Dry {
        return Ok(Answer::of(NewToken { token: None, about }));
    }
    let deed = deed(&order.who, "token create", &wanted.name, request);
    api.parts
        .ledger
        .commit(deed, changes)
        .await
        .map_err(Refusal::from)?;
    api.tokens.keep(row);
    let token = Some(token.expose_secret().to_owned());
    Ok(Answer(StatusCode::CREATED, NewToken { token, about }))
}

/// Revokes a token: it admits nobody any more.
#[utoipa::path(delete, path = "/v1/tokens/{name}", operation_id = "revoke_token", tag = "tokens", security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Its name."), super::order::Manner),
    responses((status = 200, description = "It is revoked, or would be.", body = TokenView), Refusals))]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Path(name): Path<String>,
) -> Result<Answer<TokenView>, Problem> {
    let request = json!({});
    let _one = api.token_changes.lock().await;
    let revoked = match whole_site(&order.who) {
        Ok(()) => api.tokens.revoke(&name, now()).map_err(Problem::from),
        Err(problem) => Err(problem),
    };
    let revoked = api
        .judged(&order, "token revoke", &name, &request, revoked)
        .await?;
    let (row, changes) = revoked;
    let view = row.view(now());
    if order.run == Run::Real {
        let deed = deed(&order.who, "token revoke", &name, request);
        api.parts
            .ledger
            .commit(deed, changes)
            .await
            .map_err(Refusal::from)?;
        api.tokens.keep(row);
    }
    Ok(Answer::of(view))
}

fn deed(who: &Who, action: &'static str, object: &str, request: serde_json::Value) -> Deed {
    Deed {
        at: now(),
        who: who.clone(),
        action,
        object: object.to_owned(),
        request,
        outcome: "done".to_owned(),
    }
}

/// Refuses what is of the whole site to a token for some hosts.
pub(super) fn whole_site(who: &Who) -> Result<(), Problem> {
    match &who.scope {
        None => Ok(()),
        Some(hosts) => Err(Problem::new(
            403,
            "scope",
            "the token is for some hosts",
            format!(
                "the token `{}` is for `{hosts}`, and this is of the whole site",
                who.name
            ),
        )
        .help("use the token of an admin for all hosts")),
    }
}

impl Api {
    /// Refuses a question about the whole site to a token for some hosts, and records that.
    pub(super) async fn asks_whole_site(&self, who: &Who, asked: &str) -> Result<(), Problem> {
        let allowed = whole_site(who);
        if let Err(problem) = &allowed {
            self.refused(who, "request", asked, json!({}), &problem.detail)
                .await;
        }
        allowed
    }

    /// Records a refusal that the API itself decided.
    pub(super) async fn judged<T>(
        &self,
        order: &Order,
        action: &'static str,
        object: &str,
        request: &serde_json::Value,
        judged: Result<T, Problem>,
    ) -> Result<T, Problem> {
        if let Err(problem) = &judged
            && order.run == Run::Real
        {
            self.refused(&order.who, action, object, request.clone(), &problem.detail)
                .await;
        }
        judged
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let (status, word, title) = match &error {
            TokenError::Name { .. } => (400, "name", "the name cannot be used"),
            TokenError::Taken { .. } => (409, "taken", "the name is taken"),
            TokenError::NotFound { .. } => (404, "unknown", "there is no such thing"),
            TokenError::TooMany => (409, "too-many", "there are too many tokens"),
            TokenError::Last { .. } => (409, "last", "nobody would be in charge"),
            TokenError::Random(_) | TokenError::File { .. } => {
                (503, "unavailable", "the appliance cannot do it now")
            }
        };
        Self::new(status, word, title, error.to_string())
    }
}
