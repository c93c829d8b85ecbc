//! Which role may ask what, route by route, as the document says.

use netboot_core::selector::Selector;
use serde_json::{Value, json};

use super::rig::{CANARY, Rig, status, wanted};
use crate::api::openapi::document;
use crate::auth::{Role, Wanted};

/// One call of the document.
struct Call {
    method: String,
    path: String,
    needs: Role,
}

fn calls() -> Vec<Call> {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let mut calls = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, call) in methods.as_object().unwrap() {
            let Some(role) = call["security"][0]["token"][0].as_str() else {
                assert_eq!(path, "/v1/openapi.json", "it is open");
                continue;
            };
            // It has no BMC that would be waited for.
            let path = path
                .replace("{name}", "web2")
                .replace("{id}", "r1")
                .replace("{control}", "pause");
            calls.push(Call {
                method: method.clone(),
                path,
                needs: serde_json::from_value(json!(role)).unwrap(),
            });
        }
    }
    calls
}

#[tokio::test]
async fn every_call_needs_the_role_that_the_document_names() {
    let rig = Rig::start().await;
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    let calls = calls();
    assert!(calls.len() > 20, "{}", calls.len());
    for role in roles {
        let client = rig.with_token(&wanted(&format!("a-{role}"), role)).await;
        for Call {
            method,
            path,
            needs,
        } in &calls
        {
            let answered = status(&client, method, path, &json!({})).await;
            let refused = answered
                .as_ref()
                .err()
                .map(|problem| (problem.status, problem.word()));
            let at = format!("{method} {path} as {role}: {refused:?}");
            assert_eq!(refused == Some((403, "role")), role < *needs, "{at}");
            assert!(!matches!(refused, Some((401 | 429 | 500, _))), "{at}");
            let text = format!("{answered:?}");
            assert!(!text.contains(CANARY), "{at} tells a secret");
        }
    }
}

#[tokio::test]
async fn every_call_is_refused_without_a_token() {
    let rig = Rig::start().await;
    let nobody = rig.client(&rig.token_file("nobody", "fb_"));
    for Call { method, path, .. } in calls().into_iter().take(3) {
        let problem = status(&nobody, &method, &path, &json!({}))
            .await
            .unwrap_err();
        assert_eq!((problem.status, problem.word()), (401, "token"), "{path}");
        assert!(problem.help.is_some());
    }
}

#[tokio::test]
async fn a_token_for_some_hosts_sees_and_touches_those_only() {
    let rig = Rig::start().await;
    let scoped = |name: &str, role| Wanted {
        hosts: Some("rack=a".parse::<Selector>().unwrap()),
        ..wanted(name, role)
    };
    let operator = rig.with_token(&scoped("rack-a", Role::Operator)).await;
    let hosts: Vec<Value> = operator.get("/v1/hosts").await.unwrap();
    let names: Vec<&str> = hosts
        .iter()
        .filter_map(|host| host["name"].as_str())
        .collect();
    assert_eq!(names, ["web1"]);
    let hidden = status(&operator, "get", "/v1/hosts/web2", &json!({}))
        .await
        .unwrap_err();
    assert_eq!(hidden.status, 404);
    let order = json!({ "hosts": ["web1", "web2"], "power": "off" });
    let refused = status(&operator, "post", "/v1/power", &order)
        .await
        .unwrap_err();
    assert_eq!((refused.status, refused.word()), (403, "forbidden"));

    let admin = rig.with_token(&scoped("rack-a-admin", Role::Admin)).await;
    let more = json!({ "name": "more", "role": "admin" });
    for (method, path, body) in [
        ("post", "/v1/tokens", &more),
        ("get", "/v1/audit", &Value::Null),
        ("get", "/v1/tokens", &Value::Null),
        ("post", "/v1/backup", &Value::Null),
        ("delete", "/v1/tokens/admin", &Value::Null),
    ] {
        let refused = status(&admin, method, path, body).await.unwrap_err();
        assert_eq!((refused.status, refused.word()), (403, "scope"), "{path}");
    }
    let records = rig.audit().await;
    for object in ["GET /v1/audit", "GET /v1/tokens"] {
        let refused = |record: &&Value| {
            record["who"] == "rack-a-admin"
                && record["object"] == object
                && record["outcome"].as_str().unwrap().starts_with("refused")
        };
        let recorded = records.iter().filter(refused).count();
        assert_eq!(recorded, 1, "{object}: {records:?}");
    }
    let site: Value = admin.get("/v1/site").await.unwrap();
    assert_eq!(site["hosts"], 1, "the others are as if they were not there");
    assert_eq!(site["advice"], json!([]), "it may be about others");
}

#[tokio::test]
async fn a_refusal_does_not_fill_the_audit_log_with_what_was_sent() {
    let rig = Rig::start().await;
    let wanted = Wanted {
        hosts: Some("rack=a".parse::<Selector>().unwrap()),
        ..wanted("rack-a", Role::Operator)
    };
    let operator = rig.with_token(&wanted).await;
    let order = json!({ "hosts": ["web2"], "image": "x".repeat(200 << 10) });
    let refused = status(&operator, "post", "/v1/deploy", &order).await;
    refused.unwrap_err();
    let records = rig.audit().await;
    let record = records.last().unwrap();
    assert_eq!(record["who"], "rack-a");
    let length = record.to_string().len();
    assert!(length < 8 << 10, "{length} bytes: {record:.300}");
}

#[tokio::test]
async fn readers_of_inventories_do_not_queue_up_at_a_bmc() {
    let rig = Rig::start().await;
    let viewer = std::sync::Arc::new(rig.with_token(&wanted("a", Role::Viewer)).await);
    let ask = || {
        let viewer = std::sync::Arc::clone(&viewer);
        tokio::spawn(async move {
            let path = "/v1/hosts/web1/inventory";
            status(&viewer, "get", path, &Value::Null).await
        })
    };
    // Nobody answers there: the first one waits.
    let first = ask();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(!first.is_finished(), "it waits for the BMC");
    let second = ask().await.unwrap().unwrap_err();
    assert_eq!((second.status, second.word()), (409, "conflict"));
    first.abort();
}

#[tokio::test]
async fn problems_say_what_is_wrong_and_what_may_help() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    let nobody = json!({ "hosts": ["web9"] });
    let cases = [
        ("post", "/v1/rollback", &nobody, 404, "unknown"),
        (
            "post",
            "/v1/power",
            &json!({ "hosts": ["web1"], "power": "x" }),
            400,
            "body",
        ),
        (
            "get",
            "/v1/hosts?select=rack=z",
            &Value::Null,
            400,
            "selector",
        ),
        ("get", "/v1/events?after=x", &Value::Null, 400, "query"),
        ("get", "/v1/nothing", &Value::Null, 404, "route"),
        ("delete", "/v1/hosts", &Value::Null, 405, "method"),
        (
            "post",
            "/v1/rollouts/r1/dance",
            &Value::Null,
            400,
            "invalid",
        ),
        (
            "get",
            "/v1/audit/verify?anchor=x",
            &Value::Null,
            400,
            "anchor",
        ),
    ];
    for (method, path, body, expected, word) in cases {
        let problem = status(&admin, method, path, body).await.unwrap_err();
        assert_eq!((problem.status, problem.word()), (expected, word), "{path}");
        assert!(!problem.title.is_empty() && !problem.detail.is_empty());
    }
    let long = json!({ "hosts": ["x".repeat(300 << 10)] });
    let problem = status(&admin, "post", "/v1/rollback", &long)
        .await
        .unwrap_err();
    assert_eq!((problem.status, problem.word()), (413, "size"));
}
