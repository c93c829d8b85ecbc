//! Runs the packages' maintainer scripts in the sandbox: each preinst, then dpkg's own configuring.
//!
//! It starts no service, makes no host keys and no initramfs: what differs from one host or one run
//! to the next does not belong into an image.

mod failure;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image_sandbox::{Emulator, Outcome, Ownership, Sandbox, Session, Status, hand_over};

use crate::unpack::{self, Diversions, Unpacked, database};

/// Tells scripts that services are not to be started (invoke-rc.d, policy 101).
const POLICY: &str = "usr/sbin/policy-rc.d";

/// Host keys that scripts make when they are missing.
const HOST_KEYS: [&str; 3] = ["rsa", "ecdsa", "ed25519"];

/// Output lines that an error shows.
const LINES: usize = 12;

/// Why packages could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] image_sandbox::Error),
    /// A package that diverts files could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// A maintainer script failed.
    #[error(
        "package `{package}`: its {script} script failed with {status}; its last words:\n{output}"
    )]
    Script {
        /// The package.
        package: String,
        /// Which script.
        script: String,
        /// How it ended.
        status: String,
        /// Its last lines.
        output: String,
    },
    /// dpkg failed otherwise.
    #[error("`dpkg --configure -a` ended with {status}; its last words:\n{output}")]
    Dpkg {
        /// How it ended.
        status: Status,
        /// Its last lines.
        output: String,
    },
    /// dpkg was content, but packages are not configured.
    #[error("packages are not configured: {}", packages.join(", "))]
    Unfinished {
        /// Their names.
        packages: Vec<String>,
    },
    /// A diversion came too late.
    #[error(
        "package `{package}` diverts `{path}`, which is already there; it cannot be part of the essential set"
    )]
    Diversion {
        /// The package that diverts.
        package: String,
        /// The path.
        path: String,
    },
    /// A file of the tree cannot be written or read.
    #[error("failed to prepare `{path}` in the tree")]
    Prepare {
        /// The path in the tree.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How scripts run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The executable that is the sandbox's helper: the builder itself.
    pub helper: PathBuf,
    /// The only clock of the build, in seconds since 1970.
    pub source_date: i64,
    /// Who runs the tree's programs, when they are of another processor than this computer's.
    pub emulator: Option<Emulator>,
}

impl Settings {
    /// Returns the sandbox for a tree.
    #[must_use]
    pub fn sandbox(&self, root: &Path) -> Sandbox {
        let mut sandbox = Sandbox::new(root, &self.helper);
        // One dpkg run configures everything, perhaps on a slow and busy computer.
        sandbox.deadline = Duration::from_mins(30);
        sandbox.emulator.clone_from(&self.emulator);
        for (name, value) in [
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            ("DEBCONF_NOWARNINGS", "yes"),
            // Hooks of kernel packages ask for it before they make an initramfs.
            ("INITRD", "No"),
            ("SOURCE_DATE_EPOCH", &self.source_date.to_string()),
            // Hashes are walked in the same order in every build.
            ("PERL_HASH_SEED", "0"),
            ("PERL_PERTURB_KEYS", "0"),
            ("PYTHONHASHSEED", "0"),
        ] {
            sandbox.env.push((name.into(), value.into()));
        }
        sandbox
    }
}

/// Runs one program in a finished tree, such as `depmod`.
///
/// # Errors
/// When the sandbox fails; a program that fails is told in the outcome.
pub fn run_in(
    root: &Path,
    owners: &mut Ownership,
    settings: &Settings,
    argv: &[&str],
) -> Result<Outcome, Error> {
    Ok(settings.sandbox(root).run(argv, owners)?)
}

/// Configures all packages of a tree.
///
/// # Errors
/// When a script fails: the error names the package, the script and its last words.
pub fn configure(mut unpacked: Unpacked, settings: &Settings) -> Result<Ownership, Error> {
    let root = unpacked.root().to_path_buf();
    let sandbox = settings.sandbox(&root);
    let masks = Masks::put_on(&root, unpacked.has("openssh-server"))?;
    let mut session = sandbox.enter(&unpacked.owners)?;
    if root.join("usr/sbin/ldconfig").exists() {
        let outcome = session.run(&["/usr/sbin/ldconfig"])?;
        check(&outcome, "libc-bin", "ldconfig")?;
    }
    for index in unpacked.order.sequence.clone() {
        run_preinst(&mut session, &unpacked, index)?;
        if unpacked.waiting.contains(&index) {
            session.leave(&mut unpacked.owners)?;
            let diversions = read_diversions(&root)?;
            unpacked.unpack_waiting(index, &diversions)?;
            session = sandbox.enter(&unpacked.owners)?;
        }
    }
    check_diversions(&unpacked, &read_diversions(&root)?)?;
    unpacked.write_database()?;
    hand_over(&root).map_err(|source| Error::Prepare {
        path: database::DIRECTORY.to_owned(),
        source,
    })?;
    let outcome = session.run(&["dpkg", "--configure", "-a"])?;
    session.leave(&mut unpacked.owners)?;
    masks.take_off()?;
    if !outcome.succeeded() {
        let text = String::from_utf8_lossy(&outcome.output);
        return Err(match failure::find(&text) {
            Some(found) => Error::Script {
                package: found.package,
                script: found.script,
                status: found.status,
                output: found.said,
            },
            None => Error::Dpkg {
                status: outcome.status,
                output: outcome.last_lines(LINES),
            },
        });
    }
    check_finished(&root)?;
    Ok(unpacked.owners)
}

