//! Image definitions: what an image is asked to be.
//!
//! It refuses unknown keys, wrong types and values that cannot be meant, all of them at once and each with its place.
//! It knows no mirror, no package version that was not asked for, and no clock.

mod accounts;
mod check;
mod document;
mod outputs;
mod overlay;
mod parts;
mod problem;
mod reader;
mod settings;
pub mod size;
mod test;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image_manifest::{Checks, Role};

pub(crate) use accounts::NO_HOME;
pub use parts::{Budget, Directory, DiskSizes, Group, Locale, Oci, Output, User, UserKind};
pub use problem::Problem;

/// File name of a definition.
pub const FILE: &str = "image.toml";
/// Definitions that one definition may extend, one through the other.
const MAX_DEPTH: usize = 16;

/// What an image is asked to be, with everything that it inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// Directory that holds the definition; the lock stands beside it.
    pub directory: PathBuf,
    /// Directories of all definitions that it is made of: the topmost parent first, its own last.
    pub ancestors: Vec<PathBuf>,
    /// Name of the image.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Debian's name of the architecture that it is loaded for.
    pub architecture: String,
    /// All that it may be built for; the first is the one that is meant where none is named.
    pub architectures: Vec<String>,
    /// Where its packages come from.
    pub distribution: Distribution,
    /// What is installed; absent when nothing is, not even what is essential.
    pub packages: Option<Packages>,
    /// Files of its own, sorted by path.
    pub files: Vec<File>,
    /// Directories of its own, sorted by path.
    pub directories: Vec<Directory>,
    /// Users of its own, in order.
    pub users: Vec<User>,
    /// Groups of its own, in order.
    pub groups: Vec<Group>,
    /// What systemd starts.
    pub units: Units,
    /// Its locales.
    pub locale: Locale,
    /// Its time zone, such as `Europe/Berlin`.
    pub timezone: Option<String>,
    /// The kernel, if it has one.
    pub kernel: Option<Kernel>,
    /// The loaders, if it carries any.
    pub loaders: Option<Loaders>,
    /// What its hosts check about themselves.
    pub checks: Checks,
    /// The forms that it comes in, sorted.
    pub outputs: Vec<Output>,
    /// Sizes of its disk.
    pub disk: DiskSizes,
    /// How a container of it runs.
    pub oci: Oci,
    /// Sizes that it must not pass.
    pub budget: Budget,
    /// File with the public key that its manifests are signed for.
    pub key: Option<PathBuf>,
}

/// Where packages come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Name, such as `debian`.
    pub name: String,
    /// Release, such as `trixie`.
    pub release: String,
    /// File with the archive's OpenPGP keys.
    pub keyring: PathBuf,
    /// Components of each suite, such as `main`.
    pub components: Vec<String>,
    /// Suites to take packages from.
    pub suites: Vec<Suite>,
}

/// One suite of one archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suite {
    /// Name of the archive, such as `debian-security`; mirrors are given by archive.
    pub archive: String,
    /// Name of the suite, such as `trixie-security`.
    pub suite: String,
}

/// What is installed beside everything essential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packages {
    /// Packages, whose dependencies come with them.
    pub install: Vec<PackageRequest>,
    /// Globs of paths that never enter the tree.
    pub remove_paths: Vec<String>,
}

/// A package that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageRequest {
    /// Its name.
    pub name: String,
    /// Exactly this version, else the newest.
    pub version: Option<String>,
}

/// A file of the image's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path in the image, without leading slash.
    pub path: String,
    /// What it holds.
    pub content: Content,
    /// Permission bits.
    pub mode: u32,
    /// Owner: a name of the image's `passwd`, or a number.
    pub user: String,
    /// Group: a name of the image's `group`, or a number.
    pub group: String,
}

/// What a file of the image's own holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes of this file.
    Source(PathBuf),
    /// This text.
    Text(String),
    /// It is a symbolic link to this.
    Target(String),
}

/// What systemd starts, and what it must not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Units to enable.
    pub enable: Vec<String>,
    /// Units to disable.
    pub disable: Vec<String>,
    /// Units to mask.
    pub mask: Vec<String>,
}

