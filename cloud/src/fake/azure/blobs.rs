//! Page blobs, each in a sparse file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use md5::{Digest as _, Md5};

use super::super::server::{Reply, Request};
use super::tokens::{self, Good};
use super::{State, World};
use crate::azure::{sign, to_sign};

const PAGE: u64 = 512;
/// Largest write that is taken.
const MOST: u64 = 4 << 20;
const LARGEST: u64 = 8 << 40;

/// One blob.
#[derive(Debug)]
pub(super) struct Page {
    file: File,
    size: u64,
    sequence: u64,
    changed: u64,
    notes: BTreeMap<String, String>,
    written: BTreeMap<u64, u64>,
}

impl Page {
    pub(super) fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    pub(super) fn sizes(&self) -> (u64, u64) {
        let written = self.written.iter().map(|(start, end)| end - start);
        (self.size, written.sum())
    }

    fn etag(&self) -> String {
        format!("\"0x{:016X}\"", self.changed)
    }
}

pub(super) fn label(request: &Request) -> &'static str {
    let comp = request.parameter("comp").unwrap_or_default();
    match (request.method.as_str(), comp) {
        ("PUT", "") => "blob:PutBlob",
        ("PUT", "page") => "blob:PutPage",
        ("PUT", "properties") => "blob:SetProperties",
        ("PUT", "metadata") => "blob:SetMetadata",
        ("GET", "pagelist") => "blob:GetPageRanges",
        ("GET", "list") => "blob:List",
        ("DELETE", _) => "blob:Delete",
        ("HEAD", _) => "blob:Head",
        ("GET", "") => "blob:Get",
        _ => "blob:unknown",
    }
}

pub(super) fn refuse(status: u16, code: &str, message: &str) -> Reply {
    let text = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    Reply::xml(status, text).with("x-ms-error-code", code)
}

pub(super) fn answer(world: &World, state: &mut State, request: &Request, path: &str) -> Reply {
    if let Some(refusal) = authorized(world, state, request) {
        return refusal;
    }
    if request.header("x-ms-version").is_none() || request.header("x-ms-date").is_none() {
        return refuse(
            400,
            "MissingRequiredHeader",
            "x-ms-version or x-ms-date is missing.",
        );
    }
    if request.method == Method::PUT && request.header("content-length").is_none() {
        return refuse(
            411,
            "MissingContentLengthHeader",
            "Content-Length is missing.",
        );
    }
    let (container, name) = path.split_once('/').unwrap_or((path, ""));
    if container != world.container {
        return refuse(
            404,
            "ContainerNotFound",
            "The specified container does not exist.",
        );
    }
    let act = |verb: &str| {
        format!("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/{verb}")
    };
    let verb = match request.method.as_str() {
        "GET" | "HEAD" => "read",
        "DELETE" => "delete",
        _ => "write",
    };
    let shared = request
        .header("authorization")
        .unwrap_or_default()
        .starts_with("SharedKey");
    if !shared && state.mood.denied.contains(&act(verb)) {
        let message =
            "This request is not authorized to perform this operation using this permission.";
        return refuse(403, "AuthorizationPermissionMismatch", message);
    }
    if label(request) == "blob:List" {
        return list(state, request);
    }
    state.clock += 1;
    let changed = state.clock;
    match label(request) {
        "blob:PutBlob" => create(state, request, name, changed),
        "blob:unknown" => refuse(
            400,
            "InvalidQueryParameterValue",
            "The value of comp is invalid.",
        ),
        label => {
            let losing = state.mood.losing;
            let Some(page) = state.blobs.get_mut(name) else {
                return refuse(404, "BlobNotFound", "The specified blob does not exist.");
            };
            if let Some(refusal) = condition(page, request) {
                return refusal;
            }
            match label {
                "blob:PutPage" => write(page, request, changed, losing),
                "blob:SetProperties" => properties(page, request, changed),
                "blob:SetMetadata" => metadata(page, request, changed),
                "blob:GetPageRanges" => ranges(page),
                "blob:Head" => look(page),
                "blob:Get" => read(page, request),
                _ => {
                    state.blobs.remove(name);
                    Reply::empty(202)
                }
            }
        }
    }
}

