//! Loaders: the programs that firmware loads, as their packages have them.
//!
//! It refuses to change them: shim and GRUB are signed as they are.

use std::fs;
use std::io::Read as _;

use image_manifest::Role;
use image_tree::{Kind, Tree};

use super::artifacts::Artifacts;
use super::extract::{Extracted, Taken, extract};
use super::root::Root;
use super::{Build, Error};
use crate::definition::Loaders;
use crate::lock::Use;

/// Puts the loaders into the tree, at the paths that they have in their packages.
pub(super) fn install(
    build: &Build<'_>,
    loaders: &Loaders,
    root: &mut Root<'_>,
) -> Result<(), Error> {
    tracing::info!(
        step = "loaders",
        loaders = loaders.files.len(),
        "taking loaders"
    );
    let mut extracted = Extracted::new();
    for (number, package) in build.of(Use::Loader).enumerate() {
        let into = build.work.join(format!("loaders-{number}"));
        // A loader may be a link to another file of the package.
        let directories: Vec<&str> = loaders.files.values().map(|path| directory(path)).collect();
        let wanted = |path: &str| directories.contains(&directory(path));
        extracted.extend(extract(build, package, &into, wanted)?);
    }
    for (name, path) in &loaders.files {
        let absent = || Error::NoLoader {
            name: name.clone(),
            path: path.clone(),
        };
        let file = match extracted.get(path).ok_or_else(absent)? {
            Taken::File(file) => file,
            Taken::Link(target) => {
                let target = format!("{}/{target}", directory(path));
                match extracted.get(&target) {
                    Some(Taken::File(file)) => file,
                    _ => return Err(absent()),
                }
            }
        };
        let bytes = fs::read(file).map_err(|source| Error::Source {
            path: file.clone(),
            source,
        })?;
        let written = root.write(path, &mut &bytes[..], 0o644, (0, 0));
        written.map_err(|source| Error::Place {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Puts the loaders among the artifacts, by name.
pub(super) fn add(
    loaders: &Loaders,
    configured: &Tree,
    artifacts: &mut Artifacts,
) -> Result<(), Error> {
    for (name, path) in &loaders.files {
        let Some(Kind::File(content)) = configured.get(path.as_bytes()).map(|entry| &entry.kind)
        else {
            return Err(Error::NoFile(path.clone()));
        };
        let mut bytes = Vec::new();
        let read = content
            .open()
            .and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|source| Error::Source {
            path: path.into(),
            source,
        })?;
        artifacts.add(Role::Loader, name, bytes);
    }
    Ok(())
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}
