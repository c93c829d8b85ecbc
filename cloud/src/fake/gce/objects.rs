//! Cloud Storage: objects, and uploads that can be taken up again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{State, denied, error};
use crate::escape::unescape;
use crate::fake::server::{Reply, Request};

/// What all pieces but the last are a multiple of.
const QUANTUM: usize = 256 << 10;

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) generation: u64,
    pub(super) bytes: Bytes,
    metadata: Value,
}

/// One upload.
#[derive(Clone, Debug)]
pub(super) struct Session {
    name: String,
    absent: bool,
    size: Option<u64>,
    bytes: Vec<u8>,
    metadata: Value,
    state: Ends,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ends {
    Open,
    Object(u64),
    Broken,
}

impl Session {
    pub(super) fn is_open(&self) -> bool {
        self.state == Ends::Open
    }
}

impl Object {
    pub(super) fn new(generation: u64, bytes: Bytes, metadata: Value) -> Self {
        Self {
            generation,
            bytes,
            metadata,
        }
    }

    fn value(&self, bucket: &str, name: &str) -> Value {
        let crc32c = crc32c::crc32c(&self.bytes).to_be_bytes();
        json!({
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "generation": self.generation.to_string(),
            "size": self.bytes.len().to_string(),
            "crc32c": STANDARD.encode(crc32c),
            "metadata": self.metadata,
        })
    }
}

pub(super) fn answer(state: &mut State, bucket: &str, label: &str, request: &Request) -> Reply {
    let path = request
        .path
        .trim_start_matches("/upload")
        .trim_start_matches("/storage/v1/b/");
    let Some((found, rest)) = path.split_once('/') else {
        return error(404, "notFound", "Not Found");
    };
    if found != bucket {
        return error(404, "notFound", "The specified bucket does not exist.");
    }
    let name = unescape(rest.strip_prefix("o/").unwrap_or_default());
    match label {
        "storage:begin" => begin(state, bucket, request),
        "storage:piece" | "storage:status" => piece(state, bucket, label, request),
        "storage:abandon" => abandon(state, request),
        "storage:testPermissions" => allowed(state, request),
        "storage:get" => match state.objects.get(&name) {
            Some(object) => Reply::json(200, &object.value(bucket, &name)),
            None if state.denied.contains("storage.objects.list") => {
                denied("storage.objects.list", &name)
            }
            None => error(404, "notFound", "No such object"),
        },
        _ => delete(state, &name, request),
    }
}

fn allowed(state: &State, request: &Request) -> Reply {
    let asked = request.query.iter().filter(|(key, _)| key == "permissions");
    let allowed: Vec<&String> = asked
        .map(|(_, one)| one)
        .filter(|one| !state.denied.contains(*one))
        .collect();
    Reply::json(200, &json!({ "permissions": allowed }))
}

fn delete(state: &mut State, name: &str, request: &Request) -> Reply {
    let Some(object) = state.objects.get(name) else {
        return error(404, "notFound", "No such object");
    };
    let generation = object.generation.to_string();
    if request
        .parameter("ifGenerationMatch")
        .is_some_and(|wanted| wanted != generation)
    {
        return error(
            412,
            "conditionNotMet",
            "At least one of the pre-conditions you specified did not hold.",
        );
    }
    state.objects.remove(name);
    Reply::empty(204)
}

fn begin(state: &mut State, bucket: &str, request: &Request) -> Reply {
    let name = request.parameter("name").unwrap_or_default();
    if request.parameter("uploadType") != Some("resumable") || name.is_empty() {
        return error(400, "required", "Required");
    }
    let absent = request.parameter("ifGenerationMatch") == Some("0");
    if absent && state.objects.contains_key(name) {
        return error(
            412,
            "conditionNotMet",
            "At least one of the pre-conditions you specified did not hold.",
        );
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return error(400, "parseError", "Parse Error");
    };
    let strings = |value: &Value| {
        value
            .as_object()
            .is_some_and(|all| all.values().all(Value::is_string))
    };
    if !body["metadata"].is_null() && !strings(&body["metadata"]) {
        return error(400, "invalid", "Invalid metadata.");
    }
    let id = format!("upload-{}", state.next());
    let session = Session {
        name: name.to_owned(),
        absent,
        size: request
            .header("x-upload-content-length")
            .and_then(|size| size.parse().ok()),
        bytes: Vec::new(),
        metadata: body["metadata"].clone(),
        state: Ends::Open,
    };
    state.sessions.insert(id.clone(), session);
    let host = request.header("host").unwrap_or_default();
    let location =
        format!("http://{host}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}");
    Reply::empty(200).with("location", location)
}

fn abandon(state: &mut State, request: &Request) -> Reply {
    let id = request.parameter("upload_id").unwrap_or_default();
    match state.sessions.get_mut(id) {
        Some(session) => {
            session.state = Ends::Broken;
            session.bytes = Vec::new();
            Reply::empty(499)
        }
        None => error(404, "notFound", "Not Found"),
    }
}

/// `bytes A-B/N`, or `bytes */N`.
fn range(request: &Request) -> Option<(Option<(u64, u64)>, u64)> {
    let range = request.header("content-range")?.strip_prefix("bytes ")?;
    let (range, size) = range.split_once('/')?;
    let size = size.parse().ok()?;
    if range == "*" {
        return Some((None, size));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < size).then_some((Some((first, last)), size))
}

fn piece(state: &mut State, bucket: &str, label: &str, request: &Request) -> Reply {
    let id = request
        .parameter("upload_id")
        .unwrap_or_default()
        .to_owned();
    let forgetful = label == "storage:piece" && state.forgetful > 0;
    let generation = state.next();
    let State {
        sessions, objects, ..
    } = &mut *state;
    let Some(session) = sessions.get_mut(&id) else {
        return error(404, "notFound", "Not Found");
    };
    let name = session.name.clone();
    match &session.state {
        Ends::Broken => return Reply::empty(499),
        Ends::Object(generation) => {
            let object = objects
                .get(&name)
                .filter(|object| object.generation == *generation);
            return object.map_or_else(
                || error(404, "notFound", "Not Found"),
                |object| Reply::json(200, &object.value(bucket, &name)),
            );
        }
        Ends::Open => {}
    }
    let Some((part, size)) = range(request) else {
        return error(400, "badRequest", "Failed to parse Content-Range header.");
    };
    if session.size.is_some_and(|told| told != size) {
        return error(
            400,
            "badRequest",
            "The total size is not that of the beginning.",
        );
    }
    if let Some((first, last)) = part {
        let kept = session.bytes.len() as u64;
        let length = request.body.len();
        if last + 1 - first != length as u64 {
            return error(400, "badRequest", "Content-Range does not fit the body.");
        }
        if first > kept {
            return error(
                400,
                "badRequest",
                "The upload offset exceeds already uploaded size.",
            );
        }
        if last + 1 < size && !length.is_multiple_of(QUANTUM) {
            return error(
                400,
                "badRequest",
                "There were less than 262144 bytes of a multiple in the request body.",
            );
        }
        let skip = usize::try_from(kept - first).unwrap_or(length).min(length);
        let mut rest = &request.body[skip..];
        if forgetful && rest.len() > QUANTUM {
            rest = &rest[..(rest.len() / 2)
                .next_multiple_of(QUANTUM)
                .min(rest.len() - 1)
                / QUANTUM
                * QUANTUM];
        }
        session.bytes.extend_from_slice(rest);
    }
    let kept = session.bytes.len() as u64;
    if kept < size {
        if forgetful {
            state.forgetful -= 1;
        }
        let reply = Reply::empty(308);
        return if kept == 0 {
            reply
        } else {
            reply.with("range", format!("bytes=0-{}", kept - 1))
        };
    }
    if session.absent && objects.contains_key(&name) {
        session.state = Ends::Broken;
        return error(
            412,
            "conditionNotMet",
            "At least one of the pre-conditions you specified did not hold.",
        );
    }
    session.state = Ends::Object(generation);
    let object = Object::new(
        generation,
        std::mem::take(&mut session.bytes).into(),
        session.metadata.clone(),
    );
    let reply = Reply::json(200, &object.value(bucket, &name));
    objects.insert(name, object);
    reply
}
