//! What answers of Google's interfaces mean, and which permissions are used.
//!
//! It refuses to try again what was forbidden, and to call forbidden what was only too much.

use serde::Deserialize;

use super::templates::PERMISSION as PRUNE_PERMISSION;
use crate::api::{Answer, Call, Refusal, Verdict};
use crate::error::Error;

/// Everything that publishing and promoting may need; with what pruning asks, the custom role in `cloud/README.md` is this list.
///
/// Whoever may not list objects is told of one that is not there that it is forbidden.
pub const PERMISSIONS: [&str; 15] = [
    "compute.globalOperations.get",
    "compute.images.create",
    "compute.images.delete",
    "compute.images.deprecate",
    "compute.images.get",
    "compute.images.getIamPolicy",
    "compute.images.list",
    "compute.images.setIamPolicy",
    "compute.images.setLabels",
    "compute.images.update",
    "compute.projects.get",
    "storage.objects.create",
    "storage.objects.delete",
    "storage.objects.get",
    "storage.objects.list",
];

#[derive(Debug, Default, Deserialize)]
struct Body {
    #[serde(default)]
    error: Said,
}

#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(default)]
    message: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Debug, Default, Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

/// Reads what an answer means. What is not there, is there already or has changed is an answer.
pub(super) fn judge(call: &Call, answer: &Answer) -> Verdict {
    let status = answer.status.as_u16();
    match status {
        ..=399 | 404 | 409 | 410 | 412 | 499 => Verdict::Answer,
        401 => Verdict::Expired(refusal(answer)),
        408 | 500.. => Verdict::Passing(refusal(answer)),
        429 => Verdict::Throttled,
        403 => forbidden(call, refusal(answer)),
        _ => Verdict::Refused(refusal(answer)),
    }
}

/// The error of an answer that a caller does not know what to do with.
pub(super) fn refused(call: &Call, answer: &Answer) -> Error {
    let Refusal { code, message } = refusal(answer);
    let message = message.chars().filter(|c| !c.is_control()).take(400);
    Error::Refused {
        what: call.what.clone(),
        status: answer.status.as_u16(),
        code,
        message: message.collect(),
    }
}

fn refusal(answer: &Answer) -> Refusal {
    let body: Body = serde_json::from_slice(&answer.body).unwrap_or_default();
    let Said {
        message,
        status,
        errors,
    } = body.error;
    let reason = errors.into_iter().next().unwrap_or_default().reason;
    Refusal {
        code: if reason.is_empty() { status } else { reason },
        message,
    }
}

fn forbidden(call: &Call, refusal: Refusal) -> Verdict {
    match refusal.code.as_str() {
        "rateLimitExceeded" | "userRateLimitExceeded" => Verdict::Throttled,
        "quotaExceeded" | "billingDisabled" | "accessNotConfigured" => Verdict::Refused(refusal),
        _ => {
            let said = named(&refusal.message);
            let permission = said.unwrap_or_else(|| needed(call).to_owned());
            Verdict::Denied(permission, refusal)
        }
    }
}

/// The permission that a message names, such as `Required 'compute.images.create' permission for …`.
fn named(message: &str) -> Option<String> {
    let letters = |c: char| !c.is_ascii_alphanumeric() && c != '.';
    let mut words = message.split(letters);
    let found = words.find(|word| {
        let parts: Vec<&str> = word.trim_end_matches('.').split('.').collect();
        let service = matches!(parts[0], "compute" | "storage" | "iam" | "cloudkms");
        service && parts.len() == 3 && parts[2] != "com"
    });
    found.map(|word| word.trim_end_matches('.').to_owned())
}

