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
mod error;
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
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use image_manifest::layout::Layout;
use image_manifest::{Digest, Kernel, Manifest, Role};
use image_sandbox::{DeviceKind, Emulator, Ownership};
use image_tree::{Device, Kind, Owner, Tree, squashfs};

use crate::configure::{self, Settings};
use crate::decoded::Decoded;
use crate::definition::Output;
use crate::fetch::FetchedPackage;
use crate::layers::{self, Kept, Parent};
use crate::lock::{Locked, Use};
use crate::{gc, normalise, unpack};
use artifacts::Artifacts;
use configured::Configured;
use describe::Documents;
pub use describe::OverBudget;
use draft::Draft;
pub use error::Error;
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
    /// Directory in which is kept what the modules of kernels say; it may be deleted at any time.
    pub modules: PathBuf,
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

/// Where it is kept what the modules of kernels say, in a cache.
#[must_use]
pub fn modules_directory(cache: &Path) -> PathBuf {
    cache.join(gc::MODULES)
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Digest that the image is asked for by.
    pub digest: Digest,
    /// The list of its artifacts.
    pub manifest: Manifest,
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
    let done = thread::scope(|scope| {
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
    });
    // A build that failed has decoded packages, too.
    decoded.bound();
    let (documents, tree, layers, made) = done?;
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