/// Runs a package's preinst as dpkg would, before its files are used.
fn run_preinst(session: &mut Session, unpacked: &Unpacked, index: usize) -> Result<(), Error> {
    let Some(package) = unpacked.packages.get(index) else {
        return Ok(());
    };
    if package.text("preinst").is_none() {
        return Ok(());
    }
    let root = unpacked.root();
    let incoming = |source| Error::Prepare {
        path: format!("{}/tmp.ci", database::DIRECTORY),
        source,
    };
    database::write_incoming(root, package)
        .and_then(|directory| hand_over(&directory))
        .map_err(incoming)?;
    let dpkg = unpacked
        .packages
        .iter()
        .find(|package| package.name == "dpkg");
    let version = dpkg.map_or("", |dpkg| &dpkg.version);
    let env = [
        ("DPKG_MAINTSCRIPT_PACKAGE", &*package.name),
        ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
        ("DPKG_MAINTSCRIPT_ARCH", &package.architecture),
        ("DPKG_MAINTSCRIPT_NAME", "preinst"),
        ("DPKG_RUNNING_VERSION", version),
        ("DPKG_ADMINDIR", "/var/lib/dpkg"),
        ("DPKG_ROOT", ""),
    ]
    .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let outcome = session.run_with(&["/var/lib/dpkg/tmp.ci/preinst", "install"], &env)?;
    database::remove_incoming(root).map_err(incoming)?;
    check(&outcome, &package.name, "preinst")
}

fn check(outcome: &Outcome, package: &str, script: &str) -> Result<(), Error> {
    if outcome.succeeded() {
        return Ok(());
    }
    Err(Error::Script {
        package: package.to_owned(),
        script: script.to_owned(),
        status: outcome.status.to_string(),
        output: outcome.last_lines(LINES),
    })
}

fn read_diversions(root: &Path) -> Result<Diversions, Error> {
    Diversions::read(root).map_err(|source| Error::Prepare {
        path: format!("{}/diversions", database::DIRECTORY),
        source,
    })
}

/// Finds diversions of essential packages, which are unpacked before any script can run, that
/// would have moved a file of another package.
fn check_diversions(unpacked: &Unpacked, diversions: &Diversions) -> Result<(), Error> {
    for diversion in &diversions.0 {
        let diverter = unpacked
            .packages
            .iter()
            .position(|package| package.name == diversion.package);
        if diverter.is_some_and(|index| !unpacked.order.foundation.contains(&index)) {
            continue;
        }
        let path = diversion.path.as_bytes();
        if unpacked
            .holders(path)
            .any(|holder| holder.name != diversion.package)
        {
            return Err(Error::Diversion {
                package: diversion.package.clone(),
                path: diversion.path.clone(),
            });
        }
    }
    Ok(())
}

fn check_finished(root: &Path) -> Result<(), Error> {
    let path = format!("{}/status", database::DIRECTORY);
    let text = unpack::inside(root, &path)
        .and_then(fs::read_to_string)
        .map_err(|source| Error::Prepare { path, source })?;
    let packages: Vec<String> = deb_archive::deb822::stanzas(&text)
        .filter(|stanza| stanza.field("Status") != Some("install ok installed"))
        .filter_map(|stanza| stanza.field("Package").map(str::to_owned))
        .collect();
    if packages.is_empty() {
        Ok(())
    } else {
        Err(Error::Unfinished { packages })
    }
}

/// What keeps scripts from doing what an image must not hold.
#[derive(Debug)]
struct Masks<'a> {
    root: &'a Path,
    /// Files that are ours, by their path in the tree.
    paths: Vec<String>,
}

impl<'a> Masks<'a> {
    fn put_on(root: &'a Path, ssh: bool) -> Result<Self, Error> {
        let mut masks = Self {
            root,
            paths: Vec::new(),
        };
        masks.put(POLICY.to_owned(), "#!/bin/sh\nexit 101\n", 0o755)?;
        if ssh {
            // A key that is there is not made; these are taken away again.
            for kind in HOST_KEYS {
                masks.put(format!("etc/ssh/ssh_host_{kind}_key"), "", 0o600)?;
            }
        }
        Ok(masks)
    }

    fn put(&mut self, path: String, text: &str, mode: u32) -> Result<(), Error> {
        let write = || -> io::Result<bool> {
            let at = unpack::inside(self.root, &path)?;
            if fs::symlink_metadata(&at).is_ok() {
                return Ok(false);
            }
            fs::create_dir_all(at.parent().unwrap_or(self.root))?;
            let mut file = fs::File::create_new(&at)?;
            file.write_all(text.as_bytes())?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            Ok(true)
        };
        match write() {
            Ok(true) => {
                self.paths.push(path);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(source) => Err(Error::Prepare { path, source }),
        }
    }

    fn take_off(self) -> Result<(), Error> {
        for path in self.paths {
            // A script may have put a link where a directory was.
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let place = unpack::inside(self.root, directory);
            match place.and_then(|place| fs::remove_file(place.join(name))) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Prepare { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
