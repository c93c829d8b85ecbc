//! The roles of a site file: what hosts are for.
//!
//! It refuses a role without an image.

use std::sync::Arc;

use super::read::{Place, Placed, Problems, Table};
use super::word::{CommandLine, Label};
use super::{DeployPolicy, ImageRef, ProblemKind, Role, check, environment, policy};

/// A role that was read, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) role: Role,
    secrets: Vec<Place>,
}

/// Reads `[role.X]`.
pub(super) fn read(
    name: &Placed<String>,
    mut table: Table<'_>,
    draft: &mut check::Draft,
    problems: &mut Problems<'_>,
) {
    let image = table.parsed::<ImageRef>("image", problems);
    let image = table.required("image", image, problems);
    let command_line = table.parsed::<CommandLine>("command-line", problems);
    let ssh_keys = check::ssh_keys(&mut table, problems);
    let secrets = table.list::<Label>("secrets", problems);
    let parameters = environment::read_parameters(&mut table, problems);
    let deploy = match table.table("deploy", problems) {
        Some(mut deploy) => {
            deploy.title = format!("[role.{}.deploy]", name.value);
            policy::read_deploy(deploy, problems)
        }
        None => DeployPolicy::default(),
    };
    table.finish(problems);
    let label: Label = match name.value.parse() {
        Ok(label) => label,
        Err(error) => {
            draft.unread.insert(check::Part::Role);
            let key = "role".to_owned();
            let reason = format!("{error}");
            return problems.add(&name.place, ProblemKind::BadValue { key, reason });
        }
    };
    if let Some(first) = draft.roles.get(&label.0) {
        let what = format!("role `{}`", label.0);
        return problems.duplicate(&name.place, &first.place, what);
    }
    let role = Role {
        name: Arc::clone(&label.0),
        image: image.map_or_else(unnamed, |image| image.value),
        command_line: command_line.map(|line| line.value.0),
        ssh_keys,
        secrets: secrets
            .iter()
            .map(|secret| Arc::clone(&secret.value.0))
            .collect(),
        parameters,
        deploy,
    };
    let secrets = secrets.into_iter().map(|secret| secret.place).collect();
    let value = Draft { role, secrets };
    let place = name.place.clone();
    draft.roles.insert(label.0, Placed { value, place });
}

/// Stands for an image that was told to be missing, so that hosts of the role are still checked.
fn unnamed() -> ImageRef {
    ImageRef {
        name: "".into(),
        digest: None,
    }
}

/// Checks that the secrets of roles exist.
pub(super) fn check(draft: &check::Draft, problems: &mut Problems<'_>) {
    for role in draft.roles.values() {
        for (name, place) in role.value.role.secrets.iter().zip(&role.value.secrets) {
            check::secret(draft, name, place, problems);
        }
    }
}
