//! The server that every fake stands behind: connections, counting, faults.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::escape::unescape;

use super::faults::{Act, Fault, Faults, When};

/// Largest request that is taken.
const LONGEST: usize = 1 << 30;

/// A request, read whole.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path, as it was sent.
    pub path: String,
    /// Its query, decoded.
    pub query: Vec<(String, String)>,
    /// The query as it was sent, for signatures.
    pub raw_query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Request {
    /// A parameter of the query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut found = self.query.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// A header's value, when it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as a form, decoded; nothing when it does not say that it is one.
    #[must_use]
    pub fn form(&self) -> Vec<(String, String)> {
        let kind = self.header("content-type").unwrap_or_default();
        if !kind.starts_with("application/x-www-form-urlencoded") {
            return Vec::new();
        }
        decode(&String::from_utf8_lossy(&self.body))
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// An answer of a status and nothing else.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// An answer in JSON.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        let mut reply = Self::empty(status).with("content-type", "application/json");
        reply.body = body.to_string().into();
        reply
    }

    /// An answer in XML.
    #[must_use]
    pub fn xml(status: u16, body: impl Into<String>) -> Self {
        let mut reply = Self::empty(status).with("content-type", "text/xml");
        reply.body = body.into().into();
        reply
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It looks.
    Reading,
    /// It changes what is there.
    Changing,
}

/// Which call a request is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Called {
    /// Its name, such as `ec2:CopyImage`.
    pub label: String,
    /// What it does.
    pub kind: Kind,
}

/// A fake of one cloud.
pub trait Service: Send + Sync + 'static {
    /// Which call a request is.
    fn called(&self, request: &Request) -> Called;

    /// Answers, and does what was asked.
    fn answer(&self, request: &Request) -> Reply;

    /// What this cloud answers when too much is asked.
    fn throttled(&self, request: &Request) -> Reply;
}

/// A fake, listening on loopback until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Mutex<BTreeMap<Called, u64>>,
    faults: Mutex<Faults>,
    stopped: Notify,
}

impl Server {
    /// Starts a fake on a port of its own.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(service: Arc<dyn Service>) -> io::Result<Self> {
        Self::listen(service, "127.0.0.1:0").await
    }

    /// Starts a fake on an address.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn listen(service: Arc<dyn Service>, address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(accept(listener, service, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often each call came.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Called, u64> {
        lock(&self.shared.calls).clone()
    }

    /// How many calls came that change something, also those that failed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        let calls = self.calls();
        let changing = calls
            .iter()
            .filter(|(called, _)| called.kind == Kind::Changing);
        changing.map(|(_, count)| count).sum()
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        lock(&self.shared.calls).clear();
    }

    /// Lets something go wrong.
    pub fn fault(&self, fault: Fault) {
        self.faults().faults.push(fault);
    }

    /// All that goes wrong, to be changed.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.shared.faults)
    }

    /// Waits until a call hangs, as [`Act::Hang`] has it.
    pub async fn stopped(&self) {
        self.shared.stopped.notified().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, service: Arc<dyn Service>, shared: Arc<Shared>) {
    // Connections end with the server: a client must not be answered by a fake that is gone.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                connections.spawn(serve(stream, Arc::clone(&service), Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, service: Arc<dyn Service>, shared: Arc<Shared>) {
    // It only costs time when this fails.
    stream.set_nodelay(true).unwrap_or_default();
    let answer = service_fn(move |request| {
        let (service, shared) = (Arc::clone(&service), Arc::clone(&shared));
        async move { respond(request, service, &shared).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), answer);
    // A connection that ends in any way has ended.
    connection.await.unwrap_or_default();
}

/// The connection is to be cut.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

async fn respond(
    request: hyper::Request<Incoming>,
    service: Arc<dyn Service>,
    shared: &Shared,
) -> Result<Response<Full<Bytes>>, Cut> {
    let request = read(request).await.ok_or(Cut)?;
    let called = service.called(&request);
    *lock(&shared.calls).entry(called.clone()).or_default() += 1;
    let latency = lock(&shared.faults).latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if lock(&shared.faults).throttles(&called, Instant::now()) {
        return Ok(response(service.throttled(&request)));
    }
    let act = lock(&shared.faults).next(&called, When::Before);
    if let Some(act) = act {
        return suffer(act, shared).await;
    }
    let request = Arc::new(request);
    let reply = {
        let (service, request) = (Arc::clone(&service), Arc::clone(&request));
        tokio::task::spawn_blocking(move || service.answer(&request)).await
    };
    let act = lock(&shared.faults).next(&called, When::After);
    if let Some(act) = act {
        return suffer(act, shared).await;
    }
    Ok(response(reply.map_err(|_| Cut)?))
}

async fn suffer(act: Act, shared: &Shared) -> Result<Response<Full<Bytes>>, Cut> {
    match act {
        Act::Answer(reply) => Ok(response(reply)),
        Act::Cut => Err(Cut),
        Act::Hang => {
            shared.stopped.notify_one();
            std::future::pending::<Infallible>().await;
            Err(Cut)
        }
    }
}

async fn read(request: hyper::Request<Incoming>) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, LONGEST).collect().await.ok()?;
    let raw_query = parts.uri.query().unwrap_or_default().to_owned();
    Some(Request {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: decode(&raw_query),
        raw_query,
        headers: parts.headers,
        body: body.to_bytes(),
    })
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    for (name, value) in reply.headers {
        let name = HeaderName::try_from(name.as_ref());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// Decodes a query or a form.
fn decode(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}

/// In a query or a form a space may be a `+`.
fn plain(text: &str) -> String {
    unescape(&text.replace('+', " "))
}
