//! What executes a virtual computer: the processor, or QEMU in software.
//!
//! It refuses to trust that `/dev/kvm` is there: on some nested computers KVM aborts in the middle of the firmware. What
//! counts is that the firmware comes up under it.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Firmware;

/// Firmware is up within two seconds where KVM works.
const PROBE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);

/// What executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator.
    Software,
}

/// What a person wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// KVM where it works.
    #[default]
    Auto,
    /// KVM, and nothing else.
    Kvm,
    /// Software, also where KVM works.
    Software,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Software => "software emulation",
        })
    }
}

impl Accelerator {
    /// Decides, trying KVM with this firmware where that is to be found out.
    #[must_use]
    pub fn choose(choice: Choice, architecture: &str, firmware: &Firmware) -> Self {
        match choice {
            Choice::Kvm => Self::Kvm,
            Choice::Auto if works(architecture, firmware).unwrap_or(false) => Self::Kvm,
            Choice::Auto | Choice::Software => Self::Software,
        }
    }

    /// QEMU's arguments. Five-level page tables are off in software: each level costs a translated memory access.
    pub(super) fn arguments(self, architecture: &str) -> [&'static str; 4] {
        match (self, architecture) {
            (Self::Kvm, _) => ["-accel", "kvm", "-cpu", "host"],
            (Self::Software, "amd64") => ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"],
            (Self::Software, _) => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

fn works(architecture: &str, firmware: &Firmware) -> io::Result<bool> {
    let own = match architecture {
        "amd64" => cfg!(target_arch = "x86_64"),
        "arm64" => cfg!(target_arch = "aarch64"),
        _ => false,
    };
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if !own || kvm.is_err() {
        return Ok(false);
    }
    // Elsewhere KVM is the processor's own matter, and is either there or not.
    if architecture != "amd64" {
        return Ok(true);
    }
    let folder = tempfile::tempdir()?;
    let variables = folder.path().join("variables.fd");
    let console = folder.path().join("console.log");
    fs::write(&variables, fs::read(&firmware.variables)?)?;
    fs::write(&console, b"")?;
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(Accelerator::Kvm.arguments(architecture))
        .args([
            "-machine",
            "q35,smm=on",
            "-m",
            "256",
            "-nodefaults",
            "-no-user-config",
        ])
        .args(["-display", "none"])
        .args(firmware.arguments(&variables))
        .args(["-serial", &format!("file:{}", super::escape(&console))])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let started = Instant::now();
    let came_up = loop {
        // What the firmware says when it looks for something to boot.
        if fs::read(&console)?.windows(6).any(|word| word == b"BdsDxe") {
            break true;
        }
        if qemu.try_wait()?.is_some() || started.elapsed() > PROBE {
            break false;
        }
        thread::sleep(LOOK);
    };
    qemu.kill().ok();
    qemu.wait()?;
    Ok(came_up)
}
