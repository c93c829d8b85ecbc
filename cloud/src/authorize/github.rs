//! The identity of a job of GitHub Actions: tokens that say which repository and branch runs, minted on demand.
//!
//! It refuses to keep one: a token lives for five minutes, so a new one is asked for whenever one is needed.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde::Deserialize;

use crate::escape::escape;
use crate::http::private::is_private;
use crate::http::{Content, Http};

/// GitHub answers within this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest answer that is read.
const LONGEST: usize = 1 << 20;
/// How often it is asked where that may help.
const ATTEMPTS: u32 = 4;

/// A job that may ask for tokens: one with `permissions: id-token: write`.
#[derive(Clone)]
pub struct Job {
    url: String,
    bearer: String,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

#[derive(Deserialize)]
struct Minted {
    value: String,
}

impl Job {
    /// The job that an environment speaks of, if it does.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        Some(Self {
            url: variable("ACTIONS_ID_TOKEN_REQUEST_URL")?,
            bearer: variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?,
        })
    }

    /// Where a token for an audience is asked for.
    #[must_use]
    pub fn url(&self, audience: &str) -> String {
        let joint = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{joint}audience={}", self.url, escape(audience))
    }

    /// What has to be shown there: a secret.
    #[must_use]
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.bearer)
    }

    /// Asks for a token, again where that may help.
    ///
    /// # Errors
    /// When there is none; the reason has no secret in it.
    pub async fn mint(&self, http: &Http, audience: &str) -> Result<String, String> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
            }
            last = match tokio::time::timeout(PATIENCE, self.once(http, audience)).await {
                Err(_) => "GitHub's server of tokens does not answer".to_owned(),
                Ok(Ok(token)) => return Ok(token),
                Ok(Err(Failed::Passing(reason))) => reason,
                Ok(Err(Failed::Final(reason))) => return Err(reason),
            };
        }
        Err(last)
    }

    async fn once(&self, http: &Http, audience: &str) -> Result<String, Failed> {
        let last = |reason: &str| Failed::Final(format!("GitHub's server of tokens {reason}"));
        let mut bearer = HeaderValue::from_str(&self.authorization())
            .map_err(|_| last("cannot be shown what the environment has"))?;
        bearer.set_sensitive(true);
        let url: hyper::Uri = self.url(audience).parse().map_err(|_| last("has no URL"))?;
        if !is_private(&url) {
            return Err(last("is not asked by `https`"));
        }
        let head = Request::get(url).header(ACCEPT, "application/json");
        let answer = http.send(head.header(AUTHORIZATION, bearer), Content::None);
        let passing = |reason: &dyn fmt::Display| {
            Failed::Passing(format!(
                "GitHub's server of tokens cannot be asked: {reason}"
            ))
        };
        let (parts, body) = answer.await.map_err(|error| passing(&error))?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await;
        let body: Bytes = body.map_err(|error| passing(&error))?.to_bytes();
        let status = parts.status;
        if status.is_server_error() || status == 429 {
            return Err(passing(&status));
        }
        if !status.is_success() {
            return Err(last(&format!(
                "says {status} (the job needs `permissions: id-token: write`)"
            )));
        }
        let minted: Result<Minted, _> = serde_json::from_slice(&body);
        minted
            .map(|minted| minted.value)
            .map_err(|_| last("answers without a token"))
    }
}

enum Failed {
    /// It may go better in a moment.
    Passing(String),
    /// It will not.
    Final(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_what_the_environment_says_and_shows_no_secret() {
        let all = |name: &str| match name {
            "ACTIONS_ID_TOKEN_REQUEST_URL" => Some("https://a.example/t?v=2".to_owned()),
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN" => Some("s3cret".to_owned()),
            _ => None,
        };
        let job = Job::of(all).unwrap();
        let url = job.url("api://Exchange");
        assert_eq!(url, "https://a.example/t?v=2&audience=api%3A%2F%2FExchange");
        assert!(!format!("{job:?}").contains("s3cret"));
        let half = |name: &str| all(name).filter(|_| name.ends_with("URL"));
        assert!(Job::of(half).is_none());
    }
}
