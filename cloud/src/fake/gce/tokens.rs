//! Tokens: those of GitHub are exchanged for those of Google, and these for those of a service account.

use serde_json::{Value, json};

use super::{State, error};
use crate::fake::server::{Reply, Request};

/// What the runner of a GitHub job shows.
pub(super) const RUNNER: &str = "runner-token";
/// What begins every token of a subject that is known here.
const SUBJECT: &str = "subject-";

pub(super) fn answer(state: &mut State, label: &str, request: &Request) -> Reply {
    let bearer = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    match label {
        "github:token" => {
            let audience = request.parameter("audience").unwrap_or_default();
            if bearer != Some(RUNNER)
                || !audience.starts_with("https://iam.googleapis.com/projects/")
            {
                return Reply::empty(401);
            }
            let count = state.next();
            Reply::json(200, &json!({ "value": format!("{SUBJECT}{count}") }))
        }
        "iam:generateAccessToken" => {
            if !bearer.is_some_and(|token| state.tokens.contains(token)) {
                return error(
                    401,
                    "authError",
                    "Request had invalid authentication credentials.",
                );
            }
            let token = issue(state);
            Reply::json(
                200,
                &json!({ "accessToken": token, "expireTime": "2100-01-01T00:00:00Z" }),
            )
        }
        _ => exchange(state, request),
    }
}

/// RFC 8693 §2.1, as a form or as JSON.
fn exchange(state: &mut State, request: &Request) -> Reply {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let form = request.form();
    let field = |name: &str, other: &str| {
        let found = form
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone());
        found
            .or_else(|| body[other].as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let grant = field("grant_type", "grantType");
    let audience = field("audience", "audience");
    let subject = field("subject_token", "subjectToken");
    let whole = grant == "urn:ietf:params:oauth:grant-type:token-exchange"
        && audience.starts_with("//iam.googleapis.com/projects/")
        && subject.starts_with(SUBJECT);
    if !whole {
        let refusal = json!({ "error": "invalid_grant", "error_description": "The subject token is not known." });
        return Reply::json(400, &refusal);
    }
    let token = issue(state);
    let answer = json!({
        "access_token": token,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 3600,
    });
    Reply::json(200, &answer)
}

fn issue(state: &mut State) -> String {
    state.issued += 1;
    let token = format!("ya29.{}", state.next());
    state.tokens.insert(token.clone());
    token
}
