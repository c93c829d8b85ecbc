//! Connections: who may open one, and how long it may idle.
//!
//! It refuses more than the limits without reading a byte, so that one host cannot keep the others out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use netboot_core::boot::Protocol;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::{BootApi, Peer, Server};

/// Largest head of a request, and most fields in it: iPXE, firmware and stage1 stay below 1 KiB and 10.
const HEAD_LIMIT: usize = 16 << 10;
const FIELDS_LIMIT: usize = 64;
/// When the kernel has no descriptor left, others must close before it helps to ask again.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// A reason that needs no request to be read.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 40\r\n\
    Connection: close\r\nRetry-After: 1\r\n\r\ntoo many connections with your address.\n";

/// Accepts on all listeners until it is dropped.
pub(super) async fn accept<A: BootApi>(server: Arc<Server<A>>, listeners: Vec<TcpListener>) {
    let places = Arc::new(Semaphore::new(server.limits.connections));
    let addresses = Arc::new(Addresses::default());
    let mut doors = JoinSet::new();
    for listener in listeners {
        let (server, places) = (Arc::clone(&server), Arc::clone(&places));
        doors.spawn(door(server, listener, places, Arc::clone(&addresses)));
    }
    while doors.join_next().await.is_some() {}
}

/// Accepts on one listener; its connections end with it.
async fn door<A: BootApi>(
    server: Arc<Server<A>>,
    listener: TcpListener,
    places: Arc<Semaphore>,
    addresses: Arc<Addresses>,
) {
    let mut connections = JoinSet::new();
    loop {
        // When all places are taken, newcomers wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
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
        let limit = server.limits.per_address;
        let Some(guest) = addresses.enter(remote.ip().to_canonical(), limit) else {
            server.log.ignored(Protocol::Http, "address_busy");
            // What fits the socket's buffer at once; nobody waits for this client.
            drop(stream.try_write(BUSY));
            continue;
        };
        connections.spawn(serve(Arc::clone(&server), stream, remote, (place, guest)));
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

async fn serve<A: BootApi>(
    server: Arc<Server<A>>,
    stream: TcpStream,
    remote: SocketAddr,
    _place: (OwnedSemaphorePermit, Guest),
) {
    let Ok(local) = prepare(&stream, server.limits.stall) else {
        return; // the client has gone already
    };
    let peer = Peer { remote, local };
    let limits = server.limits;
    let answer = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
    });
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(FIELDS_LIMIT)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = ended {
        tracing::debug!(peer = %remote, error = %crate::cli::report::chain(&error), "connection ended early");
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
