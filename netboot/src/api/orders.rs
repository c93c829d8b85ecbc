//! Orders for hosts: deploy, roll back, call off, power, enroll.
//!
//! It refuses nothing itself: the executor knows the hosts.

use std::sync::Arc;

use axum::extract::State;
use netboot_core::selector::Selector;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::body::Sent;
use super::openapi::Refusals;
use super::order::{Answer, Manner, Ordered};
use super::{Api, Problem};
use crate::operate::{Accepted, DeployOrder, Enroll, Power};

/// Which hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HostsOrder {
    /// A host, `role=…`, `rack=…`, `environment=…`, `label.KEY=…`, several with `,` between, or `all`.
    #[schema(value_type = Vec<String>)]
    pub(crate) hosts: Selector,
}

/// What the power of hosts shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PowerOrder {
    /// Which hosts.
    #[schema(value_type = Vec<String>)]
    pub(crate) hosts: Selector,
    /// What is to be done.
    pub(crate) power: Power,
}

/// Whose BMC's identity is to be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct EnrollOrder {
    /// Which hosts.
    #[schema(value_type = Vec<String>)]
    pub(crate) hosts: Selector,
    /// What is done where another one is recorded.
    pub(crate) enroll: Enroll,
}

/// Puts an image on hosts.
///
/// Each host gets a new generation, is booted into it, and is rolled back by itself when it does not say in time that it
/// is healthy.
#[utoipa::path(post, path = "/v1/deploy", tag = "orders", security(("token" = ["operator"])), params(Manner, super::openapi::Key),
    request_body = DeployOrder,
    responses((status = 202, description = "It is being done.", body = Accepted),
        (status = 200, description = "A dry run: the plan.", body = Accepted), Refusals))]
pub(super) async fn deploy(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Sent(deploy): Sent<DeployOrder>,
) -> Result<Answer<Accepted>, Problem> {
    let (object, request) = (deploy.hosts.to_string(), json!(deploy));
    let settled = api.parts.operator.deploy(order.clone(), deploy).await;
    api.settle(&order, "deploy", &object, request, settled)
        .await
}

/// Returns hosts to their newest other generation that was healthy.
#[utoipa::path(post, path = "/v1/rollback", tag = "orders", security(("token" = ["operator"])), params(Manner, super::openapi::Key),
    request_body = HostsOrder,
    responses((status = 202, description = "It is being done.", body = Accepted),
        (status = 200, description = "A dry run: the plan.", body = Accepted), Refusals))]
pub(super) async fn rollback(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Sent(HostsOrder { hosts }): Sent<HostsOrder>,
) -> Result<Answer<Accepted>, Problem> {
    let (object, request) = (hosts.to_string(), json!({}));
    let settled = api.parts.operator.rollback(order.clone(), hosts).await;
    api.settle(&order, "rollback", &object, request, settled)
        .await
}

/// Calls off what is under way with hosts, and lets stopped ones go on.
#[utoipa::path(post, path = "/v1/cancel", tag = "orders", security(("token" = ["operator"])), params(Manner, super::openapi::Key),
    request_body = HostsOrder,
    responses((status = 202, description = "It is being done.", body = Accepted),
        (status = 200, description = "A dry run: the plan.", body = Accepted), Refusals))]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Sent(HostsOrder { hosts }): Sent<HostsOrder>,
) -> Result<Answer<Accepted>, Problem> {
    let (object, request) = (hosts.to_string(), json!({}));
    let settled = api.parts.operator.cancel(order.clone(), hosts).await;
    api.settle(&order, "cancel", &object, request, settled)
        .await
}

/// Changes the power of hosts.
#[utoipa::path(post, path = "/v1/power", tag = "orders", security(("token" = ["operator"])), params(Manner, super::openapi::Key),
    request_body = PowerOrder,
    responses((status = 202, description = "It is being done.", body = Accepted),
        (status = 200, description = "A dry run: the plan.", body = Accepted), Refusals))]
pub(super) async fn power(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Sent(PowerOrder { hosts, power }): Sent<PowerOrder>,
) -> Result<Answer<Accepted>, Problem> {
    let (object, request) = (hosts.to_string(), json!({ "power": power }));
    let settled = api.parts.operator.power(order.clone(), hosts, power).await;
    api.settle(&order, "power", &object, request, settled).await
}

/// Asks the BMCs of hosts who they are, and records it.
#[utoipa::path(post, path = "/v1/enroll", tag = "orders", security(("token" = ["admin"])), params(Manner, super::openapi::Key),
    request_body = EnrollOrder,
    responses((status = 202, description = "It is being done.", body = Accepted),
        (status = 200, description = "A dry run: the plan.", body = Accepted), Refusals))]
pub(super) async fn enroll(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
    Sent(EnrollOrder { hosts, enroll }): Sent<EnrollOrder>,
) -> Result<Answer<Accepted>, Problem> {
    let (object, request) = (hosts.to_string(), json!({ "enroll": enroll }));
    let settled = api
        .parts
        .operator
        .enroll(order.clone(), hosts, enroll)
        .await;
    api.settle(&order, "enroll", &object, request, settled)
        .await
}
