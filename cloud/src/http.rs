//! One HTTP client for mirrors, registries and clouds: requests with bodies that are streamed, answers that are streamed back.
//!
//! It refuses silence in both directions, and to follow a redirect on its own: who may be shown credentials is decided above.

pub mod private;
pub mod route;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{HOST, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;

use route::Route;

/// A registry that takes nothing and says nothing for this time is given up; some hash a whole layer before they answer.
const SILENCE: Duration = Duration::from_mins(2);
/// How often it is looked whether a body still moves.
const LOOK: Duration = Duration::from_millis(500);
/// How much of a file is sent at a time.
const PIECE: usize = 128 << 10;

/// What is sent. It may be a secret, so it does not tell.
#[derive(Clone)]
pub enum Content {
    /// Nothing.
    None,
    /// Bytes that are at hand.
    Bytes(Bytes),
    /// A part of a file.
    File {
        /// The file.
        path: PathBuf,
        /// Where the part begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// Bytes that are made while they are sent.
    Stream {
        /// Makes them, from the first on, as often as it is asked.
        open: Open,
        /// How many there are.
        length: u64,
    },
}

/// Opens bytes for reading, as often as it is asked.
pub type Open = Arc<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bytes(_) => "Bytes",
            Self::File { .. } => "File",
            Self::Stream { .. } => "Stream",
        })
    }
}

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The URL cannot be asked.
    #[error("`{0}` is not a URL that can be asked")]
    Url(String),
    /// TLS needs certificates, and there are none.
    #[error("this machine has no certificates of authorities, which `https` needs")]
    NoAuthorities,
    /// The connection failed or was cut.
    #[error("{0}")]
    Connection(String),
    /// Nothing moved.
    #[error("nothing moved for {} s", SILENCE.as_secs())]
    Silent,
}

/// The client; clones share connections.
#[derive(Clone, Debug)]
pub struct Http {
    plain: legacy::Client<Route, Sent>,
    secure: Option<legacy::Client<HttpsConnector<Route>, Sent>>,
    route: Route,
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

impl Http {
    /// Goes through the proxies that the environment names.
    #[must_use]
    pub fn new() -> Self {
        let route = Route::new(Matcher::from_env());
        let secure = HttpsConnectorBuilder::new()
            .with_native_roots()
            .ok()
            .map(|builder| {
                let builder = builder.https_only().enable_http1();
                legacy::Client::builder(TokioExecutor::new())
                    .build(builder.wrap_connector(route.clone()))
            });
        Self {
            plain: legacy::Client::builder(TokioExecutor::new()).build(route.clone()),
            secure,
            route,
        }
    }

    /// Sends one request and waits for the head of its answer, as long as something moves.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send(
        &self,
        head: hyper::http::request::Builder,
        content: Content,
    ) -> Result<Response<Incoming>, TransportError> {
        let moved = Arc::new(AtomicU64::new(0));
        let body = Sent::new(content, Arc::clone(&moved))
            .map_err(|error| TransportError::Connection(error.to_string()))?;
        let uri = head.uri_ref().cloned().unwrap_or_default();
        let bad = || TransportError::Url(uri.to_string());
        let host = uri.authority().ok_or_else(bad)?.as_str().to_owned();
        let mut head = head.header(HOST, host).header(
            USER_AGENT,
            concat!("imagebuild/", env!("CARGO_PKG_VERSION")),
        );
        if let Some(credentials) = self.route.credentials(&uri) {
            head = head.header(PROXY_AUTHORIZATION, credentials);
        }
        let request = head.body(body).map_err(|_| bad())?;
        let answer = self.request(&uri, request)?;
        tokio::pin!(answer);
        let mut seen = 0;
        let mut still = Duration::ZERO;
        loop {
            tokio::select! {
                answer = &mut answer => {
                    return answer.map_err(|error| TransportError::Connection(chain(&error)));
                }
                () = tokio::time::sleep(LOOK) => {
                    let now = moved.load(Ordering::Relaxed);
                    still = if now == seen { still + LOOK } else { Duration::ZERO };
                    seen = now;
                    if still >= SILENCE {
                        return Err(TransportError::Silent);
                    }
                }
            }
        }
    }

    fn request(
        &self,
        uri: &Uri,
        request: Request<Sent>,
    ) -> Result<legacy::ResponseFuture, TransportError> {
        match uri.scheme_str() {
            Some("http") => Ok(self.plain.request(request)),
            Some("https") => {
                let client = self.secure.as_ref().ok_or(TransportError::NoAuthorities)?;
                Ok(client.request(request))
            }
            _ => Err(TransportError::Url(uri.to_string())),
        }
    }
}

/// Waits for the next bytes of an answer; `None` at its end.
///
/// # Errors
/// When the connection is cut or nothing comes for long.
pub async fn next(answer: &mut Response<Incoming>) -> Result<Option<Bytes>, TransportError> {
    loop {
        let frame = tokio::time::timeout(SILENCE, answer.body_mut().frame()).await;
        match frame.map_err(|_| TransportError::Silent)? {
            None => return Ok(None),
            Some(Err(error)) => return Err(TransportError::Connection(chain(&error))),
            // Trailers say nothing to us.
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// A body on its way out.
#[derive(Debug)]
pub struct Sent {
    pieces: Pieces,
    left: u64,
    moved: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Pieces {
    Here(Option<Bytes>),
    Coming(mpsc::Receiver<io::Result<Bytes>>),
}

impl Sent {
    fn new(content: Content, moved: Arc<AtomicU64>) -> io::Result<Self> {
        let (pieces, left) = match content {
            Content::None => (Pieces::Here(None), 0),
            Content::Bytes(bytes) => {
                let length = bytes.len() as u64;
                (Pieces::Here(Some(bytes)), length)
            }
            Content::File {
                path,
                offset,
                length,
            } => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                let (sender, receiver) = mpsc::channel(4);
                tokio::task::spawn_blocking(move || read_pieces(&mut file, length, &sender));
                (Pieces::Coming(receiver), length)
            }
            Content::Stream { open, length } => {
                let (sender, receiver) = mpsc::channel(4);
                tokio::task::spawn_blocking(move || match open() {
                    Ok(mut bytes) => read_pieces(&mut bytes, length, &sender),
                    // Nobody listens any more when the request is over.
                    Err(error) => drop(sender.blocking_send(Err(error))),
                });
                (Pieces::Coming(receiver), length)
            }
        };
        Ok(Self {
            pieces,
            left,
            moved,
        })
    }
}

fn read_pieces(file: &mut dyn Read, mut left: u64, sender: &mpsc::Sender<io::Result<Bytes>>) {
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; length];
        let read = file.read_exact(&mut piece).map(|()| Bytes::from(piece));
        left -= length as u64;
        let ends = read.is_err();
        // Nobody listens any more when the request is over.
        if sender.blocking_send(read).is_err() || ends {
            return;
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut self.pieces {
            Pieces::Here(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Pieces::Coming(receiver) => receiver.poll_recv(context),
        };
        let Poll::Ready(piece) = piece else {
            return Poll::Pending;
        };
        if let Some(Ok(bytes)) = &piece {
            let length = bytes.len() as u64;
            self.left = self.left.saturating_sub(length);
            self.moved.fetch_add(length, Ordering::Relaxed);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The whole chain of an error in one line: the last cause is the one that says why.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
