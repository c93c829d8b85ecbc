//! The resources of the simulated service, made from the chassis each time they are asked for.
//!
//! It refuses to change anything.

use serde_json::{Value, json};

use super::Manner;
use super::answer::hex;
use super::state::Service;
use super::{hardware, log};
use crate::{BootDevice, BootFirmware, Persistence, PowerState};

pub(super) const ROOT: &str = "/redfish/v1";
pub(super) const SYSTEM: &str = "/redfish/v1/Systems/1";
pub(super) const CHASSIS: &str = "/redfish/v1/Chassis/1";
pub(super) const MANAGER: &str = "/redfish/v1/Managers/1";
pub(super) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub(super) const TASKS: &str = "/redfish/v1/TaskService/Tasks";
pub(super) const MEDIA: &str = "/redfish/v1/Managers/1/VirtualMedia/CD1";

/// What a reset may be.
pub(super) const RESETS: [&str; 6] = [
    "On",
    "ForceOff",
    "GracefulShutdown",
    "ForceRestart",
    "PowerCycle",
    "Nmi",
];
/// What may be booted from.
pub(super) const TARGETS: [&str; 5] = ["None", "Pxe", "Hdd", "BiosSetup", "UefiHttp"];

/// Returns the resource at a path, if there is one.
pub(super) fn at(service: &Service, path: &str) -> Option<Value> {
    let rest = path.strip_prefix(ROOT)?.trim_matches('/');
    let parts: Vec<&str> = if rest.is_empty() {
        Vec::new()
    } else {
        rest.split('/').collect()
    };
    Some(match parts.as_slice() {
        [] => root(service),
        ["odata"] => odata(),
        ["Systems"] => {
            let ids = (1..=service.config.systems).map(|id| id.to_string());
            collection("ComputerSystemCollection", "Systems", path, ids)
        }
        ["Systems", "1"] => system(service),
        ["Systems", id] => bare(service, id)?,
        ["Systems", "1", "EthernetInterfaces"] => {
            let ids = (1..=service.board.identity().macs.len()).map(|id| id.to_string());
            collection("EthernetInterfaceCollection", "Interfaces", path, ids)
        }
        ["Systems", "1", "EthernetInterfaces", id] => interface(service, id)?,
        ["Systems", "1", "ResetActionInfo"] => reset_info(),
        ["Systems", "1", "SD"] if service.is(Manner::SettingsOnly) => settings(),
        ["Systems", "1", "Bios"] => bios(service)?,
        ["Systems", "1", "Bios", "Settings"] => bios_settings(service)?,
        ["Chassis"] => collection("ChassisCollection", "Chassis", path, ["1".to_owned()]),
        ["Chassis", "1"] => hardware::chassis(service),
        ["Chassis", "1", "Thermal"] => hardware::thermal(service),
        ["Chassis", "1", "Power"] => hardware::power(service),
        ["Managers"] => collection("ManagerCollection", "Managers", path, ["1".to_owned()]),
        ["Managers", "1"] => hardware::manager(service),
        ["Managers", "1", "VirtualMedia"] => {
            collection("VirtualMediaCollection", "Media", path, ["CD1".to_owned()])
        }
        ["Managers", "1", "VirtualMedia", "CD1"] => hardware::media(service),
        ["Systems", "1", "LogServices"] => {
            collection("LogServiceCollection", "Logs", path, ["Log".to_owned()])
        }
        ["Systems", "1", "LogServices", "Log"] => log::service(),
        ["Systems", "1", "LogServices", "Log", "Entries"] => log::entries(service),
        ["Systems", "1", "LogServices", "Log", "Entries", id] => log::entry(service, id)?,
        ["SessionService"] => session_service(service),
        ["SessionService", "Sessions"] => {
            let ids: Vec<_> = service.state().sessions.keys().cloned().collect();
            collection("SessionCollection", "Sessions", path, ids)
        }
        ["SessionService", "Sessions", id] => session(service, id)?,
        ["TaskService"] => task_service(),
        ["TaskService", "Tasks"] => {
            let ids: Vec<_> = service.state().tasks.keys().map(u32::to_string).collect();
            collection("TaskCollection", "Tasks", path, ids)
        }
        ["TaskService", "Tasks", id] => task(service, id)?,
        _ => return None,
    })
}

pub(super) fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

fn collection(kind: &str, name: &str, path: &str, ids: impl IntoIterator<Item = String>) -> Value {
    let path = path.trim_end_matches('/');
    let members: Vec<_> = ids
        .into_iter()
        .map(|id| link(&format!("{path}/{id}")))
        .collect();
    json!({
        "@odata.id": path,
        "@odata.type": format!("#{kind}.{kind}"),
        "Name": name,
        "Members@odata.count": members.len(),
        "Members": members,
    })
}

