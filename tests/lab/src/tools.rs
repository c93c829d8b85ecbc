//! The programs and files that the lab needs, and the Debian package of each.
//!
//! It refuses to install anything unless asked to, and then only from Debian's own packages.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

use crate::firmware::Files;

/// What a tool is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To rack hosts.
    Rack,
    /// To run all tests.
    Tests,
}

const RACK: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("unshare", "util-linux"),
];

const TESTS: [(&str, &str); 44] = [
    ("age", "age"),
    ("ar", "binutils"),
    ("atftp", "atftp"),
    ("bmc-info", "freeipmi-tools"),
    ("cpio", "cpio"),
    ("crun", "crun"),
    ("curl", "curl"),
    ("dhclient", "isc-dhcp-client"),
    ("diff", "diffutils"),
    ("docker-registry", "docker-registry"),
    ("e2fsck", "e2fsprogs"),
    ("faketime", "faketime"),
    ("file", "file"),
    ("fsck.fat", "dosfstools"),
    ("g++", "g++"),
    ("gpg", "gpg"),
    ("gpg-agent", "gpg-agent"),
    ("gpgv", "gpgv"),
    ("ipmi-chassis", "freeipmi-tools"),
    ("ipmi_sim", "openipmi"),
    ("ipmipower", "freeipmi-tools"),
    ("ipmitool", "ipmitool"),
    ("jq", "jq"),
    ("mcopy", "mtools"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("openssl", "openssl"),
    ("perfdhcp", "kea-admin"),
    ("podman", "podman"),
    ("python3", "python3-venv"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("qemu-img", "qemu-utils"),
    ("runc", "runc"),
    ("sbverify", "sbsigntool"),
    ("setpriv", "util-linux"),
    ("sfdisk", "fdisk"),
    ("sgdisk", "gdisk"),
    ("skopeo", "skopeo"),
    ("sqlite3", "sqlite3"),
    ("udhcpc", "udhcpc"),
    ("umoci", "umoci"),
    ("unsquashfs", "squashfs-tools"),
    ("veritysetup", "cryptsetup-bin"),
    ("xz", "xz-utils"),
];

/// Why tools are not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Some are missing, and installing was not asked for or is not possible.
    #[error("missing: {}\n  help: {}", list(missing), remedy(missing, *root))]
    Missing {
        /// What is missing.
        missing: Vec<Tool>,
        /// Whether this is root, who may install.
        root: bool,
    },
    /// apt-get could not be run.
    #[error("failed to run `apt-get`")]
    Apt(#[source] io::Error),
    /// apt-get failed; it has said why.
    #[error("`apt-get {0}` failed")]
    Refused(String),
}

/// A program or file, and the package that brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name or path.
    pub name: String,
    /// The Debian package.
    pub package: &'static str,
}

/// Lists what is missing.
#[must_use]
pub fn missing(need: Need) -> Vec<Tool> {
    let tests: &[(&str, &'static str)] = match need {
        Need::Rack => &[],
        Need::Tests => &TESTS,
    };
    let programs = RACK
        .iter()
        .chain(tests)
        .filter(|(program, _)| find(program).is_none());
    let programs = programs.map(|(program, package)| Tool {
        name: (*program).to_owned(),
        package,
    });
    let files = Files::find();
    let files = [files.boot_rom(), files.ovmf_code(), files.ovmf_variables()];
    let files = files.into_iter().filter(|file| !file.path.is_file());
    programs
        .chain(files.map(|file| Tool {
            name: file.path.display().to_string(),
            package: file.package,
        }))
        .collect()
}

/// Makes sure that everything is there, installing it when that is asked for.
///
/// # Errors
/// Names all that is missing and the command that installs it.
pub fn ensure(need: Need, install: bool) -> Result<(), Error> {
    let found = missing(need);
    if found.is_empty() {
        return Ok(());
    }
    let root = geteuid().is_root();
    if !install || !root {
        return Err(Error::Missing {
            missing: found,
            root,
        });
    }
    eprintln!("lab: installing {}", packages(&found).join(" "));
    apt(&["update", "-qq"])?;
    let mut words = vec!["install", "-y", "-qq", "--no-install-recommends"];
    words.extend(packages(&found));
    apt(&words)?;
    let left = missing(need);
    if left.is_empty() {
        Ok(())
    } else {
        Err(Error::Missing {
            missing: left,
            root,
        })
    }
}

/// Finds a program as a shell would, and in the directories of the administrator's programs.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|folder| folder.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn apt(words: &[&str]) -> Result<(), Error> {
    let status = Command::new("apt-get")
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .map_err(Error::Apt)?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Refused(words.join(" ")))
    }
}

fn packages(missing: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn list(missing: &[Tool]) -> String {
    missing
        .iter()
        .map(|tool| format!("`{}`", tool.name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn remedy(missing: &[Tool], root: bool) -> String {
    let install = format!(
        "apt-get install --no-install-recommends {}",
        packages(missing).join(" ")
    );
    if root {
        format!("run `{install}`, or the same command with --install")
    } else {
        format!("run as root: {install}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_the_line_that_installs_it() {
        let missing = vec![
            Tool {
                name: "ssh".to_owned(),
                package: "openssh-client",
            },
            Tool {
                name: "ip".to_owned(),
                package: "iproute2",
            },
            Tool {
                name: "ssh-keygen".to_owned(),
                package: "openssh-client",
            },
        ];
        let text = Error::Missing {
            missing,
            root: false,
        }
        .to_string();
        assert!(
            text.starts_with("missing: `ssh`, `ip`, `ssh-keygen`"),
            "{text}"
        );
        assert!(
            text.ends_with("apt-get install --no-install-recommends iproute2 openssh-client"),
            "{text}"
        );
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
