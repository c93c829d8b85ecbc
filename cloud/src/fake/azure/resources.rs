//! The resource manager: resources by path, made and removed slowly.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::super::server::{Reply, Request};
use super::around::{around, gallery, known_gallery, share};
use super::path::{COMPUTE, Path};
use super::tokens::{self, Good};
use super::{State, World, refuse, rules};

/// Something that was made.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) path: String,
    pub(super) value: Value,
    /// How often is asked until what is done with it is done.
    left: u32,
    /// How often is asked until its copies are there.
    copying: u32,
    /// How often it is not there yet.
    hidden: u32,
    fate: Fate,
    operation: u64,
}

/// What is done with a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Make,
    Remove,
    Fail,
}

impl Resource {
    pub(super) fn made(path: &str, mut value: Value) -> Self {
        value["id"] = json!(path);
        value["name"] = json!(path.rsplit('/').next());
        value["properties"]["provisioningState"] = json!("Succeeded");
        Self {
            path: path.to_owned(),
            value,
            left: 0,
            copying: 0,
            hidden: 0,
            fate: Fate::Make,
            operation: 0,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        Path::parse(&self.path).map_or("", |path| path.kind)
    }
}

pub(super) fn label(request: &Request) -> String {
    let kind = Path::parse(&request.path).map_or("other", |path| path.kind);
    format!("arm:{} {kind}", request.method)
}

pub(super) fn answer(world: &World, state: &mut State, request: &Request) -> Reply {
    match tokens::check(state, request, "https://management.azure.com") {
        Good::Yes => {}
        Good::No => {
            return refuse(
                401,
                "ExpiredAuthenticationToken",
                "The access token expired.",
            );
        }
        Good::Elsewhere => {
            return refuse(
                401,
                "InvalidAuthenticationTokenAudience",
                "The audience is wrong.",
            );
        }
    }
    let version = request.parameter("api-version").unwrap_or_default();
    if version.len() != "2024-07-01".len() {
        let message =
            "The api-version query parameter (?api-version=) is required for all requests.";
        return refuse(400, "MissingApiVersionParameter", message);
    }
    let root = format!("/subscriptions/{}/", world.subscription);
    let Some(rest) = request.path.strip_prefix(&root) else {
        return refuse(
            404,
            "SubscriptionNotFound",
            "The subscription could not be found.",
        );
    };
    if let Some(reply) = around(world, state, rest) {
        return reply;
    }
    let Some(path) = Path::parse(&request.path) else {
        return refuse(
            404,
            "InvalidResourceType",
            "The resource type could not be found.",
        );
    };
    let group = format!("resourceGroups/{}/", world.group);
    if rest.starts_with("resourceGroups/") && !rest.starts_with(&group) {
        return refuse(
            404,
            "ResourceGroupNotFound",
            "The resource group could not be found.",
        );
    }
    if let Some(refusal) = denied(state, &path.action(&request.method), &request.path) {
        return refusal;
    }
    match (request.method.as_str(), path.kind) {
        ("GET", "locations/operations") => operation(world, state, path.name),
        ("GET", _) if path.name.is_empty() => list(world, state, &path),
        ("GET", "galleries") => gallery(world, state, &path, request),
        ("GET", _) => read(world, state, &path, request),
        ("PUT", _) => write(world, state, &path, request),
        ("PATCH", "images" | "galleries/images/versions") => change(world, state, &path, request),
        ("DELETE", _) => remove(world, state, &path, request),
        ("POST", "galleries/share") => share(world, state, request),
        _ => refuse(405, "MethodNotAllowed", "The method is not allowed."),
    }
}

fn denied(state: &State, action: &str, scope: &str) -> Option<Reply> {
    let denied = state.mood.denied.contains(action);
    let message = format!(
        "The client 'c' with object id 'o' does not have authorization to perform action '{action}' over scope '{scope}' \
         or the scope is invalid. If access was recently granted, please refresh your credentials."
    );
    denied.then(|| refuse(403, "AuthorizationFailed", &message))
}

pub(super) fn missing(path: &str) -> Reply {
    let message = format!("The Resource '{path}' was not found.");
    refuse(404, "ResourceNotFound", &message)
}

/// Lets what is done with a resource go on by one look.
fn step(world: &World, state: &mut State, key: &str) {
    let Some(resource) = state.resources.get(key).cloned() else {
        return;
    };
    if resource.left > 1 || (resource.left == 0 && resource.copying == 0) {
        if let Some(resource) = state.resources.get_mut(key) {
            resource.left = resource.left.saturating_sub(1);
        }
        return;
    }
    let source = source(&resource.value);
    // Making reads the disk until it is done; changing does not.
    let fails = resource.fate == Fate::Make
        && resource.left == 1
        && !source.is_empty()
        && resource.value["properties"]["provisioningState"] == "Creating"
        && rules::source(world, state, &source).is_err();
    let Some(resource) = state.resources.get_mut(key) else {
        return;
    };
    if resource.left == 0 {
        resource.copying -= 1;
        return;
    }
    resource.left = 0;
    if resource.fate == Fate::Remove {
        state.resources.remove(key);
        return;
    }
    let failed = fails || resource.fate == Fate::Fail;
    resource.fate = if failed { Fate::Fail } else { Fate::Make };
    let now = if failed { "Failed" } else { "Succeeded" };
    resource.value["properties"]["provisioningState"] = json!(now);
}

fn source(value: &Value) -> String {
    let disk = &value["properties"]["storageProfile"];
    let uri = disk["osDisk"]["blobUri"].as_str();
    uri.or(disk["osDiskImage"]["source"]["uri"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn read(world: &World, state: &mut State, path: &Path<'_>, request: &Request) -> Reply {
    let key = path.whole.to_lowercase();
    if let Some(resource) = state.resources.get_mut(&key)
        && resource.hidden > 0
    {
        resource.hidden -= 1;
        return missing(path.whole);
    }
    let reply = match state.resources.get(&key) {
        None => return missing(path.whole),
        Some(resource) => shown(
            resource,
            request.parameter("$expand") == Some("ReplicationStatus"),
        ),
    };
    step(world, state, &key);
    Reply::json(200, &reply)
}

fn shown(resource: &Resource, expanded: bool) -> Value {
    let mut value = resource.value.clone();
    if resource.kind() == "galleries/images/versions" && expanded {
        let copying = resource.left > 0 || resource.copying > 0;
        let word = if copying { "InProgress" } else { "Completed" };
        let word_of = if copying { "Replicating" } else { "Completed" };
        let regions = value["properties"]["publishingProfile"]["targetRegions"].as_array();
        let regions = regions.into_iter().flatten();
        let summary: Vec<Value> = regions
            .map(|region| {
                let progress = if copying { 40 } else { 100 };
                json!({ "region": region["name"], "state": word_of, "progress": progress, "details": "" })
            })
            .collect();
        value["properties"]["replicationStatus"] =
            json!({ "aggregatedState": word, "summary": summary });
    }
    value
}

fn list(world: &World, state: &State, path: &Path<'_>) -> Reply {
    let prefix = format!("{}/", path.whole.to_lowercase());
    let narrow = state.mood.narrow.contains(&path.action(&Method::GET));
    let group = format!("/resourcegroups/{}/", world.group.to_lowercase());
    let found = state.resources.iter().filter(|(key, resource)| {
        // What users of images there are is asked of the whole subscription.
        let inside = key.starts_with(&prefix) || path.kind.starts_with("virtualMachine");
        let seen = !narrow || key.contains(&group);
        inside && seen && resource.kind() == path.kind && resource.hidden == 0
    });
    let found: Vec<Value> = found.map(|(_, resource)| shown(resource, false)).collect();
    Reply::json(200, &json!({ "value": found }))
}

fn write(world: &World, state: &mut State, path: &Path<'_>, request: &Request) -> Reply {
    let Ok(mut body) = serde_json::from_slice::<Value>(&request.body) else {
        return refuse(
            400,
            "InvalidRequestContent",
            "The request content was invalid.",
        );
    };
    let key = path.whole.to_lowercase();
    let old = state.resources.get(&key).cloned();
    if old
        .as_ref()
        .is_some_and(|old| old.left > 0 || old.fate == Fate::Remove)
    {
        let message = "The request failed due to conflict with a concurrent request.";
        return refuse(409, "Conflict", message);
    }
    if path.kind.starts_with("galleries") && !known_gallery(world, path.whole) {
        return missing(path.whole);
    }
    let before = old.as_ref().map(|old| &old.value);
    if let Err((status, code, message)) = rules::check(world, state, path, &body, before) {
        return refuse(status, code, &message);
    }
    let makes = path.kind != "galleries/images";
    if makes && let Some(refusal) = linked(state, path) {
        return refusal;
    }
    let fails = makes && old.is_none() && state.mood.failing > 0;
    state.mood.failing -= u32::from(fails);
    body["id"] = json!(path.whole);
    body["name"] = json!(path.name);
    let doing = if old.is_some() {
        "Updating"
    } else {
        "Creating"
    };
    body["properties"]["provisioningState"] = json!(doing);
    if path.kind == "galleries/images/versions" {
        let published =
            before.map(|old| old["properties"]["publishingProfile"]["publishedDate"].clone());
        let now = OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339);
        let published = published.unwrap_or_else(|| json!(now.unwrap_or_default()));
        body["properties"]["publishingProfile"]["publishedDate"] = published;
    }
    begin(
        world,
        state,
        &key,
        request,
        Resource {
            path: path.whole.to_owned(),
            value: body,
            left: state.mood.slow + 1,
            copying: if path.kind.ends_with("/versions") {
                state.mood.slow
            } else {
                0
            },
            hidden: if old.is_none() { state.mood.hidden } else { 0 },
            fate: if fails { Fate::Fail } else { Fate::Make },
            operation: 0,
        },
    )
}

/// Who makes an image of a disk must be allowed to list the account's keys.
fn linked(state: &State, path: &Path<'_>) -> Option<Reply> {
    let action = "Microsoft.Storage/storageAccounts/listKeys/action";
    let message = format!(
        "The client has permission to perform action 'Microsoft.Compute/{}/write' on scope '{}'; however, it does not have \
         permission to perform action '{action}' on the linked scope(s) or the linked scope(s) are invalid.",
        path.kind, path.whole
    );
    let denied = state.mood.denied.contains(action);
    denied.then(|| refuse(403, "LinkedAuthorizationFailed", &message))
}

/// Begins what takes long, and says where one asks how it goes on.
fn begin(
    world: &World,
    state: &mut State,
    key: &str,
    request: &Request,
    mut resource: Resource,
) -> Reply {
    state.clock += 1;
    resource.operation = state.clock;
    let created = resource.value["properties"]["provisioningState"] == "Creating";
    let reply = Reply::json(if created { 201 } else { 200 }, &resource.value);
    let host = request.header("host").unwrap_or_default();
    let url = format!(
        "http://{host}/subscriptions/{}{COMPUTE}locations/{}/operations/{}?api-version=2024-07-01",
        world.subscription, world.location, resource.operation
    );
    state.resources.insert(key.to_owned(), resource);
    reply
        .with("azure-asyncoperation", url)
        .with("retry-after", "0")
}

fn operation(world: &World, state: &mut State, name: &str) -> Reply {
    let found = state.resources.iter();
    let found = found
        .filter(|(_, resource)| resource.operation.to_string() == name)
        .map(|(key, _)| key.clone())
        .next();
    let Some(key) = found else {
        return missing(name);
    };
    step(world, state, &key);
    let body = match state.resources.get(&key) {
        Some(resource) if resource.left > 0 => json!({ "status": "InProgress" }),
        Some(resource) if resource.fate == Fate::Fail => json!({
            "status": "Failed",
            "error": { "code": "InternalDiskManagementError", "message": "An internal error occurred." },
        }),
        _ => json!({ "status": "Succeeded" }),
    };
    Reply::json(200, &body).with("retry-after", Duration::ZERO.as_secs().to_string())
}

/// Changes a part of a resource: tags, and of a version all but what it was made of.
fn change(world: &World, state: &mut State, path: &Path<'_>, request: &Request) -> Reply {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let key = path.whole.to_lowercase();
    let Some(mut resource) = state.resources.get(&key).cloned() else {
        return missing(path.whole);
    };
    if resource.left > 0 || resource.fate == Fate::Remove {
        let message = "The request failed due to conflict with a concurrent request.";
        return refuse(409, "Conflict", message);
    }
    if let Err((status, code, message)) = rules::change(world, path, &body, &resource.value) {
        return refuse(status, code, &message);
    }
    if body["tags"].is_object() {
        resource.value["tags"] = body["tags"].clone();
    }
    if path.kind == "images" {
        state.resources.insert(key, resource.clone());
        return Reply::json(200, &resource.value);
    }
    let properties = &mut resource.value["properties"];
    let published = properties["publishingProfile"]["publishedDate"].clone();
    for part in ["publishingProfile", "safetyProfile"] {
        if body["properties"][part].is_object() {
            properties[part] = body["properties"][part].clone();
        }
    }
    properties["publishingProfile"]["publishedDate"] = published;
    properties["provisioningState"] = json!("Updating");
    (resource.left, resource.copying) = (state.mood.slow + 1, state.mood.slow);
    begin(world, state, &key, request, resource)
}

fn remove(world: &World, state: &mut State, path: &Path<'_>, request: &Request) -> Reply {
    let key = path.whole.to_lowercase();
    let Some(mut resource) = state.resources.get(&key).cloned() else {
        return Reply::empty(204);
    };
    if resource.left > 0 && resource.fate != Fate::Remove {
        return refuse(409, "Conflict", "Another operation is in progress.");
    }
    let properties = &resource.value["properties"];
    let end = properties["publishingProfile"]["endOfLifeDate"].as_str();
    let end = end.and_then(|end| {
        OffsetDateTime::parse(end, &time::format_description::well_known::Rfc3339).ok()
    });
    let blocked = properties["safetyProfile"]["blockDeletionBeforeEndOfLife"] == true;
    if blocked && end.is_some_and(|end| end > OffsetDateTime::now_utc()) {
        let message = "Deletion is blocked before the end of life.";
        return refuse(409, "OperationNotAllowed", message);
    }
    resource.left = state.mood.slow + 1;
    resource.fate = Fate::Remove;
    resource.value["properties"]["provisioningState"] = json!("Deleting");
    let mut reply = begin(world, state, &key, request, resource);
    reply.status = hyper::StatusCode::ACCEPTED;
    reply.body = bytes::Bytes::new();
    reply
}
