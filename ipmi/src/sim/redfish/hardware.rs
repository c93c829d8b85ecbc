//! Chassis, manager, sensors and the virtual drive of the simulated service.
//!
//! It refuses to measure anything: sensors show what a host that is on or off would show.

use serde_json::{Value, json};

use super::resources::{CHASSIS, MANAGER, MEDIA, SYSTEM, link, power_state};
use super::state::Service;
use crate::PowerState;

pub(super) fn chassis(service: &Service) -> Value {
    let identity = service.board.identity();
    json!({
        "@odata.id": CHASSIS,
        "@odata.type": "#Chassis.v1_23_0.Chassis",
        "Id": "1",
        "Name": "Simulated chassis",
        "ChassisType": "RackMount",
        "Manufacturer": identity.manufacturer,
        "Model": identity.product,
        "SerialNumber": identity.serial,
        "PowerState": power_state(service),
        "Status": { "State": "Enabled", "Health": "OK" },
        "Thermal": link(&format!("{CHASSIS}/Thermal")),
        "Power": link(&format!("{CHASSIS}/Power")),
        "Links": { "ComputerSystems": [link(SYSTEM)], "ManagedBy": [link(MANAGER)] },
    })
}

pub(super) fn thermal(service: &Service) -> Value {
    let is_on = service.board.power() == PowerState::On;
    json!({
        "@odata.id": format!("{CHASSIS}/Thermal"),
        "@odata.type": "#Thermal.v1_7_1.Thermal",
        "Id": "Thermal",
        "Name": "Thermal",
        "Temperatures": [{
            "@odata.id": format!("{CHASSIS}/Thermal#/Temperatures/0"),
            "MemberId": "0",
            "Name": "Inlet",
            "ReadingCelsius": if is_on { 28.0 } else { 22.0 },
            "Status": { "State": "Enabled", "Health": "OK" },
        }],
        "Fans": [{
            "@odata.id": format!("{CHASSIS}/Thermal#/Fans/0"),
            "MemberId": "0",
            "Name": "Fan 1",
            "Reading": if is_on { 4200 } else { 0 },
            "ReadingUnits": "RPM",
            "Status": { "State": "Enabled", "Health": "OK" },
        }],
    })
}

pub(super) fn power(service: &Service) -> Value {
    let is_on = service.board.power() == PowerState::On;
    json!({
        "@odata.id": format!("{CHASSIS}/Power"),
        "@odata.type": "#Power.v1_7_1.Power",
        "Id": "Power",
        "Name": "Power",
        "PowerControl": [{
            "@odata.id": format!("{CHASSIS}/Power#/PowerControl/0"),
            "MemberId": "0",
            "Name": "System power",
            "PowerConsumedWatts": if is_on { 180.0 } else { 12.0 },
        }],
        "PowerSupplies": [{
            "@odata.id": format!("{CHASSIS}/Power#/PowerSupplies/0"),
            "MemberId": "0",
            "Name": "Supply 1",
            "SerialNumber": "PS-1",
            "Status": { "State": "Enabled", "Health": "OK" },
        }],
    })
}

pub(super) fn manager(service: &Service) -> Value {
    json!({
        "@odata.id": MANAGER,
        "@odata.type": "#Manager.v1_18_0.Manager",
        "Id": "1",
        "Name": "Simulated BMC",
        "ManagerType": "BMC",
        "Manufacturer": service.config.vendor,
        "FirmwareVersion": env!("CARGO_PKG_VERSION"),
        "Status": { "State": "Enabled", "Health": "OK" },
        "VirtualMedia": link(&format!("{MANAGER}/VirtualMedia")),
        "Links": { "ManagerForServers": [link(SYSTEM)], "ManagerForChassis": [link(CHASSIS)] },
    })
}

pub(super) fn media(service: &Service) -> Value {
    let image = service.state().image.clone();
    let action = |name: &str| json!({ "target": format!("{MEDIA}/Actions/VirtualMedia.{name}") });
    json!({
        "@odata.id": MEDIA,
        "@odata.type": "#VirtualMedia.v1_6_0.VirtualMedia",
        "Id": "CD1",
        "Name": "Virtual drive",
        "MediaTypes": ["CD", "DVD"],
        "Inserted": image.is_some(),
        "ConnectedVia": if image.is_some() { "URI" } else { "NotConnected" },
        "WriteProtected": true,
        "Image": image,
        "Actions": {
            "#VirtualMedia.InsertMedia": action("InsertMedia"),
            "#VirtualMedia.EjectMedia": action("EjectMedia"),
        },
    })
}
