//! A registry by the OCI distribution specification 1.1, with the referrers interface.
//!
//! It refuses what the specification lets a registry refuse: digests that do not fit, manifests that name what is not there, chunks
//! out of order, writing without a token.

mod route;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use hyper::Method;
use image_manifest::Digest;
use serde_json::{Value, json};

use super::server::{Called, Kind, Reply, Request, Service};
use route::{Route, route};

/// Largest manifest that is taken.
const MANIFEST: usize = 4 << 20;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry; everybody who shows its token may write.
#[derive(Debug)]
pub struct Registry {
    token: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blobs: BTreeMap<(String, Digest), Bytes>,
    manifests: BTreeMap<(String, Digest), Manifest>,
    tags: BTreeMap<(String, String), Digest>,
    uploads: BTreeMap<u64, (String, BytesMut)>,
    begun: u64,
}

#[derive(Clone, Debug)]
struct Manifest {
    media_type: String,
    bytes: Bytes,
}

impl Registry {
    /// One that takes everything from everybody.
    #[must_use]
    pub fn open() -> Self {
        Self {
            token: None,
            state: Mutex::default(),
        }
    }

    /// One that wants a token, which its token server gives to this user and password: `user:password`.
    #[must_use]
    pub fn closed(user: &str) -> Self {
        Self {
            token: Some(user.to_owned()),
            state: Mutex::default(),
        }
    }

    /// Tags of a repository, and the digests that they name.
    #[must_use]
    pub fn tags(&self, repository: &str) -> BTreeMap<String, Digest> {
        let state = self.state();
        let tags = state.tags.iter().filter(|((of, _), _)| of == repository);
        tags.map(|((_, tag), digest)| (tag.clone(), *digest))
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses who does not show a token, and says where one is to be had.
    fn stranger(&self, request: &Request) -> Option<Reply> {
        let token = self.token.as_ref()?;
        if request.header("authorization") == Some(&format!("Bearer {}", secret(token))) {
            return None;
        }
        let host = request.header("host").unwrap_or_default();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"fake\"");
        Some(refusal(401, "UNAUTHORIZED").with("www-authenticate", challenge))
    }

    fn give_token(&self, request: &Request) -> Reply {
        use base64::Engine as _;
        let user = self.token.as_deref().unwrap_or_default();
        let basic = base64::engine::general_purpose::STANDARD.encode(user);
        if request.header("authorization") != Some(&format!("Basic {basic}")) {
            return refusal(401, "UNAUTHORIZED");
        }
        Reply::json(200, &json!({"token": secret(user), "expires_in": 60}))
    }
}

fn secret(user: &str) -> String {
    Digest::of(user.as_bytes()).hex()
}

impl Service for Registry {
    fn called(&self, request: &Request) -> Called {
        let name = match route(&request.path) {
            Route::Base => "base",
            Route::Blob(..) => "blob",
            Route::Uploads(_) => "upload-begin",
            Route::Upload(..) => "upload",
            Route::Manifest(..) => "manifest",
            Route::Tags(_) => "tags",
            Route::Referrers(..) => "referrers",
            Route::None => "other",
        };
        let kind = match request.method {
            Method::GET | Method::HEAD => Kind::Reading,
            _ => Kind::Changing,
        };
        Called {
            label: format!("oci:{}:{name}", request.method),
            kind,
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        if request.path == "/token" {
            return self.give_token(request);
        }
        if let Some(refusal) = self.stranger(request) {
            return refusal;
        }
        let mut state = self.state();
        match (&request.method, route(&request.path)) {
            (&Method::GET, Route::Base) => Reply::json(200, &json!({})),
            (&Method::GET | &Method::HEAD, Route::Blob(name, digest)) => state.blob(&name, &digest),
            (&Method::POST, Route::Uploads(name)) => state.begin(&name, request),
            (&Method::PATCH, Route::Upload(name, id)) => state.chunk(&name, id, request),
            (&Method::PUT, Route::Upload(name, id)) => state.finish(&name, id, request),
            (&Method::GET, Route::Upload(name, id)) => state.progress(&name, id),
            (&Method::DELETE, Route::Upload(_, id)) => match state.uploads.remove(&id) {
                Some(_) => Reply::empty(204),
                None => refusal(404, "BLOB_UPLOAD_UNKNOWN"),
            },
            (&Method::GET | &Method::HEAD, Route::Manifest(name, reference)) => {
                state.manifest(&name, &reference)
            }
            (&Method::PUT, Route::Manifest(name, reference)) => {
                state.put(&name, &reference, request)
            }
            (&Method::DELETE, Route::Manifest(name, reference)) => state.delete(&name, &reference),
            (&Method::GET, Route::Tags(name)) => state.list(&name),
            (&Method::GET, Route::Referrers(name, digest)) => {
                state.referrers(&name, &digest, request.parameter("artifactType"))
            }
            (_, Route::None) => refusal(404, "NAME_UNKNOWN"),
            _ => refusal(405, "UNSUPPORTED"),
        }
    }

    fn throttled(&self, _: &Request) -> Reply {
        refusal(429, "TOOMANYREQUESTS").with("retry-after", "1")
    }
}

impl State {
    fn blob(&self, name: &str, digest: &str) -> Reply {
        let Ok(digest) = digest.parse::<Digest>() else {
            return refusal(400, "DIGEST_INVALID");
        };
        match self.blobs.get(&(name.to_owned(), digest)) {
            None => refusal(404, "BLOB_UNKNOWN"),
            Some(bytes) => content("application/octet-stream", &digest, bytes),
        }
    }

