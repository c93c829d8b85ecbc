//! Which request does what in the simulated service.
//!
//! It refuses what is not authenticated, not JSON, not offered, or based on an older state than the resource's.

use std::time::Duration;

use hyper::header::{ALLOW, HeaderName, IF_MATCH, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::resources::{self, MEDIA, RESETS, ROOT, SESSIONS, SYSTEM, TASKS};
use super::state::{Access, Service};
use super::{Manner, boot, log};
use crate::ResetKind;
use crate::sim::Refused;

const METADATA: &str = include_str!("metadata.xml");
const BAD: StatusCode = StatusCode::BAD_REQUEST;
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// What becomes of a request: an answer, or a connection that is closed without one.
pub(super) fn respond(service: &Service, head: &Parts, body: &[u8]) -> Option<Answer> {
    let path = match head.uri.path().trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    let version = head.headers.get("OData-Version");
    if version.is_some_and(|version| version != "4.0") {
        let message = "the protocol version is 4.0";
        return Some(Answer::error(
            StatusCode::PRECONDITION_FAILED,
            "HeaderInvalid",
            message,
        ));
    }
    if service.is(Manner::IfMatchCrashes) && head.headers.contains_key(IF_MATCH) {
        return None;
    }
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    Some(match path {
        "/redfish" if is_read => Answer::resource(json!({ "v1": "/redfish/v1/" })),
        "/redfish/v1/$metadata" if is_read => Answer {
            text: Some(METADATA.to_owned()),
            ..Answer::new(StatusCode::OK)
        },
        ROOT | "/redfish/v1/odata" if is_read => read(service, path),
        SESSIONS if head.method == Method::POST => log_in(service, body),
        _ => match service.access(&head.headers) {
            Access::Nobody => Answer::error(
                StatusCode::UNAUTHORIZED,
                "NoValidSession",
                "no session and no valid name and password",
            )
            .with(WWW_AUTHENTICATE, "Basic realm=\"redfish\""),
            _ if is_read => read(service, path),
            _ => change(service, head, path, body),
        },
    })
}

fn read(service: &Service, path: &str) -> Answer {
    if let Some(id) = path.strip_prefix("/redfish/v1/TaskService/TaskMonitors/") {
        return monitor(service, id);
    }
    let Some(resource) = resources::at(service, path) else {
        return missing(path);
    };
    let strong = answer::etag(&resource);
    if service.is(Manner::EmptyEtag) {
        return answer::tagged(resource, "\"\"");
    }
    if service.is(Manner::StrippedEtag) {
        return answer::tagged(resource, &format!("W/{strong}"));
    }
    answer::tagged(resource, &strong)
}

fn missing(path: &str) -> Answer {
    let message = format!("there is nothing at {path}");
    Answer::error(StatusCode::NOT_FOUND, "ResourceMissingAtURI", &message)
}

fn monitor(service: &Service, id: &str) -> Answer {
    let Some(task) = resources::task(service, id) else {
        return missing(id);
    };
    if task["TaskState"] == "Completed" {
        return Answer::done();
    }
    Answer::new(StatusCode::ACCEPTED)
        .with_body(task)
        .with(RETRY_AFTER, "1")
        .with(LOCATION, format!("{ROOT}/TaskService/TaskMonitors/{id}"))
}

fn log_in(service: &Service, body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let (Some(user), Some(password)) = (body["UserName"].as_str(), body["Password"].as_str())
    else {
        return Answer::error(BAD, "PropertyMissing", "UserName and Password are needed");
    };
    if !service.takes(user, password) {
        let status = StatusCode::UNAUTHORIZED;
        return Answer::error(
            status,
            "ResourceAtUriUnauthorized",
            "not with this name and password",
        );
    }
    let Some((id, token)) = service.open_session() else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Answer::error(status, "SessionLimitExceeded", "all sessions are in use");
    };
    let session = resources::session(service, &id).unwrap_or_default();
    Answer::new(StatusCode::CREATED)
        .with_body(session)
        .with(LOCATION, format!("{SESSIONS}/{id}"))
        .with(TOKEN, token)
}

