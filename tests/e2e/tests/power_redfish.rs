//! Redfish: DMTF's validator and curl judge the simulated service; sushy-emulator and openssl judge the client.
//!
//! It refuses to count a skipped peer as one that agreed: in CI a missing peer is a failure.

use std::fs;
use std::net::TcpListener as Port;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use e2e::{need, rig, shop};
use ipmi::bmc::Conversation as _;
use ipmi::journal::{Failure, Journal, Later, Step};
use ipmi::sim::redfish::{Config, Manner, Tls, serve};
use ipmi::sim::{Board, Memory};
use ipmi::{
    Acted, Bmc, BootDevice, BootFirmware, BootOverride, Credentials, Endpoint, Error, Expected,
    Identity, Intent, Off, OperationId, Persistence, PowerState, Protocol, Trust, Waivers, redfish,
};
use lab::python::Environment;
use secrecy::SecretString;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

const USER: &str = "operator";
const PASSWORD: &str = "canary-S3cret";
/// sushy-emulator changes the power after 1 to 11 seconds.
const DEADLINE: Duration = Duration::from_secs(60);

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

/// Returns a program of the Python peers; in CI it must be there.
fn peer(name: &str) -> Option<PathBuf> {
    let found = Environment::of(&shop::state()).program(name);
    if found.is_none() {
        assert!(
            !need::is_ci(),
            "{name} is missing: run `cargo lab test --install`"
        );
        eprintln!("SKIPPED for want of {name}: `cargo lab test --install` installs it");
    }
    found
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

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn free_port() -> u16 {
    let port = Port::bind("127.0.0.1:0").expect("a port");
    port.local_addr().expect("an address").port()
}

/// Makes a key and a certificate as a BMC's first start does.
fn openssl(folder: &Path, script: &str) {
    let output = rig::run(
        Command::new("bash")
            .current_dir(folder)
            .args(["-euc", script]),
    );
    rig::check(&output);
}

const SUSHY: &str = r"
SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'
SUSHY_EMULATOR_LISTEN_PORT = @PORT@
SUSHY_EMULATOR_SSL_CERT = '@DIR@/cert.pem'
SUSHY_EMULATOR_SSL_KEY = '@DIR@/key.pem'
SUSHY_EMULATOR_AUTH_FILE = '@DIR@/htpasswd'
SUSHY_EMULATOR_STATE_DIR = '@DIR@/state'
SUSHY_EMULATOR_FEATURE_SET = 'full'
SUSHY_EMULATOR_FAKE_DRIVER = True
SUSHY_EMULATOR_FAKE_SYSTEMS = [{
    'uuid': '27946b59-9e44-4fa7-8e91-f3527a1ef0%02x' % i, 'name': 'fake%02d' % i, 'power_state': 'Off',
    'external_notifier': False, 'nics': [{'mac': '00:5c:52:31:3a:%02x' % i, 'ip': '127.0.1.%d' % i}],
} for i in range(1, 4)]
";

/// Starts sushy-emulator with TLS, an account and three hosts, and waits until it listens.
fn sushy(emulator: &Path, folder: &Path) -> (Running, u16) {
    openssl(
        folder,
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 \
         -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null",
    );
    let hash = "import bcrypt,sys; print('operator:' + bcrypt.hashpw(sys.argv[1].encode(), bcrypt.gensalt(5)).decode())";
    let output =
        rig::run(Command::new(emulator.with_file_name("python")).args(["-c", hash, PASSWORD]));
    fs::write(folder.join("htpasswd"), rig::printed(&output)).expect("a file");
    let port = free_port();
    let config = SUSHY
        .replace("@PORT@", &port.to_string())
        .replace("@DIR@", folder.to_str().expect("a name"));
    fs::write(folder.join("sushy.conf"), config).expect("a file");
    fs::create_dir(folder.join("state")).expect("a directory");
    let log = fs::File::create(folder.join("sushy.log")).expect("a file");
    let child = Command::new(emulator)
        .arg("--config")
        .arg(folder.join("sushy.conf"))
        .arg("--fake")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("the emulator starts");
    let running = Running(child);
    let listens = lab::poll::until(Duration::from_secs(60), || {
        std::net::TcpStream::connect(("127.0.0.1", port))
            .ok()
            .map(drop)
    });
    let said = || fs::read_to_string(folder.join("sushy.log")).unwrap_or_default();
    assert!(listens.is_some(), "{}", said());
    (running, port)
}

/// A journal that lasts as long as the test.
#[derive(Default)]
struct Notes(std::sync::Mutex<Vec<(OperationId, Step)>>);

impl Journal for Notes {
    fn last<'a>(&'a self, operation: &'a OperationId) -> Later<'a, Option<Step>> {
        let notes = self.0.lock().expect("notes");
        let last = notes.iter().rfind(|(of, _)| of == operation);
        let last = last.map(|(_, step)| *step);
        Box::pin(std::future::ready(Ok::<_, Failure>(last)))
    }

    fn record<'a>(&'a self, operation: &'a OperationId, step: Step) -> Later<'a, ()> {
        let mut notes = self.0.lock().expect("notes");
        notes.push((operation.clone(), step));
        Box::pin(std::future::ready(Ok(())))
    }
}

fn endpoint(port: u16, trust: Trust) -> Endpoint {
    Endpoint {
        protocol: Protocol::Redfish,
        host: "127.0.0.1".into(),
        port: Some(port),
        system: None,
        trust,
        waivers: Waivers::default(),
        vendor: None,
    }
}

fn bmc(endpoint: Endpoint) -> Bmc {
    Bmc::new(endpoint, credentials()).expect("credentials that fit")
}

fn credentials() -> Credentials {
    Credentials {
        user: USER.into(),
        password: SecretString::from(PASSWORD),
        kg: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sushy_emulator_is_obeyed() {
    let Some(emulator) = peer("sushy-emulator") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a directory");
    let (_running, port) = sushy(&emulator, folder.path());
    let pem = fs::read(folder.path().join("cert.pem")).expect("a certificate");
    let authority = Trust::Authority(pem.into());
    let all = endpoint(port, authority.clone());
    let error = bmc(all.clone())
        .read(DEADLINE)
        .await
        .expect_err("three systems");
    assert!(matches!(error, Error::Ambiguous { .. }), "{error}");
    let second = "27946b59-9e44-4fa7-8e91-f3527a1ef002";
    let one = Endpoint {
        system: Some(second.into()),
        ..all
    };
    let bmc = bmc(one);
    let seen = bmc.read(DEADLINE).await.expect("it can be read");
    assert_eq!(seen.power, PowerState::Off);
    assert_eq!(seen.identity.macs, [[0x00, 0x5c, 0x52, 0x31, 0x3a, 0x02]]);
    let expected = seen.identity.expected();
    let notes = Notes::default();
    let network = BootOverride {
        device: BootDevice::Network,
        persistence: Persistence::Once,
        firmware: BootFirmware::Uefi,
    };
    let operation = OperationId("cycle-1".to_owned());
    let steps = [
        (Intent::Boot(network.clone()), PowerState::Off, None),
        (Intent::EnsureOn, PowerState::On, Some(Acted::Sent)),
        (Intent::EnsureOn, PowerState::On, Some(Acted::Nothing)),
        (
            Intent::CycleOnce(operation.clone()),
            PowerState::On,
            Some(Acted::Sent),
        ),
        (
            Intent::CycleOnce(operation),
            PowerState::On,
            Some(Acted::Nothing),
        ),
        (
            Intent::EnsureOff(Off::Forced),
            PowerState::Off,
            Some(Acted::Sent),
        ),
    ];
    for (intent, power, acted) in steps {
        let done = bmc
            .execute(&expected, &intent, &notes, DEADLINE)
            .await
            .unwrap_or_else(|error| panic!("{intent}: {error}"));
        eprintln!("{intent}: {} ms", done.elapsed.as_millis());
        assert_eq!(done.power, power, "{intent}");
        assert!(
            acted.is_none_or(|acted| acted == done.acted),
            "{intent}: {done:?}"
        );
        if let Intent::Boot(wanted) = &intent {
            assert_eq!(done.boot.as_ref(), Some(wanted));
        }
    }
    media(port, authority, second, folder.path()).await;
    // Another host of the same enclosure is another machine.
    let another = Expected {
        macs: vec![[0x00, 0x5c, 0x52, 0x31, 0x3a, 0x03]],
        ..Expected::default()
    };
    let error = bmc
        .execute(&another, &Intent::EnsureOn, &notes, DEADLINE)
        .await;
    assert!(matches!(error, Err(Error::WrongHost { .. })), "{error:?}");
    assert_eq!(bmc.power(DEADLINE).await, Ok(PowerState::Off));
}

/// The emulator fetches what is inserted, so something must serve it.
async fn media(port: u16, trust: Trust, system: &str, folder: &Path) {
    let image = folder.join("media");
    fs::create_dir(&image).expect("a directory");
    fs::write(image.join("rescue.iso"), [0; 4096]).expect("a file");
    let shelf = free_port();
    let server = Command::new("python3")
        .args(["-m", "http.server", "--bind", "127.0.0.1"])
        .arg(shelf.to_string())
        .current_dir(&image)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _server = Running(server.expect("a file server starts"));
    let listens = lab::poll::until(Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", shelf))
            .ok()
            .map(drop)
    });
    assert!(listens.is_some(), "the file server listens");
    let one = Endpoint {
        system: Some(system.into()),
        ..endpoint(port, trust)
    };
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut chain = redfish::open(&one, &credentials(), deadline)
        .await
        .expect("a conversation");
    let uri = format!("http://127.0.0.1:{shelf}/rescue.iso");
    redfish::insert_media(&mut chain, &uri)
        .await
        .expect("the image is inserted");
    redfish::eject_media(&mut chain)
        .await
        .expect("the image is ejected");
    chain.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_agrees_about_old_certificates_and_old_tls() {
    if !need::has(&["openssl", "bash"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    // Without extensions it becomes a certificate of X.509 version 1.
    openssl(
        folder.path(),
        "openssl req -new -newkey rsa:2048 -nodes -keyout key.pem -subj /CN=bmc -out request.pem 2>/dev/null
         openssl x509 -req -in request.pem -signkey key.pem -days 30 -out cert.pem 2>/dev/null
         openssl x509 -in cert.pem -noout -text | grep -q 'Version: 1'
         openssl x509 -in cert.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -c1-64 > pin",
    );
    let pin = fs::read_to_string(folder.path().join("pin")).expect("a pin");
    let pin = format!("sha256:{}", pin.trim())
        .parse()
        .expect("a fingerprint");
    let cases: &[(&[&str], bool)] = &[
        (&["-tls1_3"], true),
        (&["-tls1_2"], true),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], true),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], false),
    ];
    for (words, is_spoken) in cases {
        let port = free_port();
        let mut server = Command::new("openssl");
        server
            .current_dir(folder.path())
            .args([
                "s_server", "-quiet", "-www", "-cert", "cert.pem", "-key", "key.pem",
            ])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .args(*words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _running = Running(server.spawn().expect("openssl starts"));
        let listens = lab::poll::until(Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port))
                .ok()
                .map(drop)
        });
        assert!(listens.is_some(), "{words:?}");
        let bmc = bmc(endpoint(port, Trust::Pinned(pin)));
        let error = bmc
            .power(Duration::from_secs(10))
            .await
            .expect_err("no service");
        // What openssl shows is a page, which is no resource: the handshake itself was fine.
        let spoken =
            matches!(&error, Error::Protocol { detail } if detail.contains("is not a resource"));
        let refused = matches!(error, Error::Insecure { .. });
        assert_eq!(
            (spoken, refused),
            (*is_spoken, !is_spoken),
            "{words:?}: {error}"
        );
    }
}