    fn begin(&mut self, name: &str, request: &Request) -> Reply {
        if let (Some(digest), Some(from)) = (request.parameter("mount"), request.parameter("from"))
            && let Ok(digest) = digest.parse::<Digest>()
            && let Some(bytes) = self.blobs.get(&(from.to_owned(), digest)).cloned()
        {
            self.blobs.insert((name.to_owned(), digest), bytes);
            return created(&format!("/v2/{name}/blobs/{digest}"), &digest);
        }
        if let Some(digest) = request.parameter("digest") {
            return self.keep(name, digest, request.body.clone());
        }
        self.begun += 1;
        let id = self.begun;
        self.uploads.insert(id, (name.to_owned(), BytesMut::new()));
        let location = format!("/v2/{name}/blobs/uploads/{id}");
        Reply::empty(202)
            .with("location", location)
            .with("range", "0-0")
    }

    fn chunk(&mut self, name: &str, id: u64, request: &Request) -> Reply {
        let Some((of, bytes)) = self.uploads.get_mut(&id) else {
            return refusal(404, "BLOB_UPLOAD_UNKNOWN");
        };
        let first = request.header("content-range");
        let first = first.map(|range| range.split('-').next().and_then(|first| first.parse().ok()));
        if of != name || first.is_some_and(|first| first != Some(bytes.len())) {
            return refusal(416, "RANGE_INVALID");
        }
        bytes.extend_from_slice(&request.body);
        let range = format!("0-{}", bytes.len().saturating_sub(1));
        Reply::empty(202)
            .with("location", request.path.clone())
            .with("range", range)
    }

    fn progress(&self, name: &str, id: u64) -> Reply {
        match self.uploads.get(&id) {
            Some((of, bytes)) if of == name => Reply::empty(204)
                .with("location", format!("/v2/{name}/blobs/uploads/{id}"))
                .with("range", format!("0-{}", bytes.len().saturating_sub(1))),
            _ => refusal(404, "BLOB_UPLOAD_UNKNOWN"),
        }
    }

    fn finish(&mut self, name: &str, id: u64, request: &Request) -> Reply {
        let Some((of, mut bytes)) = self.uploads.remove(&id) else {
            return refusal(404, "BLOB_UPLOAD_UNKNOWN");
        };
        if of != name {
            return refusal(404, "BLOB_UPLOAD_UNKNOWN");
        }
        bytes.extend_from_slice(&request.body);
        match request.parameter("digest") {
            Some(digest) => self.keep(name, digest, bytes.freeze()),
            None => refusal(400, "DIGEST_INVALID"),
        }
    }

    fn keep(&mut self, name: &str, digest: &str, bytes: Bytes) -> Reply {
        let found = Digest::of(&bytes);
        if digest.parse::<Digest>() != Ok(found) {
            return refusal(400, "DIGEST_INVALID");
        }
        self.blobs.insert((name.to_owned(), found), bytes);
        created(&format!("/v2/{name}/blobs/{found}"), &found)
    }

    fn find(&self, name: &str, reference: &str) -> Option<Digest> {
        let tagged = self.tags.get(&(name.to_owned(), reference.to_owned()));
        reference.parse().ok().or_else(|| tagged.copied())
    }

    fn manifest(&self, name: &str, reference: &str) -> Reply {
        let digest = self.find(name, reference);
        let found = digest.and_then(|digest| {
            let manifest = self.manifests.get(&(name.to_owned(), digest))?;
            Some((digest, manifest))
        });
        match found {
            Some((digest, manifest)) => content(&manifest.media_type, &digest, &manifest.bytes),
            None => refusal(404, "MANIFEST_UNKNOWN"),
        }
    }

