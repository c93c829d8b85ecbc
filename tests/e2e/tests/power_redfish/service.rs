//! The simulated service, judged by DMTF's validator and by curl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use e2e::{need, rig, shop};
use ipmi::Identity;
use ipmi::sim::redfish::{Config, Manner, Tls, serve};
use ipmi::sim::{Board, Memory};
use secrecy::SecretString;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{PASSWORD, USER, peer};

/// A simulated service that ends with the test.
struct Sim {
    port: u16,
    folder: TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sim {
    async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let tls = Tls::generate(&["127.0.0.1"]).expect("a certificate");
        let host = Memory::new(Identity {
            guid: Some(*b"firstboot-sim\x01\x02\x03"),
            serial: Some("SN-1".to_owned()),
            manufacturer: Some("Contoso".to_owned()),
            product: Some("Model 1".to_owned()),
            certificate: None,
            macs: vec![[0x52, 0x54, 0, 0x77, 0, 1]],
        });
        let board = Board::new(Arc::new(host));
        let served = serve(listener, Arc::clone(&tls.config), board, config);
        let task = tokio::spawn(async move { served.await.expect("the service runs") });
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("ca.pem"), &tls.pem).expect("a file");
        Self { port, folder, task }
    }

    /// Runs curl against the service and returns status, headers and body.
    async fn curl(&self, path: &str, words: &[&str]) -> (u16, String, Value) {
        let url = format!("https://127.0.0.1:{}{path}", self.port);
        let mut curl = Command::new("curl");
        curl.args(["-s", "-i", "--max-time", "20", "--cacert"])
            .arg(self.folder.path().join("ca.pem"))
            .args(words)
            .arg(url);
        let output = run(curl).await;
        rig::check(&output);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let body = serde_json::from_str(body).unwrap_or_default();
        (status.expect("a status"), head.to_lowercase(), body)
    }
}

fn config() -> Config {
    Config::new(USER, SecretString::from(PASSWORD))
}

/// Runs a program without keeping the simulator from its work.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || rig::run(&mut command))
        .await
        .expect("the program is waited for")
}

/// Where the schemas are that DMTF publishes: files of a package that is only used for them.
fn schemas() -> PathBuf {
    let output =
        rig::run(
            shop::workspace()
                .cargo()
                .args(["metadata", "--format-version", "1", "--locked"]),
        );
    let metadata: Value = serde_json::from_str(&rig::printed(&output)).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages
        .iter()
        .find(|package| package["name"] == "nv-redfish-schema")
        .expect("the schemas");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
    manifest.with_file_name("redfish-csdl").join("csdl")
}

/// What DMTF's validator counted.
#[derive(Debug, Default)]
struct Verdict {
    passed: u32,
    failed: u32,
    said: String,
}

