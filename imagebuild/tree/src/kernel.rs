//! Kernel modules: what they say about themselves, which of them an image keeps, and in which
//! order they are loaded.
//!
//! It refuses to load a module, and to look for one anywhere but in the list that it is given.

mod firmware;
mod glob;
mod graph;
mod modinfo;

pub use firmware::{FirmwareFile, keep_firmware};
pub use glob::matches as glob_matches;
pub use graph::{Modules, Patterns, SelectError, select};
pub use modinfo::{Modinfo, ModuleError, unpack_module};

/// Turns the file of a module into its name, as the kernel has it: without suffixes, and with `_`
/// where the file has `-`.
#[must_use]
pub fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let (name, suffix) = file.split_once(".ko")?;
    let known = matches!(suffix, "" | ".gz" | ".xz" | ".zst");
    (known && !name.is_empty()).then(|| name.replace('-', "_"))
}