fn authorized(world: &World, state: &mut State, request: &Request) -> Option<Reply> {
    let header = request.header("authorization").unwrap_or_default();
    if let Some(given) = header.strip_prefix("SharedKey ") {
        let mut headers = request.headers.clone();
        headers.remove("authorization");
        let text = to_sign(
            &world.account,
            &request.method,
            &request.path,
            &request.raw_query,
            &headers,
        );
        let key = STANDARD.decode(&world.key).unwrap_or_default();
        let wanted = format!("{}:{}", world.account, sign(&key, &text));
        let message = "Server failed to authenticate the request.";
        return (given != wanted).then(|| refuse(403, "AuthenticationFailed", message));
    }
    match tokens::check(state, request, "https://storage.azure.com") {
        Good::Yes => None,
        Good::No => Some(refuse(
            401,
            "InvalidAuthenticationInfo",
            "The token has expired.",
        )),
        Good::Elsewhere => Some(refuse(
            403,
            "AuthorizationFailure",
            "The audience is wrong.",
        )),
    }
}

fn condition(page: &Page, request: &Request) -> Option<Reply> {
    let failed = |code| Some(refuse(412, code, "The condition specified was not met."));
    if request
        .header("if-match")
        .is_some_and(|etag| etag != "*" && etag != page.etag())
    {
        return failed("ConditionNotMet");
    }
    let wanted = request.header("x-ms-if-sequence-number-eq");
    if wanted.is_some_and(|wanted| wanted.parse() != Ok(page.sequence)) {
        return failed("SequenceNumberConditionNotMet");
    }
    None
}

fn create(state: &mut State, request: &Request, name: &str, changed: u64) -> Reply {
    let number = |name| {
        request
            .header(name)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let size = number("x-ms-blob-content-length").unwrap_or(1);
    if request.header("x-ms-blob-type") != Some("PageBlob") {
        return refuse(400, "UnsupportedHeader", "Only page blobs are known here.");
    }
    if !request.body.is_empty() || !size.is_multiple_of(PAGE) || size > LARGEST {
        return refuse(400, "InvalidHeaderValue", "x-ms-blob-content-length");
    }
    if state.blobs.contains_key(name) && request.header("if-none-match") == Some("*") {
        return refuse(
            409,
            "BlobAlreadyExists",
            "The specified blob already exists.",
        );
    }
    if name.is_empty() || name.len() > 1024 {
        return refuse(400, "InvalidResourceName", "The name is invalid.");
    }
    let notes = match notes(request) {
        Ok(notes) => notes,
        Err(refusal) => return refusal,
    };
    let file = tempfile::tempfile().and_then(|file| file.set_len(size).map(|()| file));
    let Ok(file) = file else {
        return refuse(500, "InternalError", "There is no room.");
    };
    let page = Page {
        file,
        size,
        sequence: number("x-ms-blob-sequence-number").unwrap_or(0),
        changed,
        notes,
        written: BTreeMap::new(),
    };
    state.blobs.insert(name.to_owned(), page);
    Reply::empty(201)
}

fn notes(request: &Request) -> Result<BTreeMap<String, String>, Reply> {
    let mut notes = BTreeMap::new();
    for (name, value) in &request.headers {
        let Some(key) = name.as_str().strip_prefix("x-ms-meta-") else {
            continue;
        };
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let digit = key.starts_with(|c: char| c.is_ascii_digit());
        if key.is_empty() || digit || !key.chars().all(letters) {
            let message = "The metadata specified is invalid: a key is an identifier of C#.";
            return Err(refuse(400, "InvalidMetadata", message));
        }
        notes.insert(
            key.to_owned(),
            value.to_str().unwrap_or_default().to_owned(),
        );
    }
    Ok(notes)
}

fn range(request: &Request) -> Option<Range<u64>> {
    let text = request.header("x-ms-range").or(request.header("range"))?;
    let (start, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some(start.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?)
}

fn write(page: &mut Page, request: &Request, changed: u64, losing: bool) -> Reply {
    let Some(range) = range(request) else {
        return refuse(400, "MissingRequiredHeader", "Range");
    };
    let whole = range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE);
    if !whole || range.start >= range.end || range.end > page.size {
        return refuse(
            416,
            "InvalidPageRange",
            "The page range specified is invalid.",
        );
    }
    if range.end - range.start > MOST {
        return refuse(413, "RequestBodyTooLarge", "The request body is too large.");
    }
    if request.header("x-ms-page-write") != Some("update")
        || request.body.len() as u64 != range.end - range.start
    {
        return refuse(
            400,
            "InvalidHeaderValue",
            "x-ms-page-write, or the body's length",
        );
    }
    let sum = STANDARD.encode(Md5::digest(&request.body));
    if request
        .header("content-md5")
        .is_some_and(|given| given != sum)
    {
        return refuse(400, "Md5Mismatch", "The MD5 value specified did not match.");
    }
    if losing {
        return Reply::empty(201);
    }
    if page.file.write_all_at(&request.body, range.start).is_err() {
        return refuse(500, "InternalError", "There is no room.");
    }
    page.written.insert(range.start, range.end);
    page.changed = changed;
    Reply::empty(201).with("x-ms-blob-sequence-number", page.sequence.to_string())
}

fn properties(page: &mut Page, request: &Request, changed: u64) -> Reply {
    let given = request.header("x-ms-blob-sequence-number");
    let given = given.and_then(|text| text.parse::<u64>().ok());
    match (request.header("x-ms-sequence-number-action"), given) {
        (Some("max"), Some(number)) => page.sequence = page.sequence.max(number),
        (Some("update"), Some(number)) => page.sequence = number,
        (Some("increment"), None) => page.sequence += 1,
        _ => return refuse(400, "InvalidHeaderValue", "x-ms-sequence-number-action"),
    }
    page.changed = changed;
    Reply::empty(200)
}

fn metadata(page: &mut Page, request: &Request, changed: u64) -> Reply {
    match notes(request) {
        Err(refusal) => refusal,
        Ok(notes) => {
            page.notes = notes;
            page.changed = changed;
            Reply::empty(200)
        }
    }
}

fn ranges(page: &Page) -> Reply {
    let list = page.written.iter().map(|(start, end)| {
        format!(
            "<PageRange><Start>{start}</Start><End>{}</End></PageRange>",
            end - 1
        )
    });
    let list: String = list.collect();
    let text = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>{list}<NextMarker/></PageList>"
    );
    Reply::xml(200, text).with("etag", page.etag())
}

