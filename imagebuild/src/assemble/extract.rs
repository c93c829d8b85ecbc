//! Takes files out of packages without installing them.
//!
//! It refuses to make links: they are told, not made, so that nothing is ever written through one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use deb_archive::deb::{self, Deb, Kind};

use super::Build;
use crate::fetch::FetchedPackage;

/// Why a package could not be extracted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The package is damaged.
    #[error("the package is damaged")]
    Package(#[from] deb::Error),
    /// A file could not be read or written.
    #[error("failed to extract `{path}`")]
    File {
        /// Its path in the package.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// What was taken out, by path in the package.
pub(super) type Extracted = BTreeMap<String, Taken>;

/// One path that was taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A file, and where it stands now.
    File(PathBuf),
    /// A link, and where it points.
    Link(String),
}

/// Takes all wanted files out of a package, into a directory.
pub(super) fn extract(
    build: &Build<'_>,
    package: &FetchedPackage,
    into: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Extracted, super::Error> {
    let failed = |source| super::Error::Extract {
        package: package.entry.name.clone(),
        source,
    };
    let place = build.decoded.place(package);
    let opened = File::open(&place).map_err(|source| super::Error::Source {
        path: place,
        source,
    })?;
    take(opened, into, wanted).map_err(failed)
}

fn take(file: File, into: &Path, wanted: impl Fn(&str) -> bool) -> Result<Extracted, Error> {
    let mut extracted = Extracted::new();
    let mut data = Deb::open(BufReader::with_capacity(128 << 10, file))?.into_data();
    for entry in data.entries()? {
        let mut entry = entry?;
        let Ok(path) = String::from_utf8(entry.path().to_vec()) else {
            continue;
        };
        if !wanted(&path) {
            continue;
        }
        let place = into.join(&path);
        let failed = |source| Error::File {
            path: path.clone(),
            source,
        };
        let taken = match entry.kind().clone() {
            Kind::File { .. } => {
                fs::create_dir_all(place.parent().unwrap_or(into)).map_err(failed)?;
                let mut out = File::create_new(&place).map_err(failed)?;
                io::copy(&mut entry, &mut out).map_err(failed)?;
                Taken::File(place)
            }
            Kind::HardLink { target } => {
                let target = into.join(String::from_utf8_lossy(&target).into_owned());
                fs::create_dir_all(place.parent().unwrap_or(into)).map_err(failed)?;
                fs::copy(target, &place).map_err(failed)?;
                Taken::File(place)
            }
            Kind::Symlink { target } => match String::from_utf8(target) {
                Ok(target) => Taken::Link(target),
                Err(_) => continue,
            },
            _ => continue,
        };
        extracted.insert(path, taken);
    }
    Ok(extracted)
}
