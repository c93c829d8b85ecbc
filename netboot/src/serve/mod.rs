//! The running appliance: receive, decide in the core, store, send.
//!
//! It refuses to hold rules of its own: sockets and the order of events are all that is here.

mod api;
mod appliance;
mod bind;
mod boots;
pub mod catalogue;
pub(crate) mod connections;
mod dhcp;
mod generation;
pub mod http;
mod interfaces;
mod metrics;
mod ndp;
mod operators;
mod rows;
pub mod tftp;
mod tls;
mod token;

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use image_manifest::layout::{self, Layout};
use netboot_core::dhcp::Port;
use netboot_core::site::{Mode, Site};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::appliance::Appliance;
use self::bind::Wires;
use self::catalogue::{Catalogue, TransferLog};
use self::interfaces::Transport;
use crate::api::{Api, ApiError};
use crate::cli::report::chain;
use crate::clock::now;
use crate::data::{DataError, Held};
use crate::secrets::{IdentityError, Secrets};
use crate::site::{self, Beside, ChangeError, Ready, Reloaded, SiteError, Sites};
use crate::store::{Sqlite, StoreError, Writer};
use crate::tls::{Given, Tls, TlsError};

pub use api::HEARTBEAT_SECONDS;
pub use bind::BindError;
pub use boots::{BootDetail, Target, read_boot};
pub use rows::lease_of;
pub use token::KeyError;

const TFTP: u16 = 69;

/// How long the store may take to write what is left at the end.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What the appliance serves, and from where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory with the site's files.
    pub site: PathBuf,
    /// Directory for the appliance's state.
    pub data: PathBuf,
    /// The store of images.
    pub store: PathBuf,
    /// The server's certificate, unless the appliance makes its own.
    pub certificate: Option<Given>,
}

