//! A registry for tests: Debian's `docker-registry`, which no one here wrote.
//!
//! It refuses to listen anywhere but on the loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::poll;
use tempfile::TempDir;

use crate::rig::{printed, run};

/// Debian's `docker-registry` on the loopback; dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    address: String,
    /// Its settings, its data and its `log`.
    pub folder: TempDir,
}

impl Registry {
    /// Starts one with nothing in it.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
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

    /// Where it listens: host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A name in it.
    #[must_use]
    pub fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Digests of all files that were uploaded, in order, as the registry logged them.
    ///
    /// # Panics
    /// When its log cannot be read.
    #[must_use]
    pub fn uploads(&self) -> Vec<String> {
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

    /// Asks it with curl.
    ///
    /// # Panics
    /// When it does not answer well.
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        printed(&run(Command::new("curl").args([
            "--silent",
            "--fail",
            "--header",
            "Accept: application/vnd.oci.image.index.v1+json",
            &format!("http://{}/v2/{path}", self.address),
        ])))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
