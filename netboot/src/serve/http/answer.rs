//! Requests, and their answers.
//!
//! It refuses to let a client wait for nothing: each refusal has a reason in its body.

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_RANGES, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE,
    WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use image_manifest::{Digest, Exchange, Report};
use netboot_core::Mac;
use netboot_core::boot::Protocol;
use netboot_core::tftp::Mode;
use serde::Serialize;

use super::body::Body;
use super::range::Ranged;
use super::route::Route;
use super::{BootApi, Channel, Peer, Refusal, Server, etag};
use crate::cli::report::chain;
use crate::serve::catalogue::{Catalogue, OpenError, Transfer, Wanted};

/// Largest report. A host with every unit failed writes 20 KiB.
const REPORT_LIMIT: usize = 64 << 10;
const SCRIPT: &str = "text/plain; charset=utf-8";
/// Longest part of a path that is told to the log.
const ASKED_LIMIT: usize = 200;

type Answer = Result<Response<Body>, Refusal>;

impl<A: BootApi> Server<A> {
    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let path: String = request.uri().path().chars().take(ASKED_LIMIT).collect();
        let head = request.method() == Method::HEAD;
        let route = Route::parse(request.uri().path());
        let methods = route.as_ref().map_or("", Route::methods);
        let answer = match route {
            // Refused before a token is looked at: whoever listens has it now.
            Ok(route) if route.is_confidential() && peer.channel == Channel::Plain => {
                let reason = "this is answered over TLS only";
                Err(Refusal::new(StatusCode::FORBIDDEN, reason))
            }
            Ok(route) if permits(methods, request.method()) => {
                self.route(route, request, peer).await
            }
            Ok(_) => {
                let reason = format!("only {methods} can be asked here");
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, reason))
            }
            Err(refusal) => Err(refusal),
        };
        let mut response = answer.unwrap_or_else(|refusal| {
            tracing::debug!(
                peer = %peer.remote, path = path.as_str(), status = refusal.status.as_u16(),
                reason = refusal.reason.as_str(), "http request refused"
            );
            let remote = peer.remote.ip().to_canonical();
            self.log
                .refused(remote, Protocol::Http, &path, &refusal.reason);
            refuse(&refusal)
        });
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response = with(response, [(ALLOW, methods.to_owned())]);
        }
        if head {
            // Said before hyper drops the body: `Content-Length` is that of a GET (RFC 9110 §9.3.2),
            // and a 304 of either has none.
            let whole = response.status() != StatusCode::NOT_MODIFIED;
            let length = hyper::body::Body::size_hint(response.body()).exact();
            let headers = response.headers_mut();
            if whole && !headers.contains_key(CONTENT_LENGTH) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length.unwrap_or(0)));
            }
            *response.body_mut() = Body::text(Bytes::new());
        }
        response
    }

    async fn route(&self, route: Route, request: Request<Incoming>, peer: Peer) -> Answer {
        match route {
            Route::Loader(name) => self.loader(name, &request, peer).await,
            Route::Artifact(digest) => self.artifact(digest, &request, peer).await,
            Route::Signed(rootfs) => self.signed(rootfs).await,
            Route::Script(mac) => self.script(mac, peer).await,
            Route::Credential(boot) => self.exchange(&boot, request, peer).await,
            Route::Host(boot) => self.host(&boot, &request, peer).await,
            Route::Secrets(boot) => self.secrets(&boot, request, peer).await,
            Route::Reports(boot) => self.report(&boot, request, peer).await,
        }
    }

    async fn loader(&self, name: String, request: &Request<Incoming>, peer: Peer) -> Answer {
        let asked = name.clone();
        let open = move |catalogue: &Catalogue| {
            let loader = catalogue.loader(&asked)?;
            let bytes = catalogue.open_loader(&loader, Mode::Octet)?;
            Ok((loader.digest, bytes))
        };
        let (digest, bytes) = self.open(open).await?;
        // UEFI HTTP Boot goes by this type (edk2 `HttpBootSupport.c`), else by the suffix.
        let media_type = if has_suffix(&name, ".efi") {
            "application/efi"
        } else {
            "application/octet-stream"
        };
        self.file(
            Wanted::Loader(name),
            digest,
            &bytes,
            media_type,
            request,
            peer,
        )
    }

    async fn artifact(&self, digest: Digest, request: &Request<Incoming>, peer: Peer) -> Answer {
        let bytes = match self.catalogue.opened(&digest) {
            Some(bytes) => bytes,
            None => self.open(move |catalogue| catalogue.open(&digest)).await?,
        };
        let media_type = "application/octet-stream";
        self.file(
            Wanted::Artifact(digest),
            digest,
            &bytes,
            media_type,
            request,
            peer,
        )
    }

    /// Answers who vouches for the image that has a root file system: it is for stage1 to judge.
    async fn signed(&self, rootfs: Digest) -> Answer {
        json(
            &self
                .open(move |catalogue| catalogue.signed(&rootfs))
                .await?,
        )
    }

    /// Opens a file where waiting for the disk stops no other connection.
    async fn open<T: Send + 'static>(
        &self,
        open: impl FnOnce(&Catalogue) -> Result<T, OpenError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let catalogue = Arc::clone(&self.catalogue);
        let opened = tokio::task::spawn_blocking(move || open(&catalogue)).await;
        match opened {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(error)) => {
                let status = match &error {
                    OpenError::NoLoader(_) | OpenError::NoArtifact(_) => StatusCode::NOT_FOUND,
                    OpenError::Open { .. } | OpenError::Size { .. } | OpenError::Netascii(_) => {
                        tracing::warn!(error = %chain(&error), "file cannot be served");
                        StatusCode::INTERNAL_SERVER_ERROR
                    }
                };
                Err(Refusal::new(status, error.reason()))
            }
            Err(_) => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the appliance is stopping",
            )),
        }
    }

    /// Answers with a file, a part of it or the word that it has not changed.
    fn file(
        &self,
        wanted: Wanted,
        digest: Digest,
        bytes: &Bytes,
        media_type: &'static str,
        request: &Request<Incoming>,
        peer: Peer,
    ) -> Answer {
        let tag = etag::of(&digest);
        let headers = request.headers();
        let size = bytes.len() as u64;
        // RFC 9110 §13.2.2 gives the order.
        if let Some(list) = text(headers, IF_MATCH)
            && !etag::names_strongly(list, &tag)
        {
            let reason = "the file has another digest";
            return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, reason));
        }
        if text(headers, IF_NONE_MATCH).is_some_and(|list| etag::names(list, &tag)) {
            let response = respond(StatusCode::NOT_MODIFIED, Body::text(Bytes::new()));
            return Ok(with(response, [(ETAG, tag)]));
        }
        let same = text(headers, IF_RANGE).is_none_or(|value| etag::is(value, &tag));
        let range = text(headers, RANGE).filter(|_| same && request.method() == Method::GET);
        let (status, first, length) = match range.map(|value| Ranged::parse(value, size)) {
            None | Some(Ranged::Whole) => (StatusCode::OK, 0, size),
            Some(Ranged::Part { first, last }) => {
                (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
            }
            Some(Ranged::Unsatisfiable) => {
                let reason = format!("the file has {size} bytes only");
                let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, reason);
                return Ok(with(
                    refuse(&refusal),
                    [(CONTENT_RANGE, format!("bytes */{size}"))],
                ));
            }
        };
        let body = if request.method() == Method::HEAD {
            Body::text(Bytes::new())
        } else {
            let start = usize::try_from(first).unwrap_or(usize::MAX);
            let end = usize::try_from(first + length).unwrap_or(usize::MAX);
            let transfer = Transfer {
                peer: peer.remote.ip().to_canonical(),
                over: Protocol::Http,
                wanted,
                first,
                length,
                size,
            };
            Body::file(bytes.slice(start..end), transfer, Arc::clone(&self.log))
        };
        let mut response = with(
            respond(status, body),
            [
                (CONTENT_LENGTH, length.to_string()),
                (CONTENT_TYPE, media_type.to_owned()),
                (ACCEPT_RANGES, "bytes".to_owned()),
                (ETAG, tag),
            ],
        );
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {first}-{}/{size}", first + length - 1);
            response = with(response, [(CONTENT_RANGE, range)]);
        }
        Ok(response)
    }

    async fn script(&self, mac: Mac, peer: Peer) -> Answer {
        let script = self.boots.script(mac, peer).await?;
        let response = respond(StatusCode::OK, Body::text(script));
        // A boot decision is never cached.
        Ok(with(
            response,
            [
                (CONTENT_TYPE, SCRIPT.to_owned()),
                (CACHE_CONTROL, "no-store".to_owned()),
            ],
        ))
    }

    async fn host(&self, boot: &str, request: &Request<Incoming>, peer: Peer) -> Answer {
        let token = token(request.headers())?;
        json(&self.boots.host(boot, token, peer).await?)
    }

    async fn exchange(&self, boot: &str, request: Request<Incoming>, peer: Peer) -> Answer {
        let token = token(request.headers())?.to_owned();
        let exchange = self.read_exchange(request).await?;
        json(&self.boots.exchange(boot, &token, exchange, peer).await?)
    }

    async fn secrets(&self, boot: &str, request: Request<Incoming>, peer: Peer) -> Answer {
        let token = token(request.headers())?.to_owned();
        let exchange = self.read_exchange(request).await?;
        json(&self.boots.secrets(boot, &token, exchange, peer).await?)
    }

    async fn read_exchange(&self, request: Request<Incoming>) -> Result<Exchange, Refusal> {
        let body = self.read(request).await?;
        serde_json::from_slice(&body)
            .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "this is no exchange with a nonce"))
    }

    async fn report(&self, boot: &str, request: Request<Incoming>, peer: Peer) -> Answer {
        let token = token(request.headers())?.to_owned();
        let body = self.read(request).await?;
        let report: Report = serde_json::from_slice(&body).map_err(|error| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                format!("this is no report: {error}"),
            )
        })?;
        self.boots.report(boot, &token, report, peer).await?;
        Ok(respond(StatusCode::NO_CONTENT, Body::text(Bytes::new())))
    }

    /// Reads the body of a request, up to the limit of a report.
    async fn read(&self, request: Request<Incoming>) -> Result<Bytes, Refusal> {
        let too_large = || {
            let reason = format!("a report has at most {REPORT_LIMIT} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
        };
        let announced = hyper::body::Body::size_hint(request.body()).lower();
        if announced > REPORT_LIMIT as u64 {
            return Err(too_large());
        }
        let collect = Limited::new(request.into_body(), REPORT_LIMIT).collect();
        match tokio::time::timeout(self.limits.body, collect).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "the body was cut")),
            Err(_) => Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in time",
            )),
        }
    }
}