fn look(page: &Page) -> Reply {
    let reply = Reply::empty(200)
        .with("content-length", page.size.to_string())
        .with("x-ms-blob-type", "PageBlob")
        .with("x-ms-blob-sequence-number", page.sequence.to_string())
        .with("etag", page.etag());
    page.notes.iter().fold(reply, |reply, (key, value)| {
        reply.with(format!("x-ms-meta-{key}"), value.clone())
    })
}

fn read(page: &Page, request: &Request) -> Reply {
    let Some(range) = range(request).filter(|range| range.start < range.end.min(page.size)) else {
        return refuse(416, "InvalidRange", "The range specified is invalid.");
    };
    let length = range.end.min(page.size) - range.start;
    let mut bytes = vec![0; usize::try_from(length.min(MOST)).unwrap_or_default()];
    if page.read(range.start, &mut bytes).is_err() {
        return refuse(500, "InternalError", "It cannot be read.");
    }
    let (start, last) = (range.start, range.start + bytes.len() as u64 - 1);
    let shown = format!("bytes {start}-{last}/{}", page.size);
    let mut reply = Reply::empty(206).with("content-range", shown);
    reply.body = bytes.into();
    reply
}

fn list(state: &State, request: &Request) -> Reply {
    if request.parameter("restype") != Some("container") || request.method != Method::GET {
        return refuse(400, "InvalidQueryParameterValue", "restype");
    }
    let prefix = request.parameter("prefix").unwrap_or_default();
    let blobs = state
        .blobs
        .iter()
        .filter(|(name, _)| name.starts_with(prefix));
    let blobs = blobs.map(|(name, page)| {
        let notes = page.notes.iter();
        let notes: Vec<_> = notes.map(|(key, value)| format!("<{key}>{value}</{key}>")).collect();
        let notes = notes.concat();
        format!(
            "<Blob><Name>{name}</Name><Properties><Creation-Time>Fri, 02 Jan 2026 00:00:00 GMT</Creation-Time>\
             <Etag>{}</Etag><Content-Length>{}</Content-Length><x-ms-blob-sequence-number>{}</x-ms-blob-sequence-number>\
             <BlobType>PageBlob</BlobType></Properties><Metadata>{notes}</Metadata></Blob>",
            page.etag(),
            page.size,
            page.sequence
        )
    });
    let blobs: String = blobs.collect();
    let text = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>"
    );
    Reply::xml(200, text)
}