/// The kernel: extracted from its package, never installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Package of the kernel, or one that depends on it.
    pub package: String,
    /// The image's own part of the kernel command line.
    pub command_line: String,
    /// Modules of the tree: names, or globs below `lib/modules/<release>`.
    pub modules: Vec<String>,
    /// Modules that are left out, in the same words.
    pub exclude_modules: Vec<String>,
    /// Packages of firmware, extracted.
    pub firmware: Vec<String>,
    /// Modules of the initrd, in the same words.
    pub initrd_modules: Vec<String>,
}

/// Programs that firmware loads: extracted from their packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaders {
    /// Packages to extract from.
    pub packages: Vec<String>,
    /// Path in the packages by name of the loader.
    pub files: BTreeMap<String, String>,
}

impl Definition {
    /// Returns the roles of the artifacts that a build makes.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        let mut roles = Vec::new();
        if self.kernel.is_some() {
            roles.extend([Role::Kernel, Role::Initrd]);
        }
        if self.packages.is_some() {
            roles.push(Role::Rootfs);
        }
        roles.push(Role::Listing);
        if self.loaders.is_some() {
            roles.push(Role::Loader);
        }
        if self.has_disk() {
            roles.extend([Role::Verity, Role::Uki, Role::Boot, Role::BlockMap]);
        }
        roles
    }

    /// Whether one of its outputs is a disk.
    #[must_use]
    pub fn has_disk(&self) -> bool {
        let mut outputs = self.outputs.iter();
        outputs.any(|output| output.form().is_some())
    }

    /// Returns where its lock stands: each architecture has one of its own.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        let lock = if self.is_of_first_architecture() {
            crate::lock::FILE.to_owned()
        } else {
            format!("image.{}.lock", self.architecture)
        };
        self.directory.join(lock)
    }

    /// Returns what the image is called in a store: its name, and of another architecture than the first that too.
    #[must_use]
    pub fn image_name(&self) -> String {
        if self.is_of_first_architecture() {
            self.name.clone()
        } else {
            format!("{}-{}", self.name, self.architecture)
        }
    }

    fn is_of_first_architecture(&self) -> bool {
        let first = self.architectures.first();
        first.is_none_or(|first| *first == self.architecture)
    }
}

/// Loads the definition in a directory for its first architecture, with everything that it extends.
///
/// # Errors
/// All problems of all files that were read.
pub fn load(directory: &Path) -> Result<Definition, Vec<Problem>> {
    load_for(directory, None)
}

/// Loads a definition as [`load`] does, for one of its architectures.
///
/// # Errors
/// All problems of all files that were read; an architecture that it does not name is one.
pub fn load_for(directory: &Path, architecture: Option<&str>) -> Result<Definition, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut chain = Vec::new();
    let mut ancestors = Vec::new();
    let mut documents = Vec::new();
    let mut next = Some((directory.to_path_buf(), None));
    while let Some((directory, asked)) = next.take() {
        let path = directory.join(FILE);
        let place = asked.unwrap_or_else(|| Problem::about_file(&path, String::new()));
        let Ok(canonical) = path.canonicalize() else {
            problems.push(place.because(format!("there is no definition at `{}`", path.display())));
            break;
        };
        if chain.contains(&canonical) || chain.len() == MAX_DEPTH {
            problems.push(place.because(format!(
                "`{}` extends itself, or too deeply",
                path.display()
            )));
            break;
        }
        chain.push(canonical);
        ancestors.insert(0, directory.clone());
        let document = document::read(&directory, &mut problems);
        if let Some(parent) = &document.extends {
            next = Some((
                directory.join(&parent.value),
                Some(parent.problem(String::new())),
            ));
        }
        documents.push(document);
    }
    let mut merged = document::Document::default();
    for document in documents.into_iter().rev() {
        merged = merged.extended_by(document);
    }
    let definition = merged.finish(directory, architecture, &mut problems);
    match definition {
        Some(definition) if problems.is_empty() => Ok(Definition {
            ancestors,
            ..definition
        }),
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests;
