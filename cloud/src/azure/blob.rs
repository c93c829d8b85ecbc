//! Blobs: one page blob, its pages and what is noted about it.
//!
//! It refuses to write over a blob that exists, and pages of a blob that is sealed.

mod answers;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use hyper::{Method, StatusCode};
use md5::{Digest as _, Md5};

use answers::{read_blobs, read_ranges, sentence};

use super::names::BLOB;
use super::ranges::Ranges;
use crate::api::{Answer, Api, Call, Outcome, Refusal, Verdict};
use crate::authorize::Authorize;
use crate::error::Error;
use crate::escape::escape;
use crate::http::{Content, Http};

const PREFIX: &str = "x-ms-meta-";
/// Pages of a list that are read at most.
const PAGES: usize = 10_000;
/// The sequence number of a blob that is complete: pages are only ever written at 0.
pub const SEALED: u64 = 1;

/// One blob's address and interface.
#[derive(Clone, Debug)]
pub struct Blob {
    api: Api,
    url: String,
}

/// What a blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it is a page blob.
    pub pages: bool,
    /// Its size.
    pub size: u64,
    /// Its sequence number.
    pub sequence: u64,
    /// What it is at this moment.
    pub etag: String,
    /// When it was made, as lists tell it.
    pub created: Option<String>,
    /// What is noted about it.
    pub notes: BTreeMap<String, String>,
}

/// Whether a page was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was.
    Yes,
    /// Somebody sealed the blob: it has this page already.
    Sealed,
    /// The blob is gone.
    Gone,
}

impl Blob {
    /// A blob at a URL.
    #[must_use]
    pub fn new(http: Http, authorize: Arc<dyn Authorize>, url: String) -> Self {
        Self {
            api: Api::new(http, authorize, judge),
            url,
        }
    }

    /// The same interface, another URL.
    #[must_use]
    pub fn at(&self, url: String) -> Self {
        Self {
            api: self.api.clone(),
            url,
        }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Looks at it.
    ///
    /// # Errors
    /// When it may not be looked at, or no answer comes.
    pub async fn look(&self) -> Result<Option<Seen>, Error> {
        let answer = self
            .api
            .call(&self.call("look at", Method::HEAD, ""))
            .await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let number = |name| answer.header(name).and_then(|text| text.parse().ok());
        Ok(Some(Seen {
            pages: answer.header("x-ms-blob-type") == Some("PageBlob"),
            size: number("content-length").unwrap_or_default(),
            sequence: number("x-ms-blob-sequence-number").unwrap_or_default(),
            etag: answer.header("etag").unwrap_or_default().to_owned(),
            created: answer.header("x-ms-creation-time").map(str::to_owned),
            notes: notes(&answer.headers),
        }))
    }

    /// Makes it, empty, unless it exists.
    ///
    /// # Errors
    /// When it is refused, or no answer comes.
    pub async fn create(&self, size: u64, notes: &BTreeMap<String, String>) -> Result<(), Error> {
        let call = self.empty("create", "");
        let call = call.with(IF_NONE_MATCH, "*");
        let call = call.with(name("x-ms-blob-type"), "PageBlob");
        let call = call.with(name("x-ms-blob-content-length"), size.to_string());
        let call = call.with(name("x-ms-blob-sequence-number"), "0");
        // That it exists already is seen by looking at it: an answer may have been lost.
        self.api.call(&with_notes(call, notes)).await.map(drop)
    }

    /// Writes pages once; whoever calls decides whether to try again.
    ///
    /// # Errors
    /// With what the attempt came to, when it was none that was taken.
    pub async fn write(&self, at: u64, bytes: &Bytes) -> Result<Written, Outcome> {
        let call = self.call("write pages of", Method::PUT, "comp=page");
        let last = at + (bytes.len() as u64).saturating_sub(1);
        let call = call.with(name("x-ms-page-write"), "update");
        let call = call.with(name("x-ms-range"), format!("bytes={at}-{last}"));
        let call = call.with(name("x-ms-if-sequence-number-eq"), "0");
        let sum = STANDARD.encode(Md5::digest(bytes));
        let call = call.with(HeaderName::from_static("content-md5"), sum);
        let call = call.with(CONTENT_LENGTH, bytes.len().to_string());
        let call = call.sending(Content::Bytes(bytes.clone()));
        match self.api.attempt(&call).await {
            Outcome::Done(answer) if answer.status == StatusCode::PRECONDITION_FAILED => {
                Ok(Written::Sealed)
            }
            Outcome::Done(answer) if answer.status == StatusCode::NOT_FOUND => Ok(Written::Gone),
            Outcome::Done(_) => Ok(Written::Yes),
            other => Err(other),
        }
    }

    /// Which bytes of it were ever written.
    ///
    /// # Errors
    /// When it may not be read, or no answer comes.
    pub async fn ranges(&self) -> Result<Ranges, Error> {
        let mut found = Ranges::default();
        let mut marker = String::new();
        for _ in 0..PAGES {
            let query = format!("comp=pagelist&maxresults=10000{marker}");
            let call = self.call("list the pages of", Method::GET, &query);
            let answer = self.api.call(&call).await?;
            if answer.status == StatusCode::NOT_FOUND {
                return Err(gone(&call));
            }
            let next = read_ranges(&answer, &mut found);
            match next.map_err(|reason| protocol(&call, reason))? {
                None => return Ok(found),
                Some(next) => marker = format!("&marker={}", escape(&next)),
            }
        }
        Err(Error::Protocol {
            what: format!("list the pages of `{}`", self.url),
            reason: "the list does not end".to_owned(),
        })
    }

    /// Forbids further writing of pages.
    ///
    /// # Errors
    /// When it is refused, or no answer comes.
    pub async fn seal(&self) -> Result<(), Error> {
        let call = self.empty("seal", "comp=properties");
        let call = call.with(name("x-ms-sequence-number-action"), "max");
        let call = call.with(name("x-ms-blob-sequence-number"), SEALED.to_string());
        self.done(&call).await
    }

    /// Notes something about it, if it still is what was looked at.
    ///
    /// # Errors
    /// When it is refused, or no answer comes.
    pub async fn note(&self, seen: &Seen, notes: &BTreeMap<String, String>) -> Result<(), Error> {
        let call = self.empty("note what is in", "comp=metadata");
        let call = with_notes(call, notes).with(IF_MATCH, &seen.etag);
        // A lost answer makes the second try one too late: looking again tells.
        self.done(&call).await
    }

    /// Removes it, if it is there.
    ///
    /// # Errors
    /// When it is refused, or no answer comes.
    pub async fn remove(&self) -> Result<(), Error> {
        let call = self.call("remove", Method::DELETE, "");
        self.api.call(&call).await.map(drop)
    }

    /// Every blob of the container whose name begins so, with what is noted about it; `url` is the container's.
    ///
    /// # Errors
    /// When it may not be read, or no answer comes.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, Seen)>, Error> {
        let prefix = escape(prefix);
        let mut found = Vec::new();
        let mut marker = String::new();
        for _ in 0..PAGES {
            let query =
                format!("restype=container&comp=list&include=metadata&prefix={prefix}{marker}");
            let call = self.call("list the blobs of", Method::GET, &query);
            let answer = self.api.call(&call).await?;
            if answer.status == StatusCode::NOT_FOUND {
                return Err(gone(&call));
            }
            let next = read_blobs(&answer, &mut found);
            match next.map_err(|reason| protocol(&call, reason))? {
                None => return Ok(found),
                Some(next) => marker = format!("&marker={}", escape(&next)),
            }
        }
        Err(Error::Protocol {
            what: format!("list the blobs of `{}`", self.url),
            reason: "the list does not end".to_owned(),
        })
    }

