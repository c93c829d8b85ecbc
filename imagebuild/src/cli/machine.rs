//! What `run` and `test` say about the virtual computer that an image boots in.
//!
//! It refuses a private key as an argument: its file or the environment says it.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};

use clap::{Args, ValueEnum};
use image_manifest::Manifest;
use image_manifest::layout::Layout;
use imagebuild::secure_boot::{self, Signer};
use imagebuild::vm::firmware::SecureBoot;
use imagebuild::vm::{Accelerator, Choice, Console, Firmware, Folder, Network, Settings};
use imagebuild::{container, trial, vm};

use super::failure::Failure;

/// The private key itself, as PEM.
const KEY: &str = "IMAGEBUILD_SECURE_BOOT_KEY";
/// Its certificate, as PEM.
const CERTIFICATE: &str = "IMAGEBUILD_SECURE_BOOT_CERTIFICATE";

/// Why an image was not run or is not well.
#[derive(Debug, thiserror::Error)]
pub(super) enum MachineError {
    #[error(transparent)]
    SecureBoot(#[from] secure_boot::Error),
    #[error(transparent)]
    Vm(#[from] vm::Error),
    #[error(transparent)]
    Container(#[from] container::Error),
    #[error(transparent)]
    Trial(#[from] trial::Error),
    #[error("failed to write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("image `{0}` is not well")]
    Unwell(String),
    #[error("it ended with {0}")]
    Ended(ExitStatus),
}

impl MachineError {
    pub(super) fn help(&self) -> Option<&'static str> {
        match self {
            Self::Vm(error) => error.help(),
            Self::Container(error) => error.help(),
            _ => None,
        }
    }
}

impl<E: Into<MachineError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Machine(Box::new(error.into()))
    }
}

/// The key that UEFI firmware trusts.
#[derive(Debug, Default, Args)]
pub(super) struct SigningArgs {
    /// Sign what the firmware starts with this RSA key, in PEM or DER [default: the key in the variable
    /// `IMAGEBUILD_SECURE_BOOT_KEY`, if there is one].
    #[arg(long, value_name = "FILE")]
    secure_boot_key: Option<PathBuf>,
    /// The certificate of that key [default: the one in the variable `IMAGEBUILD_SECURE_BOOT_CERTIFICATE`].
    #[arg(long, value_name = "FILE")]
    secure_boot_certificate: Option<PathBuf>,
}

impl SigningArgs {
    /// Loads key and certificate, if there is a key.
    pub(super) fn signer(&self) -> Result<Option<Signer>, Failure> {
        let key = match &self.secure_boot_key {
            Some(path) => Some(secure_boot::read(path)),
            None => env::var_os(KEY).map(|text| Ok(secure_boot::secret(text))),
        };
        let Some(key) = key else {
            return Ok(None);
        };
        let certificate = match &self.secure_boot_certificate {
            Some(path) => secure_boot::read(path),
            None => Ok(secure_boot::secret(
                env::var_os(CERTIFICATE).unwrap_or_default(),
            )),
        };
        let signer = key.and_then(|key| Signer::new(&key, &certificate?));
        Ok(signer.map(Some)?)
    }
}

/// The virtual computer.
#[derive(Debug, Args)]
pub(super) struct MachineArgs {
    /// Memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..))]
    memory: u32,
    /// Boot this disk. It is composed from the image where there is no such file, and kept [default: a disk that goes
    /// with the computer].
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// Size of a disk that is composed, in GiB [default: the image's own and one more].
    #[arg(long, value_name = "GIB")]
    disk_size: Option<u32>,
    /// What executes the computer.
    #[arg(long, value_enum, default_value_t)]
    accelerator: AcceleratorArg,
    /// Check who signed what is started; the key is enrolled in `--firmware-variables`.
    #[arg(long)]
    secure_boot: bool,
    /// UEFI firmware [default: the one that is installed].
    #[arg(long, value_name = "FILE")]
    firmware_code: Option<PathBuf>,
    /// Variables that the firmware starts with; they are not changed [default: the ones that are installed].
    #[arg(long, value_name = "FILE")]
    firmware_variables: Option<PathBuf>,
    #[command(flatten)]
    signing: SigningArgs,
    /// More arguments for QEMU, or the command of a container, after `--`.
    #[arg(last = true, value_name = "ARGUMENTS")]
    after: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum AcceleratorArg {
    /// KVM where it works, or else software.
    #[default]
    Auto,
    /// The processor itself.
    Kvm,
    /// QEMU's translator.
    Software,
}

/// A computer that runs, with its files.
pub(super) struct Running {
    pub(super) computer: Child,
    /// Lives as long as the computer does.
    pub(super) folder: Folder,
}

impl Default for MachineArgs {
    fn default() -> Self {
        Self {
            memory: 1024,
            disk: None,
            disk_size: None,
            accelerator: AcceleratorArg::Auto,
            secure_boot: false,
            firmware_code: None,
            firmware_variables: None,
            signing: SigningArgs::default(),
            after: Vec::new(),
        }
    }
}

impl MachineArgs {
    /// Composes the disk and switches the computer on.
    pub(super) fn start(
        &self,
        store: &Layout,
        manifest: &Manifest,
        network: Network,
        console: Console,
    ) -> Result<Running, Failure> {
        let firmware = self.firmware(&manifest.architecture)?;
        let signer = self.signing.signer()?;
        // Large, and best where it may stay large: temporary files may be in memory.
        let beside = self.disk.as_deref().and_then(Path::parent);
        let folder = Folder::new(beside.filter(|path| path.is_dir()))?;
        let disk = self.disk.clone().unwrap_or_else(|| folder.disk());
        if !disk.exists() {
            let size = self.disk_size.map(|gib| u64::from(gib) << 30);
            folder.compose(store, manifest, signer.as_ref(), size, &disk)?;
        }
        let choice = match self.accelerator {
            AcceleratorArg::Auto => Choice::Auto,
            AcceleratorArg::Kvm => Choice::Kvm,
            AcceleratorArg::Software => Choice::Software,
        };
        let accelerator = Accelerator::choose(choice, &manifest.architecture, &firmware);
        tracing::info!(image = manifest.name, %accelerator, memory_mib = self.memory, "booting");
        let settings = Settings {
            architecture: manifest.architecture.clone(),
            memory: self.memory,
            accelerator,
            firmware,
            network,
            console,
            more: self.after.clone(),
        };
        let computer = vm::start(&settings, &disk, &folder)?;
        Ok(Running { computer, folder })
    }

    /// What stands after `--`.
    pub(super) fn after(&self) -> &[OsString] {
        &self.after
    }

    fn firmware(&self, architecture: &str) -> Result<Firmware, vm::Error> {
        let secure_boot = if self.secure_boot {
            SecureBoot::On
        } else {
            SecureBoot::Off
        };
        let (code, variables) = (
            self.firmware_code.as_deref(),
            self.firmware_variables.as_deref(),
        );
        Ok(Firmware::find(architecture, secure_boot, code, variables)?)
    }
}
