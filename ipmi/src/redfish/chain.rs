//! One authenticated conversation with one Redfish service: how it begins, asks, and surely ends.
//!
//! It refuses to repeat anything but reads; who repeats a change must know what became of the first.

use std::fmt;
use std::time::Duration;

use hyper::Method;
use hyper::header::{ETAG, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::link::{Answer, Ask, Link, Lost};
use super::resource::Resource;
use super::session::{self, Login};
use crate::bmc::{BootOverride, Credentials, Endpoint, Error, Fingerprint};
use crate::vendor::Profile;

/// How long a BMC may take to close a session; nobody waits for it but the BMC's own table.
const FAREWELL: Duration = Duration::from_secs(5);
/// How patient a read is: so many answers may be lost, and a third as many connections.
const PATIENCE: u32 = 12;
/// What a failed connection costs of it, or an answer that says nothing about when to come back.
const DEAR: u32 = 3;
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// How many pages of a collection are read.
const PAGES: usize = 32;

/// One authenticated conversation with one Redfish service.
pub struct Chain {
    pub(super) profile: Profile,
    /// What the service says of itself.
    pub(super) root: Resource,
    /// The path of the one system that is meant.
    pub(super) system: String,
    /// What this conversation has set, for what the service has no property for.
    pub(super) set: Option<BootOverride>,
    /// Taken when the conversation ends.
    link: Option<Link>,
    login: Login,
    credentials: Credentials,
}

impl fmt::Debug for Chain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Chain")
            .field("system", &self.system)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// Begins a conversation with the service at `endpoint`, about the one system that is meant.
///
/// # Errors
/// When the service is not there, not trusted, does not take us, or has several systems and none was named.
pub async fn open(
    endpoint: &Endpoint,
    credentials: &Credentials,
    deadline: Instant,
) -> Result<Chain, Error> {
    let (endpoint, credentials) = (endpoint.clone(), credentials.clone());
    // In a task of its own: whoever stops waiting must not leave a session behind that nobody knows the token of.
    let opening = tokio::spawn(async move { begin(&endpoint, credentials, deadline).await });
    opening.await.unwrap_or_else(|error| {
        Err(Error::Unreachable {
            detail: format!("opening the conversation broke off: {error}"),
        })
    })
}

async fn begin(
    endpoint: &Endpoint,
    credentials: Credentials,
    deadline: Instant,
) -> Result<Chain, Error> {
    let link = Link::new(endpoint, deadline)?;
    let mut chain = Chain {
        profile: Profile::default(),
        root: Resource::default(),
        system: String::new(),
        set: None,
        link: Some(link),
        login: Login::None,
        credentials,
    };
    chain.root = chain.get("/redfish/v1/").await?.0;
    chain.log_in().await?;
    let found = chain.find_system(endpoint).await;
    let found = match found {
        Ok((path, system)) => {
            chain.system = path;
            chain.profile = profile(endpoint, &chain.root, &system);
            Ok(())
        }
        Err(error) => Err(error),
    };
    match found {
        Ok(()) => Ok(chain),
        Err(error) => {
            chain.end().await;
            Err(error)
        }
    }
}

/// The vendor is who the operator says it is; else who the service, its extensions or the system name.
fn profile(endpoint: &Endpoint, root: &Resource, system: &Resource) -> Profile {
    if let Some(vendor) = &endpoint.vendor {
        return Profile::of([&**vendor]);
    }
    let extensions = root.at("/Oem").and_then(Value::as_object);
    let extensions = extensions
        .into_iter()
        .flat_map(|extensions| extensions.keys());
    let said = [
        root.text("/Vendor"),
        root.text("/Product"),
        root.text("/Name"),
        system.text("/Manufacturer"),
    ];
    Profile::of(
        said.into_iter()
            .flatten()
            .chain(extensions.map(String::as_str)),
    )
}

impl Chain {
    /// The key of the service's certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<Fingerprint> {
        self.link.as_ref().and_then(Link::certificate)
    }

    /// When everything must be over.
    pub(super) fn deadline(&self) -> Instant {
        self.link
            .as_ref()
            .map_or_else(Instant::now, |link| link.deadline)
    }

    async fn log_in(&mut self) -> Result<(), Error> {
        let Some(link) = self.link.as_mut() else {
            return Err(ended());
        };
        self.login = session::log_in(link, &self.root, &self.credentials).await?;
        Ok(())
    }

    /// Ends the conversation and its session.
    pub(super) async fn end(&mut self) {
        let login = std::mem::replace(&mut self.login, Login::None);
        if let Some(mut link) = self.link.take() {
            link.deadline = Instant::now() + FAREWELL;
            session::log_out(&mut link, login).await;
        }
    }

    async fn find_system(&mut self, endpoint: &Endpoint) -> Result<(String, Resource), Error> {
        let collection = self
            .root
            .link("/Systems")
            .ok_or_else(|| Error::Unsupported {
                detail: "the service has no systems".to_owned(),
            })?;
        let members = self.members(&collection).await?;
        let path = choose(&members, endpoint.system.as_deref())?;
        let system = self.get(&path).await?.0;
        Ok((path, system))
    }

    /// Reads a collection, page by page.
    pub(super) async fn members(&mut self, collection: &str) -> Result<Vec<String>, Error> {
        let mut members = Vec::new();
        let mut page = Some(collection.to_owned());
        for _ in 0..PAGES {
            let Some(path) = page else { break };
            let resource = self.get(&path).await?.0;
            members.extend(resource.members("/Members"));
            page = resource
                .text("/Members@odata.nextLink")
                .and_then(super::resource::path);
        }
        Ok(members)
    }

    /// Sends one request, showing who we are.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Answer, Lost> {
        let ask = Ask {
            method,
            path: path.to_owned(),
            body,
            headers: self.login.header().into_iter().chain(header).collect(),
        };
        match self.link.as_mut() {
            Some(link) => link.send(&ask).await,
            None => Err(Lost::Before(ended())),
        }
    }

    /// Reads a resource and its `ETag`. Reads are repeated when they are lost or come at a bad time.
    pub(super) async fn get(&mut self, path: &str) -> Result<(Resource, Option<String>), Error> {
        let mut again = true;
        let mut pause = Duration::from_millis(250);
        let mut reason = Error::Unreachable {
            detail: "the deadline is over".to_owned(),
        };
        let mut spent = 0;
        while spent < PATIENCE && Instant::now() < self.deadline() {
            let mut wait = pause;
            match self.send(Method::GET, path, None, None).await {
                Ok(answer) if answer.status == 200 => return read(path, &answer),
                // A session may have been closed by age; a new one is asked for once.
                Ok(answer)
                    if answer.status == 401
                        && again
                        && matches!(self.login, Login::Session { .. }) =>
                {
                    again = false;
                    self.log_in().await?;
                    continue;
                }
                Ok(answer) => {
                    let error = refusal(&answer, &format!("GET {path}"));
                    if !error.is_transient() {
                        return Err(error);
                    }
                    // A BMC that says when to come back is not gone.
                    match answer.retry_after() {
                        Some(told) => wait = told,
                        None => spent += DEAR,
                    }
                    reason = error;
                }
                Err(lost) => {
                    spent += match lost {
                        Lost::Before(_) => DEAR,
                        Lost::After(_) => 1,
                    };
                    let error = lost.error();
                    if !error.is_transient() {
                        return Err(error);
                    }
                    reason = error;
                }
            }
            self.rest(wait).await;
            pause = PAUSE.min(pause * 2);
        }
        Err(reason)
    }

    /// Waits, but not beyond the deadline.
    pub(super) async fn rest(&self, pause: Duration) {
        let left = self.deadline().saturating_duration_since(Instant::now());
        sleep(pause.min(left)).await;
    }

    /// Waits for what was accepted but is not done, if that is what the answer says.
    pub(super) async fn settle(&mut self, answer: &Answer) -> Result<(), Error> {
        if answer.status != 202 {
            return Ok(());
        }
        let resource = answer.resource();
        let Some(path) = answer.location().or_else(|| resource.id()) else {
            return Ok(());
        };
        let mut wait = answer.retry_after().unwrap_or(Duration::from_millis(500));
        loop {
            self.rest(wait).await;
            if Instant::now() >= self.deadline() {
                return Err(Error::Unknown {
                    sent: "a request that became a task".to_owned(),
                    read: "the task was not over by the deadline".to_owned(),
                });
            }
            let answer = match self.send(Method::GET, &path, None, None).await {
                Ok(answer) => answer,
                Err(Lost::After(_) | Lost::Before(Error::Unreachable { .. })) => {
                    wait = Duration::from_secs(1);
                    continue;
                }
                Err(Lost::Before(error)) => return Err(error),
            };
            wait = answer.retry_after().unwrap_or(Duration::from_secs(1));
            match verdict(&answer) {
                Progress::Going => {}
                Progress::Over => return Ok(()),
                Progress::Failed(detail) => {
                    return Err(Error::Unknown {
                        sent: "a request that became a task".to_owned(),
                        read: detail,
                    });
                }
            }
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let login = std::mem::replace(&mut self.login, Login::None);
        let (Some(mut link), Login::Session { .. }) = (self.link.take(), &login) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                link.deadline = Instant::now() + FAREWELL;
                session::log_out(&mut link, login).await;
            });
        }
    }
}

