//! One conversation with a repository: requests with credentials, tokens that are refreshed, retries that end.
//!
//! It refuses to send credentials anywhere but to the registry and, over TLS, to the token server that it names.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::Challenge;
use super::credentials::{self, Credentials};
use super::reference::{Repository, is_loopback};
use super::{Error, Options, Plain};
use cloud::escape::escape;
use cloud::http::{Content, Http, TransportError, next};
use cloud::patience::chance;

/// Times that one request is sent.
const TRIES: u32 = 5;
/// Pause before the second time; it doubles.
const PAUSE: Duration = Duration::from_millis(300);
/// Longest pause, also where the registry asks for more.
const LONGEST: Duration = Duration::from_secs(30);
/// Redirects that are followed; registries send readers of layers to where those are kept.
const REDIRECTS: usize = 3;
/// Largest answer in words that is read.
const WORDS: u64 = 64 << 10;

/// What may be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// To read.
    Pull,
    /// To read and to write.
    Push,
}

/// A conversation with one repository; clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct Session {
    http: Http,
    pub(crate) repository: Repository,
    pub(super) options: Options,
    access: Access,
    credentials: Option<Credentials>,
    authorization: Arc<Mutex<Authorization>>,
}

/// What is shown with each request; it is found out by the first that is refused.
#[derive(Debug, Default)]
struct Authorization {
    header: Option<SecretString>,
    /// Counts changes, so that several requests that are refused at once ask for one token.
    round: u64,
}

/// One request, as often as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) what: String,
    pub(super) method: Method,
    /// A path of the repository's interface, or a whole URL that the registry gave.
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content: Content,
    /// Statuses that are answers, not failures.
    pub(super) expected: &'a [StatusCode],
    pub(super) tries: u32,
}

#[derive(Deserialize)]
struct Token {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
}

