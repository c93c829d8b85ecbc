//! The initrd's index of modules, and what a device asks of it: no panic, an end also where modules need each other,
//! and each module once.
#![no_main]

#[allow(dead_code, unreachable_pub)]
#[path = "../../../netboot/stage1/src/alias.rs"]
mod alias;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../netboot/stage1/src/modules.rs"]
mod modules;

use libfuzzer_sys::fuzz_target;

/// What the first devices of a rack ask with.
const DEVICES: [&str; 2] = [
    "virtio:d00000001v00001AF4",
    "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
];

fuzz_target!(|text: &str| {
    let Ok(index) = modules::Index::parse(text) else {
        return;
    };
    // The text's own first word is a device, too.
    let own = text.split_whitespace().next().unwrap_or_default();
    for device in DEVICES.into_iter().chain([own]) {
        once(&index.for_device(device, modules::Scope::All));
        once(&index.for_device(device, modules::Scope::WithoutStorage));
        once(&index.by_name(device));
    }
});

fn once(modules: &[&modules::Module]) {
    for (at, module) in modules.iter().enumerate() {
        // Two lines may say the same; they are two modules.
        assert!(!modules[..at].iter().any(|other| std::ptr::eq(*other, *module)));
    }
}
