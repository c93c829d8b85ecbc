//! Compute Engine: images, their policies, operations that take time.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fields::{deprecation, fields, is_name, is_uuid, labels};
use super::{State, archive, error};
use crate::fake::server::{Reply, Request};

/// When the first image was made, in seconds since 1970.
const EPOCH: i64 = 1_767_312_000;
/// Fields that a patch may have.
const PATCHED: [&str; 3] = ["family", "description", "deprecated"];

/// One image.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    fields: Map<String, Value>,
    pub(super) policy: Value,
    pub(super) archive: Bytes,
    /// The object that it is made of, until it is made.
    source: Option<String>,
    /// How often it is still looked at before the next thing happens to it.
    left: u32,
    unseen: u32,
    fails: bool,
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    image: String,
    left: u32,
    error: Option<(&'static str, String)>,
}

impl Stored {
    pub(super) fn new(image: Value, count: u64, archive: Bytes) -> Self {
        let mut fields = match image {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let created =
            OffsetDateTime::from_unix_timestamp(EPOCH + i64::try_from(count).unwrap_or_default());
        let created = created
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
            .format(&Rfc3339);
        fields
            .entry("creationTimestamp")
            .or_insert(created.unwrap_or_default().into());
        fields.insert("id".to_owned(), count.to_string().into());
        fields
            .entry("archiveSizeBytes")
            .or_insert(archive.len().to_string().into());
        fields.insert("status".to_owned(), "PENDING".into());
        fields.insert("labelFingerprint".to_owned(), format!("f{count}").into());
        Self {
            fields,
            policy: json!({ "etag": format!("e{count}"), "version": 1 }),
            archive,
            source: None,
            left: 0,
            unseen: 0,
            fails: false,
        }
    }

    pub(super) fn ready(mut self) -> Self {
        self.set("status", "READY");
        self
    }

    pub(super) fn name(&self) -> String {
        self.text("name").to_owned()
    }

    pub(super) fn value(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    fn text(&self, field: &str) -> &str {
        self.fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn set(&mut self, field: &str, value: &str) {
        self.fields.insert(field.to_owned(), value.into());
    }
}

pub(super) fn answer(
    state: &mut State,
    (project, bucket): (&str, &str),
    label: &str,
    request: &Request,
) -> Reply {
    let prefix = format!("/compute/v1/projects/{project}");
    let Some(rest) = request.path.strip_prefix(&prefix) else {
        return error(404, "notFound", "The project was not found.");
    };
    pass(state);
    let rest = rest
        .trim_start_matches("/global/")
        .trim_start_matches("images/");
    let name = rest.split('/').next().unwrap_or_default().to_owned();
    let body = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    match label {
        "compute:project" => quotas(state),
        "compute:list" => list(state, request),
        "compute:operation" => operation(state, rest.trim_start_matches("operations/")),
        "compute:insert" => insert(state, (project, bucket), request, &body),
        _ => {
            if !state.images.contains_key(&name) {
                return error(
                    404,
                    "notFound",
                    &format!(
                        "The resource 'projects/{project}/global/images/{name}' was not found"
                    ),
                );
            }
            one(state, label, &name, &body)
        }
    }
}

fn one(state: &mut State, label: &str, name: &str, body: &Value) -> Reply {
    let fingerprint = format!("f{}", state.next());
    let slow = state.slow;
    let Some(image) = state.images.get_mut(name) else {
        return Reply::empty(404);
    };
    match label {
        "compute:get" if image.unseen > 0 => {
            image.unseen -= 1;
            return error(404, "notFound", "The resource was not found");
        }
        "compute:get" => return Reply::json(200, &image.value()),
        "compute:getIamPolicy" => return Reply::json(200, &image.policy),
        "compute:setIamPolicy" => return set_policy(image, &fingerprint, &body["policy"]),
        "compute:delete" => {
            image.set("status", "DELETING");
            image.left = slow;
        }
        "compute:patch" => {
            let fields = body.as_object().into_iter().flatten();
            for (field, value) in fields {
                if !PATCHED.contains(&field.as_str()) {
                    return error(
                        400,
                        "invalid",
                        &format!("Field '{field}' cannot be patched."),
                    );
                }
                if field == "family" && !is_name(value.as_str().unwrap_or_default()) {
                    return error(400, "invalid", "Invalid value for field 'resource.family'.");
                }
                image.fields.insert(field.clone(), value.clone());
            }
        }
        "compute:setLabels" => {
            if body["labelFingerprint"] != image.fields["labelFingerprint"] {
                return error(
                    412,
                    "conditionNotMet",
                    "Labels fingerprint either invalid or resource labels have changed",
                );
            }
            if let Err(reply) = labels(&body["labels"]) {
                return reply;
            }
            image
                .fields
                .insert("labels".to_owned(), body["labels"].clone());
            image.set("labelFingerprint", &fingerprint);
        }
        _ => {
            if let Err(reply) = deprecation(body) {
                return reply;
            }
            image.fields.insert("deprecated".to_owned(), body.clone());
        }
    }
    begun(state, name, None)
}

/// Time passes whenever somebody looks.
fn pass(state: &mut State) {
    let State {
        images, objects, ..
    } = state;
    images.retain(|_, image| {
        if image.left > 0 {
            image.left -= 1;
            return true;
        }
        if image.text("status") == "PENDING" {
            let there = image
                .source
                .as_ref()
                .is_none_or(|source| objects.contains_key(source));
            image.set(
                "status",
                if image.fails || !there {
                    "FAILED"
                } else {
                    "READY"
                },
            );
        }
        image.text("status") != "DELETING"
    });
}

fn begun(state: &mut State, image: &str, error: Option<(&'static str, String)>) -> Reply {
    let name = format!("operation-{}", state.next());
    let operation = Operation {
        image: image.to_owned(),
        left: state.slow,
        error,
    };
    let reply = shown(&name, &operation, state);
    state.operations.insert(name, operation);
    reply
}

fn operation(state: &mut State, name: &str) -> Reply {
    let Some(mut operation) = state.operations.get(name).cloned() else {
        return error(404, "notFound", "The operation was not found");
    };
    let reply = shown(name, &operation, state);
    operation.left = operation.left.saturating_sub(1);
    state.operations.insert(name.to_owned(), operation);
    reply
}

fn shown(name: &str, operation: &Operation, state: &State) -> Reply {
    let mut value = json!({ "kind": "compute#operation", "name": name, "status": if operation.left == 0 { "DONE" } else { "RUNNING" } });
    let failed = state
        .images
        .get(&operation.image)
        .is_some_and(|image| image.text("status") == "FAILED");
    let failure = failed.then(|| ("INTERNAL_ERROR", "The image could not be made.".to_owned()));
    if operation.left == 0
        && let Some((code, message)) = operation.error.clone().or(failure)
    {
        value["error"] = json!({ "errors": [{ "code": code, "message": message }] });
        value["httpErrorStatusCode"] = 400.into();
    }
    Reply::json(200, &value)
}

fn quotas(state: &State) -> Reply {
    let limit = state.quota.unwrap_or(2000);
    let quotas = json!([{ "metric": "SNAPSHOTS", "limit": 5000.0, "usage": 0.0 }, { "metric": "IMAGES", "limit": f64::from(limit), "usage": state.images.len() }]);
    Reply::json(200, &json!({ "kind": "compute#project", "quotas": quotas }))
}

/// `field = "value"`, for the two fields that anybody here asks for.
fn list(state: &State, request: &Request) -> Reply {
    let filter = request.parameter("filter").unwrap_or_default();
    let parsed = filter
        .split_once(" = ")
        .and_then(|(field, value)| Some((field, value.strip_prefix('"')?.strip_suffix('"')?)));
    let Some((field, wanted)) = parsed else {
        return error(400, "invalid", "Invalid value for field 'filter'.");
    };
    let found = |image: &&Stored| match field.strip_prefix("labels.") {
        Some(label) => image
            .fields
            .get("labels")
            .is_some_and(|labels| labels[label] == wanted),
        None => image.text(field) == wanted,
    };
    let seen = state
        .images
        .values()
        .filter(|image| image.unseen == 0)
        .filter(found);
    let all: Vec<Value> = seen.map(Stored::value).collect();
    // Small pages, so that somebody turns them.
    let from: usize = request
        .parameter("pageToken")
        .and_then(|token| token.parse().ok())
        .unwrap_or_default();
    let mut page = json!({ "kind": "compute#imageList", "items": all.iter().skip(from).take(2).collect::<Vec<_>>() });
    if all.len() > from + 2 {
        page["nextPageToken"] = (from + 2).to_string().into();
    }
    Reply::json(200, &page)
}

fn insert(
    state: &mut State,
    (project, bucket): (&str, &str),
    request: &Request,
    body: &Value,
) -> Reply {
    let id = request.parameter("requestId").map(str::to_owned);
    if let Some(id) = &id {
        if !is_uuid(id) {
            return error(400, "invalid", "Invalid value for field 'requestId'.");
        }
        if let Some((before, operation)) = state.requests.get(id).cloned() {
            if before != request.body {
                return error(
                    400,
                    "invalid",
                    "The request id was used for another request.",
                );
            }
            return self::operation(state, &operation);
        }
    }
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    if let Err(reply) = fields(body) {
        return reply;
    }
    if state.images.contains_key(&name) {
        return error(
            409,
            "alreadyExists",
            &format!("The resource 'projects/{project}/global/images/{name}' already exists"),
        );
    }
    if state
        .quota
        .is_some_and(|quota| state.images.len() >= quota as usize)
    {
        return error(403, "quotaExceeded", "Quota 'IMAGES' exceeded.");
    }
    let source = body["rawDisk"]["source"].as_str().unwrap_or_default();
    let object = source
        .split_once(&format!("/{bucket}/"))
        .map(|(_, object)| object);
    let Some(object) = object.filter(|object| state.objects.contains_key(*object)) else {
        return error(
            404,
            "notFound",
            &format!("The resource '{source}' was not found"),
        );
    };
    let reply = made(state, &name, object, body);
    if let (Some(id), Ok(value)) = (id, serde_json::from_slice::<Value>(&reply.body)) {
        let operation = value["name"].as_str().unwrap_or_default().to_owned();
        state.requests.insert(id, (request.body.clone(), operation));
    }
    reply
}

fn made(state: &mut State, name: &str, object: &str, body: &Value) -> Reply {
    let archive = state.objects[object].bytes.clone();
    let gib = match archive::judge(&archive) {
        Ok(gib) => gib,
        Err(reason) => return begun(state, name, Some(("IMAGE_IMPORT_ERROR", reason.to_owned()))),
    };
    let asked: u64 = body["diskSizeGb"]
        .as_str()
        .and_then(|size| size.parse().ok())
        .unwrap_or(gib);
    if asked < gib {
        return error(
            400,
            "invalid",
            "The disk is larger than 'resource.diskSizeGb'.",
        );
    }
    let mut image = body.clone();
    image["diskSizeGb"] = asked.to_string().into();
    if let Some(key) = body["imageEncryptionKey"]["kmsKeyName"].as_str() {
        image["imageEncryptionKey"]["kmsKeyName"] = format!("{key}/cryptoKeyVersions/1").into();
    }
    if body["storageLocations"].is_null() {
        image["storageLocations"] = json!(["eu"]);
    }
    let count = state.next();
    let mut stored = Stored::new(image, count, archive);
    stored.source = Some(object.to_owned());
    (stored.left, stored.unseen) = (state.slow, state.unseen);
    if state.failing > 0 {
        state.failing -= 1;
        stored.fails = true;
    }
    state.images.insert(name.to_owned(), stored);
    begun(state, name, None)
}

fn set_policy(image: &mut Stored, etag: &str, policy: &Value) -> Reply {
    let etag = etag.replace('f', "e");
    if policy["etag"] != image.policy["etag"] {
        return error(412, "conditionNotMet", "The policy was changed meanwhile.");
    }
    let conditional = policy["bindings"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|binding| !binding["condition"].is_null());
    if conditional && policy["version"] != 3 {
        return error(400, "invalid", "A policy with conditions has version 3.");
    }
    let bindings = policy["bindings"].as_array().into_iter().flatten();
    let mut members =
        bindings.flat_map(|binding| binding["members"].as_array().into_iter().flatten());
    if !members.all(|member| {
        member
            .as_str()
            .is_some_and(|member| member.contains(':') || member == "allAuthenticatedUsers")
    }) {
        return error(400, "invalid", "Invalid member.");
    }
    image.policy = policy.clone();
    image.policy["etag"] = etag.into();
    Reply::json(200, &image.policy)
}
