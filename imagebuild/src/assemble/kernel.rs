//! The kernel of an image: extracted from its packages, with the modules and the firmware that the
//! definition keeps.
//!
//! It refuses to install the packages: their scripts make an initramfs and boot entries.

mod known;
mod select;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use image_tree::kernel::{FirmwareFile, Modules, keep_firmware};

use serde::{Deserialize, Serialize};

use super::extract::{Extracted, Taken, extract};
use super::root::Root;
use super::{Build, Error};
use crate::configure;
use crate::definition::Kernel;
use crate::lock::Use;
use known::{Known, Place};
use select::{Contents, Selected, read_all};

/// Where modules and firmware stand in packages, before and after the merge of `/usr`.
const MODULES: [&str; 2] = ["usr/lib/modules/", "lib/modules/"];
const FIRMWARE: [&str; 2] = ["usr/lib/firmware/", "lib/firmware/"];
const IMAGE: &str = "boot/vmlinuz-";
/// What the kernel's package says about its modules and `depmod` reads.
const LISTS: [&str; 3] = [
    "modules.builtin",
    "modules.builtin.modinfo",
    "modules.order",
];
/// Lines of `depmod` that an error shows.
const LINES: usize = 12;

/// A kernel taken out of its packages, with what the tree keeps of them.
#[derive(Debug)]
pub(super) struct TakenKernel {
    brought: Brought,
    selected: Selected,
    /// Kept firmware, by path below its directory.
    firmware: Extracted,
}

/// A kernel whose modules stand in the tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InstalledKernel {
    pub(super) release: String,
    /// The kernel itself.
    pub(super) image: PathBuf,
    /// The index of the initrd's modules, as stage1 reads it.
    pub(super) index: String,
    /// The modules of the initrd, by path below their directory, and where each of them stands in the tree.
    pub(super) modules: Vec<(String, String)>,
    /// Firmware that the modules of the initrd name: their devices need it before there is a root.
    pub(super) firmware: Vec<(String, Firmware)>,
}

/// A path of firmware in the initrd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Firmware {
    /// A file, and where it stands in the tree.
    File(String),
    /// A link, and where it points.
    Link(String),
}

impl InstalledKernel {
    /// Where a module stands in the initrd.
    pub(super) fn place(&self, path: &str) -> String {
        place_of(&self.release, path)
    }
}

fn place_of(release: &str, path: &str) -> String {
    format!("lib/modules/{release}/{path}")
}

/// Takes the kernel and the firmware out of their packages and selects what is kept.
///
/// It needs no tree, so it runs beside the installation of packages.
pub(super) fn take(build: &Build<'_>, kernel: &Kernel) -> Result<TakenKernel, Error> {
    tracing::info!(
        step = "kernel",
        package = kernel.package,
        "taking the kernel"
    );
    let packages = build.of(Use::Kernel);
    let place = Place::of(&build.options.modules, &build.plan.builder, packages);
    let known = place.find();
    let known = known.and_then(|known| {
        let taken = take_known(build, kernel, &known);
        let told = |error: &Error| {
            let error = error as &dyn std::error::Error;
            tracing::debug!(error, "what is known about the modules does not do");
        };
        taken.inspect_err(told).ok()
    });
    let (brought, selected) = match known {
        Some(taken) => taken,
        None => take_all(build, kernel, &place)?,
    };
    let firmware = take_firmware(build, &selected.modules)?;
    tracing::info!(
        step = "kernel",
        modules = selected.modules.iter().count(),
        initrd = selected.initrd.iter().count(),
        firmware = firmware.len(),
        "selected modules"
    );
    Ok(TakenKernel {
        brought,
        selected,
        firmware,
    })
}

