//! One call to a cloud's interface: signed, bounded in time and size, tried again where that may help.
//!
//! It refuses to hang, to try again what will be refused again, and to read an answer without a bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode, Uri};

use crate::authorize::Authorize;
use crate::error::Error;
use crate::http::private::is_private;
use crate::http::{Content, Http, next};
use crate::patience::{Patience, chance};

/// How often fresh credentials are got for one call: those may be used up by others before it comes to them.
const RENEWALS: u32 = 3;
/// Largest answer that is read, unless a call says otherwise.
const LONGEST: usize = 8 << 20;
/// Most of a message of a cloud that is repeated in an error.
const MESSAGE: usize = 400;

/// One call, as often as it is sent.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is asked for, as errors say it after "failed to".
    pub what: String,
    /// The method.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// Headers beside those of every request.
    pub headers: Vec<(HeaderName, String)>,
    /// What is sent.
    pub content: Content,
    /// Its bounds.
    pub patience: Patience,
    /// Largest answer that is read, in bytes.
    pub longest: usize,
}

impl Call {
    /// A call without a body.
    #[must_use]
    pub fn new(what: impl Into<String>, method: Method, url: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            method,
            url: url.into(),
            headers: Vec::new(),
            content: Content::None,
            patience: Patience::CALL,
            longest: LONGEST,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets what is sent.
    #[must_use]
    pub fn sending(mut self, content: Content) -> Self {
        self.content = content;
        self
    }
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, when it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long the cloud asks to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        seconds.trim().parse().ok().map(Duration::from_secs)
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    /// When it is none of that shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Protocol {
            what: what.to_owned(),
            reason: format!("the answer cannot be read: {error}"),
        })
    }
}

/// How an answer is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the answer, whatever its status.
    Answer,
    /// Too much was asked: later.
    Throttled,
    /// Something broke on their side: again.
    Passing(Refusal),
    /// The signature or token is old: once more with a new one.
    Expired(Refusal),
    /// It was refused, and will be again.
    Refused(Refusal),
    /// The credentials do not allow it; names the permission.
    Denied(String, Refusal),
}

/// What a cloud says when it refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Its own word.
    pub code: String,
    /// Its own sentence.
    pub message: String,
}

/// Reads what an answer means; each cloud says it in its own way.
pub type Judge = fn(&Call, &Answer) -> Verdict;

/// What one attempt came to.
#[derive(Debug)]
pub enum Outcome {
    /// The answer.
    Done(Answer),
    /// It may go better later; after the time that the cloud asks for, if it does.
    Later {
        /// Whether too much was asked, which is no fault.
        throttled: Throttled,
        /// How long the cloud asks to be left alone.
        after: Option<Duration>,
        /// What to say when there is no later.
        error: Error,
    },
    /// It will never go better.
    Never(Error),
}

/// Whether an attempt was put off because too much was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttled {
    /// Too much was asked.
    Yes,
    /// Something else went wrong.
    No,
}

/// A cloud's interface; clones share connections and credentials.
#[derive(Clone, Debug)]
pub struct Api {
    http: Http,
    authorize: Arc<dyn Authorize>,
    judge: Judge,
}

impl Api {
    /// An interface that is asked by somebody, and whose answers are judged.
    #[must_use]
    pub fn new(http: Http, authorize: Arc<dyn Authorize>, judge: Judge) -> Self {
        Self {
            http,
            authorize,
            judge,
        }
    }

