//! The sockets of the simulated service, and the faults that every answer may have.
//!
//! It refuses to know what a request means.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::answer::Answer;
use super::state::Service;
use super::{Config, route};
use crate::Protocol;
use crate::sim::{Board, Moment, Verdict};

/// Requests are a few hundred bytes.
const LONGEST_BODY: usize = 64 << 10;
/// A BMC closes connections that say nothing.
const PATIENCE: Duration = Duration::from_mins(1);

/// Serves until the returned future is dropped.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    board: Board,
    config: Config,
) -> io::Result<()> {
    let service = Arc::new(Service::new(board, config));
    let acceptor = TlsAcceptor::from(tls);
    // Connections end with the set.
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let (acceptor, service) = (acceptor.clone(), Arc::clone(&service));
        connections.spawn(async move {
            if let Err(error) = converse(stream, peer, acceptor, service).await {
                tracing::debug!(%peer, %error, "simulated connection ended");
            }
        });
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    service: Arc<Service>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
    let answer = service_fn(move |request| answer(Arc::clone(&service), peer, request));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), answer)
        .await?;
    Ok(())
}

/// A connection that is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the simulated service says nothing")]
struct Silence;

async fn answer(
    service: Arc<Service>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Cut>, Silence> {
    let (head, body) = request.into_parts();
    let what = || format!("{} {}", head.method, head.uri.path());
    let faults = service.board.faults();
    let asked = service
        .board
        .ask(peer, Protocol::Redfish, Moment::Before, what);
    if asked == Verdict::Silence || faults.loses_this() {
        return Err(Silence);
    }
    let answer = match Limited::new(body, LONGEST_BODY).collect().await {
        Ok(body) => route::respond(&service, &head, &body.to_bytes()).ok_or(Silence)?,
        Err(_) => Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "GeneralError", "too long"),
    };
    let late = faults.late();
    if !late.is_zero() {
        tokio::time::sleep(late).await;
    }
    let asked = service
        .board
        .ask(peer, Protocol::Redfish, Moment::After, what);
    if asked == Verdict::Silence || faults.loses_this() {
        return Err(Silence);
    }
    let (head, body) = answer.into_response().into_parts();
    let shortens = faults.shortens();
    Ok(Response::from_parts(head, Cut::new(&body, shortens)))
}

/// A body that may end before the length that was promised.
struct Cut {
    bytes: Option<Bytes>,
    promised: u64,
}

impl Cut {
    fn new(body: &Bytes, shortens: bool) -> Self {
        let promised = body.len() as u64;
        let kept = if shortens { body.len() / 2 } else { body.len() };
        Self {
            bytes: (kept > 0).then(|| body.slice(..kept)),
            promised,
        }
    }
}

impl Body for Cut {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}
