use serde_json::json;

use super::*;

fn resource(value: Value) -> Resource {
    Resource::from(value)
}

#[test]
fn only_on_and_off_are_taken_for_on_and_off() {
    let cases = [
        (json!("On"), "on"),
        (json!("Off"), "off"),
        (json!("PoweringOn"), "transition"),
        (json!("Reset"), "transition"),
        (json!("Paused"), "unknown"),
        (json!("on"), "unknown"),
        (json!(null), "unknown"),
        (json!(1), "unknown"),
        (json!(["On"]), "unknown"),
    ];
    for (said, expected) in cases {
        let system = resource(json!({ "PowerState": said }));
        assert_eq!(system.power().label(), expected, "{said}");
    }
    assert_eq!(resource(json!({})).power().label(), "unknown");
}

#[test]
fn an_override_is_what_target_and_enabled_say_together() {
    let boot = |target: &str, enabled: &str| {
        resource(json!({ "Boot": {
            "BootSourceOverrideTarget": target,
            "BootSourceOverrideEnabled": enabled,
            "BootSourceOverrideMode": "UEFI",
        }}))
        .boot(None)
        .map(|boot| (boot.device, boot.persistence))
    };
    let cases = [
        (
            "Pxe",
            "Once",
            Some((BootDevice::Network, Persistence::Once)),
        ),
        (
            "Pxe",
            "Continuous",
            Some((BootDevice::Network, Persistence::Persistent)),
        ),
        (
            "Pxe",
            "Disabled",
            Some((BootDevice::None, Persistence::Once)),
        ),
        ("None", "Once", Some((BootDevice::None, Persistence::Once))),
        ("Banana", "Once", None),
    ];
    for (target, enabled, expected) in cases {
        assert_eq!(boot(target, enabled), expected, "{target} {enabled}");
    }
}

#[test]
fn what_a_bmc_has_no_property_for_is_what_was_set() {
    let set = BootOverride {
        device: BootDevice::Http {
            uri: Some("http://10.0.0.1/x.efi".to_owned()),
        },
        persistence: Persistence::Once,
        firmware: BootFirmware::Bios,
    };
    let silent = resource(json!({ "Boot": {
        "BootSourceOverrideTarget": "UefiHttp", "BootSourceOverrideEnabled": "Once" } }));
    assert_eq!(silent.boot(Some(&set)), Some(set.clone()));
    let told = resource(json!({ "Boot": {
        "BootSourceOverrideTarget": "UefiHttp", "BootSourceOverrideEnabled": "Once",
        "BootSourceOverrideMode": "UEFI", "HttpBootUri": null } }));
    let expected = BootOverride {
        device: BootDevice::Http { uri: None },
        firmware: BootFirmware::Uefi,
        ..set
    };
    assert_eq!(told.boot(Some(&set)), Some(expected));
}

#[test]
fn links_never_leave_the_bmc() {
    let cases = [
        ("/redfish/v1/Systems/1", Some("/redfish/v1/Systems/1")),
        (
            "https://bmc.example/redfish/v1/T/1",
            Some("/redfish/v1/T/1"),
        ),
        (
            "/redfish/v1/Chassis/1#/Fans/0",
            Some("/redfish/v1/Chassis/1"),
        ),
        ("//evil.example/x", None),
        ("ftp://evil.example/x", None),
        ("redfish/v1", None),
        ("/x\r\nHost: evil", None),
        ("", None),
    ];
    for (link, expected) in cases {
        assert_eq!(path(link).as_deref(), expected, "{link:?}");
    }
}

#[test]
fn complaints_are_found_where_services_put_them() {
    let told = resource(
        json!({ "error": { "code": "Base.1.8.GeneralError", "@Message.ExtendedInfo": [
        { "MessageId": "iLO.2.14.UnableToModifyDuringSystemPOST", "Message": "not\u{7} now" } ] } }),
    );
    assert_eq!(told.complaint().as_deref(), Some("not  now"));
    assert_eq!(
        told.message_ids(),
        ["UnableToModifyDuringSystemPOST", "GeneralError"]
    );
    assert_eq!(resource(json!({ "error": [] })).complaint(), None);
}

#[test]
fn numbers_of_machines_are_read_or_absent() {
    assert_eq!(
        guid("00112233-4455-6677-8899-aabbccddeeff").map(|guid| guid[15]),
        Some(0xff)
    );
    assert_eq!(guid("00000000-0000-0000-0000-000000000000"), None);
    assert_eq!(guid("not a guid"), None);
    assert_eq!(mac("52:54:00:77:00:01"), Some([0x52, 0x54, 0, 0x77, 0, 1]));
    assert_eq!(mac("52-54-00-77-00-0G"), None);
    assert_eq!(mac("00:00:00:00:00:00"), None);
}
