//! Compute Engine: images of a project, their policies, and the operations that change them.
//!
//! It refuses to take the start of an operation for its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answers::{Operation, Resource};
use super::judge::refused;
use super::plan::{Deprecated, Desired, Image};
use super::policy::Policy;
use crate::api::{Answer, Api, Call};
use crate::error::Error;
use crate::escape::escape;
use crate::http::Content;
use crate::patience::{Patience, chance};

/// Longest time that an operation may take.
const OPERATION: Patience = Patience {
    pause: Duration::from_millis(100),
    ..Patience::task(Duration::from_mins(45))
};
/// Pages of a list that are read at most.
pub(super) const PAGES: usize = 200;

/// The images of one project.
#[derive(Clone, Debug)]
pub(super) struct Compute {
    api: Api,
    endpoint: String,
    project: String,
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is done.
    Done,
    /// What was there is not what it was taken for: look again. Says why.
    Conflict(String),
}

impl Change {
    /// What was to be changed is not there any more.
    pub(super) fn gone(image: &str) -> Self {
        Self::Conflict(format!("what image `{image}` needs is gone"))
    }
}

/// A quota of the project.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Quota {
    pub(super) metric: String,
    pub(super) limit: f64,
    pub(super) usage: f64,
}

impl Compute {
    pub(super) fn new(api: Api, endpoint: &str, project: &str) -> Self {
        Self {
            api,
            endpoint: endpoint.to_owned(),
            project: project.to_owned(),
        }
    }

