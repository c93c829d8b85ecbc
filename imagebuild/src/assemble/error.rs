//! Why an image could not be assembled.
//!
//! It refuses to say the same twice: what a part said itself is its source.

use std::io;
use std::path::PathBuf;

use image_manifest::layout;
use image_tree::{ScanError, cpio, kernel as modules, squashfs};

use super::{describe, extract, units, users};
use crate::sign::KeyError;
use crate::{architecture, configure, facts, forms, layers, normalise, provenance, unpack};

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
