//! What will stand in the way of a publish, asked before the first byte.
//!
//! It refuses to change anything, and to be silent about what it could not ask.

use std::collections::BTreeSet;

use hyper::Method;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;

use super::compute::Compute;
use super::judge::PERMISSIONS;
use super::plan::{Desired, Observed};
use super::storage::Storage;
use crate::api::{Api, Call};
use crate::error::Error;
use crate::http::Content;
use crate::provider::{Finding, Severity};

/// What the findings are about.
#[derive(Debug)]
pub(super) struct Checks<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a Observed,
    pub(super) storage: &'a Storage,
    pub(super) compute: &'a Compute,
    pub(super) api: &'a Api,
    pub(super) projects: &'a str,
}

impl Checks<'_> {
    pub(super) async fn run(&self) -> Result<Vec<Finding>, Error> {
        let mut findings = self.names();
        findings.extend(self.bucket().await?);
        findings.extend(self.project().await?);
        findings.extend(self.quota().await?);
        Ok(findings)
    }

    fn finding(&self, place: String, severity: Severity, message: String) -> Finding {
        Finding {
            target: self.desired.target.clone(),
            place,
            severity,
            message,
        }
    }

    fn in_project(&self, severity: Severity, message: String) -> Finding {
        self.finding(self.desired.project.clone(), severity, message)
    }

    fn names(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let desired = self.desired;
        let Some(image) = &self.observed.image else {
            return findings;
        };
        if !image.is_of(desired) {
            let message = format!(
                "image `{}` exists and is not of this build: choose another `image-name`",
                image.name
            );
            findings.push(self.in_project(Severity::Error, message));
            return findings;
        }
        if image.is_withdrawn() {
            let message = format!(
                "image `{}` was withdrawn ({}): it is neither shared nor pointed to",
                image.name,
                state(self.observed)
            );
            findings.push(self.in_project(Severity::Warning, message));
        }
        findings
    }

    async fn bucket(&self) -> Result<Vec<Finding>, Error> {
        let place = format!("gs://{}", self.desired.bucket);
        let wanted: Vec<&str> = needed("storage.");
        Ok(match self.storage.allowed(&wanted).await? {
            None => {
                vec![self.finding(place, Severity::Error, "there is no such bucket".to_owned())]
            }
            Some(allowed) => self.lacking(&place, &wanted, &allowed),
        })
    }

    async fn project(&self) -> Result<Vec<Finding>, Error> {
        #[derive(Deserialize)]
        struct Allowed {
            #[serde(default)]
            permissions: Vec<String>,
        }
        let mut wanted = needed("compute.");
        if self.desired.members.is_empty() {
            wanted.retain(|one| !one.ends_with("setIamPolicy"));
        }
        let place = self.desired.project.clone();
        let url = format!("{}/v1/projects/{place}:testIamPermissions", self.projects);
        let call = Call::new(
            format!("ask what is allowed in `{place}`"),
            Method::POST,
            url,
        )
        .with(CONTENT_TYPE, "application/json")
        .sending(Content::Bytes(
            json!({ "permissions": wanted }).to_string().into(),
        ));
        let unasked = |reason: String| {
            self.in_project(
                Severity::Warning,
                format!("what is allowed could not be asked: {reason}"),
            )
        };
        let answer = match self.api.call(&call).await {
            Ok(answer) => answer,
            // Resource Manager is an interface of its own, which a project may not have switched on.
            Err(error @ (Error::Denied { .. } | Error::Refused { .. })) => {
                return Ok(vec![unasked(error.to_string())]);
            }
            Err(error) => return Err(error),
        };
        if answer.status != 200 {
            return Ok(vec![unasked(format!(
                "the answer is {}",
                answer.status.as_u16()
            ))]);
        }
        let allowed: Allowed = answer.json(&call.what)?;
        Ok(self.lacking(&place, &wanted, &allowed.permissions))
    }

    fn lacking(&self, place: &str, wanted: &[&str], allowed: &[String]) -> Vec<Finding> {
        let allowed: BTreeSet<&str> = allowed.iter().map(String::as_str).collect();
        let lacking = wanted.iter().filter(|one| !allowed.contains(*one));
        let finding = |one: &&str| {
            self.finding(
                place.to_owned(),
                severity(one),
                format!("the credentials lack `{one}`"),
            )
        };
        lacking.map(finding).collect()
    }

    async fn quota(&self) -> Result<Vec<Finding>, Error> {
        let quotas = match self.compute.quotas().await {
            Err(Error::Denied { .. }) => return Ok(Vec::new()),
            quotas => quotas?,
        };
        let Some(quotas) = quotas else {
            let message = "there is no such project".to_owned();
            return Ok(vec![self.in_project(Severity::Error, message)]);
        };
        let full = quotas
            .iter()
            .find(|quota| quota.metric == "IMAGES" && quota.usage >= quota.limit);
        let full = full.filter(|_| self.observed.image.is_none());
        let full = full.map(|quota| {
            self.in_project(
                Severity::Error,
                format!(
                    "quota `IMAGES` is used up: {} of {}",
                    quota.usage, quota.limit
                ),
            )
        });
        Ok(full.into_iter().collect())
    }
}

fn needed(service: &str) -> Vec<&'static str> {
    let all = PERMISSIONS.into_iter();
    all.filter(|one| one.starts_with(service)).collect()
}

/// What only `prune` and `check` itself use does not stop a publish.
fn severity(permission: &str) -> Severity {
    match permission {
        "compute.images.delete" | "compute.projects.get" => Severity::Warning,
        _ => Severity::Error,
    }
}

fn state(observed: &Observed) -> &str {
    let image = observed.image.as_ref();
    let deprecated = image.and_then(|image| image.deprecated.as_ref());
    deprecated.map_or("", |found| found.state.as_str())
}
