//! Whether a package's file calls itself what the lock calls it.
//!
//! It refuses to trust the digest alone: that says which bytes were locked, not under which name.

use std::fs::File;
use std::io::BufReader;

use deb_archive::deb::Deb;

use super::{Error, FetchedPackage};
use crate::file;

/// Checks that packages say of themselves what the lock says of them.
///
/// # Errors
/// When one is no package, or has another name, version or architecture than its entry.
pub fn identify(packages: &[FetchedPackage]) -> Result<(), Error> {
    packages.iter().try_for_each(check)
}

fn check(package: &FetchedPackage) -> Result<(), Error> {
    let FetchedPackage { entry, path } = package;
    let file =
        File::open(path).map_err(|source| Error::Cache(file::unread(path)(source).into()))?;
    let deb =
        Deb::open(BufReader::with_capacity(128 << 10, file)).map_err(|source| Error::Read {
            package: entry.name.clone(),
            path: path.clone(),
            source: Box::new(source),
        })?;
    for (field, expected) in [
        ("Package", &entry.name),
        ("Version", &entry.version),
        ("Architecture", &entry.architecture),
    ] {
        let found = deb.control().field(field).unwrap_or_default();
        if found != expected {
            return Err(Error::Identity {
                package: entry.name.clone(),
                field,
                expected: expected.clone(),
                // A control field may be of any length.
                found: found.chars().take(200).collect(),
            });
        }
    }
    Ok(())
}
