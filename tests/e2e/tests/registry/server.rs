//! A registry that no one here wrote, and a wire to it that is cut.
//!
//! It refuses to be reached from outside: it listens on the loopback.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lab::poll;
use tempfile::TempDir;

use super::desk::ok;

/// What every registry here is given for its own address.
const ANY: &str = "127.0.0.1:0";
/// Debian's `docker-registry` on the loopback; dropping it ends it.
pub(crate) struct Registry {
    process: Child,
    address: String,
    pub(crate) folder: TempDir,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let address = TcpListener::bind(ANY).and_then(|listener| listener.local_addr());
        let address = address.expect("a free port").to_string();
        let root = folder.path().display();
        let settings = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: '{address}', secret: lab}}\n"
        );
        fs::write(folder.path().join("config.yml"), settings).expect("a configuration");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self {
            process,
            address,
            folder,
        };
        let answers = || TcpStream::connect(&registry.address).ok();
        assert!(
            poll::until(Duration::from_secs(20), answers).is_some(),
            "the registry answers"
        );
        registry
    }

    pub(crate) fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Digests of all files that were uploaded, in order, as the registry logged them.
    pub(crate) fn uploads(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("log")).expect("the log");
        let puts = log
            .lines()
            .filter(|line| line.contains("\"PUT /v2/") && line.contains("/blobs/uploads/"));
        let digest = |line: &str| {
            Some(format!(
                "sha256:{}",
                &line.split_once("digest=sha256%3A")?.1[..64]
            ))
        };
        puts.filter_map(digest).collect()
    }

    pub(crate) fn get(&self, path: &str) -> String {
        ok(Command::new("curl").args([
            "--silent",
            "--fail",
            "--header",
            "Accept: application/vnd.oci.image.index.v1+json",
            &format!("http://{}/v2/{path}", self.address),
        ]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A wire to a registry that is cut after so many bytes to it; from then on it holds.
pub(crate) struct Wire {
    pub(crate) address: String,
    /// Bytes that went to the registry.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Wire {
    pub(crate) fn to(registry: &Registry, cut_after: i64) -> Self {
        let listener = TcpListener::bind(ANY).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (sent, left) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicI64::new(cut_after)),
        );
        let (target, count) = (registry.address.clone(), Arc::clone(&sent));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (target, count, left) = (target.clone(), Arc::clone(&count), Arc::clone(&left));
                // Ends with the connection.
                thread::spawn(move || carry(&client, &target, &count, &left));
            }
        });
        Self { address, sent }
    }
}

fn carry(client: &TcpStream, target: &str, count: &AtomicU64, left: &AtomicI64) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    let (mut back, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        drop(io::copy(&mut back, &mut to_client));
        drop(to_client.shutdown(Shutdown::Both));
    });
    let (mut client, mut to_server) = (client.try_clone()?, server);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = client.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
        let length = i64::try_from(length).unwrap_or_default();
        let before = left.fetch_sub(length, Ordering::Relaxed);
        if before > 0 && before <= length {
            break;
        }
        to_server.write_all(&buffer[..usize::try_from(length).unwrap_or_default()])?;
    }
    drop(client.shutdown(Shutdown::Both));
    to_server.shutdown(Shutdown::Both)
}
