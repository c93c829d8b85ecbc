//! Keystone: a token for a password, an application credential or another token, and the catalogue.

use serde_json::{Value, json};

use super::{PASSWORD, PROJECT, State};
use crate::fake::server::{Reply, Request};

pub(super) fn answer(state: &mut State, request: &Request) -> Reply {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let identity = &body["auth"]["identity"];
    let user = &identity["password"]["user"];
    let application = &identity["application_credential"];
    let known = match identity["methods"][0].as_str() {
        Some("password") => {
            user["name"] == "ci"
                && user["domain"]["name"] == "Default"
                && user["password"] == PASSWORD
        }
        Some("application_credential") => {
            application["id"] == "app" && application["secret"] == PASSWORD
        }
        Some("token") => identity["token"]["id"]
            .as_str()
            .is_some_and(|token| state.tokens.contains(token)),
        _ => {
            return Reply::json(
                400,
                &json!({ "error": { "code": 400, "message": "no method" } }),
            );
        }
    };
    if !known {
        let refusal = json!({ "error": { "code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication." } });
        return Reply::json(401, &refusal);
    }
    let scope = &body["auth"]["scope"];
    let of_project = !application.is_null()
        || scope["project"]["id"] == PROJECT
        || scope["project"]["name"] == "images";
    state.issued += 1;
    let token = format!("gAAAA{}", state.next());
    state.tokens.insert(token.clone());
    let host = request.header("host").unwrap_or_default();
    let endpoint = |interface: &str, region: &str, url: String| json!({ "interface": interface, "region": region, "region_id": region, "url": url });
    let images = [
        endpoint("internal", "one", "http://192.0.2.1:9292".to_owned()),
        endpoint("public", "two", "http://192.0.2.2:9292".to_owned()),
        endpoint("public", "one", format!("http://{host}/")),
    ];
    let compute = [endpoint(
        "public",
        "one",
        "http://192.0.2.3:8774/v2.1".to_owned(),
    )];
    let mut answer = json!({ "token": {
        "methods": identity["methods"],
        "expires_at": "2100-01-01T00:00:00.000000Z",
        "catalog": [{ "type": "compute", "endpoints": compute }, { "type": "image", "endpoints": images }],
    } });
    if of_project {
        answer["token"]["project"] =
            json!({ "id": PROJECT, "name": "images", "domain": { "id": "default" } });
    }
    Reply::json(201, &answer).with("x-subject-token", token)
}