impl TakenKernel {
    /// Puts modules and firmware into the tree, and indexes them.
    pub(super) fn install(
        self,
        build: &Build<'_>,
        root: &mut Root<'_>,
    ) -> Result<InstalledKernel, Error> {
        let Self {
            brought,
            selected,
            firmware: taken_firmware,
        } = self;
        let Brought {
            release,
            image,
            files,
        } = brought;
        let directory = format!("usr/lib/modules/{release}");
        for (path, file) in files.iter().filter(|(path, _)| selected.keeps(path)) {
            place(root, &format!("{directory}/{path}"), file)?;
        }
        for (path, taken) in &taken_firmware {
            let path = format!("{}{path}", FIRMWARE[0]);
            match taken {
                Taken::File(file) => place(root, &path, file)?,
                Taken::Link(target) => {
                    let linked = root.link(&path, target, (0, 0));
                    linked.map_err(|source| Error::Place { path, source })?;
                }
            }
        }
        tracing::info!(step = "kernel", release, "indexing modules");
        run_depmod(build, &release, root)?;
        let mut initrd_firmware = taken_firmware;
        keep(&mut initrd_firmware, &selected.initrd);
        // A script may have left links in the tree, which lead elsewhere from here.
        let firmware = initrd_firmware.into_iter().map(|(path, taken)| {
            let firmware = match taken {
                Taken::File(_) => Firmware::File(find(root, format!("{}{path}", FIRMWARE[0]))?),
                Taken::Link(target) => Firmware::Link(target),
            };
            Ok((path, firmware))
        });
        let modules = selected.initrd.iter().map(|(_, path, _)| {
            let place = find(root, format!("{directory}/{path}"))?;
            Ok((path.to_owned(), place))
        });
        let modules = modules.collect::<Result<_, Error>>()?;
        let firmware = firmware.collect::<Result<_, Error>>()?;
        let place = |path: &str| format!("/{}", place_of(&release, path));
        Ok(InstalledKernel {
            index: selected.initrd.index(place),
            image,
            modules,
            firmware,
            release,
        })
    }
}

/// Finds a file of the tree that was placed there: its path in the tree, with every link followed.
fn find(root: &Root<'_>, path: String) -> Result<String, Error> {
    let found = root.find(&path).and_then(|found| {
        let top = root.path().canonicalize()?;
        let below = found.strip_prefix(top).ok().and_then(Path::to_str);
        below
            .map(str::to_owned)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    });
    found.map_err(|source| Error::Place { path, source })
}

/// Strips a prefix, in either spelling.
fn below<'a>(prefixes: &[&str], path: &'a str) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| path.strip_prefix(prefix))
}

/// Takes the modules that are kept out of the packages, by what an earlier build learned of them.
fn take_known(
    build: &Build<'_>,
    kernel: &Kernel,
    known: &Known,
) -> Result<(Brought, Selected), Error> {
    let read = |paths: &[&str]| paths.iter().map(|path| known.module(path)).collect();
    let selected = known.contents.select(kernel, read)?;
    let files = extract_files(build, kernel, "kernel-known", |path| selected.keeps(path))?;
    Ok((files, selected))
}

/// Takes all modules out of the packages, and keeps what they say.
fn take_all(
    build: &Build<'_>,
    kernel: &Kernel,
    place: &Place,
) -> Result<(Brought, Selected), Error> {
    let files = extract_files(build, kernel, "kernel", |_| true)?;
    let contents = Contents::of(&files);
    let file = |path: &str| {
        let known = &files.files;
        let at = known.binary_search_by(|(known, _)| known.as_str().cmp(path));
        at.map_or_else(|_| PathBuf::new(), |at| known[at].1.clone())
    };
    let selected = contents.select(kernel, |paths| read_all(paths, file))?;
    place.keep(&contents, &selected);
    Ok((files, selected))
}

/// A kernel as it stands in the workspace.
#[derive(Debug)]
struct Brought {
    release: String,
    image: PathBuf,
    /// Files below the directory of modules, sorted by path.
    files: Vec<(String, PathBuf)>,
}