/// The permission that a call needs, for the messages that do not name it.
fn needed(call: &Call) -> &'static str {
    let url = call.url.split('?').next().unwrap_or_default();
    let storage = url.contains("/storage/v1/");
    let last = url.rsplit('/').next().unwrap_or_default();
    match (call.method.as_str(), last) {
        ("POST", _) if storage => "storage.objects.create",
        ("PUT", _) => "storage.objects.create",
        ("DELETE", _) if storage => "storage.objects.delete",
        ("GET", _) if storage => "storage.objects.get",
        ("GET", "getIamPolicy") => "compute.images.getIamPolicy",
        ("GET", "images") => "compute.images.list",
        ("GET", "instanceTemplates") => PRUNE_PERMISSION,
        ("GET", _) if url.contains("/operations/") => "compute.globalOperations.get",
        ("GET", _) if url.contains("/images/") => "compute.images.get",
        ("GET", _) => "compute.projects.get",
        ("POST", "images") => "compute.images.create",
        ("POST", "setIamPolicy") => "compute.images.setIamPolicy",
        ("POST", "setLabels") => "compute.images.setLabels",
        ("POST", "deprecate") => "compute.images.deprecate",
        ("DELETE", _) => "compute.images.delete",
        _ => "compute.images.update",
    }
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::*;

    #[test]
    fn the_role_of_the_readme_is_what_is_needed() {
        let readme = include_str!("../../README.md");
        let role = readme
            .split("includedPermissions:")
            .nth(1)
            .unwrap_or_default();
        let listed = role
            .lines()
            .skip(1)
            .map_while(|line| line.strip_prefix("- "));
        let mut wanted = PERMISSIONS.to_vec();
        wanted.push(PRUNE_PERMISSION);
        wanted.sort_unstable();
        assert_eq!(listed.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_missing_permission_is_named() {
        let storage = "publisher@p.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud Storage object.";
        let cases = [
            (
                "Required 'compute.images.create' permission for 'projects/p/global/images/i'",
                Some("compute.images.create"),
            ),
            (storage, Some("storage.objects.create")),
            ("see compute.googleapis.com.", None),
            ("no", None),
        ];
        for (message, expected) in cases {
            assert_eq!(named(message).as_deref(), expected, "{message}");
        }
    }

    #[test]
    fn every_call_needs_a_permission_of_the_role() {
        let (storage, images) = (
            "https://s/storage/v1/b/x/o",
            "https://c/compute/v1/projects/p/global/images",
        );
        let cases = [
            (
                Method::POST,
                "https://s/upload/storage/v1/b/x/o?uploadType=resumable".to_owned(),
                "storage.objects.create",
            ),
            (
                Method::PUT,
                "https://s/upload/storage/v1/b/x/o?upload_id=1".to_owned(),
                "storage.objects.create",
            ),
            (
                Method::GET,
                format!("{storage}/name"),
                "storage.objects.get",
            ),
            (
                Method::DELETE,
                format!("{storage}/name"),
                "storage.objects.delete",
            ),
            (Method::GET, images.to_owned(), "compute.images.list"),
            (Method::GET, format!("{images}/i"), "compute.images.get"),
            (Method::POST, images.to_owned(), "compute.images.create"),
            (
                Method::PATCH,
                format!("{images}/i"),
                "compute.images.update",
            ),
            (
                Method::DELETE,
                format!("{images}/i"),
                "compute.images.delete",
            ),
            (
                Method::POST,
                format!("{images}/i/deprecate"),
                "compute.images.deprecate",
            ),
            (
                Method::POST,
                format!("{images}/i/setLabels"),
                "compute.images.setLabels",
            ),
            (
                Method::GET,
                format!("{images}/i/getIamPolicy"),
                "compute.images.getIamPolicy",
            ),
            (
                Method::POST,
                format!("{images}/i/setIamPolicy"),
                "compute.images.setIamPolicy",
            ),
            (
                Method::GET,
                "https://c/compute/v1/projects/p/global/operations/o".to_owned(),
                "compute.globalOperations.get",
            ),
            (
                Method::GET,
                "https://c/compute/v1/projects/p".to_owned(),
                "compute.projects.get",
            ),
        ];
        for (method, url, expected) in cases {
            let call = Call::new("ask", method, url);
            assert_eq!(needed(&call), expected, "{}", call.url);
            assert!(PERMISSIONS.contains(&expected), "{expected}");
        }
    }
}
