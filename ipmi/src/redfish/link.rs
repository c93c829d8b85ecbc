//! One connection to one BMC: HTTP/1.1 over TLS, opened when needed and opened again when it was closed.
//!
//! It refuses to send a request twice, unless the first surely never left; to follow a redirect to another host;
//! to read without a bound; and to go on with a BMC whose key changed between two connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::resource::{self, Resource};
use crate::bmc::{Endpoint, Error, Fingerprint};
use crate::tls;

/// A service root with everything in it is a few kilobytes; a certificate or a log page stays far below this.
const LONGEST_BODY: usize = 4 << 20;
/// Headers of one answer, all together.
const LONGEST_HEAD: usize = 64 << 10;
/// How long a BMC may take to shake hands.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a BMC may take to answer; slow ones take half of it for a reset.
const ANSWER: Duration = Duration::from_mins(1);
/// How many redirects are followed.
const REDIRECTS: usize = 3;

/// A request; its body may be a password.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.method, self.path)
    }
}

/// An answer; its head may be a session's token.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl fmt::Debug for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} with {} bytes", self.status, self.body.len())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum Lost {
    /// Nothing was sent.
    Before(Error),
    /// The request was sent, or part of it.
    After(String),
}

impl Lost {
    /// What a reader says, to whom both are the same.
    pub(super) fn error(self) -> Error {
        match self {
            Self::Before(error) => error,
            Self::After(detail) => Error::Unreachable { detail },
        }
    }
}

impl Answer {
    /// The resource that was sent; an empty one where there is none.
    pub(super) fn resource(&self) -> Resource {
        Resource::decode(&self.body).unwrap_or_default()
    }

    /// A header as text.
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// Where the answer points.
    pub(super) fn location(&self) -> Option<String> {
        resource::path(self.header(header::LOCATION)?)
    }

    /// How long the BMC wants to be left alone, within reason.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds: u64 = self.header(header::RETRY_AFTER)?.parse().ok()?;
        Some(Duration::from_secs(seconds.clamp(1, 10)))
    }
}

/// One connection to one BMC.
#[derive(Debug)]
pub(super) struct Link {
    host: Arc<str>,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    open: Option<Open>,
    certificate: Option<Fingerprint>,
    /// When everything must be over.
    pub(super) deadline: Instant,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    pub(super) fn new(endpoint: &Endpoint, deadline: Instant) -> Result<Self, Error> {
        let host = endpoint.host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| Error::Unreachable {
            detail: format!("`{host}` is neither an address nor a name"),
        })?;
        Ok(Self {
            host: host.into(),
            port: endpoint.port(),
            name,
            config: tls::client(&endpoint.trust)?,
            open: None,
            certificate: None,
            deadline,
        })
    }

    /// The key that the BMC has shown.
    pub(super) fn certificate(&self) -> Option<Fingerprint> {
        self.certificate
    }

    /// Sends a request and waits for its answer, following redirects within the BMC.
    pub(super) async fn send(&mut self, ask: &Ask) -> Result<Answer, Lost> {
        let mut ask = ask.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.send_once(&ask).await?;
            let follow = match answer.status {
                307 | 308 => true,
                301 | 302 => ask.method == Method::GET,
                _ => false,
            };
            let Some(location) = answer.header(header::LOCATION).filter(|_| follow) else {
                return Ok(answer);
            };
            if !self.is_here(location) {
                return Err(Lost::Before(Error::Protocol {
                    detail: format!(
                        "it redirects to another host: {}",
                        resource::printable(location)
                    ),
                }));
            }
            ask.path = resource::path(location).unwrap_or_default();
        }
        Err(Lost::Before(Error::Protocol {
            detail: format!("it redirects `{}` in circles", ask.path),
        }))
    }

    /// Whether a location is a path, or names this host.
    fn is_here(&self, location: &str) -> bool {
        let Some(rest) = location.strip_prefix("https://") else {
            return resource::path(location).is_some() && location.starts_with('/');
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let here = [
            self.host.to_string(),
            format!("{}:{}", self.host, self.port),
            format!("[{}]", self.host),
            format!("[{}]:{}", self.host, self.port),
        ];
        here.iter().any(|own| own.eq_ignore_ascii_case(authority))
    }

    async fn send_once(&mut self, ask: &Ask) -> Result<Answer, Lost> {
        // A connection that was closed while idle says so only when it is used; what hyper then gives back was not sent.
        for last in [false, true] {
            self.connect().await.map_err(Lost::Before)?;
            let Some(open) = self.open.as_mut() else {
                break;
            };
            let request = request(&self.host, self.port, ask).map_err(Lost::Before)?;
            let limit = self.deadline.min(Instant::now() + ANSWER);
            let answer = timeout_at(limit, exchange(&mut open.sender, request)).await;
            match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Unanswered::NotSent)) if !last => self.open = None,
                Ok(Err(Unanswered::NotSent)) => {
                    self.open = None;
                    break;
                }
                Ok(Err(Unanswered::Sent(detail))) => {
                    self.open = None;
                    return Err(Lost::After(detail));
                }
                Err(_) => {
                    self.open = None;
                    return Err(Lost::After(format!(
                        "no answer to {} {}",
                        ask.method, ask.path
                    )));
                }
            }
        }
        Err(Lost::Before(Error::Unreachable {
            detail: "it closes every connection".to_owned(),
        }))
    }

    async fn connect(&mut self) -> Result<(), Error> {
        if self
            .open
            .as_ref()
            .is_some_and(|open| !open.sender.is_closed())
        {
            return Ok(());
        }
        self.open = None;
        let limit = self.deadline.min(Instant::now() + CONNECT);
        let (open, certificate) =
            timeout_at(limit, self.shake_hands())
                .await
                .map_err(|_| Error::Unreachable {
                    detail: format!("no connection to port {} in time", self.port),
                })??;
        match self.certificate {
            Some(before) if before != certificate => {
                return Err(Error::Insecure {
                    detail: format!("its key was {before} and is now {certificate}"),
                });
            }
            _ => self.certificate = Some(certificate),
        }
        self.open = Some(open);
        Ok(())
    }

    async fn shake_hands(&self) -> Result<(Open, Fingerprint), Error> {
        let unreachable = |error: &dyn std::fmt::Display| Error::Unreachable {
            detail: format!("port {}: {error}", self.port),
        };
        let stream = TcpStream::connect((&*self.host, self.port))
            .await
            .map_err(|error| unreachable(&error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| unreachable(&error))?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector
            .connect(self.name.clone(), stream)
            .await
            .map_err(|error| {
                let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
                tls.map_or_else(|| unreachable(&error), tls::insecure)
            })?;
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown
            .and_then(<[_]>::first)
            .ok_or_else(|| Error::Insecure {
                detail: "it shows no certificate".to_owned(),
            })?;
        let certificate = tls::fingerprint(shown)?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(128)
            .max_buf_size(LONGEST_HEAD)
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "redfish connection ended");
            }
        });
        Ok((Open { sender, driver }, certificate))
    }
}

