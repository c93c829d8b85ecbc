//! Loading of the modules that this host's devices ask for, and of the few that stage1 needs.
//!
//! It decides nothing about order or matching (`modules.rs`), and a module that does not load is
//! said and not fatal: what is missing in the end is said where it is missed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::console;
use crate::modules::{self, Index, Module, Scope};

/// Where the kernel looks for firmware.
const FIRMWARE: &str = "/lib/firmware";

/// Loads modules, each once.
#[derive(Debug)]
pub(crate) struct Coldplug {
    index: Index,
    scope: Scope,
    devices: BTreeSet<String>,
    /// Held while a module loads, so that nobody sees one as loaded before it is.
    tried: Mutex<BTreeSet<String>>,
}

impl Coldplug {
    /// Starts with nothing loaded.
    pub(crate) fn new(index: Index) -> Self {
        Self {
            index,
            scope: Scope::All,
            devices: BTreeSet::new(),
            tried: Mutex::default(),
        }
    }

    /// Says which devices get their drivers from now on; those that were passed over are looked at again.
    pub(crate) fn look_for(&mut self, scope: Scope) {
        self.scope = scope;
        self.devices.clear();
    }

    /// Loads what devices ask for that were not there the last time; a driver may bring new
    /// devices, so it goes on until there are none.
    pub(crate) fn devices(&mut self) {
        loop {
            let new: Vec<_> = modaliases()
                .into_iter()
                .filter(|modalias| self.devices.insert(modalias.clone()))
                .collect();
            if new.is_empty() {
                return;
            }
            for modalias in new {
                for module in self.index.for_device(&modalias, self.scope) {
                    self.load(module);
                }
            }
        }
    }

    /// Loads modules by name; one that the initrd does not have may be built into the kernel.
    pub(crate) fn named(&self, names: &[&str]) {
        for name in names {
            for module in self.index.by_name(name) {
                self.load(module);
            }
        }
    }

    /// Ends the search for drivers: deletes from the initramfs all firmware, and all modules but those that these names
    /// load. A driver that is there keeps its firmware, and the image's own system finds both in its root.
    ///
    /// What does not let itself be deleted costs memory and nothing else.
    pub(crate) fn finish(&mut self, needed: &[&str]) {
        let files = self.index.keep(needed);
        let files = files.iter().map(String::as_str).chain([modules::PATH]);
        files.for_each(|path| drop(fs::remove_file(path)));
        drop(fs::remove_dir_all(FIRMWARE));
        self.devices = BTreeSet::new();
    }

    fn load(&self, module: &Module) {
        let Ok(mut tried) = self.tried.lock() else {
            return;
        };
        if !tried.insert(module.name.clone()) {
            return;
        }
        let file = match File::open(&module.path) {
            Ok(file) => file,
            Err(error) => {
                console::warn(&format!("module `{}` not opened: {error}", module.path));
                return;
            }
        };
        match finit_module(&file, c"", flags(&module.path)) {
            // No device: the one that asked for it is not there after all.
            Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => {}
            Err(error) => console::warn(&format!(
                "module `{}` not loaded: {}",
                module.name,
                error.desc()
            )),
        }
    }
}

/// The kernel takes modules apart that are compressed as its own build compresses them. An initrd
/// of such modules is unpacked in a fraction of the time: few of them are ever loaded on one host.
fn flags(path: &str) -> ModuleInitFlags {
    /// `MODULE_INIT_COMPRESSED_FILE` of `linux/module.h`.
    const COMPRESSED: i32 = 4;
    if Path::new(path).extension() == Some("ko".as_ref()) {
        ModuleInitFlags::empty()
    } else {
        ModuleInitFlags::from_bits_retain(COMPRESSED.cast_unsigned())
    }
}

/// Reads the modalias of every device on every bus. The walk over `/sys/bus` sees the same
/// devices as one over `/sys/devices`, through a tenth of the directories.
fn modaliases() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Ok(buses) = fs::read_dir("/sys/bus") else {
        console::warn("devices are not visible: `/sys/bus` is not readable");
        return found;
    };
    for bus in buses.flatten() {
        let Ok(devices) = fs::read_dir(bus.path().join("devices")) else {
            continue;
        };
        for device in devices.flatten() {
            if let Ok(modalias) = fs::read_to_string(device.path().join("modalias")) {
                found.insert(modalias.trim_end().to_owned());
            }
        }
    }
    found
}
