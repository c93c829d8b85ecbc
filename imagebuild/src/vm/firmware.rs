//! UEFI firmware for virtual computers, and where distributions keep it.
//!
//! It refuses to go on with other firmware than what was asked for: without Secure Boot everything boots.

use std::path::{Path, PathBuf};

use super::escape;

/// A program for firmware, and the variables that it starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// The program, mapped read-only.
    pub code: PathBuf,
    /// Its variables; each computer writes to a copy.
    pub variables: PathBuf,
    /// Whether it checks who signed what it starts.
    pub secure_boot: SecureBoot,
}

/// Whether firmware checks who signed what it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureBoot {
    /// Everything starts.
    Off,
    /// What a key of its variables signed starts.
    On,
}

/// Why there is no firmware.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None was found.
    #[error("no UEFI firmware {0}is installed")]
    Missing(&'static str),
    /// Secure Boot checks signatures of keys that stand in the variables.
    #[error(
        "Secure Boot needs variables that a key is enrolled in: say which with `--firmware-variables`"
    )]
    NoKeys,
}

/// Program and variables, of Debian and Ubuntu, Fedora, and Arch.
const PLAIN: [(&str, &str); 3] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
];
const SECURE: [&str; 3] = [
    "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
    "/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd",
];
const ARM: [(&str, &str); 2] = [
    (
        "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd",
        "/usr/share/AAVMF/AAVMF_VARS.fd",
    ),
    (
        "/usr/share/AAVMF/AAVMF_CODE.fd",
        "/usr/share/AAVMF/AAVMF_VARS.fd",
    ),
];

impl Firmware {
    /// Finds firmware, as far as it was not said which.
    ///
    /// # Errors
    /// When there is none, or Secure Boot is asked for without variables that have a key.
    pub fn find(
        architecture: &str,
        secure_boot: SecureBoot,
        code: Option<&Path>,
        variables: Option<&Path>,
    ) -> Result<Self, Error> {
        if secure_boot == SecureBoot::On && variables.is_none() {
            return Err(Error::NoKeys);
        }
        let known: &[(&str, &str)] = if architecture == "arm64" {
            &ARM
        } else {
            &PLAIN
        };
        let pair = known
            .iter()
            .find(|(code, variables)| is_file(code) && is_file(variables));
        let installed = match secure_boot {
            SecureBoot::On => SECURE.iter().copied().find(|path| is_file(path)),
            SecureBoot::Off => pair.map(|(code, _)| *code),
        };
        let missing = match secure_boot {
            SecureBoot::On => "with Secure Boot ",
            SecureBoot::Off => "",
        };
        let given = |given: Option<&Path>, installed: Option<&str>| {
            let path = given
                .map(Path::to_owned)
                .or_else(|| installed.map(PathBuf::from));
            path.ok_or(Error::Missing(missing))
        };
        Ok(Self {
            code: given(code, installed)?,
            variables: given(variables, pair.map(|(_, variables)| *variables))?,
            secure_boot,
        })
    }

    /// What QEMU is told of it.
    pub(super) fn arguments(&self, variables: &Path) -> Vec<String> {
        let flash = |unit: u8, file: &Path, more: &str| {
            let file = escape(file);
            format!("if=pflash,unit={unit},format=raw{more},file={file}")
        };
        let mut words = vec![
            "-drive".to_owned(),
            flash(0, &self.code, ",readonly=on"),
            "-drive".to_owned(),
            flash(1, variables, ""),
        ];
        if self.secure_boot == SecureBoot::On {
            // Only system management mode may write the variables, and waking up from sleep is no way around it.
            for property in [
                "driver=cfi.pflash01,property=secure,value=on",
                "ICH9-LPC.disable_s3=1",
            ] {
                words.extend(["-global".to_owned(), property.to_owned()]);
            }
        }
        words
    }
}

fn is_file(path: &str) -> bool {
    Path::new(path).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_counts_and_secure_boot_needs_keys() {
        let (code, variables) = (Path::new("/x/code,1.fd"), Path::new("/x/variables.fd"));
        let find =
            |secure_boot, variables| Firmware::find("amd64", secure_boot, Some(code), variables);
        let found = find(SecureBoot::Off, Some(variables)).unwrap();
        assert_eq!((&*found.code, &*found.variables), (code, variables));
        let words = found.arguments(Path::new("/tmp/copy.fd"));
        assert_eq!(
            words,
            [
                "-drive",
                "if=pflash,unit=0,format=raw,readonly=on,file=/x/code,,1.fd",
                "-drive",
                "if=pflash,unit=1,format=raw,file=/tmp/copy.fd",
            ]
        );
        assert!(matches!(find(SecureBoot::On, None), Err(Error::NoKeys)));
        let secure = find(SecureBoot::On, Some(variables)).unwrap();
        let words = secure.arguments(variables);
        assert!(
            words.iter().any(|word| word.contains("secure,value=on")),
            "{words:?}"
        );
    }
}
