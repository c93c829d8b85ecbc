//! Cloud Storage: one object, sent in pieces that can be taken up again.
//!
//! It refuses to overwrite an object, and to send a token anywhere but to the storage that it was told of.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName};
use serde::Deserialize;
use serde_json::json;

use super::judge::refused;
use super::plan::Object;
use crate::api::{Answer, Api, Call, Outcome};
use crate::error::Error;
use crate::escape::escape;
use crate::http::Content;

/// Metadata that names the digest of the archive.
pub(super) const DIGEST: &str = "firstboot-digest";

/// One bucket.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    api: Api,
    endpoint: String,
    bucket: String,
}

/// Where an upload stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    /// So many bytes are kept.
    Kept(u64),
    /// It is the object now.
    Whole(Object),
    /// Nothing is known of it any more.
    Gone,
    /// There is an object of this name already.
    Taken,
}

/// What one piece came to.
#[derive(Debug)]
pub(super) enum Sent {
    /// The storage said where the upload stands.
    Now(Upload),
    /// It may go better later.
    Later(Option<std::time::Duration>, Error),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    generation: String,
    size: String,
    #[serde(default)]
    crc32c: String,
    #[serde(default)]
    metadata: std::collections::BTreeMap<String, String>,
}

impl Storage {
    pub(super) fn new(api: Api, endpoint: &str, bucket: &str) -> Self {
        Self {
            api,
            endpoint: endpoint.to_owned(),
            bucket: bucket.to_owned(),
        }
    }

    fn url(&self, object: &str) -> String {
        let object = escape(object);
        format!("{}/storage/v1/b/{}/o/{object}", self.endpoint, self.bucket)
    }

    fn label(&self, object: &str) -> String {
        format!("`gs://{}/{object}`", self.bucket)
    }

    /// Looks for an object.
    pub(super) async fn object(&self, name: &str) -> Result<Option<Object>, Error> {
        let what = format!("look at {}", self.label(name));
        let call = Call::new(what, Method::GET, self.url(name));
        let answer = self.api.call(&call).await?;
        match answer.status.as_u16() {
            200 => object(&call, &answer).map(Some),
            404 => Ok(None),
            _ => Err(refused(&call, &answer)),
        }
    }

    /// Begins an upload; returns the URL that it goes on at, or none when the object is there already.
    pub(super) async fn begin(
        &self,
        name: &str,
        size: u64,
        metadata: &serde_json::Value,
    ) -> Result<Option<String>, Error> {
        let what = format!("begin to upload {}", self.label(name));
        let url = format!(
            "{}/upload/storage/v1/b/{}/o?uploadType=resumable&ifGenerationMatch=0&name={}",
            self.endpoint,
            self.bucket,
            escape(name)
        );
        let body = json!({ "contentType": "application/gzip", "metadata": metadata });
        let call = Call::new(what, Method::POST, url)
            .with(CONTENT_TYPE, "application/json")
            .with(
                HeaderName::from_static("x-upload-content-type"),
                "application/gzip",
            )
            .with(
                HeaderName::from_static("x-upload-content-length"),
                size.to_string(),
            )
            .sending(Content::Bytes(body.to_string().into()));
        let answer = self.api.call(&call).await?;
        match answer.status.as_u16() {
            200 | 201 => {}
            412 => return Ok(None),
            _ => return Err(refused(&call, &answer)),
        }
        let protocol = |reason: &str| Error::Protocol {
            what: call.what.clone(),
            reason: reason.to_owned(),
        };
        let session = answer.header("location");
        let session = session.ok_or_else(|| protocol("the answer has no `Location`"))?;
        // Our token goes along with every piece.
        if !self.is_ours(session) {
            return Err(protocol("the upload was sent to another server"));
        }
        Ok(Some(session.to_owned()))
    }

    /// Whether a URL is of this storage.
    pub(super) fn is_ours(&self, session: &str) -> bool {
        let rest = session.strip_prefix(&self.endpoint);
        rest.is_some_and(|rest| rest.starts_with('/'))
    }

    /// Asks where an upload stands.
    pub(super) async fn stands(
        &self,
        name: &str,
        session: &str,
        size: u64,
    ) -> Result<Upload, Error> {
        let what = format!("ask how far the upload of {} is", self.label(name));
        let call = Call::new(what, Method::PUT, session)
            .with(CONTENT_RANGE, format!("bytes */{size}"))
            .with(CONTENT_LENGTH, "0");
        let answer = self.api.call(&call).await?;
        upload(&call, &answer)
    }

