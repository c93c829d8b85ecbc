//! The server against clients that no one here wrote, and against what they do not do.

use std::net::{IpAddr, Ipv4Addr};

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::serve::catalogue::tests::{TestStore, Told, content, tool};

const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    port: u16,
    store: TestStore,
    told: Arc<Told>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves on all loopback addresses.
fn serve(loaders: &[(&str, &[u8])]) -> Running {
    let store = TestStore::new();
    store.publish("loaders", loaders);
    let told = Arc::new(Told::default());
    let server = Server::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    let port = server.local_addr().unwrap().port();
    let log = Arc::<Told>::clone(&told);
    let task = tokio::spawn(server.run(store.catalogue(), log, Limits::default()));
    Running {
        port,
        store,
        told,
        task,
    }
}

/// A client that says what it is told to, from one port.
struct Client(UdpSocket);

impl Client {
    async fn new() -> Self {
        Self(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
    }

    async fn ask(&self, server: (Ipv4Addr, u16), packet: &[u8]) -> (Vec<u8>, IpAddr) {
        self.0.send_to(packet, server).await.unwrap();
        self.next().await
    }

    async fn next(&self) -> (Vec<u8>, IpAddr) {
        let mut buffer = vec![0; 2000];
        let received = timeout(PATIENCE, self.0.recv_from(&mut buffer)).await;
        let (length, from) = received.expect("an answer").unwrap();
        buffer.truncate(length);
        (buffer, from.ip())
    }
}

#[tokio::test]
async fn curl_fetches_a_loader() {
    let loader = content(300_001);
    let running = serve(&[("ipxe.efi", &loader), ("undionly.kpxe", &loader[..1024])]);
    let cases: [(&str, &[&str], &[u8]); 4] = [
        ("ipxe.efi", &["--tftp-blksize", "1468"], &loader),
        ("ipxe.efi", &[], &loader),
        ("/ipxe.efi", &["--tftp-no-options"], &loader),
        (
            "undionly.kpxe",
            &["--tftp-blksize", "1024"],
            &loader[..1024],
        ),
    ];
    for (name, options, expected) in cases {
        let Some(mut curl) = tool("curl") else { return };
        let url = format!("tftp://127.0.0.1:{}/{name}", running.port);
        curl.args(["--silent", "--show-error", "--max-time", "30"])
            .args(options)
            .arg(url);
        let output = curl.output().await.unwrap();
        assert!(output.status.success(), "{name} {options:?}: {output:?}");
        assert!(output.stdout == expected, "{name} {options:?}");
    }
    running.told.until("ipxe.efi 300001 complete").await;
    running.told.until("undionly.kpxe 1024 complete").await;
}

#[tokio::test]
async fn atftp_fetches_a_loader_in_windows() {
    let loader = content(3_000_000);
    let running = serve(&[("ipxe.efi", &loader)]);
    for window in [
        "windowsize 1",
        "windowsize 4",
        "windowsize 16",
        "windowsize 64",
    ] {
        let Some(mut atftp) = tool("atftp") else {
            return;
        };
        let file = running.store.directory.path().join("fetched");
        atftp.args(["--option", "blksize 1468", "--option", window, "--get"]);
        atftp
            .args(["--remote-file", "ipxe.efi", "--local-file"])
            .arg(&file);
        atftp.arg("127.0.0.1").arg(running.port.to_string());
        let output = timeout(PATIENCE, atftp.output())
            .await
            .expect("in time")
            .unwrap();
        assert!(output.status.success(), "{window}: {output:?}");
        assert!(std::fs::read(&file).unwrap() == loader, "{window}");
    }
    running.told.until("ipxe.efi 3000000 complete").await;
}

#[tokio::test]
async fn the_address_that_was_asked_answers() {
    let running = serve(&[("a", b"x")]);
    for last in 1..4 {
        let address = Ipv4Addr::new(127, 0, 0, last);
        let client = Client::new().await;
        let (answer, from) = client
            .ask((address, running.port), b"\0\x01a\0octet\0")
            .await;
        assert_eq!(
            (answer.as_slice(), from),
            (&b"\0\x03\0\x01x"[..], IpAddr::V4(address))
        );
    }
}

#[tokio::test]
async fn a_size_probe_leaves_nothing_behind() {
    let file = content(4000);
    let running = serve(&[("ipxe.efi", &file)]);
    let server = (Ipv4Addr::LOCALHOST, running.port);
    let client = Client::new().await;
    let (answer, _) = client
        .ask(server, b"\0\x01ipxe.efi\0octet\0tsize\x000\0")
        .await;
    assert_eq!(answer, b"\0\x06tsize\x004000\0");
    client
        .0
        .send_to(b"\0\x05\0\x08User aborted the transfer\0", server)
        .await
        .unwrap();
    let request = b"\0\x01ipxe.efi\0octet\0windowsize\x004\0blksize\x001468\0";
    let (answer, _) = client.ask(server, request).await;
    assert_eq!(
        answer, b"\0\x06windowsize\x004\0blksize\x001468\0",
        "from the same port"
    );
    let mut received = client.ask(server, b"\0\x04\0\0").await.0[4..].to_vec();
    for block in 2..=3 {
        let (packet, _) = client.next().await;
        assert_eq!(packet[..4], [0, 3, 0, block]);
        received.extend(&packet[4..]);
    }
    client.0.send_to(b"\0\x04\0\x03", server).await.unwrap();
    running.told.until("ipxe.efi 4000 complete").await;
    assert!(received == file);
    let told = running.told.lines();
    assert_eq!(told, ["probed", "began ipxe.efi", "ipxe.efi 4000 complete"]);
}

#[tokio::test]
async fn a_text_arrives_with_the_line_ends_of_netascii() {
    let running = serve(&[("a", b"one\ntwo\r\n")]);
    let server = (Ipv4Addr::LOCALHOST, running.port);
    let client = Client::new().await;
    let (offer, _) = client.ask(server, b"\0\x01a\0netascii\0tsize\x000\0").await;
    assert_eq!(offer, b"\0\x06tsize\x0012\0");
    let (answer, _) = client.ask(server, b"\0\x04\0\0").await;
    assert_eq!(answer, b"\0\x03\0\x01one\r\ntwo\r\0\r\n");
}

#[tokio::test]
async fn refusals_say_why() {
    let running = serve(&[("gone", b"gone")]);
    std::fs::remove_file(
        running
            .store
            .layout
            .blob(&image_manifest::Digest::of(b"gone")),
    )
    .unwrap();
    let server = (Ipv4Addr::LOCALHOST, running.port);
    let cases: [(&[u8], &str); 4] = [
        (
            b"\0\x01b\0octet\0",
            "no image in the store has a loader `b`",
        ),
        (
            b"\0\x01gone\0octet\0",
            "the store holds no artifact sha256:",
        ),
        (b"\0\x02b\0octet\0", "writing is not possible"),
        (b"\0\x01b\0mail\0", "the mode is neither octet nor netascii"),
    ];
    for (request, expected) in cases {
        let (answer, _) = Client::new().await.ask(server, request).await;
        assert_eq!(answer[..2], [0, 5]);
        let text = String::from_utf8_lossy(&answer[4..]).into_owned();
        assert!(text.starts_with(expected), "{text}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error() {
    let first = Server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let error = Server::bind(first.local_addr().unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
