//! What a definition asks of the resolver: the part of it that makes a lock stale when it changes.
//!
//! It refuses to know files, users, units and modules: changing those needs no new lock.

use std::fmt::Write as _;

use image_manifest::Digest;

use crate::definition::{Definition, PackageRequest, Suite};

/// What the resolver is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Architecture to resolve for.
    pub architecture: String,
    /// Suites to take packages from.
    pub suites: Vec<Suite>,
    /// Components of each suite.
    pub components: Vec<String>,
    /// What is installed beside everything essential; `None` installs nothing at all.
    pub install: Option<Vec<PackageRequest>>,
    /// The kernel's package.
    pub kernel: Option<String>,
    /// Packages of firmware.
    pub firmware: Vec<String>,
    /// Packages of loaders.
    pub loaders: Vec<String>,
    /// Packages of what starts the disk.
    pub boot: Vec<String>,
}

/// The package of systemd's boot loader and stub, in every release that has them.
const BOOT_PACKAGE: &str = "systemd-boot-efi";

impl Request {
    /// Takes from a definition what matters to the resolver.
    #[must_use]
    pub fn of(definition: &Definition) -> Self {
        let kernel = definition.kernel.as_ref();
        Self {
            architecture: definition.architecture.clone(),
            suites: definition.distribution.suites.clone(),
            components: definition.distribution.components.clone(),
            install: definition
                .packages
                .as_ref()
                .map(|packages| packages.install.clone()),
            kernel: kernel.map(|kernel| kernel.package.clone()),
            firmware: sorted(kernel.map(|kernel| kernel.firmware.as_slice())),
            loaders: sorted(
                definition
                    .loaders
                    .as_ref()
                    .map(|loaders| loaders.packages.as_slice()),
            ),
            boot: if definition.has_disk() {
                vec![BOOT_PACKAGE.to_owned()]
            } else {
                Vec::new()
            },
        }
    }

    /// Digest of the request; it is part of the lock's format and changes only with a new version of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    fn text(&self) -> String {
        let mut text = format!(
            "imagebuild lock {}\narchitecture {}\n",
            super::Lock::VERSION,
            self.architecture
        );
        let mut line = |word: &str, value: &str| {
            // Writing to a string does not fail.
            writeln!(text, "{word} {value}").unwrap_or_default();
        };
        for suite in &self.suites {
            line("suite", &format!("{} {}", suite.archive, suite.suite));
        }
        for component in &self.components {
            line("component", component);
        }
        for request in self.install.iter().flatten() {
            match &request.version {
                Some(version) => line("install", &format!("{}={version}", request.name)),
                None => line("install", &request.name),
            }
        }
        if self.install.is_some() {
            line("essential", "yes");
        }
        if let Some(kernel) = &self.kernel {
            line("kernel", kernel);
        }
        for package in &self.firmware {
            line("firmware", package);
        }
        for package in &self.loaders {
            line("loader", package);
        }
        for package in &self.boot {
            line("boot", package);
        }
        text
    }
}

fn sorted(names: Option<&[String]>) -> Vec<String> {
    let mut names = names.unwrap_or_default().to_vec();
    names.sort();
    names
}
