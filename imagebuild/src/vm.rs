//! A virtual computer that boots the disk of an image: QEMU with UEFI firmware and a serial console.
//!
//! It refuses to help the boot along: no kernel is handed in and nothing is written into the disk, so that what boots
//! is what was built. Without the user's network the computer has no network card at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use image_disk::SparseSink;
use image_manifest::layout::Layout;
use image_manifest::{FormKind, Manifest};
use tempfile::TempDir;

use crate::forms::{self, Disk};
use crate::secure_boot::Signer;

pub mod accelerator;
pub mod firmware;

pub use accelerator::{Accelerator, Choice};
pub use firmware::Firmware;

/// What the disk has beyond the image's own, so that the data partition has something to grow into.
const ROOM: u64 = 1 << 30;

/// How the computer is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Memory in MiB.
    pub memory: u32,
    /// What executes it.
    pub accelerator: Accelerator,
    /// What it starts with.
    pub firmware: Firmware,
    /// Whether it sees the network.
    pub network: Network,
    /// Who has its serial console.
    pub console: Console,
    /// More arguments for QEMU.
    pub more: Vec<OsString>,
}

/// Whether the computer sees the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It has no card.
    None,
    /// As the user who runs it; nobody outside reaches it.
    User,
}

/// Who has the serial console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// The person at the terminal; `Ctrl-A x` ends QEMU.
    Terminal,
    /// Whoever reads the standard output of QEMU.
    Pipe,
}

/// Why the computer does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU is not made for it here.
    #[error("no computer of architecture `{0}` is known")]
    Architecture(String),
    /// Its firmware is missing.
    #[error(transparent)]
    Firmware(#[from] firmware::Error),
    /// The image has no disk, or it cannot be composed.
    #[error(transparent)]
    Forms(#[from] forms::Error),
    /// A file of the computer could not be made.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// QEMU could not be run.
    #[error("failed to run `{program}`")]
    Run {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What a person may do about it.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("install QEMU; on Debian `qemu-system-x86` or `qemu-system-arm`")
            }
            Self::Firmware(_) => Some(
                "install UEFI firmware, on Debian `ovmf` or `qemu-efi-aarch64`, or say where it is with `--firmware-code` and `--firmware-variables`",
            ),
            _ => None,
        }
    }
}

/// The files of one computer, which go with it.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Makes a directory, in `place` or where temporary files are.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(place: Option<&Path>) -> Result<Self, Error> {
        let place = place.map_or_else(std::env::temp_dir, Path::to_owned);
        let made = tempfile::Builder::new()
            .prefix("imagebuild-vm-")
            .tempdir_in(&place);
        made.map(Self).map_err(write(&place))
    }

    /// Where the disk is composed, when nobody says otherwise.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.0.path().join("disk.raw")
    }

    /// Where the console is kept, when nobody says otherwise.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.path().join("console.log")
    }

    fn variables(&self) -> PathBuf {
        self.0.path().join("variables.fd")
    }

    /// Composes the disk of an image, signed where there is a signer, and as large as asked for.
    ///
    /// # Errors
    /// When the image has no disk, or it cannot be written.
    pub fn compose(
        &self,
        store: &Layout,
        manifest: &Manifest,
        signer: Option<&Signer>,
        size: Option<u64>,
        path: &Path,
    ) -> Result<(), Error> {
        let disk = match signer {
            Some(signer) => Disk::signed(store, manifest, signer)?,
            None => Disk::of(store, manifest)?,
        };
        let file = File::create(path).map_err(write(path))?;
        let mut sink = SparseSink::new(file);
        disk.write(FormKind::Raw, &mut sink)?;
        let own = disk.plan().extents.size();
        let size = size.unwrap_or(own + ROOM).max(own);
        let grown = sink.finish().and_then(|file| file.set_len(size));
        grown.map_err(write(path))
    }
}

fn write(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}

/// Switches the computer on.
///
/// # Errors
/// When its firmware is missing or QEMU does not start.
pub fn start(settings: &Settings, disk: &Path, folder: &Folder) -> Result<Child, Error> {
    let (program, machine) = machine(&settings.architecture)?;
    let variables = folder.variables();
    // Copied through memory: the original may be read-only, and that would be copied, too.
    let copied =
        fs::read(&settings.firmware.variables).and_then(|bytes| fs::write(&variables, bytes));
    copied.map_err(write(&variables))?;
    let mut qemu = Command::new(program);
    qemu.args(settings.accelerator.arguments(&settings.architecture))
        .args(machine)
        .args(["-m", &settings.memory.to_string(), "-smp", "2"])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(settings.firmware.arguments(&variables))
        .args([
            "-drive",
            &format!(
                "if=none,id=disk,format=raw,discard=unmap,file={}",
                escape(disk)
            ),
        ])
        .args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"])
        .args(["-device", "virtio-rng-pci"]);
    match settings.network {
        Network::None => qemu.args(["-nic", "none"]),
        Network::User => qemu.args([
            "-netdev",
            "user,id=net0",
            "-device",
            "virtio-net-pci,netdev=net0,romfile=",
        ]),
    };
    match settings.console {
        Console::Terminal => qemu.args(["-serial", "mon:stdio"]),
        Console::Pipe => qemu
            .args(["-serial", "stdio", "-monitor", "none"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    };
    qemu.args(&settings.more);
    qemu.spawn().map_err(|source| Error::Run {
        program: program.to_owned(),
        source,
    })
}

/// The program and the board of an architecture.
fn machine(architecture: &str) -> Result<(&'static str, [&'static str; 2]), Error> {
    match architecture {
        // System management mode is what keeps Secure Boot's variables.
        "amd64" => Ok(("qemu-system-x86_64", ["-machine", "q35,smm=on"])),
        "arm64" => Ok(("qemu-system-aarch64", ["-machine", "virt"])),
        other => Err(Error::Architecture(other.to_owned())),
    }
}

/// QEMU's own escape for a comma in a file name is two of them.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
