//! The plan of a build: what is done, from what, and what comes out. A pure value.
//!
//! It refuses to look at anything but the locked definition and the files that it names.

use image_manifest::{Digest, Role};
use serde::Serialize;

use super::{Error, inputs};
use crate::architecture;
use crate::definition::Output;
use crate::layers;
use crate::lock::{Locked, Use};

/// Level of zstd for root file systems: within 12 % of the best, for a twentieth of the time.
pub(super) const ROOTFS_LEVEL: i32 = 3;
/// Level of zstd for initrds: 10.5 MB in 0.8 CPU-s, where level 19 takes 19.5 CPU-s for 9.3 MB.
pub(super) const INITRD_LEVEL: i32 = 9;

/// Name, version and state of the sources of this program.
const BUILDER: &str = concat!(
    "imagebuild ",
    env!("CARGO_PKG_VERSION"),
    "+",
    env!("IMAGEBUILD_SOURCES")
);

/// What a build does; printed by `--dry-run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Name of the image.
    pub name: String,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Distribution and release.
    pub distribution: String,
    /// Digest of the lock.
    pub lock: Digest,
    /// Digest of all inputs: an image that was made from the same is not made again.
    pub inputs: Digest,
    /// The only clock of the build, in seconds since 1970.
    pub source_date: i64,
    /// Name and version of this program.
    pub builder: String,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// What comes out, beside the manifest.
    pub roles: Vec<Role>,
}

/// One step of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Packages are taken from the cache, or fetched into it.
    Fetch {
        /// How many.
        packages: usize,
        /// How large they are together.
        bytes: u64,
    },
    /// Packages are unpacked and configured.
    Install {
        /// How many.
        packages: usize,
    },
    /// A kernel and the modules and firmware that are kept are taken from their packages.
    Kernel {
        /// The package that was asked for.
        package: String,
        /// Packages of firmware.
        firmware: usize,
    },
    /// Loaders are taken from their packages.
    Loaders {
        /// Their names.
        names: Vec<String>,
    },
    /// Files, users and units of the definition are put into the tree.
    Apply {
        /// How many files.
        files: usize,
        /// How many users.
        users: usize,
        /// How many units are enabled, disabled or masked.
        units: usize,
        /// How many checks its hosts run.
        checks: usize,
    },
    /// Layers of the container image are written, lowest first.
    Layers {
        /// Their definitions.
        definitions: Vec<String>,
    },
    /// Artifacts are written and stored.
    Store {
        /// What they are.
        artifacts: Vec<Role>,
    },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fetch { packages, bytes } => {
                write!(f, "fetch    {packages} packages, {:.1} MB", mega(*bytes))
            }
            Self::Install { packages } => write!(f, "install  {packages} packages"),
            Self::Kernel { package, firmware } => {
                write!(f, "kernel   {package}, firmware of {firmware} packages")
            }
            Self::Loaders { names } => write!(f, "loaders  {}", names.join(", ")),
            Self::Apply {
                files,
                users,
                units,
                checks,
            } => write!(
                f,
                "apply    {files} files, {users} users, {units} units, {checks} checks"
            ),
            Self::Layers { definitions } => write!(f, "layers   {}", definitions.join(", ")),
            Self::Store { artifacts } => {
                let names: Vec<_> = artifacts.iter().map(|role| format!("{role:?}")).collect();
                write!(f, "store    {}", names.join(", ").to_lowercase())
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "one digit behind the point is shown"
)]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

impl Locked {
    /// Plans the build of the image.
    ///
    /// # Errors
    /// When a file that the definition names cannot be read.
    pub fn plan(&self) -> Result<Plan, Error> {
        let definition = self.definition();
        if definition.kernel.is_some() && definition.architecture != architecture::OWN {
            return Err(Error::NoStage1(definition.architecture.clone()));
        }
        let lock = self.as_lock();
        let builder = BUILDER.to_owned();
        let count = |usage: Use| {
            let used = lock
                .packages
                .iter()
                .filter(|package| package.usage == usage);
            used.count()
        };
        let mut steps = vec![Step::Fetch {
            packages: lock.packages.len(),
            bytes: lock.bytes(),
        }];
        if definition.packages.is_some() {
            steps.push(Step::Install {
                packages: count(Use::Install),
            });
        }
        if let Some(kernel) = &definition.kernel {
            steps.push(Step::Kernel {
                package: kernel.package.clone(),
                firmware: count(Use::Firmware),
            });
        }
        if let Some(loaders) = &definition.loaders {
            steps.push(Step::Loaders {
                names: loaders.files.keys().cloned().collect(),
            });
        }
        let (units, checks) = (&definition.units, &definition.checks);
        let apply = Step::Apply {
            files: definition.files.len(),
            users: definition.users.len(),
            units: units.enable.len() + units.disable.len() + units.mask.len(),
            checks: checks.units.len() + checks.ports.len() + checks.commands.len(),
        };
        steps.push(apply);
        let parents = layers::parents(definition);
        let parents = parents
            .iter()
            .map(Self::plan)
            .collect::<Result<Vec<_>, _>>()?;
        if definition.outputs.contains(&Output::Oci) {
            let names = parents.iter().map(|parent| &parent.name);
            steps.push(Step::Layers {
                definitions: names.chain([&definition.name]).cloned().collect(),
            });
        }
        let above: Vec<_> = parents.iter().map(|parent| parent.inputs).collect();
        let own = inputs::digest(definition, &lock.digest(), &builder)?;
        let roles = definition.roles();
        steps.push(Step::Store {
            artifacts: roles.clone(),
        });
        let distribution = &definition.distribution;
        Ok(Plan {
            name: definition.image_name(),
            architecture: definition.architecture.clone(),
            distribution: format!("{}/{}", distribution.name, distribution.release),
            lock: lock.digest(),
            inputs: layers::inputs(&own, &above),
            source_date: lock.source_date,
            builder,
            steps,
            roles,
        })
    }
}
