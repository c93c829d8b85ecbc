//! The server against curl, and against requests that curl does not make.

use std::net::Ipv4Addr;
use std::path::Path;

use image_manifest::{
    Credential, Digest, Exchange, HostConfig, HostSecrets, NetworkConfig, Report, Stage,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::*;
use crate::serve::catalogue::tests::{TestStore, Told, content, tool};
use crate::tls::{CA_FILE, Names, Tls};

const PATIENCE: Duration = Duration::from_secs(30);

/// A boot whose token is `t`.
struct Boots;

impl Boots {
    fn admit(boot: &str, token: &str) -> Result<(), Refusal> {
        match (boot, token) {
            ("b1", "t") => Ok(()),
            ("b1", _) => Err(Refusal::new(StatusCode::UNAUTHORIZED, "wrong token")),
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, "no such boot")),
        }
    }
}

impl BootApi for Boots {
    async fn script(&self, mac: Mac, peer: Peer) -> Result<String, Refusal> {
        Ok(format!("#!ipxe\necho {mac} {}\n", peer.local.ip()))
    }

    async fn host(&self, boot: &str, token: &str, _: Peer) -> Result<HostConfig, Refusal> {
        Self::admit(boot, token)?;
        Ok(HostConfig {
            name: "web1".to_owned(),
            ssh_keys: Vec::new(),
            network: NetworkConfig {
                mac: "52:54:00:00:00:01".to_owned(),
                address: Ipv4Addr::new(10, 0, 0, 1),
                prefix: 24,
                router: None,
                dns: Vec::new(),
                domain: None,
            },
            heartbeat_seconds: 10,
            parameters: std::collections::BTreeMap::new(),
            secrets: Vec::new(),
        })
    }

    async fn exchange(
        &self,
        boot: &str,
        token: &str,
        exchange: Exchange,
        _: Peer,
    ) -> Result<Credential, Refusal> {
        Self::admit(boot, token)?;
        let credential = exchange.nonce;
        Ok(Credential { credential })
    }

    async fn secrets(
        &self,
        boot: &str,
        token: &str,
        _: Exchange,
        _: Peer,
    ) -> Result<HostSecrets, Refusal> {
        Self::admit(boot, token)?;
        Ok(HostSecrets::default())
    }

    async fn report(&self, boot: &str, token: &str, _: Report, _: Peer) -> Result<(), Refusal> {
        Self::admit(boot, token)
    }
}

struct Running {
    address: SocketAddr,
    store: TestStore,
    told: Arc<Told>,
    task: JoinHandle<()>,
    secure: SocketAddr,
    connector: TlsConnector,
    _data: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(loaders: &[(&str, &[u8])], limits: Limits) -> Running {
    let store = TestStore::new();
    store.publish("loaders", loaders);
    let told = Arc::new(Told::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Server {
        catalogue: store.catalogue(),
        boots: Arc::new(Boots),
        log: Arc::<Told>::clone(&told),
        limits,
    });
    let data = tempfile::tempdir().unwrap();
    let names = Names {
        addresses: [address.ip()].into(),
        ..Names::default()
    };
    let tls = Tls::open(data.path(), names, None, crate::clock::now()).unwrap();
    let secure = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let secure_address = secure.local_addr().unwrap();
    let listeners = SecureListeners {
        config: tls.config(),
        listeners: vec![secure],
    };
    let task = tokio::spawn(server.run(vec![listener], Some(listeners)));
    Running {
        address,
        store,
        told,
        task,
        secure: secure_address,
        connector: trusting(&data.path().join(CA_FILE)),
        _data: data,
    }
}

/// Trusts one authority.
fn trusting(ca: &Path) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// An answer in parts.
#[derive(Debug)]
struct Answered {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answered {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

impl Running {
    /// Sends one request and reads until the server closes.
    async fn ask(&self, line: &str, fields: &[&str], body: &str) -> Answered {
        self.say(request(line, fields, body).as_bytes()).await
    }

    /// Sends one request over TLS.
    async fn ask_secretly(&self, line: &str, fields: &[&str], body: &str) -> Answered {
        self.say_secretly(request(line, fields, body).as_bytes())
            .await
    }

    async fn say(&self, bytes: &[u8]) -> Answered {
        talk(TcpStream::connect(self.address).await.unwrap(), bytes).await
    }