/// Has DMTF's validator judge everything that the service shows, or what `instead` shows in its place.
async fn validate(validator: &Path, config: Config, instead: Option<&Path>) -> Verdict {
    let sim = Sim::start(config).await;
    // So that the event log has an entry to be judged.
    let login = format!("{USER}:{PASSWORD}");
    let (status, ..) = sim
        .curl(
            "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
            &["-u", &login, "-d", r#"{"ResetType":"On"}"#],
        )
        .await;
    assert_eq!(status, 204);
    let mut command = Command::new(validator);
    command
        .current_dir(sim.folder.path())
        .args(["--user", USER, "--password", PASSWORD, "--skipschema"])
        .args(["--rhost", &format!("https://127.0.0.1:{}", sim.port)])
        .arg("--schema_directory")
        .arg(schemas())
        .arg("--logdir")
        .arg(sim.folder.path().join("logs"));
    if let Some(instead) = instead {
        command.arg("--mockup").arg(instead);
    }
    let output = run(command).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut verdict = Verdict::default();
    // A line for each resource: `- Pass: 20, Warn: 0, Fail: 0, Skip: 34`.
    for line in said.lines().filter(|line| line.contains("Pass: ")) {
        let count = |word: &str| -> u32 {
            let (_, rest) = line.split_once(word).expect("a count");
            let digits = rest.split(',').next().unwrap_or_default();
            digits.trim().parse().expect("a number")
        };
        verdict.passed += count("Pass:");
        verdict.failed += count("Fail:");
    }
    assert_eq!(output.status.success(), verdict.failed == 0, "{said}");
    Verdict { said, ..verdict }
}

#[tokio::test(flavor = "multi_thread")]
async fn dmtf_validator_accepts_the_simulator() {
    let Some(validator) = peer("rf_service_validator") else {
        return;
    };
    // The vendors that have resources of their own.
    for vendor in ["ami", "dell", "Contoso"] {
        let mut config = config().vendor(vendor);
        // The validator needs a session, which this Dell does not have.
        config
            .manners
            .retain(|manner| *manner != Manner::NoSessions);
        let verdict = validate(&validator, config, None).await;
        eprintln!(
            "{vendor}: {} passed, {} failed",
            verdict.passed, verdict.failed
        );
        assert_eq!(verdict.failed, 0, "{}", verdict.said);
        assert!(verdict.passed > 200, "{}", verdict.said);
    }
    // The judge is awake: the same service with one wrong word fails.
    let folder = tempfile::tempdir().expect("a directory");
    let place = folder.path().join("redfish/v1/Systems/1");
    fs::create_dir_all(&place).expect("a directory");
    let wrong = r##"{ "@odata.id": "/redfish/v1/Systems/1", "Id": "1", "Name": "Host", "PowerState": "Banana",
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem" }"##;
    fs::write(place.join("index.json"), wrong).expect("a file");
    let verdict = validate(&validator, config(), Some(folder.path())).await;
    assert!(verdict.failed > 0, "{}", verdict.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_finds_the_simulator_strict() {
    if !need::has(&["curl"]) {
        return;
    }
    let sim = Sim::start(config()).await;
    let login = format!("{USER}:{PASSWORD}");
    let login = ["-u", login.as_str()];
    let system = "/redfish/v1/Systems/1";
    let reset = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
    let sessions = "/redfish/v1/SessionService/Sessions";
    let json = ["-H", "Content-Type: application/json"];
    let cases: &[(&str, &str, &[&[&str]], u16)] = &[
        ("root for anybody", "/redfish/v1/", &[], 200),
        ("no login", system, &[], 401),
        ("wrong password", system, &[&["-u", "operator:wrong"]], 401),
        ("login", system, &[&login], 200),
        ("nothing there", "/redfish/v1/Systems/9", &[&login], 404),
        (
            "wrong method",
            system,
            &[&login, &["-X", "POST", "-d", "{}"]],
            405,
        ),
        (
            "wrong version",
            system,
            &[&login, &["-H", "OData-Version: 3.0"]],
            412,
        ),
        (
            "reset without a type",
            reset,
            &[&login, &json, &["-d", "{}"]],
            400,
        ),
        (
            "reset of no type",
            reset,
            &[&login, &json, &["-d", r#"{"ResetType":"Bogus"}"#]],
            400,
        ),
        (
            "reset",
            reset,
            &[&login, &json, &["-d", r#"{"ResetType":"On"}"#]],
            204,
        ),
        (
            "not JSON",
            system,
            &[&login, &json, &["-X", "PATCH", "-d", "{"]],
            400,
        ),
        (
            "another state",
            system,
            &[
                &login,
                &json,
                &["-X", "PATCH", "-H", "If-Match: \"old\"", "-d", "{}"],
            ],
            412,
        ),
        (
            "wrong login",
            sessions,
            &[&json, &["-d", r#"{"UserName":"a","Password":"b"}"#]],
            401,
        ),
        ("half a login", sessions, &[&json, &["-d", "{}"]], 400),
    ];
    for (name, path, words, expected) in cases {
        let (status, head, body) = sim.curl(path, &words.concat()).await;
        assert_eq!(status, *expected, "{name}: {head}{body}");
        assert!(head.contains("odata-version: 4.0"), "{name}: {head}");
        let explains = body["error"]["@Message.ExtendedInfo"][0]["MessageId"].is_string();
        assert_eq!(explains, status >= 400, "{name}: {body}");
    }
    let (_, _, body) = sim.curl(system, &login).await;
    assert_eq!(body["PowerState"], "On");
    let password = format!(r#"{{"UserName":"{USER}","Password":"{PASSWORD}"}}"#);
    let words = [&json[..], &["-d", &password]].concat();
    let (status, head, body) = sim.curl(sessions, &words).await;
    assert_eq!(status, 201, "{head}");
    let session = body["@odata.id"].as_str().expect("a session").to_owned();
    assert!(
        head.contains(&format!("location: {}", session.to_lowercase())),
        "{head}"
    );
    let token = head.lines().find(|line| line.starts_with("x-auth-token: "));
    let token = ["-H", token.expect("a token")];
    assert_eq!(sim.curl(system, &token).await.0, 200);
    let close = [&token[..], &["-X", "DELETE"]].concat();
    assert_eq!(sim.curl(&session, &close).await.0, 204);
    assert_eq!(sim.curl(system, &token).await.0, 401);
}
