//! Assembles a locked image: a plan, then its steps, then artifacts in the store.
//!
//! It refuses to fetch and to resolve: packages come in as files that were checked against the
//! lock. It takes no time, no name and no number from the computer that it runs on: what it writes
//! follows from the lock, the definition, this program and the stage1 that it carries.

mod artifacts;
mod configured;
mod describe;
pub(crate) mod disk;
mod draft;
mod extract;
mod files;
mod initrd;
mod inputs;
mod kernel;
mod loaders;
mod locales;
mod plan;
mod root;
#[cfg(test)]
mod tests;
mod units;
mod users;
mod workspace;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use image_manifest::layout::{self, Layout};
use image_manifest::{Digest, Kernel, Manifest, Role};
use image_sandbox::{DeviceKind, Emulator, Ownership};
use image_tree::{Device, Kind, Owner, ScanError, Tree, cpio, kernel as modules, squashfs};

use crate::architecture;
use crate::configure::{self, Settings};
use crate::decoded::Decoded;
use crate::definition::Output;
use crate::fetch::FetchedPackage;
use crate::forms;
use crate::layers::{self, Kept, Parent};
use crate::lock::{Locked, Use};
use crate::sign::KeyError;
use crate::{facts, gc, normalise, provenance, unpack};
use artifacts::Artifacts;
use configured::Configured;
use describe::Documents;
pub use describe::OverBudget;
use draft::Draft;
use kernel::InstalledKernel;
pub use plan::{Plan, Step};
use workspace::Workspace;

/// How a plan is carried out; nothing of it shows in the image.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory below which the workspace is made; it needs room for the whole tree.
    pub work: PathBuf,
    /// The executable that is the sandbox's helper: this program.
    pub helper: PathBuf,
    /// Who runs the image's programs, when they are of another processor than this computer's.
    pub emulator: Option<Emulator>,
    /// How many threads compress.
    pub threads: usize,
    /// Directory in which is kept what is known about earlier layers.
    pub layers: PathBuf,
    /// Directory in which is kept what packages say about themselves.
    pub facts: PathBuf,
    /// Directory in which packages are kept that are quick to read; it may be deleted at any time.
    pub decoded: PathBuf,
    /// Directory in which configured trees are kept; it may be deleted at any time.
    pub configured: PathBuf,
    /// Whether one of them is used.
    pub reuse: Reuse,
}

/// Whether a build uses the tree that an earlier one configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Where it was made from the same.
    Earlier,
    /// Never: maintainer scripts run.
    Nothing,
}

/// Where configured trees are kept, in a cache.
#[must_use]
pub fn configured_directory(cache: &Path) -> PathBuf {
    cache.join(gc::CONFIGURED)
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Digest that the image is asked for by.
    pub digest: Digest,
    /// The list of its artifacts.
    pub manifest: Manifest,
}

