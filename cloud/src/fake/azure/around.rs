//! What is around images: the group, the account, permissions, galleries and whom they are shared with.

use serde_json::{Value, json};

use super::super::server::{Reply, Request};
use super::path::{COMPUTE, Path};
use super::resources::missing;
use super::{State, World, refuse};

/// What is around: the group, the account, permissions, the provider.
pub(super) fn around(world: &World, state: &State, rest: &str) -> Option<Reply> {
    let group = format!("resourceGroups/{}", world.group);
    let account = format!(
        "{group}/providers/Microsoft.Storage/storageAccounts/{}",
        world.account
    );
    if rest == "providers/Microsoft.Compute" {
        let kinds = [
            "images",
            "galleries",
            "galleries/images",
            "galleries/images/versions",
        ];
        let kinds = kinds.map(|kind| json!({ "resourceType": kind, "locations": world.regions }));
        let provider = json!({ "registrationState": "Registered", "resourceTypes": kinds });
        return Some(Reply::json(200, &provider));
    }
    if let Some(scope) = rest.strip_suffix("providers/Microsoft.Authorization/permissions") {
        let narrow = state.mood.narrow.iter().filter(|_| scope.is_empty());
        let denied = state.mood.denied.iter().chain(narrow);
        let (data, actions): (Vec<_>, Vec<_>) =
            denied.partition(|action| action.contains("/blobs/"));
        let all = json!({
            "actions": ["*"], "notActions": actions, "dataActions": ["*"], "notDataActions": data,
        });
        return Some(Reply::json(200, &json!({ "value": [all] })));
    }
    if rest == group {
        return Some(Reply::json(200, &json!({ "name": world.group })));
    }
    if rest == account {
        let account = json!({ "name": world.account, "location": world.location, "kind": "StorageV2", "properties": {} });
        return Some(Reply::json(200, &account));
    }
    let ours = rest.contains(COMPUTE.trim_start_matches('/'));
    (!ours).then(|| refuse(404, "ResourceNotFound", "The resource was not found."))
}

pub(super) fn gallery(world: &World, state: &State, path: &Path<'_>, request: &Request) -> Reply {
    let known = world.galleries.iter().find(|(name, _)| name == path.name);
    let Some((name, permissions)) = known else {
        return missing(path.whole);
    };
    let mut profile = json!({ "permissions": permissions });
    if request.parameter("$expand") == Some("SharingProfile/Groups") {
        let groups = state.groups.get(name).into_iter().flatten();
        let community = groups.clone().any(|(kind, _)| kind == "Community");
        let groups: Vec<Value> = groups
            .filter(|(kind, _)| kind != "Community")
            .map(|(kind, id)| json!({ "type": kind, "ids": [id] }))
            .collect();
        profile["groups"] = json!(groups);
        profile["communityGalleryInfo"] = json!({ "communityGalleryEnabled": community });
    }
    let properties = json!({ "provisioningState": "Succeeded", "sharingProfile": profile });
    Reply::json(
        200,
        &json!({ "id": path.whole, "name": name, "properties": properties }),
    )
}

pub(super) fn known_gallery(world: &World, path: &str) -> bool {
    let name = path
        .split_once("/galleries/")
        .map(|(_, rest)| rest.split('/').next());
    let known = |name: &str| world.galleries.iter().any(|(known, _)| known == name);
    name.flatten().is_some_and(known)
}

pub(super) fn share(world: &World, state: &mut State, request: &Request) -> Reply {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let path = request.path.trim_end_matches("/share");
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let permissions = world.galleries.iter().find(|(known, _)| *known == name);
    let Some((_, permissions)) = permissions else {
        return missing(path);
    };
    let groups = state.groups.entry(name).or_default();
    match (body["operationType"].as_str(), permissions.as_str()) {
        (Some("Add"), "Groups") => {
            for group in body["groups"].as_array().into_iter().flatten() {
                let kind = group["type"].as_str().unwrap_or_default();
                for id in group["ids"].as_array().into_iter().flatten() {
                    let entry = (kind.to_owned(), id.as_str().unwrap_or_default().to_owned());
                    if !groups.contains(&entry) {
                        groups.push(entry);
                    }
                }
            }
        }
        (Some("EnableCommunity"), "Community") => {
            groups.push(("Community".to_owned(), String::new()));
        }
        _ => {
            return refuse(
                400,
                "InvalidParameter",
                "The gallery's permissions do not allow it.",
            );
        }
    }
    Reply::json(200, &body)
}