    fn url(&self, rest: &str) -> String {
        format!(
            "{}/compute/v1/projects/{}{rest}",
            self.endpoint, self.project
        )
    }

    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        what: String,
        rest: &str,
    ) -> Result<Option<T>, Error> {
        let call = Call::new(what, Method::GET, self.url(rest));
        let answer = self.api.call(&call).await?;
        match answer.status.as_u16() {
            200 => answer.json(&call.what).map(Some),
            404 => Ok(None),
            _ => Err(refused(&call, &answer)),
        }
    }

    /// Looks for an image.
    pub(super) async fn image(&self, name: &str) -> Result<Option<Image>, Error> {
        let what = format!("look at image `{name}` of `{}`", self.project);
        let found: Option<Resource> = self.read(what, &format!("/global/images/{name}")).await?;
        Ok(found.map(Resource::image))
    }

    /// All images that a filter lets through.
    pub(super) async fn images(&self, filter: &str) -> Result<Vec<Image>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            #[serde(default)]
            items: Vec<Resource>,
            next_page_token: Option<String>,
        }
        let mut images = Vec::new();
        let mut token = String::new();
        for _ in 0..PAGES {
            let what = format!("list images of `{}`", self.project);
            let rest = format!(
                "/global/images?maxResults=500&filter={}{token}",
                escape(filter)
            );
            let page: Option<Page> = self.read(what, &rest).await?;
            let Some(page) = page else { break };
            images.extend(page.items.into_iter().map(Resource::image));
            let Some(next) = page.next_page_token.filter(|next| !next.is_empty()) else {
                return Ok(images);
            };
            token = format!("&pageToken={}", escape(&next));
        }
        Ok(images)
    }

    /// The project's quotas.
    pub(super) async fn quotas(&self) -> Result<Option<Vec<Quota>>, Error> {
        #[derive(Deserialize)]
        struct Project {
            #[serde(default)]
            quotas: Vec<Quota>,
        }
        let what = format!("look at the quotas of `{}`", self.project);
        let project: Option<Project> = self.read(what, "").await?;
        Ok(project.map(|project| project.quotas))
    }

    /// Makes an image of an object; twice with the same id makes one.
    pub(super) async fn insert(
        &self,
        desired: &Desired,
        source: &str,
        id: &str,
    ) -> Result<Change, Error> {
        let features: Vec<Value> = desired
            .features
            .iter()
            .map(|feature| json!({ "type": feature }))
            .collect();
        let mut body = json!({
            "name": desired.name,
            "description": desired.description,
            "architecture": desired.architecture,
            "diskSizeGb": desired.disk_gib.to_string(),
            "guestOsFeatures": features,
            "labels": desired.labels,
            "rawDisk": { "source": source, "containerType": "TAR" },
        });
        if let Some(location) = &desired.location {
            body["storageLocations"] = json!([location]);
        }
        if let Some(key) = &desired.kms_key {
            body["imageEncryptionKey"] = json!({ "kmsKeyName": key });
        }
        let rest = format!("/global/images?requestId={id}");
        let what = format!("make image `{}` in `{}`", desired.name, self.project);
        self.change(what, Method::POST, &rest, Some(body)).await
    }

    /// Removes an image.
    pub(super) async fn delete(&self, name: &str) -> Result<Change, Error> {
        let what = format!("remove image `{name}` of `{}`", self.project);
        self.change(
            what,
            Method::DELETE,
            &format!("/global/images/{name}"),
            None,
        )
        .await
    }

    /// Puts an image into a family.
    pub(super) async fn set_family(&self, name: &str, family: &str) -> Result<Change, Error> {
        let what = format!("put image `{name}` into family `{family}`");
        let body = json!({ "family": family });
        self.change(
            what,
            Method::PATCH,
            &format!("/global/images/{name}"),
            Some(body),
        )
        .await
    }

    /// Says whether an image should be used.
    pub(super) async fn deprecate(&self, name: &str, to: &Deprecated) -> Result<Change, Error> {
        let what = format!("set image `{name}` to {}", to.state);
        let mut body = json!({ "state": to.state });
        if let Some(replacement) = &to.replacement {
            body["replacement"] = self.url(&format!("/global/images/{replacement}")).into();
        }
        let from = to
            .from
            .and_then(|from| OffsetDateTime::from_unix_timestamp(from / 1000).ok());
        if let Some(Ok(from)) = from.map(|from| from.format(&Rfc3339)) {
            body["deprecated"] = from.into();
        }
        let rest = format!("/global/images/{name}/deprecate");
        self.change(what, Method::POST, &rest, Some(body)).await
    }

    /// Sets the labels of an image, if they are still those that were seen.
    pub(super) async fn set_labels(
        &self,
        image: &Image,
        labels: &BTreeMap<String, String>,
    ) -> Result<Change, Error> {
        let mut all = image.labels.clone();
        all.extend(labels.clone());
        let body = json!({ "labels": all, "labelFingerprint": image.fingerprint });
        let what = format!("set the labels of image `{}`", image.name);
        let rest = format!("/global/images/{}/setLabels", image.name);
        self.change(what, Method::POST, &rest, Some(body)).await
    }

    /// Who may do what with an image.
    pub(super) async fn policy(&self, name: &str) -> Result<Option<Policy>, Error> {
        let what = format!("look who may use image `{name}`");
        // Version 3 is the one that shows conditions; what is written back without them would lose them.
        let rest = format!("/global/images/{name}/getIamPolicy?optionsRequestedPolicyVersion=3");
        Ok(self.read(what, &rest).await?.map(Policy))
    }

    /// Sets who may do what with an image, if it is still as it was seen.
    pub(super) async fn set_policy(&self, name: &str, policy: &Policy) -> Result<Change, Error> {
        let what = format!("share image `{name}`");
        let rest = format!("/global/images/{name}/setIamPolicy");
        let (call, answer) = self
            .write(
                what,
                Method::POST,
                &rest,
                Some(json!({ "policy": policy.0 })),
            )
            .await?;
        match answer.status.as_u16() {
            200 => Ok(Change::Done),
            404 | 409 | 412 => Ok(Change::Conflict(refused(&call, &answer).to_string())),
            _ => Err(refused(&call, &answer)),
        }
    }

    async fn write(
        &self,
        what: String,
        method: Method,
        rest: &str,
        body: Option<Value>,
    ) -> Result<(Call, Answer), Error> {
        let mut call = Call::new(what, method, self.url(rest));
        if let Some(body) = body {
            call = call
                .with(CONTENT_TYPE, "application/json")
                .sending(Content::Bytes(body.to_string().into()));
        }
        let answer = self.api.call(&call).await?;
        Ok((call, answer))
    }

    async fn change(
        &self,
        what: String,
        method: Method,
        rest: &str,
        body: Option<Value>,
    ) -> Result<Change, Error> {
        let (call, answer) = self.write(what, method, rest, body).await?;
        match answer.status.as_u16() {
            200 => self.finish(&call.what, answer.json(&call.what)?).await,
            404 | 409 | 412 => Ok(Change::Conflict(refused(&call, &answer).to_string())),
            _ => Err(refused(&call, &answer)),
        }
    }

    /// Waits for the end of an operation.
    async fn finish(&self, what: &str, mut operation: Operation) -> Result<Change, Error> {
        let (begun, mut attempt) = (Instant::now(), 0);
        while operation.status != "DONE" {
            let wait = OPERATION.wait(attempt, begun.elapsed(), None, chance());
            let Some(wait) = wait else {
                return Err(Error::Deadline {
                    what: format!("for operation `{}` to {what}", operation.name),
                    waited: begun.elapsed(),
                    last: operation.status,
                });
            };
            tokio::time::sleep(wait).await;
            attempt += 1;
            let asked = format!("ask how far operation `{}` is", operation.name);
            let rest = format!("/global/operations/{}", operation.name);
            // It may not be seen everywhere at once.
            operation = self.read(asked, &rest).await?.unwrap_or(operation);
        }
        operation.outcome(what)
    }
}
