//! What a definition brings itself: users, files and units.
//!
//! It refuses owners that the image does not know.

use std::fs::File;
use std::io::Read;

use image_manifest::Checks;

use super::root::Root;
use super::{Error, units, users};
use crate::definition::{Content, Definition, Directory};

/// Puts users, directories, files and units into the tree, in this order: files may belong to the users and be
/// units.
pub(super) fn apply(
    definition: &Definition,
    source_date: i64,
    root: &mut Root<'_>,
) -> Result<(), Error> {
    users::add_all(root, &definition.users, &definition.groups, source_date)?;
    // Sorted by path, so that a directory comes before what is in it.
    for directory in &definition.directories {
        add_directory(directory, root)?;
    }
    for file in &definition.files {
        let owner = (
            users::user_number(root, &file.user)?,
            users::group_number(root, &file.group)?,
        );
        let place = |source| Error::Place {
            path: file.path.clone(),
            source,
        };
        let mut content: Box<dyn Read + '_> = match &file.content {
            Content::Source(path) => {
                Box::new(File::open(path).map_err(|source| Error::Source {
                    path: path.clone(),
                    source,
                })?)
            }
            Content::Text(text) => Box::new(text.as_bytes()),
            Content::Target(target) => {
                root.link(&file.path, target, owner).map_err(place)?;
                continue;
            }
        };
        let written = root.write(&file.path, &mut content, file.mode, owner);
        written.map_err(place)?;
    }
    if let Some(zone) = &definition.timezone {
        let file = format!("usr/share/zoneinfo/{zone}");
        root.find(&file)
            .map_err(|_| Error::NoTimezone(zone.clone()))?;
    }
    units::apply(root, &definition.units)?;
    write_checks(&definition.checks, root)
}

fn add_directory(directory: &Directory, root: &mut Root<'_>) -> Result<(), Error> {
    let owner = (
        users::user_number(root, &directory.user)?,
        users::group_number(root, &directory.group)?,
    );
    let place = |source| Error::Place {
        path: directory.path.clone(),
        source,
    };
    let there = root.locate(&format!("{}/.", directory.path));
    if directory.mode.is_none() && there.is_ok_and(|there| there.is_dir()) {
        return Ok(());
    }
    let mode = directory.mode.unwrap_or(0o755);
    root.own_directory(&directory.path, mode, owner)
        .map_err(place)
}

/// Writes what the hosts of the image check: it is a part of the tree, so every tier has it.
fn write_checks(checks: &Checks, root: &mut Root<'_>) -> Result<(), Error> {
    if checks.is_empty() {
        return Ok(());
    }
    let place = |source| Error::Place {
        path: Checks::PATH.to_owned(),
        source,
    };
    let text = serde_json::to_vec_pretty(checks).map_err(|error| place(error.into()))?;
    let written = root.write(Checks::PATH, &mut text.as_slice(), 0o644, (0, 0));
    written.map_err(place)
}
