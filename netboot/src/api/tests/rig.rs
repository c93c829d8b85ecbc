//! An appliance's API on loopback, with an executor and a store, but without hosts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser as _;
use hyper::Method;
use image_manifest::layout::Layout;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::api::client::{Client, ClientError, Target};
use crate::api::{Api, NewToken, Parts, Problem};
use crate::audit::{Chain, Log};
use crate::auth::{Role, Wanted};
use crate::clock::now;
use crate::operate::{Ledger, Operator, Surroundings};
use crate::secrets::Secrets;
use crate::site::{Sites, Source};
use crate::store::{Change, Sqlite, Store as _, Urgency, Writer};
use crate::tls::{Names, Tls};

/// What must never leave the appliance.
pub(super) const CANARY: &str = "canary-password";

const SITE: &str = r#"
[site]
name = "test"
[[network]]
name = "rack"
subnet = "10.77.0.0/24"
appliance = "10.77.0.1"
mode = "authoritative"
[role.web]
image = "host"
[secret.bmc]
file = "secrets/bmc"
[[host]]
name = "web1"
macs = ["52:54:00:77:00:01"]
address = "10.77.0.11"
role = "web"
rack = "a"
bmc = { protocol = "ipmi", address = "127.0.0.1:1", user = "operator", password = "bmc" }
[[host]]
name = "web2"
macs = ["52:54:00:77:00:02"]
address = "10.77.0.12"
role = "web"
rack = "b"
"#;

/// A running API.
pub(super) struct Rig {
    pub(super) data: PathBuf,
    url: String,
    files: TempDir,
    tasks: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
    store: Option<Writer>,
}

impl Rig {
    /// Starts an API on a new data directory.
    pub(super) async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let site = files.path().join("site");
        std::fs::create_dir_all(site.join("secrets")).unwrap();
        std::fs::write(site.join("site.toml"), SITE).unwrap();
        let secret = site.join("secrets/bmc");
        std::fs::write(&secret, CANARY).unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        Layout::create(files.path().join("images")).unwrap();
        let data = files.path().join("data");
        std::fs::create_dir(&data).unwrap();
        Self::on(files, data).await
    }

    /// Starts an API on a data directory.
    async fn on(files: TempDir, data: PathBuf) -> Self {
        let directory = files.path().join("site");
        let (source, site) = Source::open(&directory, &data).unwrap();
        let secrets = Arc::new(Secrets::open(&data, &directory).unwrap());
        let mut store = Sqlite::open(&data).await.unwrap();
        let stored = store.load().await.unwrap();
        let (writer, write) = Writer::spawn(store, Chain::after(&stored.newest));
        let store_writer = writer.clone();
        let ledger: Arc<dyn Ledger> = Arc::new(Log::new(writer.clone()));
        let mut registry = Registry::default();
        let surroundings = Surroundings {
            site: Arc::clone(&site),
            secrets: Arc::clone(&secrets),
            images: Layout::open(files.path().join("images")).unwrap(),
            writer: writer.clone(),
            ledger: Arc::clone(&ledger),
            data: data.clone(),
        };
        let (operator, executor) = Operator::start(surroundings, &stored, &mut registry).unwrap();
        let ready = Box::new(|_: &_| Ok(Box::new(|_| ()) as _));
        let parts = Parts {
            site: Arc::new(move || Arc::clone(&site)),
            operator,
            sites: Sites::new(source, secrets, Arc::clone(&ledger), ready),
            ledger,
            writer,
            data: data.clone(),
        };
        let api = Api::open(parts, &mut registry).await.unwrap();
        let names = Names {
            addresses: ["127.0.0.1".parse().unwrap()].into(),
            ..Names::default()
        };
        let tls = Tls::open(&data, names, None, now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        Self {
            data,
            url,
            files,
            tasks: vec![tokio::spawn(api.run(listener, tls)), executor],
            writer: write,
            store: Some(store_writer),
        }
    }

    /// Ends it in good order, and starts another one on another data directory.
    pub(super) async fn again_on(self, data: PathBuf) -> Self {
        let files = self.stop().await;
        Self::on(files, data).await
    }

    /// Writes changes as parts of the appliance do.
    pub(super) async fn commit(&self, changes: Vec<Change>) {
        let writer = self.store.as_ref().unwrap();
        let commit = writer.submit(changes, Urgency::Urgent).unwrap();
        commit.durable().await.unwrap();
    }

    async fn stop(mut self) -> TempDir {
        self.store = None;
        for task in self.tasks {
            task.abort();
            drop(task.await);
        }
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), self.writer);
        ended.await.expect("nobody holds the writer").unwrap();
        self.files
    }

    /// Returns a path for a file of a test.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Returns a client with the first token.
    pub(super) fn admin(&self) -> Client {
        self.client(&self.data.join("admin.token"))
    }

    /// Returns a client with the token of a file.
    pub(super) fn client(&self, token: &Path) -> Client {
        self.client_trusting(token, &self.data.join("ca.pem"))
            .unwrap()
    }

    /// Returns a client with the token of a file that trusts an authority.
    pub(super) fn client_trusting(
        &self,
        token: &Path,
        ca: &Path,
    ) -> Result<Client, crate::cli::Failure> {
        /// The flags of every verb that asks an appliance.
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            target: Target,
        }
        let (token, ca) = (token.to_str().unwrap(), ca.to_str().unwrap());
        let line = ["x", "--url", &self.url, "--ca", ca, "--token-file", token];
        Client::open(&Flags::parse_from(line).target)
    }

    /// Writes a token into a file that only its owner reads.
    pub(super) fn token_file(&self, name: &str, token: &str) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// Makes a token, and returns a client with it.
    pub(super) async fn with_token(&self, wanted: &Wanted) -> Client {
        let made: NewToken = self
            .admin()
            .send(Method::POST, "/v1/tokens", None, wanted)
            .await
            .unwrap();
        self.client(&self.token_file(&wanted.name, made.token.as_deref().unwrap()))
    }

    /// Returns the audit log.
    pub(super) async fn audit(&self) -> Vec<Value> {
        self.admin().get("/v1/audit").await.unwrap()
    }
}

/// A token for all hosts.
pub(super) fn wanted(name: &str, role: Role) -> Wanted {
    Wanted {
        name: name.to_owned(),
        role,
        hosts: None,
        valid_seconds: None,
    }
}

/// Asks something, and returns the status.
pub(super) async fn status(
    client: &Client,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Value, Box<Problem>> {
    let method: Method = method.to_uppercase().parse().unwrap();
    let answered = if method == Method::GET {
        client.get(path).await
    } else {
        client.send(method, path, None, body).await
    };
    match answered {
        Ok(value) => Ok(value),
        Err(ClientError::Refused(problem)) => Err(problem),
        // An archive is no JSON, and was let in.
        Err(ClientError::Answer { status, .. }) if status.is_success() => Ok(json!({})),
        Err(error) => panic!("{path}: {error}"),
    }
}
