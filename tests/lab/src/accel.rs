//! Whether hosts run under KVM or in software.
//!
//! It refuses to trust that `/dev/kvm` is there: on some nested machines KVM aborts, or dies in the
//! middle of OVMF. What counts is that OVMF comes up under it within the time.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::firmware::Files;
use crate::poll;

/// What executes a host's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator.
    Software,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Software => "software emulation (KVM does not work here)",
        })
    }
}

impl Accelerator {
    /// Returns QEMU's arguments for it.
    ///
    /// Five-level page tables are off in software: each level costs a memory access that is translated.
    #[must_use]
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Software => ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"],
        }
    }

    /// Says how many processors each of so many hosts has. In software two help a host that is alone, and cost many
    /// hosts a fifth of what they do.
    #[must_use]
    pub fn processors(self, hosts: usize) -> u32 {
        match (self, hosts) {
            (Self::Kvm, _) | (Self::Software, 0 | 1) => 2,
            (Self::Software, _) => 1,
        }
    }

    /// Tries KVM with OVMF; it takes about a second where KVM works and where it is absent.
    #[must_use]
    pub fn probe(files: &Files, scratch: &Path) -> Self {
        if OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
        {
            return Self::Software;
        }
        match reaches_boot_selection(files, scratch) {
            Ok(true) => Self::Kvm,
            Ok(false) | Err(_) => Self::Software,
        }
    }
}

fn reaches_boot_selection(files: &Files, scratch: &Path) -> io::Result<bool> {
    let variables = scratch.join("probe-vars.fd");
    let console = scratch.join("probe-console.log");
    fs::copy(files.ovmf_variables().path, &variables)?;
    fs::write(&console, b"")?;
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35",
            "-m",
            "256",
            "-smp",
            "2",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ])
        .args(Accelerator::Kvm.arguments())
        .args([
            "-drive",
            &pflash(0, &files.ovmf_code().path),
            "-drive",
            &pflash(1, &variables),
        ])
        .args(["-serial", &format!("file:{}", console.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let reached = poll::until(Duration::from_secs(15), || {
        let seen =
            fs::read(&console).is_ok_and(|text| text.windows(6).any(|word| word == b"BdsDxe"));
        match qemu.try_wait() {
            Ok(None) => seen.then_some(true),
            Ok(Some(_)) | Err(_) => Some(false),
        }
    });
    qemu.kill().ok();
    qemu.wait()?;
    Ok(reached == Some(true))
}

/// Describes one flash chip to QEMU: number 0 is OVMF's program, 1 its variables.
#[must_use]
pub fn pflash(unit: u8, file: &Path) -> String {
    let readonly = if unit == 0 { ",readonly=on" } else { "" };
    // QEMU's own escape for a comma in a file name is two of them.
    let file = file.display().to_string().replace(',', ",,");
    format!("if=pflash,unit={unit},format=raw{readonly},file={file}")
}
