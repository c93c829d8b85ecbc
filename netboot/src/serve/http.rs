//! HTTP: loaders, scripts, artifacts, host configuration and reports.
//!
//! It refuses to redirect (firmware treats that as an error) and to answer without a `Content-Length`. What a script says
//! and whose token is whose is decided behind [`BootApi`].

mod answer;
mod body;
mod etag;
mod range;
mod route;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use image_manifest::{Credential, Exchange, HostConfig, HostSecrets, Report};
use netboot_core::Mac;
use netboot_core::boot::Protocol;
use tokio::net::TcpListener;

use super::catalogue::{Catalogue, TransferLog};
use super::connections::{self, Service, Speech};

/// Both ends of the connection that a request came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The host's address and port.
    pub remote: SocketAddr,
    /// The address and port of ours that it asked: URLs that it is given start with these.
    pub local: SocketAddr,
    /// Whether others can read along.
    pub channel: Channel,
}

/// Whether what is said on a connection can be read by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Everyone on the way can.
    Plain,
    /// It is TLS.
    Tls,
}

/// What the boot of a host asks beside files.
pub trait BootApi: Send + Sync + 'static {
    /// Renders the script of the host with this hardware address.
    fn script(&self, mac: Mac, peer: Peer) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Exchanges the token of a boot for its credential; that it was is stored when this returns.
    fn exchange(
        &self,
        boot: &str,
        token: &str,
        exchange: Exchange,
        peer: Peer,
    ) -> impl Future<Output = Result<Credential, Refusal>> + Send;

    /// Returns what a host is told about itself.
    fn host(
        &self,
        boot: &str,
        credential: &str,
        peer: Peer,
    ) -> impl Future<Output = Result<HostConfig, Refusal>> + Send;

    /// Returns the secrets of a host, to the run of stage1 that exchanged its token.
    fn secrets(
        &self,
        boot: &str,
        credential: &str,
        exchange: Exchange,
        peer: Peer,
    ) -> impl Future<Output = Result<HostSecrets, Refusal>> + Send;

    /// Takes a report; it is stored when this returns.
    fn report(
        &self,
        boot: &str,
        credential: &str,
        report: Report,
        peer: Peer,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// A request that is answered with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The reason, one line for whoever reads the host's console.
    pub reason: String,
}

impl Refusal {
    /// Makes a refusal.
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }
}

/// How much is served at once, and how long a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections with one IP address.
    pub per_address: usize,
    /// Time for the head of a request to arrive, also between two requests.
    pub head: Duration,
    /// Time for the body of a request to arrive.
    pub body: Duration,
    /// Time that bytes may stay unacknowledged, or a client may not read, before it is given up.
    pub stall: Duration,
}

impl Default for Limits {
    /// A rack has some hundred hosts, each with eight connections at most (stage1's ranges). iPXE keeps a connection open
    /// while it runs a script; firmware under emulation stalls for seconds.
    fn default() -> Self {
        Self {
            connections: 8192,
            per_address: 64,
            head: Duration::from_secs(30),
            body: Duration::from_secs(10),
            stall: Duration::from_mins(1),
        }
    }
}

/// What requests are answered from.
pub struct Server<A> {
    /// The files.
    pub catalogue: Arc<Catalogue>,
    /// The boots.
    pub boots: Arc<A>,
    /// Who listens to transfers.
    pub log: Arc<dyn TransferLog>,
    /// The bounds.
    pub limits: Limits,
}

impl<A> fmt::Debug for Server<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<A: BootApi> Server<A> {
    /// Serves some listeners, with TLS or without, whose limits count together, until it is dropped.
    pub async fn run(self: Arc<Self>, plain: Vec<TcpListener>, tls: Option<SecureListeners>) {
        let limits = self.limits;
        let mut listeners: Vec<_> = plain.into_iter().map(|one| (one, Speech::Plain)).collect();
        if let Some(tls) = tls {
            let speech = Speech::Tls(tls.config);
            let secure = tls.listeners.into_iter();
            listeners.extend(secure.map(|one| (one, speech.clone())));
        }
        connections::accept(self, limits, listeners).await;
    }
}

/// Listeners that speak TLS.
#[derive(Debug)]
pub struct SecureListeners {
    /// What they are set up with.
    pub config: Arc<rustls::ServerConfig>,
    /// The sockets.
    pub listeners: Vec<TcpListener>,
}

impl<A: BootApi> Service for Server<A> {
    type Body = body::Body;

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<body::Body> {
        Self::answer(self, request, peer).await
    }

    fn turned_away(&self, why: &'static str) {
        self.log.ignored(Protocol::Http, why);
    }
}
