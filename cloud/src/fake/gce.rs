//! Google's cloud: Cloud Storage's resumable uploads, Compute Engine's images and operations, tokens.
//!
//! It refuses archives that are no disk, names and labels that the cloud does not take, pieces of a wrong size, and writers
//! that saw something older.

mod archive;
mod fields;
mod images;
mod objects;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};

use super::server::{Called, Kind, Reply, Request, Service};
use images::{Operation, Stored};
use objects::{Object, Session};

/// Google's cloud with one project and one bucket; clones are the same.
#[derive(Clone, Debug)]
pub struct Gce {
    project: String,
    bucket: String,
    state: Arc<Mutex<State>>,
}

/// What there is, and how it misbehaves.
#[derive(Debug, Default)]
pub struct State {
    /// Permissions that the credentials lack.
    pub denied: BTreeSet<String>,
    /// How often an operation is looked at until it is done.
    pub slow: u32,
    /// How often a new image is looked for until it is seen.
    pub unseen: u32,
    /// How many pieces are kept only in part.
    pub forgetful: u32,
    /// How many images cannot be made.
    pub failing: u32,
    /// How many images the project may have.
    pub quota: Option<u32>,
    objects: BTreeMap<String, Object>,
    sessions: BTreeMap<String, Session>,
    images: BTreeMap<String, Stored>,
    templates: Vec<Value>,
    operations: BTreeMap<String, Operation>,
    requests: BTreeMap<String, (Bytes, String)>,
    tokens: BTreeSet<String>,
    issued: u64,
    count: u64,
}

impl Gce {
    /// An empty cloud.
    #[must_use]
    pub fn new(project: &str, bucket: &str) -> Self {
        Self {
            project: project.to_owned(),
            bucket: bucket.to_owned(),
            state: Arc::default(),
        }
    }

    /// What there is, to be looked at and changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of all objects in the bucket.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// The bytes of an object; also of those that an image was made of and that are gone.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<Bytes> {
        self.state()
            .objects
            .get(name)
            .map(|object| object.bytes.clone())
    }

    /// The archive that an image was made of.
    #[must_use]
    pub fn archive(&self, image: &str) -> Option<Bytes> {
        self.state()
            .images
            .get(image)
            .map(|image| image.archive.clone())
    }

    /// Every image, as the interface shows it.
    #[must_use]
    pub fn images(&self) -> Vec<Value> {
        self.state().images.values().map(Stored::value).collect()
    }

    /// Who may use an image.
    #[must_use]
    pub fn policy(&self, image: &str) -> Value {
        let state = self.state();
        state
            .images
            .get(image)
            .map(|image| image.policy.clone())
            .unwrap_or_default()
    }

    /// How many uploads were begun and neither finished nor broken off.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.state()
            .sessions
            .values()
            .filter(|session| session.is_open())
            .count()
    }

    /// Puts an object there that nobody uploaded.
    pub fn put_object(&self, name: &str, bytes: impl Into<Bytes>) {
        let mut state = self.state();
        let generation = state.next();
        let object = Object::new(generation, bytes.into(), json!({}));
        state.objects.insert(name.to_owned(), object);
    }

    /// Puts an image there that nobody made.
    pub fn put_image(&self, image: Value) {
        let mut state = self.state();
        let count = state.next();
        let stored = Stored::new(image, count, Bytes::new());
        state.images.insert(stored.name(), stored.ready());
    }

    /// Says who may use an image, behind everybody's back.
    pub fn put_policy(&self, image: &str, policy: Value) {
        if let Some(image) = self.state().images.get_mut(image) {
            image.policy = policy;
        }
    }

    /// An instance template that names an image.
    pub fn put_template(&self, name: &str, image: &str) {
        let source = format!("projects/{}/global/images/{image}", self.project);
        let disk = json!({ "boot": true, "initializeParams": { "sourceImage": source } });
        let template = json!({ "name": name, "properties": { "disks": [disk] } });
        self.state().templates.push(template);
    }

    /// Makes every token that was given out worthless.
    pub fn expire_tokens(&self) {
        self.state().tokens.clear();
    }

    /// How many tokens were given out.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.state().issued
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

/// An error as Google's interfaces write it.
fn error(status: u16, reason: &str, message: &str) -> Reply {
    let errors = json!([{ "domain": "global", "reason": reason, "message": message }]);
    Reply::json(
        status,
        &json!({ "error": { "code": status, "message": message, "errors": errors } }),
    )
}