    /// Asks, again where that may help, until the call's patience ends.
    ///
    /// # Errors
    /// When it is refused, or no answer comes in time.
    pub async fn call(&self, call: &Call) -> Result<Answer, Error> {
        let begun = Instant::now();
        let mut attempt = 0;
        loop {
            let (after, error) = match self.attempt(call).await {
                Outcome::Done(answer) => return Ok(answer),
                Outcome::Never(error) => return Err(error),
                Outcome::Later { after, error, .. } => (after, error),
            };
            let wait = call
                .patience
                .wait(attempt, begun.elapsed(), after, chance());
            let Some(wait) = wait else { return Err(error) };
            tracing::debug!(what = call.what, attempt, %error, "asking the cloud again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Asks once, and at once again with fresh credentials when the old ones were not taken.
    pub async fn attempt(&self, call: &Call) -> Outcome {
        let mut renewed = 0;
        loop {
            let once = tokio::time::timeout(call.patience.attempt, self.once(call));
            let (answer, signed) = match once.await {
                Err(_) => {
                    return later(Error::Deadline {
                        what: format!("for an answer to: {}", call.what),
                        waited: call.patience.attempt,
                        last: "nothing".to_owned(),
                    });
                }
                Ok(Err(error @ Error::Transport { .. })) => return later(error),
                Ok(Err(error)) => return Outcome::Never(error),
                Ok(Ok(answer)) => answer,
            };
            let verdict = (self.judge)(call, &answer);
            if matches!(verdict, Verdict::Expired(_)) && renewed < RENEWALS {
                self.authorize.renew(signed);
                renewed += 1;
                continue;
            }
            return outcome(call, answer, verdict);
        }
    }

    /// Asks, and says when the question was signed.
    async fn once(&self, call: &Call) -> Result<(Answer, Instant), Error> {
        let head = self.head(call).await?;
        let signed = Instant::now();
        let transport = |source| Error::Transport {
            what: call.what.clone(),
            source,
        };
        let sent = self.http.send(head, call.content.clone()).await;
        let mut answer = sent.map_err(transport)?;
        let mut body = Vec::new();
        while let Some(bytes) = next(&mut answer).await.map_err(transport)? {
            body.extend_from_slice(&bytes);
            if body.len() > call.longest {
                return Err(Error::Protocol {
                    what: call.what.clone(),
                    reason: format!("the answer is larger than {} bytes", call.longest),
                });
            }
        }
        let answer = Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body,
        };
        Ok((answer, signed))
    }

    async fn head(&self, call: &Call) -> Result<hyper::http::request::Builder, Error> {
        let protocol = |reason: String| Error::Protocol {
            what: call.what.clone(),
            reason,
        };
        let url: Uri = call
            .url
            .parse()
            .map_err(|_| protocol(format!("`{}` is no URL", call.url)))?;
        if !is_private(&url) {
            return Err(protocol(format!("`{url}` is not `https`")));
        }
        let request = Request::builder().method(call.method.clone()).uri(url);
        let request = request
            .body(())
            .map_err(|error| protocol(error.to_string()))?;
        let (mut parts, ()) = request.into_parts();
        for (name, value) in &call.headers {
            let value = HeaderValue::from_str(value);
            let value =
                value.map_err(|_| protocol(format!("`{name}` cannot have such a value")))?;
            parts.headers.append(name, value);
        }
        self.authorize.authorize(&mut parts).await?;
        let mut head = Request::builder().method(parts.method).uri(parts.uri);
        if let Some(headers) = head.headers_mut() {
            *headers = parts.headers;
            // Ours is set where requests are sent.
            headers.remove(hyper::header::HOST);
        }
        Ok(head)
    }
}

fn later(error: Error) -> Outcome {
    Outcome::Later {
        throttled: Throttled::No,
        after: None,
        error,
    }
}

fn outcome(call: &Call, answer: Answer, verdict: Verdict) -> Outcome {
    let refused = |refusal: Refusal| Error::Refused {
        what: call.what.clone(),
        status: answer.status.as_u16(),
        code: plain(&refusal.code),
        message: plain(&refusal.message),
    };
    match verdict {
        Verdict::Answer => Outcome::Done(answer),
        Verdict::Throttled => Outcome::Later {
            throttled: Throttled::Yes,
            after: answer.retry_after(),
            error: refused(Refusal {
                code: "throttled".to_owned(),
                message: "too much is asked of the cloud".to_owned(),
            }),
        },
        Verdict::Passing(refusal) => Outcome::Later {
            throttled: Throttled::No,
            after: answer.retry_after(),
            error: refused(refusal),
        },
        Verdict::Expired(refusal) | Verdict::Refused(refusal) => Outcome::Never(refused(refusal)),
        Verdict::Denied(permission, refusal) => Outcome::Never(Error::Denied {
            what: call.what.clone(),
            permission,
            message: plain(&refusal.message),
        }),
    }
}

/// Foreign words go to a terminal: without control characters, and not without end.
fn plain(text: &str) -> String {
    let text = text.chars().filter(|c| !c.is_control());
    text.take(MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_are_made_harmless() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a[2Jb");
        assert_eq!(plain(&"x".repeat(1000)).len(), MESSAGE);
    }
}
