//! EBS direct, as strict as its documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use image_manifest::{Digest, Hasher};
use serde::Deserialize;
use serde_json::json;

use super::blocks::{BLOCK, Blocks};
use super::form::check_tag;
use super::state::{Snapshot, State, now};
use super::{Context, Refused, refused};
use crate::fake::server::{Reply, Request};

/// Which call a request is.
pub(super) fn action(request: &Request) -> &'static str {
    let parts: Vec<&str> = request.path.split('/').skip(1).collect();
    match (&request.method, &parts[..]) {
        (&Method::POST, ["snapshots"]) => "StartSnapshot",
        (&Method::POST, ["snapshots", "completion", _]) => "CompleteSnapshot",
        (&Method::PUT, ["snapshots", _, "blocks", _]) => "PutSnapshotBlock",
        (&Method::GET, ["snapshots", _, "blocks"]) => "ListSnapshotBlocks",
        (&Method::GET, ["snapshots", _, "blocks", _]) => "GetSnapshotBlock",
        _ => "Unknown",
    }
}

pub(super) fn answer(
    state: &mut State,
    context: &Context,
    request: &Request,
) -> Result<Reply, Refused> {
    let parts: Vec<&str> = request.path.split('/').skip(1).collect();
    match (context.action.as_str(), &parts[..]) {
        ("StartSnapshot", _) => start(state, context, request),
        ("CompleteSnapshot", [_, _, id]) => complete(state, context, request, id),
        ("PutSnapshotBlock", [_, id, _, index]) => put(state, context, request, id, index),
        ("ListSnapshotBlocks", [_, id, ..]) => list(state, context, request, id),
        ("GetSnapshotBlock", [_, id, _, index]) => get(state, context, request, id, index),
        _ => Err(Refused {
            status: 404,
            code: "UnknownOperationException",
            message: String::new(),
        }),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Start {
    volume_size: u64,
    parent_snapshot_id: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    description: Option<String>,
    client_token: Option<String>,
    encrypted: Option<bool>,
    kms_key_arn: Option<String>,
    timeout: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

fn start(state: &mut State, context: &Context, request: &Request) -> Result<Reply, Refused> {
    let start: Start = serde_json::from_slice(&request.body).map_err(|error| {
        refused(
            "ValidationException",
            format!("INVALID_PARAMETER_VALUE: {error}"),
        )
    })?;
    check_start(&start)?;
    let asked = String::from_utf8_lossy(&request.body).into_owned();
    let token = start
        .client_token
        .map(|token| format!("{}/snapshot/{token}", context.region));
    if let Some((before, id)) = token.as_ref().and_then(|token| state.tokens.get(token)) {
        if *before != asked {
            return Err(Refused {
                status: 409,
                code: "ConflictException",
                message: "the client token was used with other parameters".to_owned(),
            });
        }
        let known = state.snapshots.get(id);
        let status = known.map_or("pending", |snapshot| snapshot.state.as_str());
        let begun = known.map_or(0, |snapshot| snapshot.begun);
        return Ok(started(id, status, begun, start.volume_size));
    }
    let id = state.id("snap");
    let blocks = Blocks::new().map_err(|error| broken(&error))?;
    let snapshot = Snapshot {
        id: id.clone(),
        region: context.region.clone(),
        state: "pending".to_owned(),
        description: start.description.unwrap_or_default(),
        begun: now(),
        size: start.volume_size,
        key: start.kms_key_arn,
        tags: start
            .tags
            .into_iter()
            .map(|tag| (tag.key, tag.value))
            .collect(),
        accounts: BTreeSet::default(),
        sealed: false,
        pending: state.rules.pending,
        hidden: state.rules.hidden,
        unknown: state.rules.hidden,
        blocks: Arc::new(blocks),
    };
    let begun = snapshot.begun;
    state.snapshots.insert(id.clone(), snapshot);
    if let Some(token) = token {
        state.tokens.insert(token, (asked, id.clone()));
    }
    Ok(started(&id, "pending", begun, start.volume_size))
}

fn started(id: &str, status: &str, begun: i64, size: u64) -> Reply {
    Reply::json(
        201,
        &json!({
            "SnapshotId": id, "Status": status, "StartTime": begun, "VolumeSize": size, "BlockSize": BLOCK,
            "OwnerId": super::ACCOUNT,
        }),
    )
}

fn check_start(start: &Start) -> Result<(), Refused> {
    let invalid = |message: &str| Err(refused("ValidationException", message));
    if !(1..=65536).contains(&start.volume_size) {
        return invalid("INVALID_VOLUME_SIZE: 1 to 65536 GiB");
    }
    if start
        .timeout
        .is_some_and(|timeout| !(10..=4320).contains(&timeout))
    {
        return invalid("INVALID_PARAMETER_VALUE: timeout");
    }
    if start.parent_snapshot_id.is_some() && start.encrypted.is_some() {
        return invalid("INVALID_PARAMETER_VALUE: a parent and encryption exclude each other");
    }
    if start.kms_key_arn.is_some() && start.encrypted != Some(true) {
        return invalid("INVALID_CUSTOMER_KEY: a key without encryption");
    }
    if start
        .client_token
        .as_ref()
        .is_some_and(|token| token.is_empty() || token.len() > 255)
    {
        return invalid("INVALID_PARAMETER_VALUE: client token");
    }
    if start
        .description
        .as_ref()
        .is_some_and(|text| text.len() > 255)
    {
        return invalid("INVALID_PARAMETER_VALUE: description");
    }
    let keys: BTreeMap<_, _> = start
        .tags
        .iter()
        .map(|tag| (&tag.key, &tag.value))
        .collect();
    let bad = start
        .tags
        .iter()
        .any(|tag| check_tag(&tag.key, &tag.value).is_err());
    if bad || keys.len() != start.tags.len() || keys.len() > 50 {
        return invalid("INVALID_TAG: tags");
    }
    Ok(())
}

fn broken(error: &io::Error) -> Refused {
    Refused {
        status: 500,
        code: "InternalServerException",
        message: error.to_string(),
    }
}

fn missing(id: &str) -> Refused {
    Refused {
        status: 404,
        code: "ResourceNotFoundException",
        message: format!("SNAPSHOT_NOT_FOUND: The snapshot '{id}' does not exist."),
    }
}

/// A snapshot that is still written to.
fn open<'a>(
    state: &'a mut State,
    context: &Context,
    id: &str,
) -> Result<&'a mut Snapshot, Refused> {
    let snapshot = state
        .snapshots
        .get_mut(id)
        .filter(|snapshot| snapshot.region == context.region);
    let snapshot = snapshot.ok_or_else(|| missing(id))?;
    if snapshot.unknown > 0 {
        snapshot.unknown -= 1;
        return Err(missing(id));
    }
    if snapshot.state != "pending" || snapshot.sealed {
        return Err(refused(
            "ValidationException",
            "INVALID_SNAPSHOT_ID: the snapshot is not pending",
        ));
    }
    Ok(snapshot)
}

fn checksum(request: &Request) -> Result<Option<Vec<u8>>, Refused> {
    let invalid = |message: &str| {
        refused(
            "ValidationException",
            format!("INVALID_PARAMETER_VALUE: {message}"),
        )
    };
    let Some(text) = request.header("x-amz-checksum") else {
        return Ok(None);
    };
    if request.header("x-amz-checksum-algorithm") != Some("SHA256") {
        return Err(invalid("checksum algorithm"));
    }
    let digest = STANDARD
        .decode(text)
        .map_err(|_| invalid("the checksum is no base64"))?;
    Ok(Some(digest))
}

fn put(
    state: &mut State,
    context: &Context,
    request: &Request,
    id: &str,
    index: &str,
) -> Result<Reply, Refused> {
    let snapshot = open(state, context, id)?;
    let invalid = |message: &str| refused("ValidationException", message);
    let index: u64 = index.parse().map_err(|_| invalid("INVALID_BLOCK: index"))?;
    if index >= (snapshot.size << 30) / BLOCK {
        return Err(invalid(
            "INVALID_BLOCK: the index is behind the end of the volume",
        ));
    }
    let length = BLOCK.to_string();
    if request.header("x-amz-data-length") != Some(&length) || request.body.len() as u64 != BLOCK {
        return Err(invalid("INVALID_BLOCK: the length is not 524288"));
    }
    let told = checksum(request)?.ok_or_else(|| invalid("INVALID_PARAMETER_VALUE: no checksum"))?;
    let digest = Digest::of(&request.body);
    if told != digest.as_bytes() {
        return Err(invalid(
            "INVALID_PARAMETER_VALUE: the checksum does not match",
        ));
    }
    snapshot
        .blocks
        .write(index, &request.body, digest)
        .map_err(|error| broken(&error))?;
    let reply = Reply::empty(201).with("x-amz-checksum", STANDARD.encode(told));
    Ok(reply.with("x-amz-checksum-algorithm", "SHA256"))
}

fn complete(
    state: &mut State,
    context: &Context,
    request: &Request,
    id: &str,
) -> Result<Reply, Refused> {
    let snapshot = open(state, context, id)?;
    let invalid = |message: &str| {
        refused(
            "ValidationException",
            format!("INVALID_PARAMETER_VALUE: {message}"),
        )
    };
    let count = request
        .header("x-amz-changedblockscount")
        .and_then(|count| count.parse().ok());
    if count != Some(snapshot.written()) {
        return Err(invalid("the number of changed blocks does not match"));
    }
    if let Some(told) = checksum(request)? {
        if request.header("x-amz-checksum-aggregation-method") != Some("LINEAR") {
            return Err(invalid("aggregation method"));
        }
        let mut hasher = Hasher::new();
        for digest in snapshot.blocks.digests().values() {
            hasher.update(digest.as_bytes());
        }
        if told != hasher.finish().as_bytes() {
            return Err(invalid("the checksum does not match"));
        }
    }
    snapshot.sealed = true;
    if snapshot.pending == 0 {
        "completed".clone_into(&mut snapshot.state);
    }
    Ok(Reply::json(202, &json!({ "Status": snapshot.state })))
}

fn finished<'a>(state: &'a State, context: &Context, id: &str) -> Result<&'a Snapshot, Refused> {
    let snapshot = state
        .snapshots
        .get(id)
        .filter(|snapshot| snapshot.region == context.region);
    let snapshot = snapshot.ok_or_else(|| missing(id))?;
    if snapshot.state == "completed" {
        Ok(snapshot)
    } else {
        Err(refused(
            "ValidationException",
            "INVALID_SNAPSHOT_ID: the snapshot is not completed",
        ))
    }
}

