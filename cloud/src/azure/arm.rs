//! The resource manager: reading and writing resources, and waiting until they are what was asked for.
//!
//! It refuses to follow an address that is not the resource manager's own: tokens go nowhere else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::api::{Answer, Api, Call, Refusal, Verdict};
use crate::authorize::Authorize;
use crate::error::Error;
use crate::http::{Content, Http};
use crate::patience::{Patience, chance};

/// Pages of a list that are read at most.
const PAGES: usize = 200;

/// The resource manager's interface.
#[derive(Clone, Debug)]
pub struct Arm {
    api: Api,
    endpoint: String,
    /// How often is asked while something is waited for, and for how long.
    pub patience: Patience,
}

/// What a change came to, when it was taken.
#[derive(Clone, Debug)]
pub enum Taken {
    /// It goes on; how it does is asked at this address, when there is one.
    Yes(Option<Operation>),
    /// Something else is being done with the resource: it is to be looked at again.
    Busy(Refusal),
}

/// Where one asks how a change goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A resource of its own says its state.
    Status(String),
    /// The answer's status says it.
    Location(String),
}

/// How a change goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It does.
    Running(Option<Duration>),
    /// It is done.
    Done,
    /// It went wrong.
    Failed(Refusal),
}

impl Arm {
    /// An interface at an endpoint.
    #[must_use]
    pub fn new(
        http: Http,
        authorize: Arc<dyn Authorize>,
        endpoint: String,
        whole: Duration,
    ) -> Self {
        Self {
            api: Api::new(http, authorize, judge),
            endpoint,
            patience: Patience::task(whole),
        }
    }

