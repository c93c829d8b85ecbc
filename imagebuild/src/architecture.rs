//! Architectures: which one this program is of, and who runs programs of the others.
//!
//! It refuses to guess: an architecture that is not in its table is built on a computer of that architecture.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use image_sandbox::{Emulator, Machine};

/// Debian's name of the architecture that this program was built for, and that its stage1 is of.
pub const OWN: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    env::consts::ARCH
};

/// Variable that names the emulator.
pub const VARIABLE: &str = "IMAGEBUILD_EMULATOR";

/// Debian's names, QEMU's, and what programs of each say in their heads (ELF `e_machine`, 64 bits little-endian all).
const KNOWN: [(&str, &str, u16); 4] = [
    ("amd64", "x86_64", 62),
    ("arm64", "aarch64", 183),
    ("ppc64el", "ppc64le", 21),
    ("riscv64", "riscv64", 243),
];

/// Why programs of an architecture do not run here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is known about it.
    #[error(
        "an image for `{0}` can only be built on a computer of that architecture, this is `{OWN}`"
    )]
    Unknown(String),
    /// The emulator is not installed.
    #[error(
        "programs of `{architecture}` do not run here without `{program}`: install it, on Debian `qemu-user-static`, or name it with `{VARIABLE}`"
    )]
    NoEmulator {
        /// The architecture.
        architecture: String,
        /// What was looked for.
        program: String,
    },
}

/// Finds what runs the programs of an architecture; nothing is needed for our own.
///
/// # Errors
/// When it is not installed, or nothing is known about the architecture.
pub fn emulator(architecture: &str) -> Result<Option<Emulator>, Error> {
    let given = env::var_os(VARIABLE).filter(|name| !name.is_empty());
    let path = env::var_os("PATH").unwrap_or_default();
    find(architecture, OWN, given.map(PathBuf::from), &path)
}

fn find(
    architecture: &str,
    own: &str,
    given: Option<PathBuf>,
    path: &OsStr,
) -> Result<Option<Emulator>, Error> {
    if architecture == own {
        return Ok(None);
    }
    let known = KNOWN.iter().find(|(debian, ..)| *debian == architecture);
    let Some((_, qemu, machine)) = known else {
        return Err(Error::Unknown(architecture.to_owned()));
    };
    // Inside the sandbox is no library for it, so the static one comes first; from Debian 13 on the plain one is static.
    let names = [format!("qemu-{qemu}-static"), format!("qemu-{qemu}")];
    let found = || {
        let folders: Vec<PathBuf> = env::split_paths(path).collect();
        let places = names
            .iter()
            .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        places.into_iter().find(|place| place.is_file())
    };
    let program = given.or_else(found);
    let program = program.ok_or_else(|| Error::NoEmulator {
        architecture: architecture.to_owned(),
        program: names[0].clone(),
    })?;
    Ok(Some(Emulator {
        program: absolute(&program),
        machine: Machine(*machine),
    }))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_static_emulator_comes_first_and_an_absent_one_is_named() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let path = env::join_paths(folders.iter().map(tempfile::TempDir::path)).unwrap();
        let find = |architecture, given| find(architecture, "amd64", given, &path);
        assert!(matches!(find("amd64", None), Ok(None)));
        let absent = find("arm64", None).unwrap_err().to_string();
        assert!(absent.contains("`qemu-aarch64-static`"), "{absent}");
        assert!(matches!(find("sparc64", None), Err(Error::Unknown(_))));
        let [plain, fixed] = [(0, "qemu-aarch64"), (1, "qemu-aarch64-static")].map(|(at, name)| {
            let path = folders[at].path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        });
        assert_eq!(find("arm64", None).unwrap().unwrap().program, fixed);
        std::fs::remove_file(fixed).unwrap();
        assert_eq!(find("arm64", None).unwrap().unwrap().program, plain);
        let own = PathBuf::from("/opt/qemu");
        assert_eq!(
            find("arm64", Some(own.clone())).unwrap().unwrap().program,
            own
        );
    }
}
