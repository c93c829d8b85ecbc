//! The rack's BMCs: one process that simulates them all, and whose children the hosts are.
//!
//! It refuses to switch anything by itself: a host has power when its BMC was told so over the wire.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;

use ipmi::sim::{self, Board};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::accel::Accelerator;
use crate::chassis::VirtualHost;
use crate::firmware::Files;
use crate::namespace::{self, Namespace};
use crate::network;
use crate::qemu::{Folder, Settings};
use crate::rack::{self, Protocol, Slot};
use crate::state::State;

/// The user that all BMCs know.
const USER: &str = "operator";

/// What the rack's hosts are made of, as the process reads it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Spec {
    /// What executes them.
    pub accelerator: Accelerator,
    /// Memory of each, in MiB.
    pub memory: u32,
    /// Processors of each.
    pub processors: u32,
    /// Name and switch port of each.
    pub hosts: Vec<(String, String)>,
}

/// Why there are no BMCs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("failed to use `{path}`")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the process was told makes no sense.
    #[error("`{path}` does not say what the rack is")]
    Spec {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A host that is not in the rack.
    #[error(transparent)]
    Host(#[from] rack::UnknownHost),
    /// The network refuses.
    #[error(transparent)]
    Network(#[from] namespace::Error),
    /// The process could not be run.
    #[error("failed to run the rack's BMCs")]
    Run(#[source] io::Error),
    /// It ended before it served.
    #[error("the rack's BMCs did not start:\n{0}")]
    Ended(String),
    /// An address could not be served.
    #[error("failed to serve the BMC of `{host}`")]
    Serve {
        /// The host.
        host: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Racks hosts, without power: a port of the switch and a BMC for each.
///
/// # Errors
/// When the network or the process refuses.
pub fn start(
    namespace: &Namespace,
    state: &State,
    slots: &[Slot],
    settings: &Settings,
) -> Result<Child, Error> {
    let mut hosts = Vec::with_capacity(slots.len());
    for slot in slots {
        network::address(namespace, slot.bmc)?;
        hosts.push((slot.name.to_owned(), network::tap(namespace, slot.name)?));
    }
    let spec = Spec {
        accelerator: settings.accelerator,
        memory: settings.memory,
        processors: settings.processors,
        hosts,
    };
    let path = spec_path(state);
    let text = serde_json::to_vec_pretty(&spec).map_err(|source| Error::Spec {
        path: path.clone(),
        source,
    })?;
    fs::write(&path, text).map_err(|source| Error::File { path, source })?;
    let path = state.bmcs_log();
    let log = File::create(&path).map_err(|source| Error::File { path, source })?;
    let own = std::env::current_exe().map_err(Error::Run)?;
    let mut bmcs = namespace.command(own);
    bmcs.arg("bmcs")
        .env("LAB_STATE", state.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    namespace::detach(&mut bmcs);
    let mut child = bmcs.spawn().map_err(Error::Run)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // A failed read leaves the line empty, which is refused below with what the log says.
        BufReader::new(stdout).read_line(&mut line).ok();
    }
    if line.trim() == "ready" {
        return Ok(child);
    }
    child.kill().ok();
    child.wait().ok();
    let said = fs::read_to_string(state.bmcs_log()).unwrap_or_default();
    Err(Error::Ended(said.trim().to_owned()))
}

/// Serves the BMCs that [`start`] wrote down, until the process is told to end.
///
/// # Errors
/// When one of them cannot be served.
pub fn serve(state: &State) -> Result<(), Error> {
    let path = spec_path(state);
    let text = fs::read(&path).map_err(|source| Error::File {
        path: path.clone(),
        source,
    })?;
    let spec: Spec =
        serde_json::from_slice(&text).map_err(|source| Error::Spec { path, source })?;
    let path = state.bmc_password();
    let password = fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Error::Run)?
        .block_on(serve_all(state, spec, password))
}

async fn serve_all(state: &State, spec: Spec, password: String) -> Result<(), Error> {
    let mut parts = JoinSet::new();
    for (name, port) in spec.hosts {
        let slot = rack::slot(&name)?;
        let settings = Settings {
            accelerator: spec.accelerator,
            memory: spec.memory,
            processors: spec.processors,
            files: Files::find(),
        };
        let folder = Folder::of(state.path(), slot.name);
        let host = VirtualHost::new(slot, port, folder, settings);
        serve_one(slot, Board::new(Arc::new(host)), &password, &mut parts)
            .await
            .map_err(|source| Error::Serve {
                host: slot.name,
                source,
            })?;
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Run)?;
    println!("ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = parts.join_next() => eprintln!("lab: a simulated BMC ended"),
    }
    // Dropping the chassis ends the hosts.
    parts.shutdown().await;
    Ok(())
}

/// Serves one BMC at its address and its protocol's own port.
async fn serve_one(
    slot: Slot,
    board: Board,
    password: &str,
    parts: &mut JoinSet<io::Result<()>>,
) -> io::Result<()> {
    let password = SecretString::from(password);
    match slot.protocol {
        Protocol::Ipmi => {
            let port = ipmi::Protocol::Ipmi.port();
            let socket = UdpSocket::bind((slot.bmc, port)).await?;
            let config = sim::ipmi::Config::new(vec![sim::ipmi::User {
                name: USER.into(),
                password,
                limit: sim::ipmi::Privilege::Operator,
            }]);
            parts.spawn(async move {
                sim::ipmi::serve(socket, board, config).await?;
                Ok(())
            });
        }
        Protocol::Redfish => {
            let port = ipmi::Protocol::Redfish.port();
            let listener = TcpListener::bind((slot.bmc, port)).await?;
            let tls = sim::redfish::Tls::generate(&[slot.bmc]).map_err(io::Error::other)?;
            let config = sim::redfish::Config::new(USER, password);
            parts.spawn(async move {
                sim::redfish::serve(listener, tls.config, board, config).await?;
                Ok(())
            });
        }
    }
    Ok(())
}

fn spec_path(state: &State) -> PathBuf {
    state.path().join("bmcs.json")
}