    async fn done(&self, call: &Call) -> Result<(), Error> {
        let answer = self.api.call(call).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Err(gone(call)),
            _ => Ok(()),
        }
    }

    /// A change that sends nothing, and says so: the cloud answers 411 without a length.
    fn empty(&self, what: &str, query: &str) -> Call {
        self.call(what, Method::PUT, query)
            .with(CONTENT_LENGTH, "0")
    }

    fn call(&self, what: &str, method: Method, query: &str) -> Call {
        let mark = if query.is_empty() { "" } else { "?" };
        let call = Call::new(
            format!("{what} `{}`", self.url),
            method,
            format!("{}{mark}{query}", self.url),
        );
        call.with(name("x-ms-version"), BLOB)
    }
}

fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

fn with_notes(mut call: Call, notes: &BTreeMap<String, String>) -> Call {
    for (key, value) in notes {
        // Keys are ours: letters and `_`.
        if let Ok(name) = HeaderName::try_from(format!("{PREFIX}{key}")) {
            call = call.with(name, value);
        }
    }
    call
}

fn notes(headers: &HeaderMap) -> BTreeMap<String, String> {
    let all = headers.iter().filter_map(|(name, value)| {
        let key = name.as_str().strip_prefix(PREFIX)?;
        Some((key.to_owned(), value.to_str().ok()?.to_owned()))
    });
    all.collect()
}

fn gone(call: &Call) -> Error {
    Error::Refused {
        what: call.what.clone(),
        status: 404,
        code: "BlobNotFound".to_owned(),
        message: String::new(),
    }
}

fn protocol(call: &Call, reason: String) -> Error {
    Error::Protocol {
        what: call.what.clone(),
        reason,
    }
}

/// Reads an answer of the blobs' interface.
fn judge(call: &Call, answer: &Answer) -> Verdict {
    let code = answer.header("x-ms-error-code").unwrap_or_default();
    let refusal = || Refusal {
        code: code.to_owned(),
        message: sentence(&answer.body),
    };
    match (answer.status.as_u16(), code) {
        // A container that is missing is nothing that uploading mends.
        (404, "ContainerNotFound" | "AccountIsDisabled") => Verdict::Refused(refusal()),
        (200..300 | 404 | 412, _) | (409, "BlobAlreadyExists") => Verdict::Answer,
        (401, _) | (403, "AuthenticationFailed" | "InvalidAuthenticationInfo") => {
            Verdict::Expired(refusal())
        }
        (403, _) => Verdict::Denied(permission(call).to_owned(), refusal()),
        (429, _) | (503, "ServerBusy") => Verdict::Throttled,
        (408 | 500 | 502 | 503 | 504, _) => Verdict::Passing(refusal()),
        _ => Verdict::Refused(refusal()),
    }
}

/// The permission that a call needs; the cloud does not say it here.
fn permission(call: &Call) -> &'static str {
    let [read, write, _, delete] = super::permissions::DATA else {
        return "";
    };
    match call.method {
        Method::GET | Method::HEAD => read,
        Method::DELETE => delete,
        _ => write,
    }
}
