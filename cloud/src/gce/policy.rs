//! Who may do what with an image.
//!
//! It refuses to touch bindings that are not ours, and to write a policy back without the mark of what was read.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// What members get on an image.
const ROLE: &str = "roles/compute.imageUser";

/// Who may do what with an image.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy(pub(super) Value);

impl Policy {
    fn bindings(&self) -> impl Iterator<Item = &Value> {
        self.0["bindings"].as_array().into_iter().flatten()
    }

    /// Who may use the image, without a condition.
    pub(super) fn users(&self) -> BTreeSet<String> {
        let users = self.bindings().filter(|binding| is_users(binding));
        members(users)
    }

    /// Everybody who may do something with it.
    pub(super) fn everybody(&self) -> BTreeSet<String> {
        members(self.bindings())
    }

    /// Adds users; everything else stays as it is, so also its version and `etag`.
    pub(super) fn add(&mut self, more: &BTreeSet<String>) {
        let mut all = self.users();
        all.extend(more.iter().cloned());
        if !self.0["bindings"].is_array() {
            self.0["bindings"] = json!([]);
        }
        let Some(bindings) = self.0["bindings"].as_array_mut() else {
            return;
        };
        bindings.retain(|binding| !is_users(binding));
        bindings.push(json!({ "role": ROLE, "members": all }));
    }
}

fn is_users(binding: &Value) -> bool {
    binding["role"] == ROLE && binding["condition"].is_null()
}

fn members<'a>(bindings: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    let members = bindings.flat_map(|binding| binding["members"].as_array().into_iter().flatten());
    members
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
