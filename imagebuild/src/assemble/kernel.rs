//! The kernel of an image: extracted from its packages, with the modules and the firmware that the
//! definition keeps.
//!
//! It refuses to install the packages: their scripts make an initramfs and boot entries.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use image_tree::kernel::{
    FirmwareFile, Modinfo, ModuleError, Modules, Patterns, keep_firmware, module_name, select,
    unpack_module,
};

use serde::{Deserialize, Serialize};

use super::extract::{Extracted, Taken, extract};
use super::root::Root;
use super::{Build, Error};
use crate::configure;
use crate::definition::Kernel;
use crate::lock::Use;

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
    release: String,
    image: PathBuf,
    /// Files below the directory of modules, sorted by path.
    files: Vec<(String, PathBuf)>,
    modules: Modules,
    initrd_modules: Modules,
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
    let mut extracted = Extracted::new();
    for package in build.of(Use::Kernel) {
        let wanted = |path: &str| path.starts_with(IMAGE) || below(&MODULES, path).is_some();
        extracted.extend(extract(build, package, &build.work.join("kernel"), wanted)?);
    }
    let (release, image) = find_image(kernel, &extracted)?;
    let mut files: Vec<(String, PathBuf)> = extracted
        .iter()
        .filter_map(|(path, taken)| match taken {
            Taken::File(file) => {
                let path = below(&MODULES, path)?
                    .strip_prefix(&release)?
                    .strip_prefix('/')?;
                Some((path.to_owned(), file.clone()))
            }
            Taken::Link(_) => None,
        })
        .collect();
    files.sort();
    let modules = select_modules(kernel, &release, &files)?;
    let initrd_modules = select_for_initrd(kernel, &release, &files, &modules)?;
    let firmware = take_firmware(build, &modules)?;
    tracing::info!(
        step = "kernel",
        modules = modules.iter().count(),
        initrd = initrd_modules.iter().count(),
        firmware = firmware.len(),
        "selected modules"
    );
    Ok(TakenKernel {
        release,
        image,
        files,
        modules,
        initrd_modules,
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
        let Self { release, files, .. } = self;
        let directory = format!("usr/lib/modules/{release}");
        let kept = |path: &str| {
            let module = module_name(path).and_then(|name| self.modules.get(&name));
            LISTS.contains(&path) || module.is_some_and(|(kept, _)| kept == path)
        };
        for (path, file) in files.iter().filter(|(path, _)| kept(path)) {
            place(root, &format!("{directory}/{path}"), file)?;
        }
        for (path, taken) in &self.firmware {
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
        let mut initrd_firmware = self.firmware;
        keep(&mut initrd_firmware, &self.initrd_modules);
        // A script may have left links in the tree, which lead elsewhere from here.
        let firmware = initrd_firmware.into_iter().map(|(path, taken)| {
            let firmware = match taken {
                Taken::File(_) => Firmware::File(find(root, format!("{}{path}", FIRMWARE[0]))?),
                Taken::Link(target) => Firmware::Link(target),
            };
            Ok((path, firmware))
        });
        let modules = self.initrd_modules.iter().map(|(_, path, _)| {
            let place = find(root, format!("{directory}/{path}"))?;
            Ok((path.to_owned(), place))
        });
        let modules = modules.collect::<Result<_, Error>>()?;
        let firmware = firmware.collect::<Result<_, Error>>()?;
        let place = |path: &str| format!("/{}", place_of(&release, path));
        Ok(InstalledKernel {
            index: self.initrd_modules.index(place),
            image: self.image,
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

fn built_in(files: &[(String, PathBuf)]) -> Vec<String> {
    let list = files.iter().find(|(path, _)| path == "modules.builtin");
    let text = list.and_then(|(_, file)| fs::read_to_string(file).ok());
    let text = text.unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn select_modules(
    kernel: &Kernel,
    release: &str,
    files: &[(String, PathBuf)],
) -> Result<Modules, Error> {
    let paths: Vec<String> = files
        .iter()
        .map(|(path, _)| path.clone())
        .filter(|path| module_name(path).is_some())
        .collect();
    let file = |path: &str| {
        let at = files.binary_search_by(|(known, _)| known.as_str().cmp(path));
        at.map_or_else(|_| PathBuf::new(), |at| files[at].1.clone())
    };
    let patterns = Patterns {
        keep: &kernel.modules,
        exclude: &kernel.exclude_modules,
    };
    let selected = select(&paths, &built_in(files), patterns, |paths| {
        read_all(paths, file)
    });
    selected.map_err(|source| Error::Modules {
        release: release.to_owned(),
        source,
    })
}

/// Selects the modules of the initrd among those of the tree.
fn select_for_initrd(
    kernel: &Kernel,
    release: &str,
    files: &[(String, PathBuf)],
    modules: &Modules,
) -> Result<Modules, Error> {
    let paths: Vec<String> = modules.iter().map(|(_, path, _)| path.to_owned()).collect();
    let patterns = Patterns {
        keep: &kernel.initrd_modules,
        exclude: &[],
    };
    let selected = select(&paths, &built_in(files), patterns, |paths| {
        // What the modules say is known already.
        let known = paths.iter().map(|path| {
            let name = module_name(path).unwrap_or_default();
            let known = modules.get(&name).map(|(_, info)| info.clone());
            Ok(known.unwrap_or_default())
        });
        known.collect()
    });
    selected.map_err(|source| Error::Modules {
        release: release.to_owned(),
        source,
    })
}

/// Reads what modules say about themselves, on as many threads as there are processors.
fn read_all(
    paths: &[&str],
    file: impl Fn(&str) -> PathBuf + Sync,
) -> Vec<Result<Modinfo, ModuleError>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = paths.len().div_ceil(threads).max(1);
    let read = |path: &&str| {
        let bytes = read_module(path, &file(path))?;
        Modinfo::parse(path, &bytes)
    };
    thread::scope(|scope| {
        let shares = paths.chunks(share);
        let workers: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(read).collect::<Vec<_>>()))
            .collect();
        let joined = workers.into_iter().flat_map(|worker| match worker.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

/// Reads and unpacks a module.
fn read_module(path: &str, file: &Path) -> Result<Vec<u8>, ModuleError> {
    let bytes = fs::read(file).map_err(|source| ModuleError::Unpack {
        path: path.to_owned(),
        source,
    })?;
    unpack_module(path, &bytes)
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
