//! A strict fake of Microsoft's cloud: logins, page blobs, and the resource manager's images and galleries.
//!
//! It refuses what the documentation forbids, makes everything slowly, and shows it late.

mod around;
mod blobs;
mod path;
mod resources;
mod rules;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::Method;
use serde_json::{Value, json};

use super::server::{Called, Kind, Reply, Request, Service};
use blobs::Page;
use resources::Resource;
use tokens::Issued;

/// What a fake has when it starts.
#[derive(Clone, Debug)]
pub struct World {
    /// The subscription.
    pub subscription: String,
    /// The one resource group.
    pub group: String,
    /// Where its storage account is.
    pub location: String,
    /// The storage account.
    pub account: String,
    /// Its key, in base64.
    pub key: String,
    /// Its one container.
    pub container: String,
    /// Galleries, and how each may be shared: `Private`, `Groups`, `Community`.
    pub galleries: Vec<(String, String)>,
    /// Regions that there are.
    pub regions: Vec<String>,
    /// The client's id and secret; a federated assertion is taken from the same client.
    pub client: (String, String),
    /// Assertions of other parties that are taken.
    pub assertions: Vec<String>,
    /// Whether blobs are in another emulator, whose disks are believed to be good.
    pub blobs_elsewhere: bool,
}

impl Default for World {
    fn default() -> Self {
        Self {
            subscription: "01234567-89ab-cdef-0123-456789abcdef".to_owned(),
            group: "images".to_owned(),
            location: "westeurope".to_owned(),
            account: "firstboot".to_owned(),
            key: "Zmlyc3Rib290IGFuZCBpdHMga2V5".to_owned(),
            container: "disks".to_owned(),
            galleries: vec![("gallery".to_owned(), "Groups".to_owned())],
            regions: ["westeurope", "northeurope", "eastus"]
                .map(str::to_owned)
                .into(),
            client: ("client".to_owned(), "secret".to_owned()),
            assertions: vec!["assertion".to_owned()],
            blobs_elsewhere: false,
        }
    }
}

/// How the fake behaves.
#[derive(Clone, Debug, Default)]
pub struct Mood {
    /// How often is asked until something that takes long is done.
    pub slow: u32,
    /// How often something new is not there yet when it is read.
    pub hidden: u32,
    /// Actions that the client may not do.
    pub denied: BTreeSet<String>,
    /// Actions that the client may do in its resource group alone: lists of the subscription leave out the others' without a
    /// word.
    pub narrow: BTreeSet<String>,
    /// How often making an image goes wrong.
    pub failing: u32,
    /// Whether pages are taken and lost.
    pub losing: bool,
    /// How often each token is taken before it counts as old.
    pub uses: Option<u32>,
    /// Seconds that tokens live, when it is not an hour.
    pub life: Option<u32>,
}

/// The fake.
#[derive(Debug)]
pub struct Azure {
    world: World,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    tokens: Vec<Issued>,
    blobs: BTreeMap<String, Page>,
    resources: BTreeMap<String, Resource>,
    groups: BTreeMap<String, Vec<(String, String)>>,
    clock: u64,
}

impl Azure {
    /// A fake of a world.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            world,
            state: Mutex::default(),
        }
    }

    /// Changes how it behaves.
    pub fn mood(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.state().mood);
    }

    /// A token for an audience, as an identity of the cloud's own gets it.
    #[must_use]
    pub fn issue(&self, audience: &str) -> String {
        self.state().issue(audience)
    }

    /// Every token is old from now on.
    pub fn expire(&self) {
        self.state().tokens.clear();
    }

    /// Paths of all resources that were made.
    #[must_use]
    pub fn resources(&self) -> Vec<String> {
        let state = self.state();
        let made = state.resources.values();
        made.map(|resource| resource.path.clone()).collect()
    }

    /// One resource, as it is.
    #[must_use]
    pub fn resource(&self, path: &str) -> Option<Value> {
        let state = self.state();
        let resource = state.resources.get(&path.to_lowercase())?;
        Some(resource.value.clone())
    }

    /// Puts a resource there, as somebody else may have made it.
    pub fn plant(&self, path: &str, value: Value) {
        let resource = Resource::made(path, value);
        self.state().resources.insert(path.to_lowercase(), resource);
    }

    /// Names of all blobs.
    #[must_use]
    pub fn blobs(&self) -> Vec<String> {
        self.state().blobs.keys().cloned().collect()
    }

    /// Fills a buffer from an offset of a blob.
    ///
    /// # Errors
    /// When there is no such blob, or it ends before.
    pub fn read_blob(&self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let blob = state.blobs.get(name);
        blob.ok_or(io::ErrorKind::NotFound)?.read(at, buffer)
    }

    /// Size of a blob, and how many bytes of it were written.
    #[must_use]
    pub fn blob_size(&self, name: &str) -> Option<(u64, u64)> {
        let state = self.state();
        state.blobs.get(name).map(Page::sizes)
    }

    /// Whom a gallery is shared with.
    #[must_use]
    pub fn shared(&self, gallery: &str) -> Vec<(String, String)> {
        self.state()
            .groups
            .get(gallery)
            .cloned()
            .unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of the three interfaces a request is for.
enum Part<'a> {
    Login,
    Manager,
    Blob(&'a str),
}

impl Azure {
    fn part<'a>(&self, request: &'a Request) -> Part<'a> {
        let blob = request
            .path
            .strip_prefix('/')
            .and_then(|path| path.strip_prefix(&self.world.account));
        match blob {
            Some(rest) if rest.starts_with('/') => Part::Blob(&rest[1..]),
            _ if request.path.starts_with("/login/") => Part::Login,
            _ => Part::Manager,
        }
    }
}

impl Service for Azure {
    fn called(&self, request: &Request) -> Called {
        let label = match self.part(request) {
            Part::Login => "login".to_owned(),
            Part::Blob(_) => blobs::label(request).to_owned(),
            Part::Manager => resources::label(request),
        };
        let reads = [Method::GET, Method::HEAD].contains(&request.method) || label == "login";
        Called {
            label,
            kind: if reads { Kind::Reading } else { Kind::Changing },
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        let mut state = self.state();
        match self.part(request) {
            Part::Login => tokens::answer(&self.world, &mut state, request),
            Part::Blob(path) => blobs::answer(&self.world, &mut state, request, path),
            Part::Manager => resources::answer(&self.world, &mut state, request),
        }
    }

    fn throttled(&self, request: &Request) -> Reply {
        match self.part(request) {
            Part::Blob(_) => blobs::refuse(503, "ServerBusy", "The server is busy."),
            _ => refuse(429, "TooManyRequests", "The request is being throttled."),
        }
    }
}

/// How the resource manager refuses.
fn refuse(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(
        status,
        &json!({ "error": { "code": code, "message": message } }),
    )
}
