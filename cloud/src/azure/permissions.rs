//! The permissions that a target needs, by the cloud's own names, and whether a list of grants has them.

use serde::Deserialize;

use super::names::{Desired, Kind};

/// What writing, reading and removing a managed image needs.
pub const IMAGE: &[&str] = &[
    "Microsoft.Compute/images/read",
    "Microsoft.Compute/images/write",
    "Microsoft.Compute/images/delete",
];

/// What a version in a gallery needs.
pub const VERSION: &[&str] = &[
    "Microsoft.Compute/galleries/read",
    "Microsoft.Compute/galleries/images/read",
    "Microsoft.Compute/galleries/images/write",
    "Microsoft.Compute/galleries/images/versions/read",
    "Microsoft.Compute/galleries/images/versions/write",
    "Microsoft.Compute/galleries/images/versions/delete",
];

/// What sharing a gallery needs.
pub const SHARE: &[&str] = &["Microsoft.Compute/galleries/share/action"];

/// What looking around needs: before the first byte, while the cloud works, and before anything is removed.
pub const LOOK: &[&str] = &[
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Compute/locations/operations/read",
    "Microsoft.Compute/virtualMachineScaleSets/read",
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Resources/subscriptions/providers/read",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
];

/// What the disk in the storage account needs; images are made of it by whoever may list the account's keys.
pub const ACCOUNT: &[&str] = &[
    "Microsoft.Storage/storageAccounts/read",
    "Microsoft.Storage/storageAccounts/listKeys/action",
];

/// What blobs need, of the data plane.
pub const DATA: &[&str] = &[
    "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
    "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",
    "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action",
    "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete",
];

/// One entry of what the cloud says that somebody may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Grant {
    /// What may be done.
    pub actions: Vec<String>,
    /// What of it may not.
    pub not_actions: Vec<String>,
    /// What may be done with data.
    pub data_actions: Vec<String>,
    /// What of it may not.
    pub not_data_actions: Vec<String>,
}

/// Permissions that a publish needs at the image's resource group.
#[must_use]
pub fn needed(desired: &Desired) -> Vec<&'static str> {
    match &desired.kind {
        Kind::Image { .. } => IMAGE.into(),
        Kind::Version { gallery, .. } => {
            let mut needed = VERSION.to_vec();
            if gallery.share.is_with_anybody() {
                needed.extend(SHARE);
            }
            needed
        }
    }
}

/// Those of some permissions that no grant has.
#[must_use]
pub fn missing<'a>(needed: &[&'a str], grants: &[Grant]) -> Vec<&'a str> {
    let data = |action: &str| action.contains("/blobs/");
    let granted = |action: &&str| {
        grants.iter().any(|grant| {
            let (yes, no) = if data(action) {
                (&grant.data_actions, &grant.not_data_actions)
            } else {
                (&grant.actions, &grant.not_actions)
            };
            let has = |patterns: &[String]| patterns.iter().any(|pattern| covers(pattern, action));
            has(yes) && !has(no)
        })
    };
    let missing = needed.iter().filter(|action| !granted(action));
    missing.copied().collect()
}

/// Whether a pattern, in which `*` is any text, covers an action; case does not count.
fn covers(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_lowercase(), action.to_lowercase());
    let parts: Vec<&str> = pattern.split('*').collect();
    let [first, middle @ .., last] = parts.as_slice() else {
        return pattern == action;
    };
    let Some(mut rest) = action.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn grant(actions: &[&str], not: &[&str]) -> Grant {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        Grant {
            actions: owned(actions),
            not_actions: owned(not),
            ..Grant::default()
        }
    }

    #[test]
    fn grants_are_read_as_the_cloud_reads_them() {
        let write = "Microsoft.Compute/galleries/images/versions/write";
        let cases = [
            ("all", vec![grant(&["*"], &[])], true),
            ("itself", vec![grant(&[write], &[])], true),
            (
                "case",
                vec![grant(&["microsoft.compute/GALLERIES/*"], &[])],
                true,
            ),
            (
                "inside",
                vec![grant(&["Microsoft.Compute/*/write"], &[])],
                true,
            ),
            (
                "another",
                vec![grant(&["Microsoft.Compute/images/*"], &[])],
                false,
            ),
            (
                "end",
                vec![grant(&["Microsoft.Compute/*/read"], &[])],
                false,
            ),
            (
                "taken away",
                vec![grant(&["*"], &["Microsoft.Compute/*"])],
                false,
            ),
            (
                "given by another role",
                vec![
                    grant(&["*"], &["Microsoft.Compute/*"]),
                    grant(&[write], &[]),
                ],
                true,
            ),
            ("nothing", vec![], false),
        ];
        for (name, grants, granted) in cases {
            assert_eq!(missing(&[write], &grants).is_empty(), granted, "{name}");
        }
        assert_eq!(missing(DATA, &[grant(&["*"], &[])]).len(), DATA.len());
    }

    #[test]
    fn the_role_in_the_readme_has_what_the_code_needs_and_no_more() {
        let readme = include_str!("../../README.md");
        let (_, azure) = readme.split_once("\n## Azure\n").unwrap();
        let (_, role) = azure.split_once("```json\n").unwrap();
        let (role, _) = role.split_once("```").unwrap();
        let role: Value = serde_json::from_str(role).unwrap();
        let listed = |key: &str| -> BTreeSet<String> {
            let all = role[key].as_array().unwrap().iter();
            all.map(|action| action.as_str().unwrap().to_owned())
                .collect()
        };
        let owned = |lists: &[&[&str]]| -> BTreeSet<String> {
            let all = lists.iter().flat_map(|list| list.iter());
            all.map(|action| (*action).to_owned()).collect()
        };
        let actions = owned(&[IMAGE, VERSION, SHARE, LOOK, ACCOUNT]);
        assert_eq!(listed("Actions"), actions);
        assert_eq!(listed("DataActions"), owned(&[DATA]));
    }
}