    /// Reads a resource, `None` when there is none. The query has the version, and what is asked besides.
    ///
    /// # Errors
    /// When it may not be read, or no answer comes.
    pub async fn read(&self, what: &str, path: &str, query: &str) -> Result<Option<Value>, Error> {
        let url = format!("{}{path}?{query}", self.endpoint);
        let what = format!("read {what}");
        let answer = self.api.call(&Call::new(&what, Method::GET, url)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.json(&what).map(Some)
    }

    /// Reads a whole list; empty when what it belongs to is not there.
    ///
    /// # Errors
    /// When it may not be read, or no answer comes.
    pub async fn list(&self, what: &str, path: &str, query: &str) -> Result<Vec<Value>, Error> {
        Ok(self.known(what, path, query).await?.unwrap_or_default())
    }

    /// Reads a whole list, `None` when what it belongs to is not there.
    ///
    /// # Errors
    /// When it may not be read, or no answer comes.
    pub async fn known(
        &self,
        what: &str,
        path: &str,
        query: &str,
    ) -> Result<Option<Vec<Value>>, Error> {
        let mut url = format!("{}{path}?{query}", self.endpoint);
        let what = format!("list {what}");
        let mut found = Vec::new();
        for _ in 0..PAGES {
            let answer = self.api.call(&Call::new(&what, Method::GET, &url)).await?;
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let mut page: Value = answer.json(&what)?;
            if let Value::Array(values) = page["value"].take() {
                found.extend(values);
            }
            match page["nextLink"].as_str().filter(|link| !link.is_empty()) {
                None => return Ok(Some(found)),
                Some(next) => url = self.own(next, &what)?,
            }
        }
        Err(Error::Protocol {
            what,
            reason: format!("there are more than {PAGES} pages"),
        })
    }

    /// Makes or changes a resource.
    ///
    /// # Errors
    /// When it is refused, or no answer comes.
    pub async fn change(
        &self,
        what: &str,
        method: Method,
        path: &str,
        version: &str,
        body: Option<&Value>,
    ) -> Result<Taken, Error> {
        let url = format!("{}{path}?api-version={version}", self.endpoint);
        let mut call = Call::new(what, method.clone(), url);
        if let Some(body) = body {
            call = call.with(CONTENT_TYPE, "application/json");
            call = call.sending(Content::Bytes(body.to_string().into()));
        }
        let answer = self.api.call(&call).await?;
        match answer.status {
            StatusCode::CONFLICT => Ok(Taken::Busy(refusal(&answer))),
            // Somebody else removed it, or our own first try did.
            StatusCode::NOT_FOUND if method == Method::DELETE => Ok(Taken::Yes(None)),
            StatusCode::NOT_FOUND => {
                let refusal = refusal(&answer);
                Err(Error::Refused {
                    what: what.to_owned(),
                    status: 404,
                    code: refusal.code,
                    message: refusal.message,
                })
            }
            _ => Ok(Taken::Yes(self.operation(&answer, what)?)),
        }
    }

    /// Asks how a change goes on.
    ///
    /// # Errors
    /// When it may not be asked, or no answer comes.
    pub async fn progress(&self, what: &str, operation: &Operation) -> Result<Progress, Error> {
        let (Operation::Status(url) | Operation::Location(url)) = operation;
        let answer = self.api.call(&Call::new(what, Method::GET, url)).await?;
        if answer.status == StatusCode::ACCEPTED {
            return Ok(Progress::Running(answer.retry_after()));
        }
        if matches!(operation, Operation::Location(_)) || answer.status == StatusCode::NOT_FOUND {
            // Operations are forgotten some time after their end: the resource itself tells.
            return Ok(Progress::Done);
        }
        let body: Value = answer.json(what)?;
        Ok(match body["status"].as_str().unwrap_or_default() {
            "Succeeded" => Progress::Done,
            "Failed" | "Canceled" => Progress::Failed(refusal(&answer)),
            _ => Progress::Running(answer.retry_after()),
        })
    }

    fn operation(&self, answer: &Answer, what: &str) -> Result<Option<Operation>, Error> {
        if let Some(url) = answer.header("azure-asyncoperation") {
            return Ok(Some(Operation::Status(self.own(url, what)?)));
        }
        let location = answer.header("location");
        let location = location.filter(|_| answer.status == StatusCode::ACCEPTED);
        let location = location.map(|url| self.own(url, what)).transpose()?;
        Ok(location.map(Operation::Location))
    }

    /// An address, when it is the resource manager's own.
    fn own(&self, url: &str, what: &str) -> Result<String, Error> {
        let rest = url.strip_prefix(&self.endpoint);
        if rest.is_some_and(|rest| rest.starts_with('/')) {
            return Ok(url.to_owned());
        }
        Err(Error::Protocol {
            what: what.to_owned(),
            reason: format!(
                "it is to go on at `{url}`, which is not `{}`",
                self.endpoint
            ),
        })
    }

    /// A wait that has a deadline.
    #[must_use]
    pub fn wait(&self, what: impl Into<String>) -> Wait {
        Wait {
            what: what.into(),
            patience: self.patience,
            begun: Instant::now(),
            attempt: 0,
        }
    }
}

/// Something that is waited for, until a deadline.
#[derive(Debug)]
pub struct Wait {
    what: String,
    patience: Patience,
    begun: Instant,
    attempt: u32,
}

impl Wait {
    /// Waits a while.
    ///
    /// # Errors
    /// When the time is over; `last` is what was seen last.
    pub async fn pause(&mut self, asked: Option<Duration>, last: &str) -> Result<(), Error> {
        let spent = self.begun.elapsed();
        let wait = self.patience.wait(self.attempt, spent, asked, chance());
        let Some(wait) = wait else {
            return Err(Error::Deadline {
                what: self.what.clone(),
                waited: spent,
                last: last.to_owned(),
            });
        };
        self.attempt += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// What is waited for.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// Reads an answer of the resource manager.
fn judge(call: &Call, answer: &Answer) -> Verdict {
    match answer.status.as_u16() {
        200..300 | 404 => Verdict::Answer,
        // Whether somebody else does the same is for the caller to see; a limit that is reached never passes.
        409 if call.method != Method::GET && !is_limit(answer) => Verdict::Answer,
        401 => Verdict::Expired(refusal(answer)),
        403 => match action(&refusal(answer).message) {
            Some(action) => Verdict::Denied(action, refusal(answer)),
            None => Verdict::Refused(refusal(answer)),
        },
        429 => Verdict::Throttled,
        408 | 500 | 502 | 503 | 504 => Verdict::Passing(refusal(answer)),
        _ => Verdict::Refused(refusal(answer)),
    }
}

fn is_limit(answer: &Answer) -> bool {
    let code = refusal(answer).code;
    [
        "QuotaExceeded",
        "PropertyChangeNotAllowed",
        "ResourceLimitExceeded",
    ]
    .contains(&code.as_str())
}

/// The cloud's word and sentence for why something was refused or went wrong.
fn refusal(answer: &Answer) -> Refusal {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let error = &body["error"];
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    // Compute puts what matters into the details.
    let details = error["details"][0]["message"].as_str();
    let message = text("message");
    Refusal {
        code: text("code"),
        message: match details {
            Some(details) if details != message => format!("{message}: {details}"),
            _ => message,
        },
    }
}

/// The action that a refusal names: the one that is missing is the last one that stands in quotes after `action`.
fn action(message: &str) -> Option<String> {
    let (_, rest) = message.rsplit_once("perform action '")?;
    let action = rest.split('\'').next()?;
    action.contains('/').then(|| action.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_action_is_read_from_the_sentence() {
        let cases = [
            (
                "The client 'a' with object id 'b' does not have authorization to perform action \
                 'Microsoft.Compute/images/write' over scope '/subscriptions/c' or the scope is invalid.",
                Some("Microsoft.Compute/images/write"),
            ),
            (
                "The client 'a' has permission to perform action 'Microsoft.Compute/images/write' on scope 'x'; however, \
                 it does not have permission to perform action 'Microsoft.Storage/storageAccounts/listKeys/action' on the \
                 linked scope(s) 'y'",
                Some("Microsoft.Storage/storageAccounts/listKeys/action"),
            ),
            ("The subscription is disabled.", None),
            ("perform action 'nothing'", None),
        ];
        for (message, expected) in cases {
            assert_eq!(action(message).as_deref(), expected, "{message}");
        }
    }
}
