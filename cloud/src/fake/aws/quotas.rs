//! Service Quotas: limits of EC2, of which an account has its own or the default.

use serde::Deserialize;
use serde_json::json;

use super::state::State;
use super::{Context, Refused, refused};
use crate::fake::server::{Reply, Request};

const DEFAULTS: [(&str, f64); 3] = [
    ("L-B665C33B", 50_000.0),
    ("L-0E3CBAB9", 5.0),
    ("L-70015FFA", 1000.0),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Get {
    service_code: String,
    quota_code: String,
}

pub(super) fn answer(
    state: &State,
    context: &Context,
    request: &Request,
) -> Result<Reply, Refused> {
    let get: Get = serde_json::from_slice(&request.body)
        .map_err(|error| refused("IllegalArgumentException", error.to_string()))?;
    let mut defaults = DEFAULTS.into_iter();
    let default = defaults.find(|(code, _)| get.service_code == "ec2" && *code == get.quota_code);
    let found = match context.action.as_str() {
        "GetServiceQuota" => state.rules.quotas.get(&get.quota_code).copied(),
        "GetAWSDefaultServiceQuota" => default.map(|(_, value)| value),
        action => return Err(refused("UnknownOperationException", action)),
    };
    let found = found.ok_or_else(|| refused("NoSuchResourceException", "there is none"))?;
    let quota = json!({ "ServiceCode": "ec2", "QuotaCode": get.quota_code, "Value": found });
    Ok(Reply::json(200, &json!({ "Quota": quota })))
}
