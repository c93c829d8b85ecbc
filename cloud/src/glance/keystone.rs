//! Keystone: a token, and where the image service is. Both are asked for when they are needed, and again when they are old.
//!
//! It refuses to print a token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::judge::{judge, refused};
use super::settings::{PROVIDER, Settings, bad};
use crate::api::{Api, Call};
use crate::authorize::{Authorize, Nobody};
use crate::error::Error;
use crate::http::{Content, Http};
use crate::provider::Pending;

/// Credentials of one project.
#[derive(Debug)]
pub(super) struct Keystone {
    api: Api,
    settings: Settings,
    session: Mutex<Option<Arc<Session>>>,
}

/// What Keystone gave.
#[derive(Debug)]
pub(super) struct Session {
    token: SecretString,
    /// The image service, without a slash or version at its end.
    pub(super) images: String,
    /// Id of the project.
    pub(super) project: String,
}

#[derive(Deserialize)]
struct Body {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    project: Option<Project>,
    #[serde(default)]
    catalog: Vec<Service>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    url: String,
    region: Option<String>,
    region_id: Option<String>,
}

impl Keystone {
    pub(super) fn new(http: &Http, settings: Settings) -> Self {
        Self {
            api: Api::new(http.clone(), Arc::new(Nobody), judge),
            settings,
            session: Mutex::new(None),
        }
    }

    /// What Keystone gave, asked for when there is none.
    pub(super) async fn session(&self) -> Result<Arc<Session>, Error> {
        let known = self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(session) = known {
            return Ok(session);
        }
        let session = Arc::new(self.ask().await?);
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn ask(&self) -> Result<Session, Error> {
        let url = format!("{}/auth/tokens", self.settings.auth_url);
        let body = self.settings.request().to_string();
        let call = Call::new("ask Keystone for a token", Method::POST, url)
            .with(CONTENT_TYPE, "application/json")
            .sending(Content::Bytes(body.into()));
        let answer = match self.api.call(&call).await {
            Err(Error::Refused {
                status: 401,
                message,
                ..
            }) => return Err(bad(message)),
            answer => answer?,
        };
        if answer.status != 201 {
            return Err(refused(&call, &answer));
        }
        let token = answer.header("x-subject-token");
        let token = token.ok_or_else(|| bad("Keystone's answer has no token".to_owned()))?;
        let body: Body = answer.json(&call.what)?;
        let project = body.token.project;
        let project = project.ok_or_else(|| {
            bad("the token is of no project: set `OS_PROJECT_ID` or `OS_PROJECT_NAME`".to_owned())
        })?;
        Ok(Session {
            token: token.to_owned().into(),
            images: self.endpoint(&body.token.catalog)?,
            project: project.id,
        })
    }

    fn endpoint(&self, catalogue: &[Service]) -> Result<String, Error> {
        let settings = &self.settings;
        let services = catalogue.iter().filter(|service| service.kind == "image");
        let all = services.flat_map(|service| &service.endpoints);
        let mut fitting = all.filter(|endpoint| {
            let region = settings.region.as_ref();
            let here = region.is_none()
                || endpoint.region.as_ref() == region
                || endpoint.region_id.as_ref() == region;
            here && endpoint.interface == settings.interface
        });
        let found = fitting.next().ok_or_else(|| {
            let region = settings.region.as_deref().unwrap_or("any region");
            bad(format!(
                "the catalogue has no {} endpoint of an image service in {region}",
                settings.interface
            ))
        })?;
        let url = found.url.trim_end_matches('/');
        Ok(url.trim_end_matches("/v2").trim_end_matches('/').to_owned())
    }
}

impl Authorize for Keystone {
    fn authorize<'a>(&'a self, head: &'a mut Parts) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            let session = self.session().await?;
            let token = HeaderValue::from_str(session.token.expose_secret());
            let mut token = token.map_err(|_| Error::Credentials {
                provider: PROVIDER,
                reason: "Keystone's token is no header".to_owned(),
            })?;
            token.set_sensitive(true);
            head.headers.insert("x-auth-token", token);
            Ok(())
        })
    }

    fn renew(&self, _: Instant) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
