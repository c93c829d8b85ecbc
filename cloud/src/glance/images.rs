//! Glance's images: each call of its second interface that is made.
//!
//! It refuses to read a list that does not end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answers::{Members, Page, Resource};
use super::judge::refused;
use super::keystone::Keystone;
use super::plan::{Desired, Image};
use crate::api::{Answer, Api, Call, Outcome};
use crate::error::Error;
use crate::escape::escape;
use crate::http::Content;

/// Pages of a list that are read at most.
const PAGES: usize = 200;
/// Slowest upload that is waited for, in bytes a second.
const SLOWEST: u64 = 256 << 10;
/// Media type of changes.
const PATCH: &str = "application/openstack-images-v2.1-json-patch";

/// The images of one project.
#[derive(Clone, Debug)]
pub(super) struct Images {
    api: Api,
    keystone: Arc<Keystone>,
}

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is done.
    Done,
    /// What was there is not what it was taken for: look again.
    Conflict,
}

/// What an upload came to.
#[derive(Debug)]
pub(super) enum Uploaded {
    /// The service answered.
    Now(Change),
    /// It may go better later.
    Later(Option<Duration>, Error),
}

impl Images {
    pub(super) fn new(api: Api, keystone: Arc<Keystone>) -> Self {
        Self { api, keystone }
    }

    /// Id of the project that asks.
    pub(super) async fn project(&self) -> Result<String, Error> {
        Ok(self.keystone.session().await?.project.clone())
    }

    async fn url(&self, rest: &str) -> Result<String, Error> {
        Ok(format!("{}{rest}", self.keystone.session().await?.images))
    }

    async fn read<T: DeserializeOwned>(&self, what: &str, rest: &str) -> Result<Option<T>, Error> {
        let call = Call::new(what, Method::GET, self.url(rest).await?);
        let answer = self.api.call(&call).await?;
        match answer.status.as_u16() {
            200 => answer.json(&call.what).map(Some),
            404 => Ok(None),
            _ => Err(refused(&call, &answer)),
        }
    }

    /// Looks for an image.
    pub(super) async fn image(&self, id: &str) -> Result<Option<Image>, Error> {
        let what = format!("look at image `{id}`");
        let found: Option<Resource> = self.read(&what, &format!("/v2/images/{id}")).await?;
        Ok(found.map(Resource::image))
    }

    /// All images of the project with such properties, hidden ones too.
    pub(super) async fn images(&self, properties: &[(&str, &str)]) -> Result<Vec<Image>, Error> {
        let mut query = format!(
            "owner={}&limit=100&sort=created_at:asc",
            escape(&self.project().await?)
        );
        for (name, value) in properties {
            query = format!("{query}&{name}={}", escape(value));
        }
        let mut images = Vec::new();
        for hidden in ["false", "true"] {
            let mut rest = format!("/v2/images?{query}&os_hidden={hidden}");
            for _ in 0..PAGES {
                let page: Option<Page> = self.read("list images", &rest).await?;
                let Some(page) = page else { break };
                images.extend(page.images.into_iter().map(Resource::image));
                match page.next {
                    Some(next) if next.starts_with("/v2/images?") => rest = next,
                    _ => break,
                }
            }
        }
        Ok(images)
    }

    /// Projects that an image is shared with.
    pub(super) async fn members(&self, id: &str) -> Result<BTreeSet<String>, Error> {
        let what = format!("look who may use image `{id}`");
        let found: Option<Members> = self
            .read(&what, &format!("/v2/images/{id}/members"))
            .await?;
        let members = found.map(|found| found.members).unwrap_or_default();
        Ok(members.into_iter().map(|member| member.member_id).collect())
    }

    /// What the project may still store, when the cloud tells.
    pub(super) async fn usage(&self) -> Result<Option<Value>, Error> {
        self.read("ask for the quotas of images", "/v2/info/usage")
            .await
    }

