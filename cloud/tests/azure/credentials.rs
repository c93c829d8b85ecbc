//! Who asks: every source of credentials, tokens that grow old, and secrets that nobody sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloud::Provider as _;
use cloud::azure::credentials::Environment;
use cloud::fake::azure::Azure;
use cloud::fake::{Called, Kind, Reply, Request, Server, Service};
use cloud::{Error, Stage};
use serde_json::json;

use crate::world::{IMAGE, Lab, Quiet, publish, secret, subject};

/// Servers of tokens beside the cloud's login: GitHub's, an identity endpoint, a metadata server.
struct Beside {
    azure: Arc<Azure>,
    minted: AtomicU64,
}

impl Service for Beside {
    fn called(&self, request: &Request) -> Called {
        Called {
            label: request.path.clone(),
            kind: Kind::Reading,
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        let resource = request.parameter("resource").unwrap_or_default();
        let token = || {
            let text = self.azure.issue(resource);
            Reply::json(200, &json!({ "access_token": text, "expires_in": "3599" }))
        };
        let header = |name| request.header(name).unwrap_or_default();
        match request.path.as_str() {
            "/github" if header("authorization") == "Bearer request-token" => {
                assert_eq!(
                    request.parameter("audience"),
                    Some("api://AzureADTokenExchange")
                );
                assert_eq!(request.parameter("version"), Some("1"));
                self.minted.fetch_add(1, Ordering::Relaxed);
                Reply::json(200, &json!({ "value": "assertion" }))
            }
            "/identity" if header("x-identity-header") == "identity-secret" => token(),
            "/metadata/identity/oauth2/token" if header("metadata") == "true" => token(),
            _ => Reply::empty(403),
        }
    }

    fn throttled(&self, _: &Request) -> Reply {
        Reply::empty(429)
    }
}

#[tokio::test]
async fn every_source_of_credentials_is_taken() {
    let lab = Lab::new().await;
    let azure = lab.azure.clone();
    let beside = Arc::new(Beside {
        azure,
        minted: AtomicU64::new(0),
    });
    let server = Server::start(beside.clone()).await.unwrap();
    let file = lab.directory.path().join("assertion");
    std::fs::write(&file, "assertion\n").unwrap();
    let (file, url) = (file.to_str().unwrap(), server.url());
    let (github, identity) = (format!("{url}/github?version=1"), format!("{url}/identity"));
    let client = [("AZURE_TENANT_ID", "tenant"), ("AZURE_CLIENT_ID", "client")];
    let cases: [(&str, &[(&str, &str)]); 6] = [
        ("a secret", &[("AZURE_CLIENT_SECRET", "secret")]),
        ("a file", &[("AZURE_FEDERATED_TOKEN_FILE", file)]),
        (
            "github",
            &[
                ("ACTIONS_ID_TOKEN_REQUEST_URL", &github),
                ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token"),
            ],
        ),
        (
            "an identity endpoint",
            &[
                ("IDENTITY_ENDPOINT", &identity),
                ("IDENTITY_HEADER", "identity-secret"),
            ],
        ),
        (
            "a metadata server",
            &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", &url)],
        ),
        (
            "the account's key beside a secret",
            &[
                ("AZURE_CLIENT_SECRET", "secret"),
                ("AZURE_STORAGE_KEY", "Zmlyc3Rib290IGFuZCBpdHMga2V5"),
            ],
        ),
    ];
    for (name, variables) in cases {
        let environment = Environment::of(&[&client, variables].concat());
        let path = lab.directory.path();
        let mut publisher = lab.publisher_with(IMAGE, &subject(1), &environment, path);
        publish(&mut publisher)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        lab.azure.expire();
    }
    // One for each of the two audiences.
    assert_eq!(beside.minted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_token_of_a_job_is_minted_afresh_when_the_old_one_ends() {
    let lab = Lab::new().await;
    lab.azure.mood(|mood| mood.uses = Some(3));
    let beside = Arc::new(Beside {
        azure: lab.azure.clone(),
        minted: AtomicU64::new(0),
    });
    let server = Server::start(beside.clone()).await.unwrap();
    let github = format!("{}/github?version=1", server.url());
    let environment = Environment::of(&[
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", &github),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token"),
    ]);
    let path = lab.directory.path();
    publish(&mut lab.publisher_with(IMAGE, &subject(1), &environment, path))
        .await
        .unwrap();
    let minted = beside.minted.load(Ordering::Relaxed);
    assert!(minted > 4, "{minted} tokens were minted");
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end() {
    for (life, logins) in [(None, 2..=2), (Some(0), 10..=1000)] {
        let lab = Lab::new().await;
        lab.azure.mood(|mood| mood.life = life);
        publish(&mut lab.publisher(IMAGE, &subject(1)))
            .await
            .unwrap();
        let calls = lab.server.calls();
        let counted = calls.iter().find(|(called, _)| called.label == "login");
        let counted = *counted.unwrap().1;
        assert!(logins.contains(&counted), "{life:?}: {counted} logins");
    }
}

#[tokio::test]
async fn no_secret_is_shown() {
    let lab = Lab::new().await;
    let hidden = "hunter2hunter2";
    let key = "aHVudGVyMmh1bnRlcjI=";
    let environment = Environment::of(&[
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", hidden),
        ("AZURE_STORAGE_KEY", key),
    ]);
    let path = lab.directory.path();
    let mut publisher = lab.publisher_with(IMAGE, &subject(1), &environment, path);
    let error = publisher.observe().await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error}");
    assert!(error.to_string().contains("AADSTS7000215"), "{error}");
    let shown = format!("{publisher:?} {environment:?} {error} {error:?}");
    assert!(!shown.contains(hidden) && !shown.contains(key), "{shown}");
    let mut good = lab.publisher_with(IMAGE, &subject(1), &secret(), path);
    good.advance(Stage::Private, &Quiet).await.unwrap();
    assert!(!format!("{good:?}").contains("token-"), "{good:?}");

    let none = Environment::of(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")]);
    let mut nobody = lab.publisher_with(IMAGE, &subject(1), &none, path);
    let error = nobody.observe().await.unwrap_err().to_string();
    assert!(
        error.contains("AZURE_CLIENT_ID") && error.contains("metadata"),
        "{error}"
    );
}