    async fn say_secretly(&self, bytes: &[u8]) -> Answered {
        let stream = TcpStream::connect(self.secure).await.unwrap();
        let name = ServerName::from(self.secure.ip());
        talk(self.connector.connect(name, stream).await.unwrap(), bytes).await
    }
}

fn request(line: &str, fields: &[&str], body: &str) -> String {
    let mut request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for field in fields {
        request.push_str(field);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.push_str(body);
    request
}

/// Says something and reads until the server closes.
async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Answered {
    let mut answer = Vec::new();
    let talk = async {
        // A server that refuses early may close before it has read everything.
        stream.write_all(bytes).await.ok();
        stream.read_to_end(&mut answer).await.ok();
    };
    timeout(PATIENCE, talk).await.expect("an answer in time");
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Answered {
        status: status.unwrap_or(0),
        body: answer.get(end + 4..).unwrap_or_default().to_vec(),
        head,
    }
}

#[tokio::test]
async fn curl_resumes_an_artifact() {
    let running = serve(&[], Limits::default()).await;
    let file = content(1_000_000);
    let digest = running.store.add(&file);
    let path = running.store.directory.path().join("fetched");
    std::fs::write(&path, &file[..123_456]).unwrap();
    let Some(mut curl) = tool("curl") else { return };
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "30",
        "--continue-at",
        "-",
    ]);
    curl.arg("--output").arg(&path);
    curl.arg(format!("http://{}//blob/{digest}", running.address));
    let output = curl.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read(&path).unwrap() == file);
    let part = format!("{} from 123456", digest.short());
    running.told.until(&format!("{part} 876544 complete")).await;
    assert_eq!(running.told.lines()[0], format!("began {part}"));
}

#[tokio::test]
async fn firmware_finds_what_it_needs_in_the_head() {
    let loader = content(70_000);
    let running = serve(
        &[("ipxe.efi", &loader), ("undionly.kpxe", b"bios")],
        Limits::default(),
    )
    .await;
    let head = running
        .ask("HEAD /boot/ipxe.efi", &["Range: bytes=0-1"], "")
        .await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.field("Content-Length"), Some("70000"));
    assert_eq!(head.field("Content-Type"), Some("application/efi"));
    assert_eq!(head.field("Accept-Ranges"), Some("bytes"));
    let tag = format!("\"{}\"", Digest::of(&loader));
    assert_eq!(head.field("ETag"), Some(tag.as_str()));
    let bios = running.ask("GET /boot/undionly.kpxe", &[], "").await;
    assert_eq!(bios.field("Content-Type"), Some("application/octet-stream"));
    assert_eq!(bios.body, b"bios");
}

/// Fields of a request, status, `Content-Range` and body of its answer.
type Conditional<'a> = (&'a [&'a str], u16, Option<&'a str>, &'a [u8]);

#[tokio::test]
async fn ranges_and_conditions_are_exact() {
    let running = serve(&[], Limits::default()).await;
    let file = content(1000);
    let digest = running.store.add(&file);
    let line = format!("GET /blob/{digest}");
    let same = format!("If-Range: \"{digest}\"");
    let have = format!("If-None-Match: W/\"{digest}\"");
    let cases: [Conditional<'_>; 10] = [
        (&[], 200, None, &file),
        (
            &["Range: bytes=10-19"],
            206,
            Some("bytes 10-19/1000"),
            &file[10..20],
        ),
        (
            &["Range: bytes=990-"],
            206,
            Some("bytes 990-999/1000"),
            &file[990..],
        ),
        (
            &["Range: bytes=-5"],
            206,
            Some("bytes 995-999/1000"),
            &file[995..],
        ),
        (
            &["Range: bytes=0-9", &same],
            206,
            Some("bytes 0-9/1000"),
            &file[..10],
        ),
        (
            &["Range: bytes=0-9", "If-Range: \"other\""],
            200,
            None,
            &file,
        ),
        (&["Range: bytes=0-1,5-6"], 200, None, &file),
        (
            &["Range: bytes=1000-"],
            416,
            Some("bytes */1000"),
            b"the file has 1000 bytes only\n",
        ),
        (&[&have, "Range: bytes=0-9"], 304, None, b""),
        (
            &["If-Match: \"other\""],
            412,
            None,
            b"the file has another digest\n",
        ),
    ];
    for (fields, status, range, body) in cases {
        let answer = running.ask(&line, fields, "").await;
        assert_eq!(
            (answer.status, answer.field("Content-Range")),
            (status, range),
            "{fields:?}"
        );
        assert!(answer.body == body, "{fields:?}: {}", answer.head);
        if status != 304 {
            let length = body.len().to_string();
            assert_eq!(
                answer.field("Content-Length"),
                Some(length.as_str()),
                "{fields:?}"
            );
        }
    }
    let line = format!("HEAD /blob/{digest}");
    let answer = running.ask(&line, &[&have], "").await;
    let length = answer.field("Content-Length");
    assert_eq!((answer.status, length), (304, None), "it is no empty file");
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "it is one table")]
async fn scripts_and_boots_are_asked_of_the_api() {
    let running = serve(&[], Limits::default()).await;
    let script = running.ask("GET /ipxe/52-54-00-00-00-01", &[], "").await;
    assert_eq!(script.body, b"#!ipxe\necho 52:54:00:00:00:01 127.0.0.1\n");
    assert_eq!(script.field("Cache-Control"), Some("no-store"));
    let stage = Stage::SwitchRoot;
    let report = serde_json::to_string(&Report {
        sequence: 1,
        uptime_ms: 1,
        stage,
    })
    .unwrap();
    let sized = |body: &str| format!("Content-Length: {}", body.len());
    let large = "x".repeat(70_000);
    let token = "Authorization: Bearer t";
    let cases = [
        ("host", "GET /v1/boots/b1/host", token, "", 200),
        ("without a token", "GET /v1/boots/b1/host", "X: y", "", 401),
        (
            "wrong token",
            "GET /v1/boots/b1/host",
            "Authorization: Bearer u",
            "",
            401,
        ),
        (
            "another scheme",
            "GET /v1/boots/b1/host",
            "Authorization: Basic t",
            "",
            401,
        ),
        ("unknown boot", "GET /v1/boots/b2/host", token, "", 404),
        (
            "report",
            "POST /v1/boots/b1/reports",
            token,
            report.as_str(),
            204,
        ),
        (
            "wrong token",
            "POST /v1/boots/b1/reports",
            "Authorization: Bearer u",
            report.as_str(),
            401,
        ),
        (
            "exchange",
            "POST /v1/boots/b1/credential",
            token,
            r#"{"nonce":"n"}"#,
            200,
        ),
        (
            "no exchange",
            "POST /v1/boots/b1/credential",
            token,
            "{}",
            400,
        ),
        (
            "secrets",
            "POST /v1/boots/b1/secrets",
            token,
            r#"{"nonce":"n"}"#,
            200,
        ),
        (
            "secrets without a nonce",
            "GET /v1/boots/b1/secrets",
            token,
            "",
            405,
        ),
        ("no report", "POST /v1/boots/b1/reports", token, "{}", 400),
        (
            "too large",
            "POST /v1/boots/b1/reports",
            token,
            large.as_str(),
            413,
        ),
        (
            "reading reports",
            "GET /v1/boots/b1/reports",
            token,
            "",
            405,
        ),
        ("writing a file", "POST /boot/ipxe.efi", token, "", 405),
        ("no loader", "GET /boot/ipxe.efi", token, "", 404),
        ("nothing", "GET /", token, "", 404),
    ];
    for (name, line, field, body, status) in cases {
        let fields = [field, &sized(body)];
        let answer = running.ask_secretly(line, &fields, body).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.head);
        if line.contains("/v1/") {
            let listened_to = running.ask(line, &fields, body).await;
            assert_eq!(listened_to.status, 403, "{name}: {}", listened_to.head);
        }
        if status >= 400 {
            assert!(answer.body.len() > 5, "{name} has no reason");
        }
        if status != 204 {
            let length = answer.body.len().to_string();
            assert_eq!(
                answer.field("Content-Length"),
                Some(length.as_str()),
                "{name}"
            );
        }
    }
    let told = running.told.lines();
    let line = "refused /boot/ipxe.efi: no image in the store has a loader `ipxe.efi`".to_owned();
    assert!(told.contains(&line), "{told:?}");
}

