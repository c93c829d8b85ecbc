//! The firmware that virtual hosts start with, and where Debian keeps it.
//!
//! It refuses to fall back to another firmware when a file is missing: that would test something else.

use std::fmt;
use std::path::{Path, PathBuf};

/// How a virtual host starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// `SeaBIOS`, and the iPXE ROM of the network card.
    Bios,
    /// OVMF, PXE over IPv4.
    UefiPxe,
    /// OVMF, UEFI HTTP Boot over IPv4.
    UefiHttp,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS PXE",
            Self::UefiPxe => "UEFI PXE",
            Self::UefiHttp => "UEFI HTTP Boot",
        })
    }
}

/// A file that firmware consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// The Debian package that ships it.
    pub package: &'static str,
}

/// A firmware file that is not there.
#[derive(Debug, thiserror::Error)]
#[error("firmware file `{path}` is missing: install the Debian package `{package}`")]
pub struct Missing {
    /// The file.
    pub path: PathBuf,
    /// The package that ships it.
    pub package: &'static str,
}

/// The files, found below `/` or where `LAB_FIRMWARE` points.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Looks where the environment variable `LAB_FIRMWARE` says, or else in the running system.
    #[must_use]
    pub fn find() -> Self {
        Self::below(
            std::env::var_os("LAB_FIRMWARE").map_or_else(|| PathBuf::from("/"), PathBuf::from),
        )
    }

    /// Looks below a directory that is laid out as Debian's `/`.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The program part of OVMF, mapped read-only.
    #[must_use]
    pub fn ovmf_code(&self) -> File {
        self.file("usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf")
    }

    /// The variables that OVMF starts with; each host writes to a copy.
    #[must_use]
    pub fn ovmf_variables(&self) -> File {
        self.file("usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf")
    }

    /// The network boot ROM of QEMU's virtio card.
    #[must_use]
    pub fn boot_rom(&self) -> File {
        self.file("usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu")
    }

    /// Returns the files that a firmware needs.
    #[must_use]
    pub fn of(&self, firmware: Firmware) -> Vec<File> {
        match firmware {
            Firmware::Bios => vec![self.boot_rom()],
            Firmware::UefiPxe | Firmware::UefiHttp => vec![self.ovmf_code(), self.ovmf_variables()],
        }
    }

    /// Checks that all files of a firmware are there.
    ///
    /// # Errors
    /// Names the first file that is not, and its package.
    pub fn check(&self, firmware: Firmware) -> Result<(), Missing> {
        match self
            .of(firmware)
            .into_iter()
            .find(|file| !file.path.is_file())
        {
            Some(File { path, package }) => Err(Missing { path, package }),
            None => Ok(()),
        }
    }

    fn file(&self, path: &str, package: &'static str) -> File {
        File {
            path: Path::new(&self.root).join(path),
            package,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_with_its_package() {
        let empty = tempfile::tempdir().unwrap();
        let files = Files::below(empty.path());
        let cases = [
            (Firmware::Bios, "pxe-virtio.rom", "ipxe-qemu"),
            (Firmware::UefiPxe, "OVMF_CODE_4M.fd", "ovmf"),
            (Firmware::UefiHttp, "OVMF_CODE_4M.fd", "ovmf"),
        ];
        for (firmware, file, package) in cases {
            let text = files.check(firmware).unwrap_err().to_string();
            assert!(
                text.contains(file) && text.contains(package),
                "{firmware}: {text}"
            );
        }
    }
}