/// Answers with JSON that nobody on the way keeps.
fn json(content: &impl Serialize) -> Answer {
    let json = serde_json::to_vec(content).map_err(|error| {
        tracing::warn!(error = %error, "answer not written");
        let reason = "the answer cannot be written";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, reason)
    })?;
    let response = respond(StatusCode::OK, Body::text(json));
    Ok(with(
        response,
        [
            (CONTENT_TYPE, "application/json".to_owned()),
            (CACHE_CONTROL, "no-store".to_owned()),
        ],
    ))
}

fn permits(methods: &str, method: &Method) -> bool {
    methods
        .split(", ")
        .any(|permitted| permitted == method.as_str())
}

/// Reads the token of `Authorization: Bearer` (RFC 6750 §2.1).
fn token(headers: &HeaderMap) -> Result<&str, Refusal> {
    let token = text(headers, AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    token.filter(|token| !token.is_empty()).ok_or_else(|| {
        let reason = "the boot's token is needed: `Authorization: Bearer …`";
        Refusal::new(StatusCode::UNAUTHORIZED, reason)
    })
}

/// Returns the value of a field that is text; a field that comes twice counts as absent.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    value.to_str().ok()
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    let start = name.len().checked_sub(suffix.len());
    let end = start.and_then(|start| name.get(start..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

fn respond(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn with<const N: usize>(
    mut response: Response<Body>,
    fields: [(HeaderName, String); N],
) -> Response<Body> {
    for (name, value) in fields {
        // Every value is made of printable ASCII here.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Writes a refusal: its reason is the body.
fn refuse(refusal: &Refusal) -> Response<Body> {
    let Refusal { status, reason } = refusal;
    let mut text = reason.clone();
    text.push('\n');
    let response = with(
        respond(*status, Body::text(text)),
        [
            (CONTENT_TYPE, SCRIPT.to_owned()),
            (CACHE_CONTROL, "no-store".to_owned()),
        ],
    );
    if *status == StatusCode::UNAUTHORIZED {
        return with(response, [(WWW_AUTHENTICATE, "Bearer".to_owned())]);
    }
    response
}

/// Lets a refusal stand in an error chain.
impl Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.status, self.reason)
    }
}