    fn put(&mut self, name: &str, reference: &str, request: &Request) -> Reply {
        let bytes = request.body.clone();
        if bytes.len() > MANIFEST {
            return refusal(413, "SIZE_INVALID");
        }
        let digest = Digest::of(&bytes);
        let Ok(read) = serde_json::from_slice::<Value>(&bytes) else {
            return refusal(400, "MANIFEST_INVALID");
        };
        let media_type = request.header("content-type").unwrap_or_default();
        if read["mediaType"]
            .as_str()
            .is_some_and(|said| said != media_type)
        {
            return refusal(400, "MANIFEST_INVALID");
        }
        if !self.has_all(name, &read) {
            return refusal(400, "MANIFEST_BLOB_UNKNOWN");
        }
        match reference.parse::<Digest>() {
            Ok(named) if named != digest => return refusal(400, "DIGEST_INVALID"),
            Ok(_) => {}
            Err(_) => {
                let tag = (name.to_owned(), reference.to_owned());
                self.tags.insert(tag, digest);
            }
        }
        let kept = Manifest {
            media_type: media_type.to_owned(),
            bytes,
        };
        self.manifests.insert((name.to_owned(), digest), kept);
        let reply = created(&format!("/v2/{name}/manifests/{digest}"), &digest);
        match read["subject"]["digest"].as_str() {
            Some(subject) => reply.with("oci-subject", subject),
            None => reply,
        }
    }

    /// Whether all that a manifest names is there; its subject need not be.
    fn has_all(&self, name: &str, manifest: &Value) -> bool {
        let list = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
        let digest = |one: &Value| one["digest"].as_str().and_then(|text| text.parse().ok());
        let blob = |one: &Value| {
            let digest = digest(one);
            digest.is_some_and(|digest| self.blobs.contains_key(&(name.to_owned(), digest)))
        };
        let child = |one: &Value| {
            let digest = digest(one);
            digest.is_some_and(|digest| self.manifests.contains_key(&(name.to_owned(), digest)))
        };
        let config = manifest.get("config");
        config.is_none_or(blob)
            && list("layers").iter().all(blob)
            && list("manifests").iter().all(child)
    }

    fn delete(&mut self, name: &str, reference: &str) -> Reply {
        match reference.parse::<Digest>() {
            Err(_) => match self.tags.remove(&(name.to_owned(), reference.to_owned())) {
                Some(_) => Reply::empty(202),
                None => refusal(404, "MANIFEST_UNKNOWN"),
            },
            Ok(digest) => match self.manifests.remove(&(name.to_owned(), digest)) {
                Some(_) => {
                    self.tags
                        .retain(|(of, _), tagged| of != name || *tagged != digest);
                    Reply::empty(202)
                }
                None => refusal(404, "MANIFEST_UNKNOWN"),
            },
        }
    }

    fn list(&self, name: &str) -> Reply {
        let tags = self.tags.keys().filter(|(of, _)| of == name);
        let tags: Vec<_> = tags.map(|(_, tag)| tag).collect();
        Reply::json(200, &json!({"name": name, "tags": tags}))
    }

    fn referrers(&self, name: &str, digest: &str, wanted: Option<&str>) -> Reply {
        if digest.parse::<Digest>().is_err() {
            return refusal(400, "DIGEST_INVALID");
        }
        let of = self.manifests.iter().filter(|((of, _), _)| of == name);
        let about = of.filter_map(|((_, found), manifest)| {
            let read: Value = serde_json::from_slice(&manifest.bytes).ok()?;
            if read["subject"]["digest"].as_str() != Some(digest) {
                return None;
            }
            let kind = read["artifactType"].as_str();
            let kind = kind
                .or_else(|| read["config"]["mediaType"].as_str())
                .unwrap_or_default();
            let is_wanted = wanted.is_none_or(|wanted| wanted == kind);
            is_wanted.then(|| {
                json!({
                    "mediaType": manifest.media_type,
                    "digest": found.to_string(),
                    "size": manifest.bytes.len(),
                    "artifactType": kind,
                    "annotations": read.get("annotations").cloned().unwrap_or(json!({})),
                })
            })
        });
        let manifests: Vec<_> = about.collect();
        let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let mut reply = Reply::empty(200).with("content-type", INDEX);
        if wanted.is_some() {
            reply = reply.with("oci-filters-applied", "artifactType");
        }
        reply.body = body.to_string().into();
        reply
    }
}

fn content(media_type: &str, digest: &Digest, bytes: &Bytes) -> Reply {
    let mut reply = Reply::empty(200)
        .with("content-type", media_type)
        .with("docker-content-digest", digest.to_string());
    reply.body = bytes.clone();
    reply
}

fn created(location: &str, digest: &Digest) -> Reply {
    Reply::empty(201)
        .with("location", location)
        .with("docker-content-digest", digest.to_string())
}

fn refusal(status: u16, code: &str) -> Reply {
    Reply::json(
        status,
        &json!({"errors": [{"code": code, "message": code.to_lowercase()}]}),
    )
}
