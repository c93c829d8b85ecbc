//! The token service, and GitHub's minter of tokens for jobs.

use serde_json::json;
use time::OffsetDateTime;

use super::ec2::element;
use super::state::{Keys, State, written};
use super::{ACCOUNT, Context, GITHUB, Refused, refused};
use crate::fake::server::{Reply, Request};

pub(super) fn answer(
    state: &mut State,
    context: &Context,
    form: &[(String, String)],
) -> Result<Reply, Refused> {
    let read = |name: &str| {
        form.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    if read("Version") != Some("2011-06-15") {
        return Err(refused("NoSuchVersion", "version"));
    }
    let body = match context.action.as_str() {
        "GetCallerIdentity" => {
            let arn = format!("arn:aws:iam::{ACCOUNT}:user/ci");
            element("Arn", &arn) + &element("UserId", "AIDAFAKE") + &element("Account", ACCOUNT)
        }
        "AssumeRoleWithWebIdentity" => {
            // Each token is good for one role session here, so that nobody gets by with an old one.
            let token = read("WebIdentityToken").unwrap_or_default();
            if !state.minted.remove(token) {
                return Err(refused("InvalidIdentityToken", "the token is not valid"));
            }
            session(state, read("RoleArn"), read("RoleSessionName"))?
        }
        "AssumeRole" => session(state, read("RoleArn"), read("RoleSessionName"))?,
        action => return Err(refused("InvalidAction", action)),
    };
    let action = &context.action;
    Ok(Reply::xml(
        200,
        format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>{body}</{action}Result></{action}Response>"
        ),
    ))
}

fn session(state: &mut State, role: Option<&str>, name: Option<&str>) -> Result<String, Refused> {
    if !role.is_some_and(|role| role.starts_with("arn:aws:iam::"))
        || name.is_none_or(|name| name.len() < 2)
    {
        return Err(refused("ValidationError", "role or session name"));
    }
    let id = state.id("x").replace('-', "").to_uppercase();
    let (key, secret, token) = (
        format!("ASIA{id}"),
        format!("secret-{id}"),
        format!("token-{id}"),
    );
    let ends = OffsetDateTime::now_utc().unix_timestamp() + 3600;
    let credentials = [
        element("AccessKeyId", &key),
        element("SecretAccessKey", &secret),
        element("SessionToken", &token),
        element("Expiration", &written(ends)),
    ];
    let left = state.rules.session;
    state.keys.insert(
        key,
        Keys {
            secret,
            token: Some(token),
            left,
        },
    );
    Ok(format!(
        "<Credentials>{}</Credentials>",
        credentials.concat()
    ))
}

/// A token for a job, as GitHub's minter gives it.
pub(super) fn minted(state: &mut State, request: &Request) -> Reply {
    let bearer = request.header("authorization") == Some(&format!("Bearer {GITHUB}"));
    if !bearer || request.parameter("audience") != Some("sts.amazonaws.com") {
        return Reply::json(401, &json!({ "message": "Unauthorized" }));
    }
    let token = state.id("jwt");
    state.minted.insert(token.clone());
    Reply::json(200, &json!({ "value": token }))
}