fn root(service: &Service) -> Value {
    json!({
        "@odata.id": "/redfish/v1/",
        "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "Id": "RootService",
        "Name": "Simulated service",
        "RedfishVersion": "1.18.0",
        "UUID": uuid(service.board.identity().guid.unwrap_or_default()),
        "Vendor": service.config.vendor,
        "Systems": link("/redfish/v1/Systems"),
        "Chassis": link("/redfish/v1/Chassis"),
        "Managers": link("/redfish/v1/Managers"),
        "Tasks": link("/redfish/v1/TaskService"),
        "SessionService": link("/redfish/v1/SessionService"),
        "ProtocolFeaturesSupported": {
            "ExcerptQuery": false, "FilterQuery": false, "OnlyMemberQuery": false, "SelectQuery": false,
        },
        "Links": { "Sessions": link(SESSIONS) },
    })
}

fn odata() -> Value {
    let names = ["Systems", "Chassis", "Managers", "SessionService"];
    let mut value = vec![json!({ "name": "Service", "kind": "Singleton", "url": "/redfish/v1/" })];
    value.extend(
        names.map(
            |name| json!({ "name": name, "kind": "Singleton", "url": format!("{ROOT}/{name}") }),
        ),
    );
    json!({ "@odata.context": "/redfish/v1/$metadata", "value": value })
}

pub(super) fn uuid(guid: [u8; 16]) -> String {
    let digits = hex(&guid);
    let part = |from: usize, to: usize| digits[from..to].to_owned();
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}

pub(super) fn power_state(service: &Service) -> Value {
    match service.board.power() {
        PowerState::On => json!("On"),
        PowerState::Off => json!("Off"),
        PowerState::Transition => json!("PoweringOn"),
        PowerState::Unknown { .. } => Value::Null,
    }
}

fn system(service: &Service) -> Value {
    let identity = service.board.identity();
    let reset = format!("{SYSTEM}/Actions/ComputerSystem.Reset");
    let mut system = json!({
        "@odata.id": SYSTEM,
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
        "Id": "1",
        "Name": "Simulated host",
        "SystemType": "Physical",
        "Manufacturer": identity.manufacturer.as_deref().unwrap_or(&service.config.vendor),
        "Model": identity.product,
        "SerialNumber": identity.serial,
        "BiosVersion": "1.0",
        "PowerState": power_state(service),
        "Status": { "State": "Enabled", "Health": "OK" },
        "Boot": boot(service),
        "EthernetInterfaces": link(&format!("{SYSTEM}/EthernetInterfaces")),
        "LogServices": link(&format!("{SYSTEM}/LogServices")),
        "Links": { "Chassis": [link(CHASSIS)], "ManagedBy": [link(MANAGER)] },
        "Actions": { "#ComputerSystem.Reset": {
            "target": reset,
            "@Redfish.ActionInfo": format!("{SYSTEM}/ResetActionInfo"),
            "ResetType@Redfish.AllowableValues": RESETS,
        }},
    });
    if let Some(guid) = identity.guid {
        system["UUID"] = json!(uuid(guid));
    }
    if service.is(Manner::SettingsOnly) {
        system["@Redfish.Settings"] = json!({
            "@odata.type": "#Settings.v1_3_5.Settings",
            "SettingsObject": link(&format!("{SYSTEM}/SD")),
        });
    }
    if service.uri_attribute().is_some() {
        system["Bios"] = link(&format!("{SYSTEM}/Bios"));
    }
    system
}

/// Systems beyond the first are other blades of the same enclosure.
fn bare(service: &Service, id: &str) -> Option<Value> {
    let number: usize = id.parse().ok()?;
    (2..=service.config.systems).contains(&number).then(|| {
        json!({
            "@odata.id": format!("{ROOT}/Systems/{id}"),
            "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
            "Id": id,
            "Name": "Another host",
            "PowerState": "Off",
        })
    })
}