fn list(state: &State, context: &Context, request: &Request, id: &str) -> Result<Reply, Refused> {
    let snapshot = finished(state, context, id)?;
    let invalid = |message: &str| refused("ValidationException", message);
    let most: usize = request
        .parameter("maxResults")
        .map_or(Ok(10_000), str::parse)
        .unwrap_or(0);
    if !(100..=10_000).contains(&most) {
        return Err(invalid("INVALID_PARAMETER_VALUE: maxResults"));
    }
    let from = request
        .parameter("pageToken")
        .or(request.parameter("startingBlockIndex"));
    let from: u64 = from
        .map_or(Ok(0), str::parse)
        .map_err(|_| invalid("INVALID_PAGE_TOKEN: "))?;
    let digests = snapshot.blocks.digests();
    let mut rest = digests.range(from..).map(|(index, _)| *index);
    let page: Vec<_> = rest.by_ref().take(most).collect();
    let blocks: Vec<_> = page
        .iter()
        .map(|index| json!({ "BlockIndex": index, "BlockToken": token(id, *index) }))
        .collect();
    let mut body = json!({
        "Blocks": blocks, "BlockSize": BLOCK, "VolumeSize": snapshot.size, "ExpiryTime": now() + 3600,
    });
    if let Some(next) = rest.next() {
        body["NextToken"] = json!(next.to_string());
    }
    Ok(Reply::json(200, &body))
}

fn token(id: &str, index: u64) -> String {
    STANDARD.encode(format!("{id}/{index}"))
}

fn get(
    state: &State,
    context: &Context,
    request: &Request,
    id: &str,
    index: &str,
) -> Result<Reply, Refused> {
    let snapshot = finished(state, context, id)?;
    let invalid = |message: &str| refused("ValidationException", message);
    let index: u64 = index.parse().map_err(|_| invalid("INVALID_BLOCK: index"))?;
    let digest = snapshot.blocks.digests().get(&index).copied();
    let digest = digest.ok_or_else(|| invalid("INVALID_BLOCK: the snapshot does not have it"))?;
    if request.parameter("blockToken") != Some(&token(id, index)) {
        return Err(invalid("INVALID_BLOCK_TOKEN: "));
    }
    let mut reply = Reply::empty(200)
        .with("x-amz-data-length", BLOCK.to_string())
        .with("x-amz-checksum", STANDARD.encode(digest.as_bytes()))
        .with("x-amz-checksum-algorithm", "SHA256");
    reply.body = snapshot
        .blocks
        .read(index)
        .map_err(|error| broken(&error))?
        .into();
    Ok(reply)
}