#[tokio::test]
async fn a_body_without_an_announced_length_is_bounded_too() {
    let running = serve(&[], Limits::default()).await;
    let mut request =
        b"POST /v1/boots/b1/reports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\
        Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for _ in 0..70 {
        request.extend(b"400\r\n");
        request.extend([b'x'; 0x400]);
        request.extend(b"\r\n");
    }
    let answer = running.say_secretly(&request).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_slow_or_endless_request_is_cut() {
    let limits = Limits {
        head: Duration::from_millis(200),
        body: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = serve(&[], limits).await;
    let answer = running.say(b"GET /boot/ipx").await;
    assert_eq!(answer.body, b"", "{answer:?}");
    let answer = running.ask_secretly(
        "POST /v1/boots/b1/reports",
        &["Authorization: Bearer t", "Content-Length: 100"],
        "{",
    );
    assert_eq!(answer.await.status, 408);
    let long = format!("GET /boot/a HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(running.say(long.as_bytes()).await.status, 431);
}

#[tokio::test]
async fn one_address_has_a_limit_of_connections() {
    let limits = Limits {
        per_address: 2,
        ..Limits::default()
    };
    let running = serve(&[("a", b"a")], limits).await;
    let first = TcpStream::connect(running.address).await.unwrap();
    let second = TcpStream::connect(running.address).await.unwrap();
    let mut third = TcpStream::connect(running.address).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, third.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\ntoo many connections with your address.\n"),
        "{answer}"
    );
    running.told.until("address_busy").await;
    drop((first, second));
    loop {
        let answer = running.ask("GET /boot/a", &[], "").await;
        if answer.status == 200 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_transfer_that_is_cut_is_told_with_its_bytes() {
    let running = serve(&[], Limits::default()).await;
    let digest = running.store.add(&content(64 << 20));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let request = format!("GET /blob/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 1000]).await.unwrap();
    drop(stream);
    let name = format!("{} from 0 ", digest.short());
    for _ in 0..1000 {
        let told = running.told.lines();
        if let Some(end) = told.iter().find(|line| line.starts_with(&name)) {
            assert!(end.ends_with("the host closed the connection"), "{end}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the end was never told: {:?}", running.told.lines());
}