/// Why the appliance could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The site is wrong.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// There is no store of images.
    #[error("failed to open the image store")]
    Images(#[from] layout::Error),
    /// The data directory could not be had.
    #[error(transparent)]
    Data(#[from] DataError),
    /// There is no key for boot tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operators' API could not be opened.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// There is no identity to decrypt secrets with.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A socket could not be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The process could not listen to signals.
    #[error("failed to listen to signals")]
    Signals(#[source] io::Error),
    /// The state can be written no more.
    #[error("the store failed too often in a row; its errors are in the log")]
    Unwritable,
    /// A part of the appliance stopped.
    #[error("a part of the appliance stopped unexpectedly")]
    Stopped(#[source] Option<tokio::task::JoinError>),
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the appliance cannot start, or a part of it fails for good.
pub async fn run(options: Options) -> Result<(), ServeError> {
    let images = Layout::open(&options.store)?;
    let catalogue = Arc::new(Catalogue::new(images.clone())?);
    let held = Held::take(&options.data)?;
    // Before the site is looked at: a site that lacks a secret yet needs to know whom to encrypt it for.
    let secrets = Arc::new(Secrets::open(&options.data, &options.site)?);
    let (source, site) = site::Source::open(&options.site, &options.data)?;
    let wires = Wires::find(&site)?;
    wires.tell(&site);
    let mut signals = Signals::listen()?;
    let mut parts = JoinSet::new();
    let sockets = Sockets::bind(&site, &wires).await?;
    let mut store = Sqlite::open(&options.data).await?;
    forget_others(&mut store, &site).await;
    let names = tls::names(&site, &wires);
    let tls = Tls::open(&options.data, names, options.certificate, now())?;
    parts.spawn(tls::renew(Arc::clone(&tls)));
    let (appliance, mut registry, mut writer, executor) =
        Appliance::start(site, images, &options.data, store, wires, tls, secrets).await?;
    let sites = sites(source, &appliance);
    parts.spawn(async move { drop(executor.await) });
    let api = operators::open(&appliance, &sites, &options.data, &mut registry).await?;
    operators::publish(&sockets.api, &options.data).map_err(|source| DataError::Open {
        path: options.data.clone(),
        source,
    })?;
    sockets.serve(&appliance, api, catalogue, registry, &mut parts);
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(site = &*appliance.site().name, "appliance is ready");

    let ended = loop {
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop => break Ok(()),
                Wish::Reload => reload(&sites, &appliance.tls).await,
            },
            // The appliance holds the writer open: it ends now only by giving up.
            ended = &mut writer => {
                break Err(match ended {
                    Ok(()) => ServeError::Unwritable,
                    Err(error) => ServeError::Stopped(Some(error)),
                });
            }
            ended = parts.join_next() => {
                break Err(ServeError::Stopped(ended.and_then(Result::err)));
            }
        }
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("appliance stops");
    parts.shutdown().await;
    drop((appliance, sites));
    // Replies that wait for the store hold it open until they are sent.
    if !writer.is_finished() && timeout(LAST_WORDS, writer).await.is_err() {
        tracing::warn!("store did not finish in time");
    }
    drop(held);
    ended
}

/// Forgets the boots of hosts that left the site; where that fails, they go another time.
async fn forget_others(store: &mut Sqlite, site: &Site) {
    let hosts = site.hosts().map(|host| &*host.name).collect();
    match store.keep_boots_of(&hosts).await {
        Ok(0) => {}
        Ok(boots) => tracing::info!(boots, "forgot boots of hosts that left the site"),
        Err(error) => tracing::warn!(error = %chain(&error), "old boots stay in the store"),
    }
}

/// Makes what changes the site of the appliance.
fn sites(source: site::Source, appliance: &Arc<Appliance>) -> Sites {
    let weak = Arc::downgrade(appliance);
    let ready: Ready = Box::new(move |site| {
        let wires = Wires::find(site)?;
        let appliance = weak.clone();
        Ok(Box::new(move |site| {
            if let Some(appliance) = appliance.upgrade() {
                wires.tell(&site);
                appliance.swap(site, wires);
            }
        }))
    });
    let (secrets, ledger) = (&appliance.secrets, &appliance.ledger);
    Sites::new(source, Arc::clone(secrets), Arc::clone(ledger), ready)
}

async fn reload(sites: &Sites, tls: &Arc<Tls>) {
    notify(&[sd_notify::NotifyState::Reloading]);
    tls::look(tls).await;
    let directory = sites.directory().display();
    match sites.reload().await {
        Ok(Reloaded::Directory) => {}
        Ok(Reloaded::Applied(Ok(Beside::Same))) => tracing::info!("applied site is served again"),
        Ok(Reloaded::Applied(Ok(Beside::Other))) => tracing::warn!(
            directory = %directory,
            "applied site stays: the site directory differs, and `netboot apply --site` serves it"
        ),
        Ok(Reloaded::Applied(Err(error))) => tracing::warn!(
            directory = %directory, error = %chain(&error),
            "applied site stays: the site directory cannot be served"
        ),
        Err(error) => not_reloaded(&error),
    }
    notify(&[sd_notify::NotifyState::Ready]);
}

fn not_reloaded(error: &ChangeError) {
    if let ChangeError::Site(SiteError::Wrong { problems, .. }) = error {
        for problem in problems {
            tracing::warn!(problem = %problem, "site has a problem");
        }
    }
    tracing::warn!(error = %chain(error), "site not reloaded, the old one stays");
}

/// Tells systemd, where it is listening.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %error, "service manager not notified");
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, ServeError> {
        let listen = |kind| signal(kind).map_err(ServeError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

/// What a signal asks for.
enum Wish {
    Stop,
    Reload,
}

/// All sockets of the appliance, bound before anything is served.
struct Sockets {
    dhcp: Vec<dhcp::Listener>,
    tftp: tftp::Server,
    http: Vec<tokio::net::TcpListener>,
    https: Vec<tokio::net::TcpListener>,
    api: tokio::net::TcpListener,
    metrics: tokio::net::TcpListener,
    /// Hosts boot without it, only later.
    ndp: Option<ndp::Listener>,
}

impl Sockets {
    async fn bind(site: &Site, wires: &Wires) -> Result<Self, ServeError> {
        let proxy = site
            .networks
            .iter()
            .any(|network| network.mode == Mode::Proxy);
        let ports = [Some(Port::Dhcp), proxy.then_some(Port::Pxe)];
        let mut dhcp = Vec::new();
        for port in ports.into_iter().flatten() {
            let socket = bind::any(dhcp::number(port));
            let failed = |source| BindError::port("DHCP", Transport::Udp, socket, source);
            dhcp.push(dhcp::Listener::bind(port).map_err(failed)?);
        }
        let socket = bind::any(TFTP);
        let tftp = tftp::Server::bind(socket)
            .map_err(|source| BindError::port("TFTP", Transport::Udp, socket, source))?;
        let mut http = Vec::new();
        for address in wires.addresses() {
            let socket = SocketAddrV4::new(address, site.appliance.http_port);
            http.push(bind::tcp("HTTP", SocketAddr::V4(socket)).await?);
        }
        let https = tls::bind(site, wires).await?;
        let api = operators::bind(site).await?;
        let metrics = bind::tcp("metrics", site.appliance.metrics).await?;
        Ok(Self {
            dhcp,
            tftp,
            http,
            https,
            api,
            metrics,
            ndp: ndp::Listener::bind(wires.interfaces())
                .inspect_err(|error| {
                    tracing::info!(error = %error, "no answers to router solicitations");
                })
                .ok(),
        })
    }

    fn serve(
        self,
        appliance: &Arc<Appliance>,
        api: Arc<Api>,
        catalogue: Arc<Catalogue>,
        registry: Registry,
        parts: &mut JoinSet<()>,
    ) {
        for listener in self.dhcp {
            parts.spawn(dhcp::run(Arc::clone(appliance), listener));
        }
        if let Some(listener) = self.ndp {
            parts.spawn(ndp::run(Arc::clone(appliance), listener));
        }
        let log: Arc<dyn TransferLog> = Arc::<Appliance>::clone(appliance);
        let limits = netboot_core::tftp::Limits::default();
        parts.spawn(
            self.tftp
                .run(Arc::clone(&catalogue), Arc::clone(&log), limits),
        );
        let http = Arc::new(http::Server {
            catalogue,
            boots: Arc::clone(appliance),
            log,
            limits: http::Limits::default(),
        });
        let secure = http::SecureListeners {
            config: appliance.tls.config(),
            listeners: self.https,
        };
        parts.spawn(http.run(self.http, Some(secure)));
        parts.spawn(api.run(self.api, Arc::clone(&appliance.tls)));
        parts.spawn(metrics::serve(self.metrics, registry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "age")]
    #[tokio::test]
    async fn a_first_start_that_lacks_a_secret_leaves_whom_to_seal_it_for() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        Layout::create(path("store")).unwrap();
        std::fs::create_dir(path("site")).unwrap();
        let text = "[site]\nname = \"lab\"\n[role.web]\nimage = \"host\"\n[secret.bmc]\nfile = \"bmc.age\"\n";
        std::fs::write(path("site/site.toml"), text).unwrap();
        let options = Options {
            site: path("site"),
            data: path("data"),
            store: path("store"),
            certificate: None,
        };
        let refused = run(options).await.unwrap_err();
        let ServeError::Site(SiteError::Wrong { problems, .. }) = &refused else {
            panic!("{refused}");
        };
        assert!(
            problems[0]
                .to_string()
                .contains("netboot enroll secret bmc")
        );
        assert!(path("data/identity.age").is_file());
    }
}
