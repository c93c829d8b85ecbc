//! The appliance of the rack: `netboot serve` on a copy of a site, and what it knows about its hosts.
//!
//! It refuses to read the appliance's database itself: `netboot hosts --json` is how anyone asks.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::hosts::HostView;
use crate::namespace::{self, Namespace};

/// Where one appliance has its things.
#[derive(Clone, Debug)]
pub struct Place {
    /// The program `netboot`.
    pub netboot: PathBuf,
    /// The site directory.
    pub site: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// The image store.
    pub store: PathBuf,
    /// Where it logs to; appended, so that a restart does not lose why it was needed.
    pub log: PathBuf,
}

/// Why there is no appliance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be written.
    #[error("failed to write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program could not be run.
    #[error("failed to run `{program}`")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("netboot did not start:\n{0}")]
    Ended(String),
    /// It did not become ready in time.
    #[error("netboot was not ready within {0} s:\n{1}")]
    Late(u64, String),
    /// It does not switch its hosts on.
    #[error("`netboot power on` failed: {0}")]
    Power(String),
    /// It could not be asked about its hosts.
    #[error("`netboot hosts` failed: {0}")]
    Hosts(String),
    /// Its answer is not what was agreed.
    #[error("`netboot hosts --json` printed something unexpected")]
    Answer(#[source] serde_json::Error),
}

const READY_WITHIN: Duration = Duration::from_secs(30);

impl Place {
    /// Starts the appliance inside a namespace and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it cannot be started; with its own words when it refuses.
    pub fn start(&self, namespace: &Namespace) -> Result<Child, Error> {
        let write = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Write { path, source }
        };
        fs::create_dir_all(&self.data).map_err(write(&self.data))?;
        let before = fs::metadata(&self.log).map_or(0, |log| log.len());
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(write(&self.log))?;
        let out = log.try_clone().map_err(write(&self.log))?;
        // Socket names are at most 107 bytes, so this one stands in a directory of its own.
        let notify = tempfile::Builder::new()
            .prefix("lab")
            .tempdir()
            .map_err(write(Path::new("/tmp")))?;
        let address = notify.path().join("notify");
        let ready = UnixDatagram::bind(&address).map_err(write(&address))?;
        ready
            .set_read_timeout(Some(Duration::from_millis(50)))
            .map_err(write(&address))?;

        let mut serve = namespace.command(&self.netboot);
        serve
            .arg("serve")
            .arg("--site")
            .arg(&self.site)
            .arg("--data")
            .arg(&self.data);
        serve.arg("--store").arg(&self.store);
        serve
            .env("NOTIFY_SOCKET", &address)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log);
        namespace::detach(&mut serve);
        let mut child = serve.spawn().map_err(|source| Error::Run {
            program: "netboot".to_owned(),
            source,
        })?;
        match self.wait_ready(&ready, &mut child, before) {
            Ok(()) => Ok(child),
            Err(error) => {
                child.kill().ok();
                child.wait().ok();
                Err(error)
            }
        }
    }

    fn wait_ready(
        &self,
        ready: &UnixDatagram,
        child: &mut Child,
        before: u64,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut message = [0; 256];
        while Instant::now() < deadline {
            // A timeout of the read is how often the process is looked at.
            if let Ok(length) = ready.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]);
                if text.lines().any(|line| line == "READY=1") {
                    return Ok(());
                }
            }
            if let Ok(Some(_)) = child.try_wait() {
                return Err(Error::Ended(self.said_since(before)));
            }
        }
        Err(Error::Late(READY_WITHIN.as_secs(), self.said_since(before)))
    }

    /// Prepares `netboot` as the rack's operator runs it, inside a namespace.
    #[must_use]
    pub fn operator(&self, namespace: &Namespace) -> Command {
        let mut netboot = namespace.command(&self.netboot);
        netboot
            .env("NETBOOT_DATA", &self.data)
            .env_remove("NETBOOT_SITE")
            .stdin(Stdio::null());
        netboot
    }

    /// Switches hosts on over their BMCs, as the operator does.
    ///
    /// # Errors
    /// When `netboot power` fails.
    pub fn switch_on(&self, namespace: &Namespace, hosts: &[&str]) -> Result<(), Error> {
        let output = self
            .operator(namespace)
            .args(["power", "on", "--json"])
            .args(hosts)
            .output()
            .map_err(|source| Error::Run {
                program: "netboot".to_owned(),
                source,
            })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::Power(said.trim().to_owned()))
    }

    /// Asks what is known about all hosts; works whether the appliance runs or not.
    ///
    /// # Errors
    /// When `netboot hosts` fails or answers something unexpected.
    pub fn hosts(&self) -> Result<Vec<HostView>, Error> {
        let output = Command::new(&self.netboot)
            .args(["hosts", "--json", "--site"])
            .arg(&self.site)
            .arg("--data")
            .arg(&self.data)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Run {
                program: "netboot".to_owned(),
                source,
            })?;
        if !output.status.success() {
            return Err(Error::Hosts(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
        serde_json::from_slice(&output.stdout).map_err(Error::Answer)
    }

    fn said_since(&self, offset: u64) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let new = text
            .get(usize::try_from(offset).unwrap_or(0)..)
            .unwrap_or_default();
        let text = String::from_utf8_lossy(new);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// Copies a site and adds what must not stand in it: a key that may log in to its hosts, and the
/// password of its BMCs.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_site(from: &Path, to: &Path, public_key: &str) -> Result<(), Error> {
    let write = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Write { path, source }
    };
    fs::create_dir_all(to).map_err(write(to))?;
    for entry in fs::read_dir(from).map_err(write(from))? {
        let entry = entry.map_err(write(from))?;
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target).map_err(write(&target))?;
    }
    let mut ssh = toml::Table::new();
    ssh.insert("keys".to_owned(), vec![public_key.trim().to_owned()].into());
    let mut extra = toml::Table::new();
    extra.insert("ssh".to_owned(), ssh.into());
    let path = to.join("lab-key.toml");
    fs::write(&path, extra.to_string()).map_err(write(&path))?;
    let secrets = to.join("secrets");
    fs::create_dir_all(&secrets).map_err(write(&secrets))?;
    let path = secrets.join("bmc");
    write_secret(&path).map_err(write(&path))
}

/// Writes a password of 16 bytes, as long as IPMI 1.5 takes, that only its owner can read.
fn write_secret(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut random = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut random[2..])?;
    let digits = u64::from_be_bytes(random);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    write!(file, "lab-{digits:012x}")
}

/// Makes the lab's throw-away key where it is missing and returns its public half.
///
/// # Errors
/// When `ssh-keygen` fails.
pub fn ssh_key(path: &Path) -> Result<String, Error> {
    let public = path.with_extension("pub");
    if !public.is_file() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|source| Error::Write {
                path: folder.to_path_buf(),
                source,
            })?;
        }
        let run = |source| Error::Run {
            program: "ssh-keygen".to_owned(),
            source,
        };
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "firstboot lab", "-f"])
            .arg(path)
            .stdin(Stdio::null())
            .status()
            .map_err(run)?;
        if !status.success() {
            return Err(run(io::Error::other(status.to_string())));
        }
    }
    fs::read_to_string(&public).map_err(|source| Error::Write {
        path: public,
        source,
    })
}