    /// Makes an image of an id.
    pub(super) async fn create(&self, id: &str, desired: &Desired) -> Result<Change, Error> {
        let mut body = json!({
            "id": id,
            "name": desired.name,
            "disk_format": "qcow2",
            "container_format": "bare",
            "visibility": "private",
            "min_disk": desired.min_disk,
            "tags": desired.tags,
        });
        for (name, value) in &desired.properties {
            body[name] = value.as_str().into();
        }
        let call = self
            .call(
                format!("make image `{}`", desired.name),
                Method::POST,
                "/v2/images",
            )
            .await?;
        self.change(json_body(call, "application/json", &body))
            .await
    }

    /// Streams the bytes of an image, once.
    pub(super) async fn upload(
        &self,
        id: &str,
        content: Content,
        size: u64,
    ) -> Result<Uploaded, Error> {
        let rest = format!("/v2/images/{id}/file");
        let mut call = self
            .call(format!("upload image `{id}`"), Method::PUT, &rest)
            .await?;
        call = call
            .with(CONTENT_TYPE, "application/octet-stream")
            .sending(content);
        call.patience.attempt = Duration::from_mins(5) + Duration::from_secs(size / SLOWEST);
        Ok(match self.api.attempt(&call).await {
            Outcome::Done(answer) => Uploaded::Now(changed(&call, &answer)?),
            Outcome::Never(error) => return Err(error),
            Outcome::Later { after, error, .. } => Uploaded::Later(after, error),
        })
    }

    /// Changes fields and properties.
    pub(super) async fn patch(
        &self,
        what: String,
        id: &str,
        changes: &[Value],
    ) -> Result<Change, Error> {
        let call = self
            .call(what, Method::PATCH, &format!("/v2/images/{id}"))
            .await?;
        self.change(json_body(call, PATCH, &changes.into())).await
    }

    /// Lets a project use an image.
    pub(super) async fn share(&self, id: &str, project: &str) -> Result<Change, Error> {
        let what = format!("share image `{id}` with `{project}`");
        let call = self
            .call(what, Method::POST, &format!("/v2/images/{id}/members"))
            .await?;
        self.change(json_body(
            call,
            "application/json",
            &json!({ "member": project }),
        ))
        .await
    }

    /// Tags an image.
    pub(super) async fn tag(&self, id: &str, tag: &str) -> Result<Change, Error> {
        let rest = format!("/v2/images/{id}/tags/{tag}");
        let call = self
            .call(format!("tag image `{id}`"), Method::PUT, &rest)
            .await?;
        self.change(call).await
    }

    /// Takes a tag away.
    pub(super) async fn untag(&self, id: &str, tag: &str) -> Result<Change, Error> {
        let rest = format!("/v2/images/{id}/tags/{tag}");
        let call = self
            .call(
                format!("take a tag from image `{id}`"),
                Method::DELETE,
                &rest,
            )
            .await?;
        self.change(call).await
    }

    /// Removes an image.
    pub(super) async fn delete(&self, id: &str) -> Result<Change, Error> {
        let call = self
            .call(
                format!("remove image `{id}`"),
                Method::DELETE,
                &format!("/v2/images/{id}"),
            )
            .await?;
        self.change(call).await
    }

    async fn call(&self, what: String, method: Method, rest: &str) -> Result<Call, Error> {
        Ok(Call::new(what, method, self.url(rest).await?))
    }

    async fn change(&self, call: Call) -> Result<Change, Error> {
        let answer = self.api.call(&call).await?;
        changed(&call, &answer)
    }
}

fn json_body(call: Call, kind: &str, body: &Value) -> Call {
    call.with(CONTENT_TYPE, kind)
        .sending(Content::Bytes(body.to_string().into()))
}

fn changed(call: &Call, answer: &Answer) -> Result<Change, Error> {
    match answer.status.as_u16() {
        200 | 201 | 202 | 204 => Ok(Change::Done),
        404 | 409 | 410 => Ok(Change::Conflict),
        _ => Err(refused(call, answer)),
    }
}