fn boot(service: &Service) -> Value {
    let found = service.board.boot_override();
    let found = found.filter(|boot| boot.device != BootDevice::None);
    let mode = found
        .as_ref()
        .map_or(service.state().mode, |boot| boot.firmware);
    let (target, enabled, uri) = match &found {
        None => ("None", "Disabled", None),
        Some(boot) => {
            let (target, uri) = match &boot.device {
                BootDevice::Network => ("Pxe", None),
                BootDevice::Http { uri } => ("UefiHttp", uri.clone()),
                BootDevice::Disk => ("Hdd", None),
                BootDevice::Setup => ("BiosSetup", None),
                BootDevice::None => ("None", None),
            };
            let once = service.is(Manner::OnceReadsContinuous);
            let enabled = match boot.persistence {
                Persistence::Once if !once => "Once",
                _ => "Continuous",
            };
            (target, enabled, uri)
        }
    };
    let mut shown = json!({
        "BootSourceOverrideTarget": target,
        "BootSourceOverrideTarget@Redfish.AllowableValues": TARGETS,
        "BootSourceOverrideEnabled": enabled,
    });
    if !service.is(Manner::NoMode) {
        shown["BootSourceOverrideMode"] = json!(match mode {
            BootFirmware::Bios => "Legacy",
            BootFirmware::Uefi => "UEFI",
        });
        shown["BootSourceOverrideMode@Redfish.AllowableValues"] = json!(["Legacy", "UEFI"]);
    }
    if service.uri_attribute().is_none() {
        shown["HttpBootUri"] = json!(uri);
    }
    shown
}

fn settings() -> Value {
    json!({
        "@odata.id": format!("{SYSTEM}/SD"),
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
        "Id": "SD",
        "Name": "Settings of the simulated host",
    })
}

fn interface(service: &Service, id: &str) -> Option<Value> {
    let index: usize = id.parse().ok()?;
    let macs = service.board.identity().macs;
    let mac = macs.get(index.checked_sub(1)?)?;
    let mac = mac.map(|byte| format!("{byte:02X}")).join(":");
    Some(json!({
        "@odata.id": format!("{SYSTEM}/EthernetInterfaces/{id}"),
        "@odata.type": "#EthernetInterface.v1_9_0.EthernetInterface",
        "Id": id,
        "Name": "Simulated interface",
        "PermanentMACAddress": mac,
        "MACAddress": mac,
        "Status": { "State": "Enabled", "Health": "OK" },
    }))
}

fn reset_info() -> Value {
    json!({
        "@odata.id": format!("{SYSTEM}/ResetActionInfo"),
        "@odata.type": "#ActionInfo.v1_4_0.ActionInfo",
        "Id": "ResetActionInfo",
        "Name": "Reset",
        "Parameters": [{
            "Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": RESETS,
        }],
    })
}

fn bios(service: &Service) -> Option<Value> {
    let attribute = service.uri_attribute()?;
    Some(json!({
        "@odata.id": format!("{SYSTEM}/Bios"),
        "@odata.type": "#Bios.v1_2_0.Bios",
        "Id": "Bios",
        "Name": "The firmware's setup",
        "Attributes": { attribute: "" },
        "@Redfish.Settings": {
            "@odata.type": "#Settings.v1_3_5.Settings",
            "SettingsObject": link(&format!("{SYSTEM}/Bios/Settings")),
        },
    }))
}

fn bios_settings(service: &Service) -> Option<Value> {
    service.uri_attribute()?;
    Some(json!({
        "@odata.id": format!("{SYSTEM}/Bios/Settings"),
        "@odata.type": "#Bios.v1_2_0.Bios",
        "Id": "Settings",
        "Name": "Setup for the next boot",
        "Attributes": service.state().setup,
    }))
}

fn session_service(service: &Service) -> Value {
    json!({
        "@odata.id": "/redfish/v1/SessionService",
        "@odata.type": "#SessionService.v1_1_8.SessionService",
        "Id": "SessionService",
        "Name": "Sessions",
        "ServiceEnabled": true,
        "SessionTimeout": service.config.idle.as_secs().clamp(30, 86_400),
        "Sessions": link(SESSIONS),
    })
}

pub(super) fn session(service: &Service, id: &str) -> Option<Value> {
    service.state().sessions.contains_key(id).then(|| {
        json!({
            "@odata.id": format!("{SESSIONS}/{id}"),
            "@odata.type": "#Session.v1_5_0.Session",
            "Id": id,
            "Name": "Session",
            "UserName": service.config.user,
        })
    })
}

fn task_service() -> Value {
    json!({
        "@odata.id": "/redfish/v1/TaskService",
        "@odata.type": "#TaskService.v1_2_0.TaskService",
        "Id": "TaskService",
        "Name": "Tasks",
        "ServiceEnabled": true,
        "Tasks": link(TASKS),
    })
}

pub(super) fn task(service: &Service, id: &str) -> Option<Value> {
    let number: u32 = id.parse().ok()?;
    let end = *service.state().tasks.get(&number)?;
    let is_over = std::time::Instant::now() >= end;
    Some(json!({
        "@odata.id": format!("{TASKS}/{id}"),
        "@odata.type": "#Task.v1_7_0.Task",
        "Id": id,
        "Name": "Reset",
        "TaskState": if is_over { "Completed" } else { "Running" },
        "TaskStatus": "OK",
        "PercentComplete": if is_over { 100 } else { 50 },
    }))
}
