//! Tokens that admit nobody, and what the audit log has of it.

use std::time::Duration;

use hyper::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::rig::{CANARY, Rig, status, wanted};
use crate::api::client::ClientError;
use crate::api::{NewToken, Verification};
use crate::auth::{Role, TokenView, Wanted};

#[tokio::test]
async fn wrong_expired_and_revoked_tokens_are_refused_and_recorded() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    let short = Wanted {
        valid_seconds: Some(1),
        ..wanted("short", Role::Viewer)
    };
    let short = rig.with_token(&short).await;
    let gone = rig.with_token(&wanted("gone", Role::Viewer)).await;
    assert!(
        status(&gone, "get", "/v1/hosts", &Value::Null)
            .await
            .is_ok()
    );
    let revoked: TokenView = admin
        .send(Method::DELETE, "/v1/tokens/gone", None, &json!({}))
        .await
        .unwrap();
    assert_eq!(revoked.state, "revoked");
    let wrong = format!("fb_{}", "A".repeat(43));
    let wrong = rig.client(&rig.token_file("wrong", &wrong));
    // Tokens end by the clock, which no test can set.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let cases = [
        (&short, "this token has expired", "short"),
        (&gone, "this token was revoked", "gone"),
        (&wrong, "this token is not known", ""),
    ];
    for (client, detail, _) in &cases {
        let problem = status(client, "get", "/v1/hosts", &Value::Null)
            .await
            .unwrap_err();
        assert_eq!((problem.status, &*problem.detail), (401, *detail));
    }
    let audit = rig.audit().await;
    for (_, detail, name) in cases {
        let recorded = audit.iter().any(|record| {
            record["outcome"] == format!("refused: {detail}")
                && record["who"] == name
                && record["object"] == "GET /v1/hosts"
                && record["peer"] == "127.0.0.1"
        });
        assert!(recorded, "{detail}: {audit:?}");
    }
}

#[tokio::test]
async fn a_viewer_that_changes_is_recorded_with_its_name() {
    let rig = Rig::start().await;
    let viewer = rig.with_token(&wanted("eve", Role::Viewer)).await;
    let order = json!({ "hosts": ["web1"], "image": "host" });
    let problem = status(&viewer, "post", "/v1/deploy", &order)
        .await
        .unwrap_err();
    assert_eq!((problem.status, problem.word()), (403, "role"));
    let audit = rig.audit().await;
    let last = audit.last().unwrap();
    assert_eq!(
        (&last["who"], &last["role"]),
        (&json!("eve"), &json!("viewer"))
    );
    assert_eq!(last["object"], "POST /v1/deploy");

    // Refused by the executor: there is no such image.
    let problem = status(&rig.admin(), "post", "/v1/deploy", &order)
        .await
        .unwrap_err();
    let audit = rig.audit().await;
    let last = audit.last().unwrap();
    assert_eq!(
        (&last["action"], &last["object"]),
        (&json!("deploy"), &json!("web1"))
    );
    assert_eq!(last["outcome"], format!("refused: {}", problem.detail));
}

#[tokio::test]
async fn no_answer_and_no_record_holds_a_token_or_a_password() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    let made: NewToken = admin
        .send(
            Method::POST,
            "/v1/tokens",
            None,
            &wanted("ci", Role::Operator),
        )
        .await
        .unwrap();
    let token = made.token.clone().unwrap();
    let client = rig.client(&rig.token_file("ci", &token));
    let order = json!({ "hosts": ["web1"], "power": "on" });
    // It is accepted, or its BMC is not there: both are answers.
    drop(status(&client, "post", "/v1/power", &order).await);
    let mut answers = Vec::new();
    for path in [
        "/v1/tokens",
        "/v1/audit",
        "/v1/events",
        "/v1/hosts",
        "/v1/hosts/web1",
        "/v1/site",
    ] {
        answers.push(
            status(&admin, "get", path, &Value::Null)
                .await
                .unwrap()
                .to_string(),
        );
    }
    let first = std::fs::read_to_string(rig.data.join("admin.token")).unwrap();
    for answer in answers {
        for secret in [CANARY, token.trim_start_matches("fb_"), first.trim()] {
            assert!(!answer.contains(secret), "{answer}");
        }
    }
    assert!(!format!("{client:?}").contains(&token));
    assert!(!format!("{:?}", SecretString::from(token.clone())).contains(&token));
    let store = std::fs::read(rig.data.join("netboot.db-wal")).unwrap();
    let found = store
        .windows(token.len())
        .any(|bytes| bytes == token.as_bytes());
    assert!(!found, "the store holds a token");
}

#[tokio::test]
async fn a_dry_run_makes_no_token_and_no_record() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    let dry: NewToken = admin
        .send(
            Method::POST,
            "/v1/tokens?dry-run=true",
            None,
            &wanted("ci", Role::Viewer),
        )
        .await
        .unwrap();
    assert!(dry.token.is_none());
    let tokens: Vec<TokenView> = admin.get("/v1/tokens").await.unwrap();
    assert_eq!(tokens.len(), 1);
    assert!(rig.audit().await.is_empty());
}

#[tokio::test]
async fn an_edited_record_is_found_over_the_api() {
    let rig = Rig::start().await;
    let admin = rig.admin();
    for name in ["a", "b", "c"] {
        rig.with_token(&wanted(name, Role::Viewer)).await;
    }
    let intact: Verification = admin.get("/v1/audit/verify").await.unwrap();
    assert_eq!((intact.intact, intact.records), (true, 3));
    meddle(
        &rig,
        "UPDATE records SET body = replace(body, '\"b\"', '\"x\"') WHERE seq = 2",
    )
    .await;
    let found: Verification = admin.get("/v1/audit/verify").await.unwrap();
    assert_eq!((found.intact, found.records), (false, 1));
    assert!(found.broken.unwrap().contains("record 2 was changed"));

    meddle(&rig, "DELETE FROM records WHERE seq > 1").await;
    let found: Verification = admin.get("/v1/audit/verify").await.unwrap();
    assert!(found.intact, "its end is gone, and nobody can tell");
    let anchored = format!("/v1/audit/verify?anchor={}", intact.anchor.unwrap());
    let found: Verification = admin.get(&anchored).await.unwrap();
    assert!(found.broken.unwrap().contains("its end was cut off"));
}

/// Changes the store behind the appliance's back.
async fn meddle(rig: &Rig, statement: &'static str) {
    use sqlx::ConnectOptions as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(rig.data.join("netboot.db"));
    let mut connection = options.connect().await.unwrap();
    sqlx::query(statement)
        .execute(&mut connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_appliance_of_another_authority_is_not_shown_a_token() {
    let (rig, other) = (Rig::start().await, Rig::start().await);
    let token = rig.data.join("admin.token");
    let client = rig
        .client_trusting(&token, &other.data.join("ca.pem"))
        .unwrap();
    let error = client.get::<Value>("/v1/hosts").await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
    assert!(error.to_string().contains("is not the appliance"));
    assert!(rig.audit().await.is_empty(), "nobody asked it anything");

    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let opened = rig.client_trusting(&token, &rig.data.join("ca.pem"));
    assert!(opened.is_err(), "others can read it");
}
