//! The command line's side of the API: finds the appliance, shows the token, and tells what went wrong.
//!
//! It refuses to talk to an appliance whose certificate is not of the authority that it was given.

mod connect;
mod target;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::problem::Problem;
use crate::cli::{Exit, Failure};

pub(crate) use self::connect::ConnectError;
pub(crate) use self::target::{Target, URL_FILE};

/// Largest answer that is read: the events of a large site.
const ANSWER_MAX: usize = 64 << 20;

/// How long an answer may take: a long poll takes a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// Names the request so that asking twice is asking once.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Talks to one appliance.
#[derive(Debug)]
pub(crate) struct Client {
    dialer: connect::Dialer,
    token: SecretString,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The appliance could not be reached, or is another one.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended.
    #[error("the appliance at {url} did not answer")]
    Exchange {
        /// Where it was asked.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("the appliance at {url} did not answer in {} seconds", PATIENCE.as_secs())]
    Slow {
        /// Where it was asked.
        url: String,
    },
    /// The appliance refused.
    #[error(transparent)]
    Refused(Box<Problem>),
    /// What came is no answer of an appliance of this version.
    #[error("what {url} answered is not understood ({status})")]
    Answer {
        /// Where it was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// Why.
        #[source]
        source: Option<serde_json::Error>,
    },
}

impl ClientError {
    /// Tells whether it may be gone when asked again: nothing was reached, or the appliance was busy.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Connect(error) => matches!(error, ConnectError::Reach { .. }),
            Self::Exchange { .. } | Self::Slow { .. } => true,
            Self::Refused(problem) => matches!(problem.status, 429 | 503),
            Self::Answer { .. } => false,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let help = match &error {
            ClientError::Connect(error) => Some(error.help()),
            ClientError::Exchange { .. } | ClientError::Slow { .. } => {
                Some("ask again; what was asked before may have been done: `netboot events` shows it".to_owned())
            }
            ClientError::Refused(problem) => problem.help.as_deref().map(str::to_owned),
            ClientError::Answer { .. } => {
                Some("`--url` must be that of a Firstboot appliance's API; `netboot --version` and the appliance's should agree".to_owned())
            }
        };
        let exit = match &error {
            ClientError::Refused(problem) if problem.word() == "site" => Exit::Configuration,
            _ => Exit::Remote,
        };
        let failure = Self::new(error).exit(exit);
        match help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

impl Client {
    /// Finds the appliance, the authority to trust and the token to show.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub(crate) fn open(target: &Target) -> Result<Self, Failure> {
        let found = target.find()?;
        Ok(Self {
            dialer: connect::Dialer::new(&found.url, &found.ca)?,
            token: found.token,
        })
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.ask(Method::GET, path, None, Bytes::new()).await?;
        self.read(response).await
    }

    /// Sends something, and reads the answer.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|source| ClientError::Answer {
            url: self.dialer.url().to_owned(),
            status: StatusCode::BAD_REQUEST,
            source: Some(source),
        })?;
        let response = self.ask(method, path, key, body.into()).await?;
        self.read(response).await
    }

    /// Asks for something that comes as a stream.
    pub(crate) async fn stream(&self, method: Method, path: &str) -> Result<Incoming, ClientError> {
        let response = self.ask(method, path, None, Bytes::new()).await?;
        Ok(response.into_body())
    }

    /// Turns a connection into one of plain bytes both ways.
    pub(crate) async fn upgrade(
        &self,
        path: &str,
        protocol: &str,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>, ClientError> {
        let request = self
            .request(Method::POST, path)
            .header(hyper::header::CONNECTION, "upgrade")
            .header(hyper::header::UPGRADE, protocol);
        let response = self.exchange(request, Bytes::new()).await?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let unexpected = self.unexpected(status, None);
            return Err(match self.check(response).await {
                Err(refused) => refused,
                Ok(_) => unexpected,
            });
        }
        let upgraded = hyper::upgrade::on(response).await;
        upgraded
            .map(TokioIo::new)
            .map_err(|error| self.broken(error))
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        // The token is in no URL and no log: `SecretString` and the header's mark keep it out.
        let bearer = Zeroizing::new(format!("Bearer {}", self.token.expose_secret()));
        let value = hyper::header::HeaderValue::from_str(&bearer).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.dialer.authority())
            .header(ACCEPT, "application/json");
        match value {
            Ok(value) => request.header(AUTHORIZATION, value),
            Err(_) => request,
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = self.request(method, path);
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let response = self.exchange(request, body).await?;
        self.check(response).await
    }

    async fn exchange(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let stream = self.dialer.dial().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // It ends with the response's body, or with the upgraded stream.
        tokio::spawn(connection.with_upgrades());
        match tokio::time::timeout(PATIENCE, sender.send_request(request)).await {
            Ok(answered) => answered.map_err(|error| self.broken(error)),
            Err(_) => Err(ClientError::Slow {
                url: self.dialer.url().to_owned(),
            }),
        }
    }

    /// Turns problems into errors.
    async fn check(&self, response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.collect(response).await?;
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
            Err(source) => Err(self.unexpected(status, Some(source))),
        }
    }

    async fn read<T: DeserializeOwned>(
        &self,
        response: Response<Incoming>,
    ) -> Result<T, ClientError> {
        let status = response.status();
        let body = self.collect(response).await?;
        serde_json::from_slice(&body).map_err(|source| self.unexpected(status, Some(source)))
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
        match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.broken(error)),
            Err(_) => Err(ClientError::Slow {
                url: self.dialer.url().to_owned(),
            }),
        }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Exchange {
            url: self.dialer.url().to_owned(),
            source: source.into(),
        }
    }

    fn unexpected(&self, status: StatusCode, source: Option<serde_json::Error>) -> ClientError {
        ClientError::Answer {
            url: self.dialer.url().to_owned(),
            status,
            source,
        }
    }
}

/// Runs what talks to an appliance.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::new)?
        .block_on(future)
}