fn change(service: &Service, head: &Parts, path: &str, body: &[u8]) -> Answer {
    let is_media = path
        .strip_prefix(MEDIA)
        .and_then(|rest| rest.strip_prefix("/Actions/VirtualMedia."));
    let is_reset = path.strip_prefix(SYSTEM) == Some("/Actions/ComputerSystem.Reset");
    if head.method == Method::DELETE
        && let Some(id) = path.strip_prefix("/redfish/v1/SessionService/Sessions/")
    {
        let was = service.state().sessions.remove(id);
        return was.map_or_else(|| missing(path), |_| Answer::done());
    }
    if head.method == Method::POST && (is_reset || is_media.is_some()) {
        if service.is(Manner::NoIfMatchOnActions) && head.headers.contains_key(IF_MATCH) {
            return Answer::error(
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailed",
                "If-Match",
            );
        }
        if service.is(Manner::NeedsBody) && body.is_empty() {
            return Answer::error(BAD, "MalformedJSON", "a body is needed");
        }
        let body: Value = match body {
            [] => json!({}),
            body => match serde_json::from_slice(body) {
                Ok(body) => body,
                Err(_) => return Answer::error(BAD, "MalformedJSON", "not JSON"),
            },
        };
        return match is_media {
            Some(action) => move_media(service, action, &body),
            None => reset(service, &body),
        };
    }
    if head.method == Method::PATCH && resources::at(service, path).is_some() {
        return patch(service, head, path, body);
    }
    if resources::at(service, path).is_none() && !is_reset && is_media.is_none() {
        return missing(path);
    }
    let allowed = if is_reset || is_media.is_some() {
        "POST"
    } else {
        "GET, HEAD"
    };
    Answer::error(
        StatusCode::METHOD_NOT_ALLOWED,
        "OperationNotAllowed",
        "not this method",
    )
    .with(ALLOW, allowed)
}

fn patch(service: &Service, head: &Parts, path: &str, body: &[u8]) -> Answer {
    if let Some(refusal) = judge_condition(service, head, path) {
        return refusal;
    }
    let spell = service.spell(|manner| match manner {
        Manner::NotReady(spell) => Some(spell),
        _ => None,
    });
    if spell.is_some_and(|spell| service.state().started.elapsed() < spell) {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Answer::error(status, "IDRAC.2.8.SYS518", "not ready");
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Answer::error(BAD, "MalformedJSON", "not JSON");
    };
    match path.strip_prefix(SYSTEM) {
        Some("") => boot::change(service, &body, false),
        Some("/SD") => boot::change(service, &body, true),
        Some("/Bios/Settings") => change_setup(service, &body),
        _ => Answer::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "OperationNotAllowed",
            "read only",
        )
        .with(ALLOW, "GET, HEAD"),
    }
}

/// Judges `If-Match` against what the resource is now.
fn judge_condition(service: &Service, head: &Parts, path: &str) -> Option<Answer> {
    let Some(condition) = head.headers.get(IF_MATCH) else {
        let message = "If-Match is needed";
        return service.is(Manner::WantsIfMatch).then(|| {
            Answer::error(
                StatusCode::PRECONDITION_REQUIRED,
                "PreconditionRequired",
                message,
            )
        });
    };
    let strong = answer::etag(&resources::at(service, path)?);
    let is_right = match condition.to_str().unwrap_or_default().trim() {
        _ if service.is(Manner::EmptyEtag) => false,
        "*" => true,
        condition => condition.split(',').any(|one| one.trim() == strong),
    };
    (!is_right).then(|| {
        let message = "the resource is another by now";
        Answer::error(
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailed",
            message,
        )
    })
}