enum Progress {
    Going,
    Over,
    Failed(String),
}

/// A monitor answers 202 until the task is over, or shows the task itself; one that is gone was over.
fn verdict(answer: &Answer) -> Progress {
    let resource = answer.resource();
    match (answer.status, resource.text("/TaskState")) {
        (404 | 410 | 204, _) | (200 | 201, None | Some("Completed")) => Progress::Over,
        (200 | 201, Some(state @ ("Exception" | "Killed" | "Cancelled" | "Interrupted"))) => {
            let told = resource.list("/Messages");
            let told = told.iter().find_map(|message| message.text("/Message"));
            let told = told.map(super::resource::printable).unwrap_or_default();
            Progress::Failed(format!("the task ended as {state}: {told}"))
        }
        (200..=202 | 429 | 503, _) => Progress::Going,
        (status, _) => Progress::Failed(format!("the task's monitor answers {status}")),
    }
}

fn read(path: &str, answer: &Answer) -> Result<(Resource, Option<String>), Error> {
    let resource = Resource::decode(&answer.body).map_err(|error| Error::Protocol {
        detail: format!("{path} is not a resource: {error}"),
    })?;
    // An empty ETag names nothing and must not be sent back.
    let etag = answer.header(ETAG).or(resource.text("/@odata.etag"));
    let etag = etag.filter(|etag| !etag.trim_matches(['"', 'W', '/']).is_empty());
    let etag = etag.map(str::to_owned);
    Ok((resource, etag))
}