#[derive(Default, Deserialize)]
struct Words {
    #[serde(default)]
    errors: Vec<Word>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Word {
    code: String,
    message: String,
}

impl<'a> Ask<'a> {
    pub(super) fn new(
        what: String,
        method: Method,
        url: String,
        expected: &'a [StatusCode],
    ) -> Self {
        Self {
            what,
            method,
            url,
            headers: Vec::new(),
            content: Content::None,
            expected,
            tries: TRIES,
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Session {
    /// Begins a conversation; nothing is sent yet.
    ///
    /// # Errors
    /// When credentials should be there and cannot be read.
    pub fn new(repository: &Repository, access: Access, options: &Options) -> Result<Self, Error> {
        Ok(Self {
            http: Http::new(),
            credentials: credentials::find(repository)?,
            repository: repository.clone(),
            options: options.clone(),
            access,
            authorization: Arc::default(),
        })
    }

    #[cfg(test)]
    pub(super) fn with_credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// The URL of a path below the repository.
    pub(super) fn url(&self, path: &str) -> String {
        let plain = self.repository.is_loopback() || self.options.plain == Plain::Everywhere;
        let scheme = if plain { "http" } else { "https" };
        format!(
            "{scheme}://{}/v2/{}/{path}",
            self.repository.server(),
            self.repository.path
        )
    }

    /// Asks, again where that may help, and returns the answer when its status is an expected one.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Error> {
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let outcome = self.once(ask).await;
            let wait = match &outcome {
                Ok(answer) if ask.expected.contains(&answer.status()) => return outcome,
                Ok(answer) if !is_passing(answer.status()) => None,
                Ok(answer) => Some(asked_for(answer).unwrap_or(pause)),
                Err(Error::Transport { source, .. }) => matches!(
                    source,
                    TransportError::Connection(_) | TransportError::Silent
                )
                .then_some(pause),
                Err(_) => None,
            };
            let (Some(wait), true) = (wait, tries < ask.tries) else {
                return match outcome {
                    Ok(answer) => Err(refused(&ask.what, answer).await),
                    Err(error) => Err(error),
                };
            };
            tracing::debug!(what = ask.what, tries, "asking the registry again");
            tokio::time::sleep(jittered(wait.min(LONGEST))).await;
            pause *= 2;
            tries += 1;
        }
    }

    /// Asks once, and once more with a fresh token when the first was not taken.
    async fn once(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Error> {
        let round = self.authorization.lock().await.round;
        let answer = self.follow(ask).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let mut offers = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = offers.find_map(|value| Challenge::parse(value.to_str().ok()?));
        match challenge {
            Some(challenge) if self.authorize(&challenge, round).await? => self.follow(ask).await,
            _ => Ok(answer),
        }
    }

    /// Sends a request; one that reads is sent where it is redirected to, without credentials on another host.
    async fn follow(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Error> {
        let protocol = |reason: String| Error::Protocol {
            what: ask.what.clone(),
            reason,
        };
        let mut url: Uri = ask
            .url
            .parse()
            .map_err(|_| protocol(format!("`{}` is no URL", ask.url)))?;
        let own: Uri = self
            .url("")
            .parse()
            .map_err(|_| protocol("the registry's name is no URL".to_owned()))?;
        for _ in 0..=REDIRECTS {
            self.check_plain(&url).map_err(protocol)?;
            let mut head = Request::builder()
                .method(ask.method.clone())
                .uri(url.clone());
            for (name, value) in &ask.headers {
                head = head.header(*name, value);
            }
            if (url.scheme(), url.authority()) == (own.scheme(), own.authority())
                && let Some(header) = &self.authorization.lock().await.header
            {
                head = head.header(AUTHORIZATION, sensitive(header));
            }
            let answer = self.send(ask, head).await?;
            let reads = matches!(ask.method, Method::GET | Method::HEAD);
            if !answer.status().is_redirection() || !reads {
                return Ok(answer);
            }
            let target =
                location(&answer).ok_or_else(|| protocol("a redirect leads nowhere".to_owned()))?;
            url = resolve(&url, &target)
                .ok_or_else(|| protocol(format!("a redirect leads to `{target}`")))?;
        }
        Err(protocol(format!("more than {REDIRECTS} redirects")))
    }

    async fn send(&self, ask: &Ask<'_>, head: Builder) -> Result<Response<Incoming>, Error> {
        let answer = self.http.send(head, ask.content.clone()).await;
        answer.map_err(|source| Error::Transport {
            what: ask.what.clone(),
            source,
        })
    }

    /// Refuses plain HTTP to where it was not asked for.
    fn check_plain(&self, url: &Uri) -> Result<(), String> {
        let authority = url
            .authority()
            .map_or("", hyper::http::uri::Authority::as_str);
        let allowed = match url.scheme_str() {
            Some("https") => true,
            Some("http") => is_loopback(authority) || self.options.plain == Plain::Everywhere,
            _ => false,
        };
        if allowed {
            Ok(())
        } else {
            Err(format!("it leads to `{url}`, which is not `https`"))
        }
    }

    /// Finds out what to show, as the registry asked for it; says whether there is something new to show.
    async fn authorize(&self, challenge: &Challenge, round: u64) -> Result<bool, Error> {
        let mut authorization = self.authorization.lock().await;
        if authorization.round != round {
            return Ok(true);
        }
        let header = match challenge {
            Challenge::Basic => match &self.credentials {
                Some(Credentials::Password { user, password })
                    if authorization.header.is_none() =>
                {
                    Some(basic(user, password))
                }
                _ => None,
            },
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => Some(
                self.token(realm, service.as_deref(), scope.as_deref())
                    .await?,
            ),
        };
        let Some(header) = header else {
            return Ok(false);
        };
        authorization.header = Some(header);
        authorization.round += 1;
        Ok(true)
    }

    /// Asks the token server that the registry names.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<SecretString, Error> {
        let what = format!("get a token for `{}`", self.repository);
        let rights = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let own = format!("repository:{}:{rights}", self.repository.path);
        let mut scopes = vec![own.as_str()];
        // A mount from another repository asks for the right to read that one too.
        scopes.extend(
            scope
                .into_iter()
                .flat_map(str::split_whitespace)
                .filter(|scope| !own.starts_with(*scope)),
        );
        scopes.dedup();
        let mut query: Vec<(&str, &str)> = service
            .map(|service| ("service", service))
            .into_iter()
            .collect();
        query.extend(scopes.iter().map(|scope| ("scope", *scope)));
        let mut ask = if let Some(Credentials::Identity(token)) = &self.credentials {
            let fixed = [
                ("grant_type", "refresh_token"),
                ("client_id", "imagebuild"),
                ("refresh_token", token.expose_secret()),
            ];
            let joined = scopes.join(" ");
            let service = service.map(|service| ("service", service));
            let form = encode(
                fixed
                    .into_iter()
                    .chain(service)
                    .chain([("scope", joined.as_str())]),
            );
            let mut ask = Ask::new(
                what.clone(),
                Method::POST,
                realm.to_owned(),
                &[StatusCode::OK],
            );
            ask.content = Content::Bytes(Bytes::from(form));
            ask.with(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")
        } else {
            let separator = if realm.contains('?') { '&' } else { '?' };
            let url = format!("{realm}{separator}{}", encode(query.into_iter()));
            Ask::new(what.clone(), Method::GET, url, &[StatusCode::OK])
        };
        ask = ask.with(ACCEPT.as_str(), "application/json");
        let protocol = |reason: String| Error::Protocol {
            what: what.clone(),
            reason,
        };
        let url: Uri = ask
            .url
            .parse()
            .map_err(|_| protocol(format!("`{realm}` is no URL")))?;
        self.check_plain(&url).map_err(protocol)?;
        let mut head = Request::builder().method(ask.method.clone()).uri(url);
        for (name, value) in &ask.headers {
            head = head.header(*name, value);
        }
        if let Some(Credentials::Password { user, password }) = &self.credentials {
            head = head.header(AUTHORIZATION, sensitive(&basic(user, password)));
        }
        let answer = self.send(&ask, head).await?;
        if answer.status() != StatusCode::OK {
            return Err(refused(&what, answer).await);
        }
        let text = read(answer, WORDS, &what).await?;
        let token: Token = serde_json::from_slice(&text)
            .map_err(|_| protocol("the answer holds no token".to_owned()))?;
        let token = token.token.or(token.access_token);
        let token = token.ok_or_else(|| protocol("the answer holds no token".to_owned()))?;
        Ok(SecretString::from(format!(
            "Bearer {}",
            token.expose_secret()
        )))
    }
}

/// Reads all of an answer that is not large.
pub(super) async fn read(
    mut answer: Response<Incoming>,
    limit: u64,
    what: &str,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    loop {
        let piece = next(&mut answer).await.map_err(|source| Error::Transport {
            what: what.to_owned(),
            source,
        })?;
        let Some(piece) = piece else {
            return Ok(bytes);
        };
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge {
                what: what.to_owned(),
                limit,
            });
        }
    }
}

/// Tells what a registry says about a request that it refused.
async fn refused(what: &str, answer: Response<Incoming>) -> Error {
    let status = answer.status();
    let words = read(answer, WORDS, what).await.unwrap_or_default();
    let words: Words = serde_json::from_slice(&words).unwrap_or_default();
    let told = words
        .errors
        .iter()
        .map(|word| format!("{} {}", word.code, word.message).trim().to_owned());
    let details: String = told
        .collect::<Vec<_>>()
        .join("; ")
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    Error::Refused {
        what: what.to_owned(),
        status,
        details,
    }
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        )
}

fn asked_for(answer: &Response<Incoming>) -> Option<Duration> {
    let seconds = answer
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// A pause between half and all of the given one, so that many who were refused at once do not come back at once.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + (pause / 2).mul_f64(chance())
}

fn basic(user: &str, password: &SecretString) -> SecretString {
    let pair = format!("{user}:{}", password.expose_secret());
    SecretString::from(format!("Basic {}", STANDARD.encode(pair)))
}

fn sensitive(header: &SecretString) -> hyper::header::HeaderValue {
    let value = hyper::header::HeaderValue::from_str(header.expose_secret());
    // One that no header can hold is no credential that any registry gave.
    let mut value = value.unwrap_or_else(|_| hyper::header::HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Where an answer says that something is.
pub(super) fn location(answer: &Response<Incoming>) -> Option<String> {
    answer
        .headers()
        .get(LOCATION)?
        .to_str()
        .ok()
        .map(str::to_owned)
}

/// How long an answer says that it is.
pub(super) fn length(answer: &Response<Incoming>) -> Option<u64> {
    answer
        .headers()
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Resolves a location: a whole URL, or a path on the same host.
pub(super) fn resolve(from: &Uri, target: &str) -> Option<Uri> {
    let uri: Uri = target.parse().ok()?;
    if uri.scheme().is_some() {
        return Some(uri);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(target.starts_with('/').then_some(target)?.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Writes a query or a form.
pub(super) fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}