fn change_setup(service: &Service, body: &Value) -> Answer {
    let attributes = body["Attributes"]
        .as_object()
        .filter(|wanted| !wanted.is_empty());
    let Some(attributes) = attributes else {
        return Answer::error(BAD, "PropertyMissing", "Attributes are needed");
    };
    let mut state = service.state();
    for (name, value) in attributes {
        let (Some(slot), Some(value)) = (state.setup.get_mut(name), value.as_str()) else {
            let message = format!("there is no {name}");
            return Answer::error(BAD, "PropertyUnknown", &message);
        };
        value.clone_into(slot);
    }
    Answer::done()
}

fn reset(service: &Service, body: &Value) -> Answer {
    let Some(word) = body["ResetType"].as_str() else {
        return Answer::error(BAD, "ActionParameterMissing", "ResetType is needed");
    };
    let kind = match word {
        "On" => ResetKind::On,
        "ForceOff" => ResetKind::ForceOff,
        "GracefulShutdown" => ResetKind::GracefulShutdown,
        "ForceRestart" => ResetKind::ForceRestart,
        "PowerCycle" => ResetKind::Cycle,
        "Nmi" => ResetKind::Nmi,
        _ => {
            let message = format!("{word} is not one of {RESETS:?}");
            return Answer::error(BAD, "ActionParameterValueNotInList", &message);
        }
    };
    let spell = service.spell(|manner| match manner {
        Manner::SlowOff(spell) => Some(spell),
        _ => None,
    });
    let off_for = service.state().turned_off.map(|at| at.elapsed());
    if let (ResetKind::On, Some(spell), Some(off_for)) = (kind, spell, off_for)
        && off_for < spell
    {
        let id = "Base.1.18.ActionParameterValueConflict";
        return Answer::error(StatusCode::CONFLICT, id, "the host is not off yet");
    }
    match service.board.act(kind) {
        Ok(()) => {}
        Err(Refused::Unsupported) => {
            return Answer::error(
                StatusCode::NOT_IMPLEMENTED,
                "ActionNotSupported",
                "not here",
            );
        }
        Err(error @ Refused::NotNow(_)) => {
            let message = error.to_string();
            return Answer::error(StatusCode::CONFLICT, "ResourceInStandby", &message);
        }
    }
    note(service, kind);
    log::note(service, kind);
    match service.config.tasks {
        None => Answer::done(),
        Some(lasts) => accepted(service, lasts),
    }
}

fn note(service: &Service, kind: ResetKind) {
    let now = Some(std::time::Instant::now());
    let mut state = service.state();
    match kind {
        ResetKind::On | ResetKind::Cycle | ResetKind::ForceRestart => state.turned_on = now,
        ResetKind::ForceOff | ResetKind::GracefulShutdown => state.turned_off = now,
        ResetKind::Nmi => {}
    }
}

fn accepted(service: &Service, lasts: Duration) -> Answer {
    let id = service.begin_task(lasts);
    let task = resources::at(service, &format!("{TASKS}/{id}")).unwrap_or_default();
    Answer::new(StatusCode::ACCEPTED)
        .with_body(task)
        .with(RETRY_AFTER, "1")
        .with(LOCATION, format!("{ROOT}/TaskService/TaskMonitors/{id}"))
}

fn move_media(service: &Service, action: &str, body: &Value) -> Answer {
    match action {
        "InsertMedia" => {
            let Some(image) = body["Image"].as_str() else {
                return Answer::error(BAD, "ActionParameterMissing", "Image is needed");
            };
            let mut state = service.state();
            if state.image.is_some() {
                return Answer::error(
                    StatusCode::CONFLICT,
                    "ResourceInUse",
                    "the drive is not empty",
                );
            }
            state.image = Some(image.to_owned());
            Answer::done()
        }
        "EjectMedia" => {
            service.state().image = None;
            Answer::done()
        }
        _ => missing(action),
    }
}
