//! The site: what is served, what another one would change, and applying it.
//!
//! It refuses a token for some hosts: the site is of all of them.

use std::sync::Arc;

use axum::extract::State;
use serde_json::json;

use super::body::Sent;
use super::hosts::sees;
use super::openapi::Refusals;
use super::order::{Answer, Caller, Manner, Ordered};
use super::tokens::whole_site;
use super::{Api, Problem};
use crate::cli::report::chain;
use crate::operate::{Refusal, Run};
use crate::site::{ApplyError, ApplyRequest, ChangeError, Plan, Served, SiteError, Upload};

/// Shows which site is served, and whom its secrets are encrypted for.
#[utoipa::path(get, path = "/v1/site", operation_id = "show_site", tag = "site", security(("token" = ["viewer"])),
    responses((status = 200, description = "The site.", body = Served), Refusals))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
) -> Result<Answer<Served>, Problem> {
    let mut served = api.parts.sites.served();
    if who.scope.is_some() {
        let site = api.site();
        served.hosts = site.hosts().filter(|host| sees(&who, host)).count();
        // It may be about others.
        served.advice.clear();
    }
    Ok(Answer::of(served))
}

/// Tells what applying a site would change, and what follows from it.
#[utoipa::path(post, path = "/v1/site/plan", operation_id = "plan_site", tag = "site", security(("token" = ["operator"])),
    request_body = Upload,
    responses((status = 200, description = "What would change.", body = Plan),
        (status = 422, description = "The site is wrong: every problem with its place.", body = Problem,
            content_type = "application/problem+json"),
        Refusals))]
pub(super) async fn plan(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Sent(upload): Sent<Upload>,
) -> Result<Answer<Plan>, Problem> {
    api.asks_whole_site(&who, "POST /v1/site/plan").await?;
    Ok(Answer::of(api.parts.sites.plan(upload).await?))
}

/// Applies a site: when this is answered, it is kept and served.
///
/// Applying twice changes nothing. With `expect`, a site that somebody else applied meanwhile is not replaced.
#[utoipa::path(post, path = "/v1/site", operation_id = "apply_site", tag = "site", security(("token" = ["admin"])), params(Manner),
    request_body = ApplyRequest,
    responses((status = 200, description = "What changed, or would.", body = Plan),
        (status = 422, description = "The site is wrong: every problem with its place.", body = Problem,
            content_type = "application/problem+json"),
        Refusals))]
pub(super) async fn apply(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Sent(request): Sent<ApplyRequest>,
) -> Result<Answer<Plan>, Problem> {
    let about = json!({ "expect": request.expect, "files": request.site.files.len() });
    let applied = match (whole_site(&order.who), order.run) {
        (Err(problem), _) => Err(problem),
        (Ok(()), Run::Dry) => api
            .parts
            .sites
            .plan(request.site)
            .await
            .map_err(Problem::from),
        (Ok(()), Run::Real) => {
            let applied = api.parts.sites.apply(&order.who, request).await;
            applied.map_err(Problem::from)
        }
    };
    let plan = api
        .judged(&order, "site apply", "site", &about, applied)
        .await?;
    Ok(Answer::of(plan))
}

impl std::convert::From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let detail = chain(&error);
        match error {
            ChangeError::Site(SiteError::Wrong { problems, .. }) => {
                Self::new(422, "site", "the site is wrong", detail)
                    .problems(problems.iter().map(ToString::to_string).collect())
            }
            ChangeError::Site(SiteError::Applied(_))
            | ChangeError::Apply(ApplyError::Keep(_))
            | ChangeError::Cut(_) => {
                Self::new(503, "unavailable", "the appliance cannot do it now", detail)
            }
            ChangeError::Site(_) | ChangeError::Bind(_) => {
                Self::new(422, "site", "the site cannot be served", detail)
            }
            ChangeError::Apply(ApplyError::Moved { .. }) => {
                Self::new(409, "moved", "the site changed meanwhile", detail)
                    .help("look at what it is now with `netboot plan`, and apply again")
            }
            ChangeError::Record(error) => Refusal::from(error).into(),
        }
    }
}