    /// Sends one piece, once.
    pub(super) async fn send(
        &self,
        name: &str,
        session: &str,
        (at, size): (u64, u64),
        piece: Bytes,
    ) -> Result<Sent, Error> {
        let what = format!("upload {} from byte {at} on", self.label(name));
        let last = at + piece.len() as u64 - 1;
        let mut call = Call::new(what, Method::PUT, session)
            .with(CONTENT_RANGE, format!("bytes {at}-{last}/{size}"))
            .sending(Content::Bytes(piece));
        call.patience.attempt = std::time::Duration::from_mins(2);
        match self.api.attempt(&call).await {
            Outcome::Done(answer) => upload(&call, &answer).map(Sent::Now),
            Outcome::Never(error) => Err(error),
            Outcome::Later { after, error, .. } => Ok(Sent::Later(after, error)),
        }
    }

    /// Lets go of an upload that nobody will finish.
    pub(super) async fn abandon(&self, name: &str, session: &str) -> Result<(), Error> {
        let what = format!("break off the upload of {}", self.label(name));
        let call = Call::new(what, Method::DELETE, session).with(CONTENT_LENGTH, "0");
        // 499 is how it says that it is done.
        self.api.call(&call).await.map(drop)
    }

    /// Removes one generation of an object, if it is still there.
    pub(super) async fn remove(&self, name: &str, generation: &str) -> Result<(), Error> {
        let what = format!("remove {}", self.label(name));
        let url = format!("{}?ifGenerationMatch={generation}", self.url(name));
        let call = Call::new(what, Method::DELETE, url);
        let answer = self.api.call(&call).await?;
        match answer.status.as_u16() {
            200 | 204 | 404 | 412 => Ok(()),
            _ => Err(refused(&call, &answer)),
        }
    }

    /// Which of some permissions the credentials have on the bucket; `None` when there is no such bucket.
    pub(super) async fn allowed(&self, wanted: &[&str]) -> Result<Option<Vec<String>>, Error> {
        #[derive(Deserialize)]
        struct Allowed {
            #[serde(default)]
            permissions: Vec<String>,
        }
        let asked: Vec<String> = wanted
            .iter()
            .map(|one| format!("permissions={one}"))
            .collect();
        let url = format!(
            "{}/storage/v1/b/{}/iam/testPermissions?{}",
            self.endpoint,
            self.bucket,
            asked.join("&")
        );
        let what = format!("ask what is allowed in bucket `{}`", self.bucket);
        let call = Call::new(what, Method::GET, url);
        let answer = self.api.call(&call).await?;
        match answer.status.as_u16() {
            200 => Ok(Some(answer.json::<Allowed>(&call.what)?.permissions)),
            404 => Ok(None),
            _ => Err(refused(&call, &answer)),
        }
    }
}

fn object(call: &Call, answer: &Answer) -> Result<Object, Error> {
    let found: Resource = answer.json(&call.what)?;
    let protocol = |reason: &str| Error::Protocol {
        what: call.what.clone(),
        reason: reason.to_owned(),
    };
    let size = found.size.parse();
    let size = size.map_err(|_| protocol("the size is no number"))?;
    Ok(Object {
        generation: found.generation,
        size,
        crc32c: decode(&found.crc32c).ok_or_else(|| protocol("the checksum is none"))?,
        digest: found.metadata.get(DIGEST).cloned(),
    })
}

/// CRC32C as Cloud Storage writes it: base64 of its four bytes, the highest first.
fn decode(text: &str) -> Option<u32> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes: [u8; 4] = bytes.ok()?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

fn upload(call: &Call, answer: &Answer) -> Result<Upload, Error> {
    match answer.status.as_u16() {
        200 | 201 => object(call, answer).map(Upload::Whole),
        308 => {
            // Without the header nothing was kept.
            let Some(range) = answer.header("range") else {
                return Ok(Upload::Kept(0));
            };
            let last = range.rsplit('-').next().unwrap_or_default().parse::<u64>();
            let last = last.map_err(|_| Error::Protocol {
                what: call.what.clone(),
                reason: "the range that is kept cannot be read".to_owned(),
            })?;
            Ok(Upload::Kept(last.saturating_add(1)))
        }
        404 | 410 | 499 => Ok(Upload::Gone),
        412 => Ok(Upload::Taken),
        _ => Err(refused(call, answer)),
    }
}