/// Says in our words what an answer means that is no success.
pub(super) fn refusal(answer: &Answer, what: &str) -> Error {
    let complaint = answer.resource().complaint();
    let detail = match complaint {
        Some(complaint) => format!("{what}: status {}, {complaint}", answer.status),
        None => format!("{what}: status {}", answer.status),
    };
    match answer.status {
        401 | 403 => Error::Refused { detail },
        404 | 405 | 501 => Error::Unsupported { detail },
        409 | 423 | 429 | 500 | 502..=504 => Error::Busy { detail },
        _ => Error::Protocol { detail },
    }
}

fn ended() -> Error {
    Error::Unreachable {
        detail: "the conversation is over".to_owned(),
    }
}

/// Chooses the system that is meant: the only one, or the one that is named by its path or the end of it.
fn choose(members: &[String], named: Option<&str>) -> Result<String, Error> {
    let id = |path: &str| {
        path.trim_end_matches('/')
            .rsplit('/')
            .next()
            .map(str::to_owned)
    };
    let systems = || {
        let ids = members.iter().filter_map(|path| id(path));
        ids.collect::<Vec<_>>().join(", ")
    };
    if let Some(named) = named {
        let wanted = named.trim_end_matches('/');
        let found = members.iter().find(|path| {
            path.trim_end_matches('/') == wanted || id(path).as_deref() == Some(wanted)
        });
        return found.cloned().ok_or_else(|| Error::WrongHost {
            expected: format!("system {named}"),
            found: format!("systems {}", systems()),
        });
    }
    match members {
        [only] => Ok(only.clone()),
        [] => Err(Error::Unsupported {
            detail: "the service has no systems".to_owned(),
        }),
        _ => Err(Error::Ambiguous { systems: systems() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_systems_is_never_taken() {
        let systems = [
            "/redfish/v1/Systems/a".to_owned(),
            "/redfish/v1/Systems/b/".to_owned(),
        ];
        assert_eq!(choose(&systems[..1], None), Ok(systems[0].clone()));
        assert_eq!(
            choose(&systems, None),
            Err(Error::Ambiguous {
                systems: "a, b".to_owned()
            })
        );
        for name in ["b", "/redfish/v1/Systems/b"] {
            assert_eq!(
                choose(&systems, Some(name)),
                Ok(systems[1].clone()),
                "{name}"
            );
        }
        assert!(matches!(
            choose(&systems[..1], Some("b")),
            Err(Error::WrongHost { .. })
        ));
        assert!(matches!(choose(&[], None), Err(Error::Unsupported { .. })));
    }
}
