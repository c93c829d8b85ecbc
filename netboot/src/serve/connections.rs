//! Connections: who may open one, how long it may idle, and TLS where a listener has it.
//!
//! It refuses more than the limits without reading a byte, so that one host cannot keep the others out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::http::{Channel, Limits, Peer};
use crate::auth::client;

/// Largest head of a request, and most fields in it: iPXE, firmware and stage1 stay below 1 KiB and 10.
const HEAD_LIMIT: usize = 16 << 10;
const FIELDS_LIMIT: usize = 64;
/// When the kernel has no descriptor left, others must close before it helps to ask again.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// Time for a TLS handshake: three packets each way, and firmware under emulation stalls for seconds.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A reason that needs no request to be read.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 40\r\n\
    Connection: close\r\nRetry-After: 1\r\n\r\ntoo many connections with your address.\n";

/// What answers the requests of connections.
pub(crate) trait Service: Send + Sync + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Hears of a connection that was closed unread, and why.
    fn turned_away(&self, why: &'static str);
}

/// What one listener speaks.
#[derive(Clone, Debug)]
pub(crate) enum Speech {
    /// HTTP.
    Plain,
    /// HTTP over TLS.
    Tls(Arc<ServerConfig>),
}

/// What all connections of some listeners share.
struct Shared<S> {
    service: Arc<S>,
    limits: Limits,
    places: Arc<Semaphore>,
    addresses: Arc<Addresses>,
}

/// Accepts on all listeners, whose limits count together, until it is dropped.
pub(crate) async fn accept<S: Service>(
    service: Arc<S>,
    limits: Limits,
    listeners: Vec<(TcpListener, Speech)>,
) {
    let shared = Arc::new(Shared {
        service,
        limits,
        places: Arc::new(Semaphore::new(limits.connections)),
        addresses: Arc::new(Addresses::default()),
    });
    let mut doors = JoinSet::new();
    for (listener, speech) in listeners {
        doors.spawn(door(Arc::clone(&shared), listener, speech));
    }
    while doors.join_next().await.is_some() {}
}

/// Accepts on one listener; its connections end with it.
async fn door<S: Service>(shared: Arc<Shared<S>>, listener: TcpListener, speech: Speech) {
    let mut connections = JoinSet::new();
    loop {
        // When all places are taken, newcomers wait in the kernel's queue.
        let Ok(place) = Arc::clone(&shared.places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(error = %error, "connection not accepted");
                if !is_of_one_client(&error) {
                    tokio::time::sleep(EXHAUSTED).await;
                }
                continue;
            }
        };
        let limit = shared.limits.per_address;
        let Some(guest) = shared.addresses.enter(client(remote.ip()), limit) else {
            shared.service.turned_away("address_busy");
            if matches!(speech, Speech::Plain) {
                // What fits the socket's buffer at once; nobody waits for this client.
                drop(stream.try_write(BUSY));
            }
            continue;
        };
        let (shared, speech) = (Arc::clone(&shared), speech.clone());
        connections.spawn(serve(shared, stream, remote, speech, (place, guest)));
    }
}

/// Tells errors of a single connection from those of the listener (`accept(2)`).
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn serve<S: Service>(
    shared: Arc<Shared<S>>,
    stream: TcpStream,
    remote: SocketAddr,
    speech: Speech,
    _place: (OwnedSemaphorePermit, Guest),
) {
    let Ok(local) = prepare(&stream, shared.limits.stall) else {
        return; // the client has gone already
    };
    let peer = |channel| Peer {
        remote,
        local,
        channel,
    };
    let config = match speech {
        Speech::Plain => return converse(&shared, stream, peer(Channel::Plain)).await,
        Speech::Tls(config) => config,
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => converse(&shared, stream, peer(Channel::Tls)).await,
        Ok(Err(error)) => {
            shared.service.turned_away("handshake");
            tracing::debug!(peer = %remote, error = %crate::cli::report::chain(&error), "tls handshake failed");
        }
        Err(_) => shared.service.turned_away("handshake"),
    }
}

async fn converse<S: Service>(
    shared: &Arc<Shared<S>>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
) {
    let service = Arc::clone(&shared.service);
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request, peer).await) }
    });
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head)
        .max_headers(FIELDS_LIMIT)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades()
        .await;
    if let Err(error) = ended {
        tracing::debug!(peer = %peer.remote, error = %crate::cli::report::chain(&error), "connection ended early");
    }
}

/// Sends at once (Nagle and delayed acknowledgements cost 40 ms for each small answer), and ends what stalls.
fn prepare(stream: &TcpStream, stall: Duration) -> io::Result<SocketAddr> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(stall))?;
    stream.local_addr()
}

/// Open connections by address.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One connection of an address.
struct Guest {
    address: IpAddr,
    of: Arc<Addresses>,
}

impl Addresses {
    fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Guest> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= limit {
            if *count == 0 {
                open.remove(&address);
            }
            return None;
        }
        *count += 1;
        let of = Arc::clone(self);
        Some(Guest { address, of })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}
