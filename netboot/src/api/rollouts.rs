//! Deployments over many hosts.
//!
//! It refuses nothing itself: the executor knows the rollouts.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::json;

use super::body::Sent;
use super::openapi::Refusals;
use super::order::{Answer, Caller, Manner, Ordered};
use super::{Api, Problem};
use crate::operate::{Accepted, Control, Refusal, RolloutOrder, RolloutView, Who};

/// Shows all rollouts that are kept, newest first.
#[utoipa::path(get, path = "/v1/rollouts", operation_id = "list_rollouts", tag = "rollouts", security(("token" = ["viewer"])),
    responses((status = 200, description = "The rollouts.", body = Vec<RolloutView>), Refusals))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
) -> Result<Answer<Vec<RolloutView>>, Problem> {
    Ok(Answer::of(api.rollouts(&who).await?))
}

/// Shows one rollout.
#[utoipa::path(get, path = "/v1/rollouts/{id}", operation_id = "show_rollout", tag = "rollouts", security(("token" = ["viewer"])),
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "The rollout.", body = RolloutView), Refusals))]
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Path(id): Path<String>,
) -> Result<Answer<RolloutView>, Problem> {
    let rollouts = api.rollouts(&who).await?;
    let found = rollouts.into_iter().find(|rollout| rollout.id == id);
    let unknown = || Refusal::Unknown {
        what: "rollout",
        name: id,
    };
    Ok(Answer::of(found.ok_or_else(unknown)?))
}

/// Begins a rollout.
#[utoipa::path(post, path = "/v1/rollouts", operation_id = "start_rollout", tag = "rollouts", security(("token" = ["operator"])), params(Manner, super::openapi::Key),
    request_body = RolloutOrder,
    responses((status = 202, description = "It is being done.", body = Accepted),
        (status = 200, description = "A dry run: the plan.", body = Accepted), Refusals))]
pub(super) async fn start(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Sent(rollout): Sent<RolloutOrder>,
) -> Result<Answer<Accepted>, Problem> {
    let (object, request) = (rollout.deploy.hosts.to_string(), json!(rollout));
    let settled = api
        .parts
        .operator
        .rollout_start(order.clone(), rollout)
        .await;
    api.settle(&order, "rollout start", &object, request, settled)
        .await
}

/// Pauses, resumes, halts or undoes a rollout.
#[utoipa::path(post, path = "/v1/rollouts/{id}/{control}", operation_id = "control_rollout", tag = "rollouts", security(("token" = ["operator"])),
    params(("id" = String, Path, description = "Its id."), ("control" = Control, Path, description = "What is to be done."), Manner, super::openapi::Key),
    responses((status = 202, description = "It is being done.", body = Accepted),
        (status = 200, description = "A dry run: the plan.", body = Accepted), Refusals))]
pub(super) async fn control(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Path((id, control)): Path<(String, String)>,
) -> Result<Answer<Accepted>, Problem> {
    let object = format!("rollout/{id}");
    let settled = match serde_json::from_value::<Control>(json!(control)) {
        Ok(control) => {
            let operator = &api.parts.operator;
            operator.rollout_control(order.clone(), id, control).await
        }
        Err(_) => Err(Refusal::Invalid {
            reason: "a rollout can be told to `pause`, `resume`, `halt` or `undo`".to_owned(),
        }),
    };
    let request = json!({ "control": control.chars().take(20).collect::<String>() });
    api.settle(&order, "rollout", &object, request, settled)
        .await
}

impl Api {
    /// Returns the rollouts with those of their hosts that somebody may see.
    async fn rollouts(&self, who: &Who) -> Result<Vec<RolloutView>, Refusal> {
        let mut rollouts = self.parts.operator.rollouts().await?;
        if who.scope.is_some() {
            for rollout in &mut rollouts {
                rollout.hosts.retain(|host| self.may_see(who, &host.host));
            }
            rollouts.retain(|rollout| !rollout.hosts.is_empty());
        }
        Ok(rollouts)
    }
}
