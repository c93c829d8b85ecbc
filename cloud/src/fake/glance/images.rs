//! Glance: images, their bytes, tags and members.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha512};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{PROJECT, State, error};
use crate::fake::server::{Reply, Request};

/// When the first image was made, in seconds since 1970.
const EPOCH: i64 = 1_767_312_000;
/// Fields of every image; `true` where they can be changed.
const FIELDS: [(&str, bool); 22] = [
    ("id", false),
    ("name", true),
    ("status", false),
    ("visibility", true),
    ("protected", true),
    ("os_hidden", true),
    ("owner", false),
    ("size", false),
    ("virtual_size", false),
    ("checksum", false),
    ("os_hash_algo", false),
    ("os_hash_value", false),
    ("disk_format", false),
    ("container_format", false),
    ("min_disk", true),
    ("min_ram", true),
    ("tags", true),
    ("file", false),
    ("self", false),
    ("schema", false),
    ("created_at", false),
    ("updated_at", false),
];

/// One image.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) fields: Map<String, Value>,
    pub(super) members: BTreeSet<String>,
    pub(super) bytes: Option<Bytes>,
    unseen: u32,
    left: u32,
}

impl Image {
    pub(super) fn value(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    fn text(&self, field: &str) -> &str {
        self.fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.fields.insert(field.to_owned(), value.into());
    }

    fn tags(&self) -> BTreeSet<String> {
        serde_json::from_value(self.fields["tags"].clone()).unwrap_or_default()
    }
}

pub(super) fn answer(state: &mut State, label: &str, request: &Request) -> Reply {
    pass(state);
    match label {
        "glance:list" => return list(state, request),
        "glance:usage" => return usage(state),
        "glance:create" => return create(state, request),
        _ => {}
    }
    let mut parts = request.path.trim_start_matches("/v2/images/").split('/');
    let (id, rest) = (parts.next().unwrap_or_default().to_owned(), parts.nth(1));
    let damage = label == "glance:upload" && state.damaging > 0;
    let (slow, denied) = (state.slow, state.denied.clone());
    let Some(image) = state.images.get_mut(&id) else {
        return error(404, &format!("No image found with ID {id}"));
    };
    match label {
        "glance:get" => Reply::json(200, &image.value()),
        "glance:upload" => {
            let reply = upload(image, request, slow, damage);
            state.damaging -= u32::from(damage);
            reply
        }
        "glance:patch" => match patch(image, request, &denied) {
            Ok(changed) => {
                let reply = Reply::json(200, &changed.value());
                *image = changed;
                reply
            }
            Err(reply) => reply,
        },
        "glance:members" => {
            let members: Vec<Value> = image
                .members
                .iter()
                .map(|member| json!({ "member_id": member, "status": "pending" }))
                .collect();
            Reply::json(200, &json!({ "members": members }))
        }
        "glance:share" => share(image, request),
        "glance:tag" | "glance:untag" => {
            let mut tags = image.tags();
            let tag = rest.unwrap_or_default();
            let there = match label {
                "glance:tag" => {
                    tags.insert(tag.to_owned());
                    true
                }
                _ => tags.remove(tag),
            };
            image.set("tags", json!(tags));
            if there {
                Reply::empty(204)
            } else {
                error(404, "The tag was not found.")
            }
        }
        _ if image.fields["protected"] == true => error(
            403,
            &format!("Image {id} is protected and cannot be deleted."),
        ),
        _ => {
            state.images.remove(&id);
            state.used.insert(id);
            Reply::empty(204)
        }
    }
}

/// Time passes whenever somebody looks.
fn pass(state: &mut State) {
    for image in state.images.values_mut() {
        image.unseen = image.unseen.saturating_sub(1);
        if image.text("status") == "saving" {
            if image.left == 0 {
                image.set("status", "active");
            }
            image.left = image.left.saturating_sub(1);
        }
    }
}

fn list(state: &State, request: &Request) -> Reply {
    let control = ["limit", "marker", "sort", "os_hidden"];
    let hidden = request.parameter("os_hidden") == Some("true");
    let filters = request
        .query
        .iter()
        .filter(|(name, _)| !control.contains(&name.as_str()));
    let filters: Vec<_> = filters.collect();
    let fits = |image: &&Image| {
        let mut filters = filters.iter();
        image.unseen == 0
            && (image.fields["os_hidden"] == true) == hidden
            && filters.all(|(name, value)| image.text(name) == value)
    };
    let mut found: Vec<&Image> = state.images.values().filter(fits).collect();
    found.sort_by_key(|image| image.text("created_at"));
    let marker = request.parameter("marker");
    let from = marker.and_then(|marker| found.iter().position(|image| image.text("id") == marker));
    let from = from.map_or(0, |from| from + 1);
    // Small pages, so that somebody turns them.
    let page: Vec<Value> = found
        .iter()
        .skip(from)
        .take(2)
        .map(|image| image.value())
        .collect();
    let mut answer = json!({ "images": page, "first": "/v2/images" });
    if found.len() > from + 2 {
        let query = request
            .raw_query
            .split('&')
            .filter(|pair| !pair.starts_with("marker="))
            .collect::<Vec<_>>()
            .join("&");
        answer["next"] = format!("/v2/images?{query}&marker={}", found[from + 1].text("id")).into();
    }
    Reply::json(200, &answer)
}

fn usage(state: &State) -> Reply {
    match state.quota {
        None => error(404, "Quotas are not enabled."),
        Some(quota) => {
            let count = json!({ "limit": quota, "usage": state.images.len() });
            Reply::json(
                200,
                &json!({ "usage": { "image_count_total": count, "image_size_total": { "limit": -1, "usage": 0 } } }),
            )
        }
    }
}

fn create(state: &mut State, request: &Request) -> Reply {
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(&request.body) else {
        return error(400, "Malformed JSON in request body.");
    };
    let count = state.next();
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let id = match body.get("id").and_then(Value::as_str) {
        None => crate::uuid::uuid(&count.to_string()),
        Some(id) if is_uuid(id) => id.to_owned(),
        Some(_) => return error(400, "The id is no UUID."),
    };
    if state.images.contains_key(&id) || state.used.contains(&id) {
        return error(409, &format!("Image ID {id} already exists!"));
    }
    if state.quota.is_some_and(|quota| state.images.len() >= quota) {
        return error(413, "Request is too large: the quota of images is used up.");
    }
    if !matches!(text("disk_format"), "raw" | "qcow2") || text("container_format") != "bare" {
        return error(400, "Invalid disk or container format.");
    }
    if !matches!(text("visibility"), "" | "private" | "shared") {
        return error(
            403,
            "You are not authorized to complete publicize_image action.",
        );
    }
    let locked =
        |(name, value): (&String, &Value)| match FIELDS.iter().find(|(field, _)| field == name) {
            Some((field, changeable)) => {
                !changeable && !matches!(*field, "id" | "disk_format" | "container_format")
            }
            None => value
                .as_str()
                .is_none_or(|value| value.is_empty() || value.len() > 255 && name != "description"),
        };
    if let Some((name, _)) = body.iter().find(|pair| locked(*pair)) {
        return error(
            400,
            &format!("Provided object does not match schema 'image': {name}"),
        );
    }
    let created =
        OffsetDateTime::from_unix_timestamp(EPOCH + i64::try_from(count).unwrap_or_default());
    let created = created
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(&Rfc3339)
        .unwrap_or_default();
    let mut image = Image {
        fields: Map::new(),
        members: BTreeSet::new(),
        bytes: None,
        unseen: state.unseen,
        left: 0,
    };
    for (field, value) in [
        ("visibility", json!("shared")),
        ("protected", json!(false)),
        ("os_hidden", json!(false)),
        ("tags", json!([])),
        ("min_disk", json!(0)),
        ("size", Value::Null),
    ] {
        image.set(field, value);
    }
    image.fields.extend(body);
    for (field, value) in [
        ("id", id.as_str()),
        ("status", "queued"),
        ("owner", PROJECT),
        ("created_at", &created),
    ] {
        image.set(field, value);
    }
    let reply = Reply::json(201, &image.value()).with(
        "openstack-image-import-methods",
        "glance-direct,web-download",
    );
    state.images.insert(id, image);
    reply
}

fn upload(image: &mut Image, request: &Request, slow: u32, damage: bool) -> Reply {
    if request.header("content-type") != Some("application/octet-stream") {
        return error(415, "The server could not comply with the request.");
    }
    if image.text("status") != "queued" {
        let status = image.text("status").to_owned();
        return error(
            409,
            &format!("Image status transition from {status} to saving is not allowed"),
        );
    }
    let mut bytes = request.body.to_vec();
    if damage && let Some(byte) = bytes.first_mut() {
        *byte ^= 1;
    }
    let hash = Sha512::digest(&bytes);
    let hash: String = hash
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat();
    image.set("size", bytes.len());
    image.set("os_hash_algo", "sha512");
    image.set("os_hash_value", hash);
    image.set("status", "saving");
    image.bytes = Some(bytes.into());
    image.left = slow;
    if slow == 0 {
        image.set("status", "active");
    }
    Reply::empty(204)
}

fn patch(image: &Image, request: &Request, denied: &BTreeSet<String>) -> Result<Image, Reply> {
    if request.header("content-type") != Some("application/openstack-images-v2.1-json-patch") {
        return Err(error(415, "Unsupported Content-Type."));
    }
    let list: Vec<Value> = serde_json::from_slice(&request.body)
        .map_err(|_| error(400, "Request body must be a JSON array."))?;
    let mut changed = image.clone();
    for step in &list {
        let path = step["path"]
            .as_str()
            .and_then(|path| path.strip_prefix('/'));
        let path = path.ok_or_else(|| error(400, "Invalid JSON pointer."))?;
        let field = path.replace("~1", "/").replace("~0", "~");
        let known = FIELDS.iter().find(|(name, _)| *name == field);
        if known.is_some_and(|(_, changeable)| !changeable) {
            return Err(error(403, &format!("Attribute '{field}' is read-only.")));
        }
        let there = changed.fields.contains_key(&field);
        match step["op"].as_str() {
            Some("replace") if !there => {
                return Err(error(409, &format!("Property {field} does not exist.")));
            }
            Some("add" | "replace") => {}
            _ => return Err(error(400, "Operations must be add, replace or remove.")),
        }
        if known.is_none() && !step["value"].is_string() {
            return Err(error(400, "A property is text."));
        }
        let rule = match (field.as_str(), step["value"].as_str()) {
            ("visibility", Some("public")) => "publicize_image",
            ("visibility", Some("community")) => "communitize_image",
            ("visibility", Some("private" | "shared")) | (_, _)
                if field != "visibility" || step["value"].is_string() =>
            {
                ""
            }
            _ => return Err(error(400, "Invalid visibility.")),
        };
        if denied.contains(rule) {
            return Err(error(
                403,
                &format!("You are not authorized to complete {rule} action."),
            ));
        }
        changed.fields.insert(field, step["value"].clone());
    }
    Ok(changed)
}

fn share(image: &mut Image, request: &Request) -> Reply {
    if image.text("visibility") != "shared" {
        return error(403, "Only shared images have members.");
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let Some(member) = body["member"].as_str().filter(|member| !member.is_empty()) else {
        return error(400, "Expected a member.");
    };
    if !image.members.insert(member.to_owned()) {
        return error(409, &format!("Image member {member} already exists."));
    }
    Reply::json(200, &json!({ "member_id": member, "status": "pending" }))
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}
