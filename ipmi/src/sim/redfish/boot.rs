//! How the simulated service takes a boot override.
//!
//! It refuses properties it does not have and values it does not offer, and with them the whole change.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value};

use super::Manner;
use super::answer::Answer;
use super::resources::TARGETS;
use super::state::Service;
use crate::{BootDevice, BootFirmware, BootOverride, Persistence};

const BAD: StatusCode = StatusCode::BAD_REQUEST;

/// Changes the override.
pub(super) fn change(service: &Service, body: &Value, by_settings: bool) -> Answer {
    let Some(wanted) = body.as_object().filter(|body| body.len() == 1) else {
        return unknown("more than `Boot`");
    };
    let Some(boot) = wanted.get("Boot").and_then(Value::as_object) else {
        return unknown("anything but `Boot`");
    };
    if let Some(refusal) = refuse(service, boot, by_settings) {
        return refusal;
    }
    let wanted = match merge(service, boot) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    service.state().mode = wanted.firmware;
    let wanted = (wanted.device != BootDevice::None).then_some(wanted);
    if let Err(error) = service.board.set_boot_override(wanted) {
        return Answer::error(
            StatusCode::CONFLICT,
            "ActionNotSupported",
            &error.to_string(),
        );
    }
    if service.is(Manner::RefusesAnyway) {
        return Answer::error(BAD, "GeneralError", "a job could not be made");
    }
    Answer::done()
}

fn unknown(what: &str) -> Answer {
    let message = format!("{what} cannot be changed here");
    Answer::error(BAD, "PropertyUnknown", &message)
}

/// What makes the service refuse the change as a whole.
fn refuse(service: &Service, boot: &Map<String, Value>, by_settings: bool) -> Option<Answer> {
    let text = |name: &str| boot.get(name).and_then(Value::as_str);
    let missing = |name: &str| {
        (!boot.contains_key(name))
            .then(|| Answer::error(BAD, "PropertyMissing", &format!("{name} is missing")))
    };
    let known = [
        "BootSourceOverrideTarget",
        "BootSourceOverrideEnabled",
        "BootSourceOverrideMode",
        "HttpBootUri",
    ];
    if let Some(name) = boot.keys().find(|name| !known.contains(&name.as_str())) {
        return Some(unknown(name));
    }
    if service.is(Manner::NoMode) && boot.contains_key("BootSourceOverrideMode") {
        return Some(unknown("BootSourceOverrideMode"));
    }
    if service.uri_attribute().is_some() && boot.contains_key("HttpBootUri") {
        return Some(unknown("HttpBootUri"));
    }
    if service.is(Manner::NoUriWithPxe)
        && boot.contains_key("HttpBootUri")
        && text("BootSourceOverrideTarget") != Some("UefiHttp")
    {
        return Some(Answer::error(
            BAD,
            "PropertyValueConflict",
            "no URI with this target",
        ));
    }
    let age = service.state().turned_on.map(|at| at.elapsed());
    if let (Some(spell), Some(age)) = (service.spell(in_post), age)
        && age < spell
    {
        let id = "iLO.2.14.UnableToModifyDuringSystemPOST";
        return Some(Answer::error(BAD, id, "the host is in POST"));
    }
    if service.is(Manner::SettingsOnly) {
        if !by_settings {
            return Some(unknown("Boot"));
        }
        return known[..3].iter().find_map(|name| missing(name));
    }
    service
        .is(Manner::NeedsEnabled)
        .then(|| missing("BootSourceOverrideEnabled"))
        .flatten()
}

fn in_post(manner: Manner) -> Option<Duration> {
    match manner {
        Manner::InPost(spell) => Some(spell),
        _ => None,
    }
}

/// What the override becomes: what is not sent stays as it is.
fn merge(service: &Service, boot: &Map<String, Value>) -> Result<BootOverride, Box<Answer>> {
    let not_listed = |value: &Value| {
        let message = format!("{value} is not offered");
        Box::new(Answer::error(BAD, "PropertyValueNotInList", &message))
    };
    let mut next = service.board.boot_override().unwrap_or(BootOverride {
        device: BootDevice::None,
        persistence: Persistence::Once,
        firmware: service.state().mode,
    });
    if let Some(value) = boot.get("BootSourceOverrideMode") {
        next.firmware = match value.as_str() {
            Some("UEFI") => BootFirmware::Uefi,
            Some("Legacy") => BootFirmware::Bios,
            _ => return Err(not_listed(value)),
        };
    } else if service.is(Manner::ForgetsMode) {
        next.firmware = BootFirmware::Bios;
    }
    let uri = match boot.get("HttpBootUri") {
        Some(value @ (Value::String(_) | Value::Null)) => value.as_str().map(str::to_owned),
        Some(value) => return Err(not_listed(value)),
        None => match (&next.device, service.uri_attribute()) {
            (_, Some(attribute)) => service.state().setup.get(attribute).cloned(),
            (BootDevice::Http { uri }, None) => uri.clone(),
            _ => None,
        },
    };
    if let Some(value) = boot.get("BootSourceOverrideTarget") {
        let target = value.as_str().filter(|target| TARGETS.contains(target));
        next.device = match target.ok_or_else(|| not_listed(value))? {
            "Pxe" => BootDevice::Network,
            "UefiHttp" => BootDevice::Http { uri: None },
            "Hdd" => BootDevice::Disk,
            "BiosSetup" => BootDevice::Setup,
            _ => BootDevice::None,
        };
    }
    if let BootDevice::Http { uri: own } = &mut next.device {
        *own = uri.filter(|uri| !uri.is_empty());
    }
    if let Some(value) = boot.get("BootSourceOverrideEnabled") {
        match value.as_str() {
            Some("Once") => next.persistence = Persistence::Once,
            Some("Continuous") => next.persistence = Persistence::Persistent,
            Some("Disabled") => next.device = BootDevice::None,
            _ => return Err(not_listed(value)),
        }
    }
    Ok(next)
}
