//! Any body as a Redfish resource: no link leaves the BMC, nothing unprintable is repeated, no power is guessed;
//! and any bytes as a certificate.
#![no_main]

use ipmi::PowerState;
use ipmi::redfish::resource::{self, Resource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = ipmi::tls::fingerprint(body);
    if let Ok(text) = std::str::from_utf8(body) {
        judge_path(resource::path(text));
        let _ = (resource::guid(text), resource::mac(text));
    }
    let Ok(resource) = Resource::decode(body) else {
        return;
    };
    for link in [
        "/Systems",
        "/Links/Sessions",
        "/Bios",
        "/@Redfish.Settings/SettingsObject",
    ] {
        judge_path(resource.link(link));
    }
    judge_path(resource.id());
    for list in ["/Members", "/Links/ManagedBy", "/Links/Chassis"] {
        resource
            .members(list)
            .into_iter()
            .map(Some)
            .for_each(judge_path);
    }
    let said = resource
        .complaint()
        .into_iter()
        .chain(resource.message_ids());
    for said in said {
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }
    match resource.power() {
        PowerState::On => assert_eq!(resource.text("/PowerState"), Some("On")),
        PowerState::Off => assert_eq!(resource.text("/PowerState"), Some("Off")),
        PowerState::Transition | PowerState::Unknown { .. } => {}
    }
    if let Some(boot) = resource.boot(None) {
        // What was read and is set again reads the same.
        assert_eq!(resource.boot(Some(&boot)), Some(boot));
    }
    let _ = (
        resource.health(),
        resource.number("/Reading"),
        resource.texts("/MediaTypes"),
    );
});

fn judge_path(path: Option<String>) {
    let Some(path) = path else { return };
    assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{path:?}");
}
