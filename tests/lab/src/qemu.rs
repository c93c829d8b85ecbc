//! One virtual host: a QEMU process without a disk whose console is a socket and a log.
//!
//! It refuses to help the boot along: no kernel is handed in, no firmware setting beyond the choice
//! of the boot method, so that what boots is what the appliance sent.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::accel::{Accelerator, pflash};
use crate::chassis::PowerEvent;
use crate::firmware::{self, Files, Firmware};
use crate::namespace;
use crate::rack::Slot;

/// How hosts are started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What executes them.
    pub accelerator: Accelerator,
    /// Memory of each, in MiB.
    pub memory: u32,
    /// Processors of each.
    pub processors: u32,
    /// Where the firmware is.
    pub files: Files,
}

/// The files of one host, in a directory of its own.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Takes the directory of a host below the lab's state.
    #[must_use]
    pub fn of(state: &Path, host: &str) -> Self {
        Self(state.join("hosts").join(host))
    }

    /// Where everything lies; sockets are named relative to it, since their names are short by law.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the host wrote to its serial console.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// Each change of its power, a line of JSON.
    #[must_use]
    pub fn power_log(&self) -> PathBuf {
        self.0.join("power.log")
    }

    /// Reads each change of its power so far.
    #[must_use]
    pub fn power_events(&self) -> Vec<PowerEvent> {
        let log = fs::read_to_string(self.power_log()).unwrap_or_default();
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn qemu_log(&self) -> PathBuf {
        self.0.join("qemu.log")
    }
}

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the host could not be made.
    #[error("failed to write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its firmware is not there.
    #[error(transparent)]
    Firmware(#[from] firmware::Missing),
    /// QEMU could not be run.
    #[error("failed to run QEMU for `{0}`")]
    Run(String, #[source] io::Error),
}

/// Where a host's firmware looks for something to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// On the network.
    Network,
    /// On its disks; a rack's hosts have none.
    Disk,
}

/// Starts a host behind a port of the rack's switch, where `launch` says how a program is started
/// in the rack's network.
///
/// # Errors
/// When a file cannot be made or QEMU does not start.
pub fn start(
    launch: impl FnOnce(&str) -> Command,
    slot: &Slot,
    port: &str,
    order: Order,
    folder: &Folder,
    settings: &Settings,
) -> Result<Child, Error> {
    settings.files.check(slot.firmware)?;
    let write = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Write { path, source }
    };
    fs::create_dir_all(folder.path()).map_err(write(folder.path()))?;
    // The console shows the kernel's command line, and with it the token of the boot.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700))
        .map_err(write(folder.path()))?;
    let log_path = folder.qemu_log();
    let log = File::create(&log_path).map_err(write(&log_path))?;
    let mut qemu = launch("qemu-system-x86_64");
    qemu.args(settings.accelerator.arguments());
    qemu.args(common(slot, port, order, settings));
    firmware_arguments(&mut qemu, slot, order, folder, settings)?;
    qemu.current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    namespace::detach(&mut qemu);
    qemu.spawn()
        .map_err(|source| Error::Run(slot.name.to_owned(), source))
}

/// Returns what QEMU said about a host, for the error when it ends.
#[must_use]
pub fn last_words(folder: &Folder) -> String {
    let said = fs::read_to_string(folder.qemu_log()).unwrap_or_default();
    said.lines()
        .rev()
        .take(3)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect::<Vec<_>>()
        .join("; ")
}

fn common(slot: &Slot, port: &str, order: Order, settings: &Settings) -> Vec<String> {
    // The boot ROM is for BIOS alone: with its EFI twin it would be iPXE's driver that speaks, not OVMF's.
    let (letter, card) = match (order, slot.firmware) {
        (Order::Network, Firmware::Bios) => ("n", ",bootindex=0"),
        (Order::Network, Firmware::UefiPxe | Firmware::UefiHttp) => ("n", ",bootindex=0,romfile="),
        (Order::Disk, _) => ("c", ",romfile="),
    };
    [
        // Without graphics SeaBIOS and the boot ROM speak on the serial console.
        "-machine".to_owned(),
        "q35,graphics=off".to_owned(),
        "-name".to_owned(),
        slot.name.to_owned(),
        "-uuid".to_owned(),
        slot.uuid.to_owned(),
        "-m".to_owned(),
        settings.memory.to_string(),
        "-smp".to_owned(),
        settings.processors.to_string(),
        "-nodefaults".to_owned(),
        "-no-user-config".to_owned(),
        "-display".to_owned(),
        "none".to_owned(),
        "-boot".to_owned(),
        format!("order={letter}"),
        "-netdev".to_owned(),
        format!("tap,id=net0,ifname={port},script=no,downscript=no"),
        "-device".to_owned(),
        format!("virtio-net-pci,netdev=net0,mac={}{card}", slot.mac),
        // Newer OVMF has no network without a source of random numbers.
        "-device".to_owned(),
        "virtio-rng-pci".to_owned(),
        "-chardev".to_owned(),
        "socket,id=console,path=console.sock,server=on,wait=off,logfile=console.log,logappend=on"
            .to_owned(),
        "-serial".to_owned(),
        "chardev:console".to_owned(),
        "-qmp".to_owned(),
        "unix:qmp.sock,server=on,wait=off".to_owned(),
    ]
    .into()
}

fn firmware_arguments(
    qemu: &mut Command,
    slot: &Slot,
    order: Order,
    folder: &Folder,
    settings: &Settings,
) -> Result<(), Error> {
    let pxe = match (slot.firmware, order) {
        (Firmware::Bios, _) => return Ok(()),
        (Firmware::UefiPxe, Order::Network) => "yes",
        // Without PXE the only way left on the network card is HTTP Boot.
        (Firmware::UefiHttp, _) | (_, Order::Disk) => "no",
    };
    let variables = folder.path().join("vars.fd");
    // Copied through memory: the original may be read-only, and fs::copy would keep that.
    fs::read(settings.files.ovmf_variables().path)
        .and_then(|bytes| fs::write(&variables, bytes))
        .map_err(|source| Error::Write {
            path: variables.clone(),
            source,
        })?;
    qemu.args(["-drive", &pflash(0, &settings.files.ovmf_code().path)])
        .args(["-drive", &pflash(1, &variables)])
        .args([
            "-fw_cfg",
            &format!("name=opt/org.tianocore/IPv4PXESupport,string={pxe}"),
        ])
        .args(["-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=no"]);
    Ok(())
}
