//! Any bytes as a FRU inventory: no text that is read can steer a terminal.
#![no_main]

use ipmi::fru::Inventory;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(inventory) = Inventory::decode(bytes) else {
        return;
    };
    for part in inventory.parts() {
        let texts = [part.manufacturer, part.model, part.serial, part.number];
        for text in texts.into_iter().flatten() {
            assert!(!text.is_empty());
            assert!(!text.chars().any(char::is_control));
        }
    }
});