/// Takes the kernel out of its packages, and of the files below the directory of its modules what is wanted.
fn extract_files(
    build: &Build<'_>,
    kernel: &Kernel,
    directory: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Brought, Error> {
    let into = build.work.join(directory);
    let mut extracted = Extracted::new();
    for package in build.of(Use::Kernel) {
        let wanted = |path: &str| {
            let module = below(&MODULES, path).and_then(|path| path.split_once('/'));
            path.starts_with(IMAGE) || module.is_some_and(|(_, path)| wanted(path))
        };
        extracted.extend(extract(build, package, &into, wanted)?);
    }
    let (release, image) = find_image(kernel, &extracted)?;
    let files = extracted.into_iter().filter_map(|(path, taken)| {
        let path = below(&MODULES, &path)?.strip_prefix(&release)?;
        match taken {
            Taken::File(file) => Some((path.strip_prefix('/')?.to_owned(), file)),
            Taken::Link(_) => None,
        }
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    Ok(Brought {
        release,
        image,
        files,
    })
}

/// Finds the one kernel, and its release in its name.
fn find_image(kernel: &Kernel, extracted: &Extracted) -> Result<(String, PathBuf), Error> {
    let images = extracted.iter().filter_map(|(path, taken)| match taken {
        Taken::File(file) => Some((path.strip_prefix(IMAGE)?.to_owned(), file.clone())),
        Taken::Link(_) => None,
    });
    let mut images: Vec<_> = images.collect();
    match (images.pop(), images.len()) {
        (Some(image), 0) => Ok(image),
        (_, more) => Err(Error::Kernels {
            package: kernel.package.clone(),
            found: if more == 0 { 0 } else { more + 1 },
        }),
    }
}

/// Moves an extracted file into the tree.
fn place(root: &mut Root<'_>, path: &str, file: &Path) -> Result<(), Error> {
    let failed = |source| Error::Place {
        path: path.to_owned(),
        source,
    };
    let moved = || -> io::Result<()> {
        if let Some((directory, _)) = path.rsplit_once('/') {
            root.make_directory(directory)?;
        }
        let place = root.locate(path)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
        fs::rename(file, place)
    };
    moved().map_err(failed)
}

/// Takes the firmware out of its packages that the kept modules name.
fn take_firmware(build: &Build<'_>, modules: &Modules) -> Result<Extracted, Error> {
    let mut extracted = Extracted::new();
    for package in build.of(Use::Firmware) {
        let wanted = |path: &str| below(&FIRMWARE, path).is_some();
        let into = build.work.join("firmware");
        let taken = extract(build, package, &into, wanted)?.into_iter();
        extracted.extend(
            taken.filter_map(|(path, taken)| Some((below(&FIRMWARE, &path)?.to_owned(), taken))),
        );
    }
    keep(&mut extracted, modules);
    Ok(extracted)
}

/// Keeps the firmware that modules name, and the links on the way to it.
fn keep(firmware: &mut Extracted, modules: &Modules) {
    let files = firmware.iter().map(|(path, taken)| FirmwareFile {
        path: path.clone(),
        target: match taken {
            Taken::File(_) => None,
            Taken::Link(target) => Some(target.clone()),
        },
    });
    let kept = keep_firmware(&files.collect::<Vec<_>>(), modules.firmware());
    firmware.retain(|path, _| kept.contains(path));
}

/// Makes the indexes that `modprobe` reads, by the image's own `depmod`.
fn run_depmod(build: &Build<'_>, release: &str, root: &mut Root<'_>) -> Result<(), Error> {
    let program = ["usr/sbin/depmod", "sbin/depmod"].into_iter().find(|path| {
        let place = root.locate(path);
        place.is_ok_and(|place| place.symlink_metadata().is_ok())
    });
    let program = format!("/{}", program.ok_or(Error::NoDepmod)?);
    let path = root.path().to_owned();
    let argv = [program.as_str(), release];
    let outcome = configure::run_in(&path, root.owners(), &build.settings(), &argv)?;
    if outcome.succeeded() {
        return Ok(());
    }
    Err(Error::Depmod {
        release: release.to_owned(),
        status: outcome.status.to_string(),
        output: outcome.last_lines(LINES),
    })
}