fn denied(permission: &str, of: &str) -> Reply {
    error(
        403,
        "forbidden",
        &format!("Required '{permission}' permission for '{of}'"),
    )
}

/// Which call a request is: its name, what it does, and the permission that it needs.
fn call(request: &Request) -> (&'static str, Kind, &'static str) {
    let path = request.path.as_str();
    let last = path.rsplit('/').next().unwrap_or_default();
    let (reading, changing) = (Kind::Reading, Kind::Changing);
    match request.method.as_str() {
        _ if path.ends_with("/v1/token") => ("sts:token", reading, ""),
        _ if path.ends_with(":generateAccessToken") => ("iam:generateAccessToken", reading, ""),
        _ if path == "/oidc" => ("github:token", reading, ""),
        _ if path.ends_with(":testIamPermissions") => ("projects:testIamPermissions", reading, "-"),
        method if path.starts_with("/upload/storage/v1/") => match method {
            "POST" => ("storage:begin", changing, "storage.objects.create"),
            "DELETE" => ("storage:abandon", changing, ""),
            _ if request
                .header("content-range")
                .is_some_and(|range| range.starts_with("bytes */")) =>
            {
                ("storage:status", reading, "")
            }
            _ => ("storage:piece", changing, ""),
        },
        "GET" if path.ends_with("/iam/testPermissions") => {
            ("storage:testPermissions", reading, "-")
        }
        "GET" if path.starts_with("/storage/v1/") => {
            ("storage:get", reading, "storage.objects.get")
        }
        "DELETE" if path.starts_with("/storage/v1/") => {
            ("storage:delete", changing, "storage.objects.delete")
        }
        "GET" if path.contains("/global/operations/") => {
            ("compute:operation", reading, "compute.globalOperations.get")
        }
        "GET" if last == "getIamPolicy" => (
            "compute:getIamPolicy",
            reading,
            "compute.images.getIamPolicy",
        ),
        "GET" if last == "instanceTemplates" => (
            "compute:templates",
            reading,
            "compute.instanceTemplates.list",
        ),
        "GET" if last == "images" => ("compute:list", reading, "compute.images.list"),
        "GET" if path.contains("/global/images/") => ("compute:get", reading, "compute.images.get"),
        "GET" => ("compute:project", reading, "compute.projects.get"),
        "DELETE" => ("compute:delete", changing, "compute.images.delete"),
        "PATCH" => ("compute:patch", changing, "compute.images.update"),
        _ => match last {
            "images" => ("compute:insert", changing, "compute.images.create"),
            "deprecate" => ("compute:deprecate", changing, "compute.images.deprecate"),
            "setLabels" => ("compute:setLabels", changing, "compute.images.setLabels"),
            "setIamPolicy" => (
                "compute:setIamPolicy",
                changing,
                "compute.images.setIamPolicy",
            ),
            _ => ("unknown", changing, "-"),
        },
    }
}

impl Service for Gce {
    fn called(&self, request: &Request) -> Called {
        let (label, kind, _) = call(request);
        Called {
            label: label.to_owned(),
            kind,
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        let (label, _, permission) = call(request);
        let mut state = self.state();
        // Who knows the URL of an upload may go on with it.
        if !permission.is_empty() {
            let token = request
                .header("authorization")
                .and_then(|value| value.strip_prefix("Bearer "));
            if !token.is_some_and(|token| state.tokens.contains(token)) {
                return error(
                    401,
                    "authError",
                    "Request had invalid authentication credentials.",
                );
            }
            if state.denied.contains(permission) {
                return denied(permission, &request.path);
            }
        }
        match label {
            "sts:token" | "iam:generateAccessToken" | "github:token" => {
                tokens::answer(&mut state, label, request)
            }
            "projects:testIamPermissions" => {
                let asked = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
                let asked = asked["permissions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                let allowed: Vec<&str> = asked.filter(|one| !state.denied.contains(*one)).collect();
                Reply::json(200, &json!({ "permissions": allowed }))
            }
            label if label.starts_with("storage:") => {
                objects::answer(&mut state, &self.bucket, label, request)
            }
            "compute:templates" => {
                let list = json!({ "instanceTemplates": state.templates });
                Reply::json(200, &json!({ "items": { "global": list } }))
            }
            label if label.starts_with("compute:") => {
                images::answer(&mut state, (&self.project, &self.bucket), label, request)
            }
            _ => error(404, "notFound", "Not Found"),
        }
    }

    fn throttled(&self, _: &Request) -> Reply {
        error(403, "rateLimitExceeded", "Rate Limit Exceeded")
    }
}