enum Unanswered {
    NotSent,
    Sent(String),
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Unanswered> {
    sender.ready().await.map_err(|_| Unanswered::NotSent)?;
    let response = match sender.try_send_request(request).await {
        Ok(response) => response,
        Err(mut error) => {
            return Err(match error.take_message() {
                Some(_) => Unanswered::NotSent,
                None => Unanswered::Sent(error.into_error().to_string()),
            });
        }
    };
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_BODY)
        .collect()
        .await
        .map_err(|error| Unanswered::Sent(format!("its answer broke off: {error}")))?;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.to_bytes(),
    })
}

fn request(host: &str, port: u16, ask: &Ask) -> Result<Request<Full<Bytes>>, Error> {
    let authority = match (host.contains(':'), port) {
        (true, 443) => format!("[{host}]"),
        (true, port) => format!("[{host}]:{port}"),
        (false, 443) => host.to_owned(),
        (false, port) => format!("{host}:{port}"),
    };
    let mut request = Request::builder()
        .method(&ask.method)
        .uri(&ask.path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "firstboot")
        .header("OData-Version", "4.0");
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    let body = match &ask.body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    request.body(Full::new(body)).map_err(|_| Error::Protocol {
        detail: format!(
            "it links to `{}`, which is no path",
            resource::printable(&ask.path)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_answer_are_shown_without_what_is_secret() {
        const SECRET: &str = "canary-password";
        let ask = Ask {
            method: Method::POST,
            path: "/redfish/v1/SessionService/Sessions".to_owned(),
            body: Some(serde_json::json!({ "Password": SECRET })),
            headers: vec![(header::AUTHORIZATION, HeaderValue::from_static(SECRET))],
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-auth-token", HeaderValue::from_static(SECRET));
        let answer = Answer {
            status: 201,
            headers,
            body: Bytes::from_static(SECRET.as_bytes()),
        };
        let shown = format!("{ask:?} {answer:?}");
        assert!(!shown.contains(SECRET), "{shown}");
        assert!(shown.contains("POST /redfish/v1/SessionService"), "{shown}");
    }
}
