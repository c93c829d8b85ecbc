//! Programs of another processor: the kernel is told, for this sandbox alone, which emulator runs them.
//!
//! It refuses to depend on what the computer has registered, and changes nothing outside of the sandbox (Linux 6.7 gives
//! each user namespace a `binfmt_misc` of its own; before, the computer's own registration is all there is).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::child::Refused;

/// What a program's head says of its processor: ELF's `e_machine`, of 64 bits and little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine(pub u16);

/// Who runs programs of another processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    /// A static program, by its path outside of the sandbox.
    pub program: PathBuf,
    /// Whose programs it runs.
    pub machine: Machine,
}

/// Registers the emulator; what is returned keeps it registered. `None` where the kernel has no registry for sandboxes.
///
/// It is called while the emulator's path still leads to it. The kernel opens it now (`F`), so that no path is needed later.
pub(crate) fn register(emulator: &Emulator, at: &Path) -> Result<Option<File>, Refused> {
    let io = |error: io::Error| Refused::io("register the emulator", &error);
    let none = None::<&str>;
    fs::create_dir(at).map_err(io)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("binfmt_misc"), at, Some("binfmt_misc"), flags, none) {
        Ok(()) => {}
        Err(Errno::EPERM | Errno::ENODEV) => {
            fs::remove_dir(at).map_err(io)?;
            return Ok(None);
        }
        Err(errno) => return Err(Refused::new("mount the registry of emulators", errno)),
    }
    fs::write(at.join("register"), rule(emulator)).map_err(io)?;
    // Scripts do not see the registry; it lives as long as this directory is open.
    let kept = File::open(at).map_err(io)?;
    umount2(at, MntFlags::MNT_DETACH).map_err(|e| Refused::new("hide the registry", e))?;
    fs::remove_dir(at).map_err(io)?;
    Ok(Some(kept))
}

/// The kernel's rule (`Documentation/admin-guide/binfmt-misc.rst`): programs and shared objects of this machine, whatever
/// system they say they are for.
fn rule(emulator: &Emulator) -> Vec<u8> {
    let mut head = [0; 20];
    let mut mask = [0xff; 20];
    head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    mask[7] = 0;
    head[16] = 2;
    mask[16] = 0xfe;
    head[18..].copy_from_slice(&emulator.machine.0.to_le_bytes());
    let hex = |bytes: [u8; 20]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            write!(text, "\\x{byte:02x}").unwrap_or_default();
            text
        })
    };
    let mut rule = format!(":emulator:M::{}:{}:", hex(head), hex(mask)).into_bytes();
    rule.extend(emulator.program.as_os_str().as_bytes());
    rule.extend(b":F");
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_the_one_that_qemu_brings() {
        let emulator = Emulator {
            program: "/usr/bin/qemu-aarch64-static".into(),
            machine: Machine(183),
        };
        // `qemu-binfmt-conf.sh` of QEMU 7.2, but for its name and the flags.
        let expected = r":emulator:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F";
        assert_eq!(String::from_utf8(rule(&emulator)).unwrap(), expected);
    }
}
