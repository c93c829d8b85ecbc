//! Whether a lock answers a definition: each request is there as it was asked for, once, and nothing that no one asked for.
//!
//! It refuses to resolve: what an installed package depends on is taken as it stands in the lock.

use std::path::PathBuf;

use deb_archive::version::Version;

use super::make::is_kernel_part;
use super::{Lock, Package, Request, Use};
use crate::definition::Definition;

/// A lock that does not answer its definition.
#[derive(Debug, thiserror::Error)]
pub enum StaleLock {
    /// It was made for another request.
    #[error(
        "`{definition}` asks for other packages than its lock was made for; `imagebuild lock` makes a new one"
    )]
    Request {
        /// The definition's file.
        definition: PathBuf,
    },
    /// It lacks what is asked for.
    #[error(
        "`{definition}` asks for package `{package}`, which its lock lacks for use `{usage}`; `imagebuild lock` makes a new one"
    )]
    Missing {
        /// The definition's file.
        definition: PathBuf,
        /// The package.
        package: String,
        /// What it is asked for.
        usage: &'static str,
    },
    /// It has another version than the one that is asked for.
    #[error(
        "`{definition}` asks for package `{package}` {asked}, its lock has {found}; `imagebuild lock` makes a new one"
    )]
    Version {
        /// The definition's file.
        definition: PathBuf,
        /// The package.
        package: String,
        /// The version that is asked for.
        asked: String,
        /// The version of the lock.
        found: String,
    },
    /// It has one package twice.
    #[error(
        "the lock of `{definition}` has package `{package}` twice for use `{usage}`; `imagebuild lock` makes a new one"
    )]
    Twice {
        /// The definition's file.
        definition: PathBuf,
        /// The package.
        package: String,
        /// What it is there for.
        usage: &'static str,
    },
    /// It has what no one asked for.
    #[error(
        "the lock of `{definition}` has package `{package}` for use `{usage}`, which is not asked for; `imagebuild lock` makes a new one"
    )]
    Unasked {
        /// The definition's file.
        definition: PathBuf,
        /// The package.
        package: String,
        /// What it is there for.
        usage: &'static str,
    },
}

/// Checks a lock against the definition that it stands beside.
pub(super) fn check(definition: &Definition, lock: &Lock) -> Result<(), StaleLock> {
    let file = || definition.directory.join(crate::definition::FILE);
    let request = Request::of(definition);
    if request.digest() != lock.request {
        return Err(StaleLock::Request { definition: file() });
    }
    // Packages are sorted by name and use.
    for pair in lock.packages.windows(2) {
        if (&pair[0].name, pair[0].usage) == (&pair[1].name, pair[1].usage) {
            return Err(StaleLock::Twice {
                definition: file(),
                package: pair[1].name.clone(),
                usage: pair[1].usage.word(),
            });
        }
    }
    if let Some(package) = lock.packages.iter().find(|entry| !may_be(entry, &request)) {
        return Err(StaleLock::Unasked {
            definition: file(),
            package: package.name.clone(),
            usage: package.usage.word(),
        });
    }
    let missing = |package: &str, usage: Use| StaleLock::Missing {
        definition: file(),
        package: package.to_owned(),
        usage: usage.word(),
    };
    let entry = |name: &str, usage: Use| {
        let found = lock.packages.iter();
        let mut found = found.filter(|entry| entry.name == name && entry.usage == usage);
        found.next().ok_or_else(|| missing(name, usage))
    };
    for asked in request.install.iter().flatten() {
        let found = entry(&asked.name, Use::Install)?;
        if let Some(version) = &asked.version
            && !is_same_version(version, &found.version)
        {
            return Err(StaleLock::Version {
                definition: file(),
                package: asked.name.clone(),
                asked: version.clone(),
                found: found.version.clone(),
            });
        }
    }
    // The kernel's package may only have led to those that hold its files.
    if let Some(kernel) = &request.kernel
        && !lock.packages.iter().any(|entry| entry.usage == Use::Kernel)
    {
        return Err(missing(kernel, Use::Kernel));
    }
    for (usage, names) in [
        (Use::Firmware, &request.firmware),
        (Use::Loader, &request.loaders),
        (Use::Boot, &request.boot),
    ] {
        for name in names {
            entry(name, usage)?;
        }
    }
    Ok(())
}

/// Whether a request may have led to an entry.
fn may_be(entry: &Package, request: &Request) -> bool {
    match entry.usage {
        Use::Install => request.install.is_some(),
        Use::Kernel => request
            .kernel
            .as_ref()
            .is_some_and(|kernel| *kernel == entry.name || is_kernel_part(&entry.name)),
        Use::Firmware => request.firmware.contains(&entry.name),
        Use::Loader => request.loaders.contains(&entry.name),
        Use::Boot => request.boot.contains(&entry.name),
    }
}

fn is_same_version(asked: &str, found: &str) -> bool {
    asked == found
        || Version::parse(asked).is_some_and(|asked| Some(asked) == Version::parse(found))
}
