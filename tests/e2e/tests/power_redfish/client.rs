//! The client, obeyed by sushy-emulator and judged by openssl.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::{need, rig};
use ipmi::bmc::Conversation as _;
use ipmi::journal::{Failure, Journal, Later, Step};
use ipmi::{
    Acted, Bmc, BootDevice, BootFirmware, BootOverride, Credentials, Endpoint, Error, Expected,
    Intent, Off, OperationId, Persistence, PowerState, Protocol, Trust, Waivers, redfish,
};
use secrecy::SecretString;

use super::{PASSWORD, Running, USER, free_port, peer};

/// sushy-emulator changes the power after 1 to 11 seconds.
const DEADLINE: Duration = Duration::from_mins(1);

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
    let listens = lab::poll::until(Duration::from_mins(1), || {
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
