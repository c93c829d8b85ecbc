//! An OpenStack cloud: Keystone's tokens and catalogue, Glance's images.
//!
//! It refuses an id that was ever used, bytes for an image that has some, fields that cannot be changed, and members of what is
//! not shared.

mod images;
mod keystone;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};

use super::server::{Called, Kind, Reply, Request, Service};
use images::Image;

/// Id of the project that the credentials are of.
pub const PROJECT: &str = "5f705d3e0a1b4c2d8e9f001122334455";
/// Password of `ci` in domain `Default`.
pub const PASSWORD: &str = "not-a-secret";

/// A cloud with one project; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct OpenStack {
    state: Arc<Mutex<State>>,
}

/// What there is, and how it misbehaves.
#[derive(Debug, Default)]
pub struct State {
    /// Rules of Glance's policy that the credentials do not pass.
    pub denied: BTreeSet<String>,
    /// How often a new image is looked for until lists have it.
    pub unseen: u32,
    /// How often an image is looked at until its bytes are stored.
    pub slow: u32,
    /// How many uploads are stored wrong.
    pub damaging: u32,
    /// How many images the project may have.
    pub quota: Option<usize>,
    images: BTreeMap<String, Image>,
    /// Ids of images that were removed: none is given twice.
    used: BTreeSet<String>,
    tokens: BTreeSet<String>,
    issued: u64,
    count: u64,
}

impl OpenStack {
    /// An empty cloud.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What there is, to be looked at and changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every image, as the interface shows it.
    #[must_use]
    pub fn images(&self) -> Vec<Value> {
        self.state().images.values().map(Image::value).collect()
    }

    /// The bytes of an image.
    #[must_use]
    pub fn bytes(&self, id: &str) -> Option<Bytes> {
        self.state()
            .images
            .get(id)
            .and_then(|image| image.bytes.clone())
    }

    /// Projects that an image is shared with.
    #[must_use]
    pub fn members(&self, id: &str) -> BTreeSet<String> {
        let state = self.state();
        state
            .images
            .get(id)
            .map(|image| image.members.clone())
            .unwrap_or_default()
    }

    /// Lets another project use an image, behind everybody's back.
    pub fn put_member(&self, id: &str, project: &str) {
        if let Some(image) = self.state().images.get_mut(id) {
            image.members.insert(project.to_owned());
        }
    }

    /// Changes a field of an image, behind everybody's back.
    pub fn put_field(&self, id: &str, field: &str, value: Value) {
        if let Some(image) = self.state().images.get_mut(id) {
            image.fields.insert(field.to_owned(), value);
        }
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

/// An error as Glance writes it: a page.
fn error(status: u16, message: &str) -> Reply {
    let page = format!(
        "<html>\n <head>\n  <title>{status}</title>\n </head>\n <body>\n  <h1>{status}</h1>\n  {message}<br /><br />\n </body>\n</html>"
    );
    let mut reply = Reply::empty(status).with("content-type", "text/html; charset=UTF-8");
    reply.body = page.into();
    reply
}

/// Which call a request is: its name, what it does, and the rule of the policy.
fn call(request: &Request) -> (&'static str, Kind, &'static str) {
    let path = request.path.trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let (reading, changing) = (Kind::Reading, Kind::Changing);
    match request.method.as_str() {
        "POST" if path == "/identity/v3/auth/tokens" => ("keystone:token", reading, ""),
        "GET" if path == "/v2/images" => ("glance:list", reading, "get_image"),
        "GET" if path == "/v2/info/usage" => ("glance:usage", reading, "get_image"),
        "GET" if last == "members" => ("glance:members", reading, "get_image"),
        "GET" => ("glance:get", reading, "get_image"),
        "POST" if last == "members" => ("glance:share", changing, "add_member"),
        "POST" => ("glance:create", changing, "add_image"),
        "PUT" if last == "file" => ("glance:upload", changing, "upload_image"),
        "PUT" => ("glance:tag", changing, "modify_image"),
        "PATCH" => ("glance:patch", changing, "modify_image"),
        "DELETE" if path.contains("/tags/") => ("glance:untag", changing, "modify_image"),
        _ => ("glance:delete", changing, "delete_image"),
    }
}

impl Service for OpenStack {
    fn called(&self, request: &Request) -> Called {
        let (label, kind, _) = call(request);
        Called {
            label: label.to_owned(),
            kind,
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        let (label, _, rule) = call(request);
        let mut state = self.state();
        if label == "keystone:token" {
            return keystone::answer(&mut state, request);
        }
        let token = request.header("x-auth-token");
        if !token.is_some_and(|token| state.tokens.contains(token)) {
            let refusal = json!({ "error": { "code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication." } });
            return Reply::json(401, &refusal);
        }
        if state.denied.contains(rule) {
            return error(
                403,
                &format!("You are not authorized to complete {rule} action."),
            );
        }
        images::answer(&mut state, label, request)
    }

    fn throttled(&self, _: &Request) -> Reply {
        Reply::empty(429).with("retry-after", "1")
    }
}
