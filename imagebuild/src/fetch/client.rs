//! One HTTP client for all mirrors: proxies as the environment says, TLS, redirects, time limits.
//!
//! It refuses endless things: redirects in circles, servers that fall silent, answers without a bound.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;

use super::download;
use cloud::http::chain;
use cloud::http::route::Route;

/// A server that does not answer within this time is asked no more.
const ANSWER: Duration = Duration::from_secs(30);
/// A server that sends nothing for this time is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// Redirects that are followed; snapshot archives use one or two.
const MAX_REDIRECTS: usize = 5;

/// The client; clones share connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    plain: legacy::Client<Route, Empty<Bytes>>,
    secure: Option<legacy::Client<HttpsConnector<Route>, Empty<Bytes>>>,
    route: Route,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The URL, or one that it redirects to, cannot be used.
    #[error("`{0}` is not a URL that can be fetched")]
    Url(String),
    /// TLS needs certificates, and there are none.
    #[error("this machine has no certificates of authorities, which `https` needs")]
    NoAuthorities,
    /// The server cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The server did not answer in time.
    #[error("no answer within {} s", ANSWER.as_secs())]
    TimedOut,
    /// The server fell silent.
    #[error("the server sent nothing for {} s", SILENCE.as_secs())]
    Silent,
    /// The connection was cut.
    #[error("the answer was cut off: {0}")]
    Cut(String),
    /// The server refused.
    #[error("{0}")]
    Status(StatusCode),
    /// Redirects go in circles.
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    /// The answer is larger than it may be.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
}

impl RequestError {
    /// Only a server that says so does not have the file: all else may be the way to it.
    pub(crate) fn answer(&self) -> download::Answer {
        match self {
            Self::Status(StatusCode::NOT_FOUND | StatusCode::GONE) => download::Answer::Absent,
            _ => download::Answer::Unreachable,
        }
    }

    /// Whether asking again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Silent | Self::Cut(_) => true,
            Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Url(_) | Self::NoAuthorities | Self::Redirects | Self::TooLarge(_) => false,
        }
    }
}

impl Client {
    /// Goes through the proxies that the environment names.
    pub(crate) fn new() -> Self {
        Self::through(Route::new(Matcher::from_env()))
    }

    fn through(route: Route) -> Self {
        let secure = HttpsConnectorBuilder::new()
            .with_native_roots()
            .ok()
            .map(|builder| {
                builder
                    .https_or_http()
                    .enable_http1()
                    .wrap_connector(route.clone())
            })
            .map(|connector| legacy::Client::builder(TokioExecutor::new()).build(connector));
        Self {
            plain: legacy::Client::builder(TokioExecutor::new()).build(route.clone()),
            secure,
            route,
        }
    }

    /// Asks for a URL, following redirects, and returns the answer with status 200.
    pub(crate) async fn get(&self, url: &str) -> Result<Answer, RequestError> {
        let mut uri: Uri = url.parse().map_err(|_| RequestError::Url(url.to_owned()))?;
        for _ in 0..=MAX_REDIRECTS {
            let response = tokio::time::timeout(ANSWER, self.ask(&uri))
                .await
                .map_err(|_| RequestError::TimedOut)??;
            let status = response.status();
            if status == StatusCode::OK {
                return Ok(Answer { response });
            }
            if !status.is_redirection() {
                return Err(RequestError::Status(status));
            }
            let target = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let target = target.ok_or(RequestError::Status(status))?;
            uri = redirect(&uri, target).ok_or_else(|| RequestError::Url(target.to_owned()))?;
        }
        Err(RequestError::Redirects)
    }

    /// Asks for a small text, whose digest is not known beforehand.
    pub(crate) async fn text(&self, url: &str, limit: u64) -> Result<Vec<u8>, RequestError> {
        let mut answer = self.get(url).await?;
        let mut bytes = Vec::new();
        while let Some(next) = answer.next().await? {
            bytes.extend_from_slice(&next);
            if bytes.len() as u64 > limit {
                return Err(RequestError::TooLarge(limit));
            }
        }
        Ok(bytes)
    }

    async fn ask(&self, uri: &Uri) -> Result<Response<Incoming>, RequestError> {
        let bad = || RequestError::Url(uri.to_string());
        let host = uri.authority().ok_or_else(bad)?;
        let mut request = Request::get(uri.clone())
            .header(HOST, host.as_str())
            .header(
                USER_AGENT,
                concat!("imagebuild/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(credentials) = self.route.credentials(uri) {
            request = request.header(PROXY_AUTHORIZATION, credentials);
        }
        let request = request.body(Empty::new()).map_err(|_| bad())?;
        let response = match uri.scheme_str() {
            Some("http") => self.plain.request(request).await,
            Some("https") => {
                let client = self.secure.as_ref().ok_or(RequestError::NoAuthorities)?;
                client.request(request).await
            }
            _ => return Err(bad()),
        };
        response.map_err(|error| RequestError::Unreachable(chain(&error)))
    }
}

/// An answer with status 200, whose body is still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response<Incoming>,
}

impl Answer {
    /// Waits for the next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RequestError> {
        loop {
            let frame = tokio::time::timeout(SILENCE, self.response.body_mut().frame())
                .await
                .map_err(|_| RequestError::Silent)?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(RequestError::Cut(chain(&error))),
                // Trailers say nothing to us.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

/// Resolves the target of a redirect: a whole URL, or a path on the same host.
fn redirect(from: &Uri, target: &str) -> Option<Uri> {
    let uri: Uri = target.parse().ok()?;
    if uri.scheme().is_some() {
        return Some(uri);
    }
    let mut parts = from.clone().into_parts();
    let path = if target.starts_with('/') {
        target.to_owned()
    } else {
        let (directory, _) = from.path().rsplit_once('/')?;
        format!("{directory}/{target}")
    };
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_proxy_sees_the_whole_url_and_its_credentials() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let count = stream.read(&mut head).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&head[..count]).to_lowercase()
        });
        let matcher = Matcher::builder()
            .http(format!("http://user:word@{address}"))
            .no("direct.test")
            .build();
        let client = Client::through(Route::new(matcher));
        let bytes = client
            .text("http://mirror.test/debian/x", 10)
            .await
            .unwrap();
        assert_eq!(bytes, b"ok");
        let head = proxy.await.unwrap();
        assert!(
            head.starts_with("get http://mirror.test/debian/x http/1.1"),
            "{head}"
        );
        assert!(head.contains("host: mirror.test"), "{head}");
        assert!(head.contains("proxy-authorization: basic"), "{head}");
    }

    #[test]
    fn redirects_are_resolved_against_where_they_come_from() {
        let from: Uri = "http://a.test/one/two".parse().unwrap();
        let cases = [
            ("https://b.test/x", Some("https://b.test/x")),
            ("/x/y", Some("http://a.test/x/y")),
            ("three", Some("http://a.test/one/three")),
            ("http://[", None),
        ];
        for (target, expected) in cases {
            let found = redirect(&from, target).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{target}");
        }
    }
}