/// Why an image could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that the definition brings could not be read.
    #[error("failed to read `{}`", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The workspace could not be made.
    #[error("failed to make a workspace in `{}`", path.display())]
    Workspace {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file in the workspace could not be read or written.
    #[error("failed to write `{}` in the workspace", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or link of the definition could not be put into the tree.
    #[error("failed to put `/{path}` into the tree")]
    Place {
        /// Where it belongs.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Packages could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// Packages could not be configured.
    #[error(transparent)]
    Configure(#[from] configure::Error),
    /// What differs from build to build could not be removed.
    #[error(transparent)]
    Normalise(#[from] normalise::Error),
    /// A package could not be extracted.
    #[error("failed to extract package `{package}`")]
    Extract {
        /// The package.
        package: String,
        /// Why.
        source: extract::Error,
    },
    /// The kernel's packages hold no kernel, or several.
    #[error("{found} kernels in the packages of kernel `{package}`, where there should be one")]
    Kernels {
        /// The package that was asked for.
        package: String,
        /// How many there are.
        found: usize,
    },
    /// Kernel modules could not be selected.
    #[error("failed to select the modules of kernel {release}")]
    Modules {
        /// The kernel's release.
        release: String,
        /// Why.
        source: modules::SelectError<modules::ModuleError>,
    },
    /// The module index could not be made.
    #[error("`depmod {release}` ended with {status}; its last words:\n{output}")]
    Depmod {
        /// The kernel's release.
        release: String,
        /// How it ended.
        status: String,
        /// Its last lines.
        output: String,
    },
    /// The initrd would need a stage1 of another architecture.
    #[error(
        "an image with a kernel for `{0}` is built on a computer of that architecture: this program has the stage1 of `{own}` only",
        own = architecture::OWN
    )]
    NoStage1(String),
    /// The image has a kernel but not the program that indexes its modules.
    #[error("the image has a kernel and no `depmod`: install the package `kmod`")]
    NoDepmod,
    /// The image does not know its own time zone.
    #[error(
        "the image has no time zone `{0}`: install the package `tzdata`, or `tzdata-legacy` for an old name"
    )]
    NoTimezone(String),
    /// The image has not what locales are made of.
    #[error(
        "the image cannot make locales: install the package `locales`, and keep `usr/share/i18n`"
    )]
    NoLocales,
    /// A locale could not be made.
    #[error("`localedef` of `{locale}` ended with {status}; its last words:\n{output}")]
    Localedef {
        /// The locale.
        locale: String,
        /// How it ended.
        status: String,
        /// Its last lines.
        output: String,
    },
    /// The key of the definition cannot be used.
    #[error(transparent)]
    Key(KeyError),
    /// Packages could not be read again.
    #[error(transparent)]
    Facts(facts::Error),
    /// The statement about the build could not be written.
    #[error("failed to write the provenance")]
    Provenance(#[source] provenance::Error),
    /// The image is too large.
    #[error(transparent)]
    Budget(describe::OverBudget),
    /// A loader is not in its packages.
    #[error("no package has the file `{path}` of loader `{name}`")]
    NoLoader {
        /// The loader.
        name: String,
        /// The path that was asked for.
        path: String,
    },
    /// Users could not be added.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// Units could not be enabled.
    #[error(transparent)]
    Units(#[from] units::Error),
    /// A file that packages brought is no file any more.
    #[error("`/{0}` is no regular file in the finished tree")]
    NoFile(String),
    /// The tree could not be read.
    #[error("failed to read the configured tree")]
    Scan(#[source] ScanError),
    /// A path cannot be in the tree.
    #[error("failed to make the tree")]
    Tree(#[source] image_tree::PathError),
    /// The root file system could not be written.
    #[error("failed to write the root file system")]
    Rootfs(#[source] squashfs::WriteError),
    /// The packages of systemd do not have a program that a disk needs.
    #[error("no package has `{0}`, which starts the disk")]
    NoBootProgram(String),
    /// The image does not say what it is.
    #[error("the image has no `usr/lib/os-release`: install the package `base-files`")]
    NoOsRelease,
    /// The program for UEFI could not be written.
    #[error("failed to write the program for UEFI")]
    Uki(#[source] image_disk::pe::Error),
    /// The disk could not be composed.
    #[error("failed to compose the disk")]
    Disk(#[source] forms::Error),
    /// The initrd could not be written.
    #[error("failed to write the initrd")]
    Initrd(#[source] cpio::WriteError),
    /// The layers of the container image could not be made.
    #[error(transparent)]
    Layers(#[from] layers::Error),
    /// The store could not be written.
    #[error("failed to put the image into the store")]
    Store(#[source] layout::Error),
}

impl Error {
    /// Whether the definition asks for something that is not there, so that a retry gives the same.
    #[must_use]
    pub fn is_of_the_definition(&self) -> bool {
        if let Self::Layers(error) = self {
            return error.is_of_the_definition();
        }
        matches!(
            self,
            Self::Source { .. }
                | Self::Kernels { .. }
                | Self::Modules {
                    source: modules::SelectError::Unmatched { .. },
                    ..
                }
                | Self::NoStage1(_)
                | Self::NoDepmod
                | Self::NoTimezone(_)
                | Self::NoLocales
                | Self::Key(_)
                | Self::Budget(_)
                | Self::NoLoader { .. }
                | Self::NoOsRelease
                | Self::Disk(forms::Error::Plan(_))
                | Self::Users(
                    users::Error::Absent { .. }
                        | users::Error::Taken { .. }
                        | users::Error::Unknown { .. }
                )
                | Self::Units(
                    units::Error::Unknown { .. }
                        | units::Error::Static { .. }
                        | units::Error::Template { .. }
                )
        )
    }
}

/// Carries out a plan: makes the image and puts it into the store, or changes nothing there.
///
/// # Errors
/// When a step fails; the workspace is removed and the store has at most files that no image names.
pub fn execute(
    plan: &Plan,
    locked: &Locked,
    packages: &[FetchedPackage],
    parents: &[Parent],
    store: &Layout,
    options: &Options,
) -> Result<Built, Error> {
    let workspace = Workspace::make(&options.work).map_err(|source| Error::Workspace {
        path: options.work.clone(),
        source,
    })?;
    let decoded = Decoded::new(&options.decoded);
    let build = Build {
        plan,
        locked,
        packages,
        decoded: &decoded,
        options,
        work: workspace.path(),
    };
    let writer = layers::Writer {
        store,
        cache: &options.layers,
        threads: options.threads,
    };
    let is_container = locked.definition().outputs.contains(&Output::Oci);
    let (documents, tree, layers, made) = thread::scope(|scope| {
        let above = scope.spawn(|| build_parents(parents, &writer, &build));
        let said = scope.spawn(|| Documents::read(locked, packages, &options.facts, &decoded));
        let (tree, configured) = build.tree()?;
        let (layers, made) = thread::scope(|scope| {
            let layers = scope.spawn(|| match (join(above)?, is_container) {
                (above, true) => Ok(writer.image(plan, above.as_ref(), &tree)?),
                (_, false) => Ok::<_, Error>(Vec::new()),
            });
            let made = build.artifacts(&tree, configured);
            (join(layers), made)
        });
        Ok::<_, Error>((join(said)?, tree, layers?, made?))
    })?;
    decoded.bound();
    let Made {
        artifacts,
        kernel,
        disk,
    } = made;
    tracing::info!(image = plan.name, digest = %tree.digest(), "storing");
    let mut manifest = Manifest {
        schema: Manifest::SCHEMA,
        name: plan.name.clone(),
        architecture: plan.architecture.clone(),
        distribution: plan.distribution.clone(),
        tree: tree.digest(),
        lock: plan.lock,
        inputs: plan.inputs,
        source_date: plan.source_date,
        builder: plan.builder.clone(),
        kernel,
        disk: disk.as_ref().map(|made| made.disk.clone()),
        forms: disk.map(|made| made.forms).unwrap_or_default(),
        layers,
        artifacts: artifacts.store(store)?,
    };
    documents.check_budget(&tree, &manifest, store)?;
    documents.add(&mut manifest, store)?;
    let mut subjects = Vec::new();
    if is_container {
        for entry in layers::compose(store, locked.definition(), &manifest)? {
            store.enter(&entry).map_err(Error::Store)?;
            subjects.push(entry.digest);
        }
    }
    let digest = store.publish(&manifest).map_err(Error::Store)?;
    subjects.push(digest);
    describe::attach(&manifest, &subjects, store)?;
    Ok(Built { digest, manifest })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Builds the parents that are not known yet, as far as layers need it: no more of them than their trees.
fn build_parents(
    parents: &[Parent],
    writer: &layers::Writer<'_>,
    below: &Build<'_>,
) -> Result<Option<Kept>, Error> {
    let mut above: Option<Kept> = None;
    for parent in parents {
        if let Some(kept) = &parent.kept {
            above = Some(kept.clone());
            continue;
        }
        let work = below.work.join(format!("parent-{}", parent.plan.name));
        fs::create_dir(&work).map_err(|source| Error::Write {
            path: work.clone(),
            source,
        })?;
        tracing::info!(image = parent.plan.name, "building a parent for its layer");
        let build = Build {
            plan: &parent.plan,
            locked: &parent.locked,
            packages: &parent.packages,
            work: &work,
            ..*below
        };
        let (tree, _) = build.tree()?;
        above = Some(writer.parent(&parent.plan, above.as_ref(), &tree)?);
    }
    Ok(above)
}

/// What a build has made.
struct Made {
    artifacts: Artifacts,
    kernel: Option<Kernel>,
    disk: Option<disk::Made>,
}

/// One build on its way.
struct Build<'a> {
    plan: &'a Plan,
    locked: &'a Locked,
    packages: &'a [FetchedPackage],
    decoded: &'a Decoded,
    options: &'a Options,
    work: &'a Path,
}

impl Build<'_> {
    /// Makes the tree: the configured one, and the definition laid over it.
    fn tree(&self) -> Result<(Tree, Configured), Error> {
        let configured = Configured::of(self)?;
        let mut tree = configured.tree.clone();
        let definition = self.locked.definition();
        let mut draft = Draft::new(&mut tree);
        files::apply(definition, self.plan.source_date, self.work, &mut draft)?;
        Ok((tree, configured))
    }

    /// Makes all artifacts of a tree.
    fn artifacts(&self, tree: &Tree, configured: Configured) -> Result<Made, Error> {
        let definition = self.locked.definition();
        let mut artifacts = Artifacts::default();
        artifacts.add(Role::Listing, "listing.txt", tree.listing());
        if let Some(loaders) = &definition.loaders {
            loaders::add(loaders, &configured.tree, &mut artifacts)?;
        }
        let rootfs = self.work.join("rootfs.squashfs");
        if self.plan.roles.contains(&Role::Rootfs) {
            self.write_rootfs(tree, &rootfs)?;
            artifacts.add_file(Role::Rootfs, "rootfs.squashfs", rootfs.clone());
        }
        let (Some(kernel), Some(wanted)) = (configured.kernel, &definition.kernel) else {
            return Ok(Made {
                artifacts,
                kernel: None,
                disk: None,
            });
        };
        let initrd = self.write_initrd(tree, &kernel)?;
        let described = Kernel {
            release: kernel.release,
            command_line: wanted.command_line.clone(),
        };
        let from = disk::From {
            tree,
            rootfs: &rootfs,
            kernel: &described,
            vmlinuz: &kernel.image,
            initrd: &initrd,
        };
        let disk = if self.plan.roles.contains(&Role::Uki) {
            Some(disk::make(self, &from, &mut artifacts)?)
        } else {
            None
        };
        artifacts.add_file(Role::Initrd, "initrd", initrd);
        artifacts.add_file(Role::Kernel, "vmlinuz", kernel.image);
        Ok(Made {
            artifacts,
            kernel: Some(described),
            disk,
        })
    }

    /// Unpacks and configures the packages that are installed, if there are any.
    fn install(&self, root: &Path) -> Result<Ownership, Error> {
        let Some(packages) = &self.locked.definition().packages else {
            let made = fs::create_dir(root)
                .and_then(|()| fs::set_permissions(root, fs::Permissions::from_mode(0o755)));
            made.map_err(|source| Error::Write {
                path: root.to_owned(),
                source,
            })?;
            return Ok(Ownership::new());
        };
        let install: Vec<_> = self.of(Use::Install).collect();
        tracing::info!(step = "unpack", packages = install.len(), "unpacking");
        let files = self.decoded.places(&install);
        let excludes = unpack::Excludes::new(&packages.remove_paths);
        let unpacked = unpack::unpack(&files, root, &excludes)?;
        tracing::info!(step = "configure", "running maintainer scripts");
        let mut owners = configure::configure(unpacked, &self.settings())?;
        tracing::info!(step = "normalise", "normalising");
        normalise::normalise(root, &mut owners)?;
        Ok(owners)
    }

    fn settings(&self) -> Settings {
        Settings {
            helper: self.options.helper.clone(),
            source_date: self.plan.source_date,
            emulator: self.options.emulator.clone(),
        }
    }

    /// The packages with one use.
    fn of(&self, usage: Use) -> impl Iterator<Item = &FetchedPackage> {
        let packages = self.packages.iter();
        packages.filter(move |package| package.entry.usage == usage)
    }

    /// The build's only clock, as images hold it.
    fn time(&self) -> u32 {
        u32::try_from(self.plan.source_date.max(0)).unwrap_or(u32::MAX)
    }

    fn write_rootfs(&self, tree: &Tree, path: &Path) -> Result<(), Error> {
        tracing::info!(
            step = "rootfs",
            paths = tree.len(),
            "writing the root file system"
        );
        let mut out = create(path)?;
        let options = squashfs::Options {
            level: plan::ROOTFS_LEVEL,
            time: self.time(),
            threads: self.options.threads,
        };
        squashfs::write(tree, options, &mut out).map_err(Error::Rootfs)?;
        Ok(())
    }

    fn write_initrd(&self, tree: &Tree, kernel: &InstalledKernel) -> Result<PathBuf, Error> {
        tracing::info!(step = "initrd", "writing the initrd");
        let rootfs = self.work.join("rootfs.squashfs");
        let mut image = initrd::describe(&self.plan.name, tree.digest(), &rootfs)?;
        image.signers = describe::signers(self.locked.definition())?;
        let content = initrd::tree(&image, kernel, tree)?;
        let path = self.work.join("initrd");
        initrd::write(&content, self.time(), &path)?;
        Ok(path)
    }
}

fn create(path: &Path) -> Result<fs::File, Error> {
    let mut options = fs::OpenOptions::new();
    let created = options.read(true).write(true).create_new(true).open(path);
    created.map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// What the table of owners says, in the words of the tree.
fn recorded(owners: &Ownership, device: u64, inode: u64) -> Option<Owner> {
    let owner = owners.of(device, inode)?;
    let stands_for = owner.device.map(|device| {
        let numbers = Device {
            major: device.major,
            minor: device.minor,
        };
        match device.kind {
            DeviceKind::Character => Kind::Character(numbers),
            DeviceKind::Block => Kind::Block(numbers),
        }
    });
    let xattrs = owner.xattrs.iter();
    Some(Owner {
        uid: owner.uid,
        gid: owner.gid,
        stands_for,
        xattrs: xattrs
            .map(|(name, value)| (name.clone().into_bytes(), value.clone()))
            .collect(),
    })
}
