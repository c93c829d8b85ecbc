//! What a definition brings itself: users, files and units.
//!
//! It refuses owners that the image does not know.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use image_manifest::{Checks, Hasher};
use image_tree::{Content as Bytes, Source};

use super::draft::Draft;
use super::{Error, create, units, users};
use crate::definition::{Content, Definition, Directory};

/// Files of a definition that are smaller than this are kept in memory.
const IN_MEMORY: u64 = 256 << 10;

/// Puts users, directories, files and units into the tree, in this order: files may belong to the users and be
/// units.
pub(super) fn apply(
    definition: &Definition,
    source_date: i64,
    work: &Path,
    root: &mut Draft<'_>,
) -> Result<(), Error> {
    users::add_all(root, &definition.users, &definition.groups, source_date)?;
    // Sorted by path, so that a directory comes before what is in it.
    for directory in &definition.directories {
        add_directory(directory, root)?;
    }
    for (number, file) in definition.files.iter().enumerate() {
        let owner = (
            users::user_number(root, &file.user)?,
            users::group_number(root, &file.group)?,
        );
        let place = |source| Error::Place {
            path: file.path.clone(),
            source,
        };
        let content = match &file.content {
            Content::Source(path) => copy(path, &work.join(format!("file-{number}")))?,
            Content::Text(text) => Bytes::of(text.as_bytes()),
            Content::Target(target) => {
                root.link(&file.path, target, owner).map_err(place)?;
                continue;
            }
        };
        let written = root.write(&file.path, content, file.mode, owner);
        written.map_err(place)?;
    }
    if let Some(zone) = &definition.timezone {
        let file = format!("usr/share/zoneinfo/{zone}");
        root.file(&file)
            .map_err(|_| Error::NoTimezone(zone.clone()))?;
    }
    units::apply(root, &definition.units)?;
    write_checks(&definition.checks, root)
}

/// Takes a file of the definition, which somebody may be editing: what is digested is what is written.
fn copy(from: &Path, into: &Path) -> Result<Bytes, Error> {
    let read = |source| Error::Source {
        path: from.to_owned(),
        source,
    };
    let write = |source| Error::Write {
        path: into.to_owned(),
        source,
    };
    let mut file = File::open(from).map_err(read)?;
    let mut start = Vec::new();
    let mut head = (&mut file).take(IN_MEMORY);
    head.read_to_end(&mut start).map_err(read)?;
    if (start.len() as u64) < IN_MEMORY {
        return Ok(Bytes::of(start));
    }
    let mut hasher = Hasher::new();
    let mut out = create(into)?;
    let mut buffer = start;
    while !buffer.is_empty() {
        hasher.update(&buffer);
        out.write_all(&buffer).map_err(write)?;
        buffer.clear();
        let mut next = (&mut file).take(IN_MEMORY);
        next.read_to_end(&mut buffer).map_err(read)?;
    }
    Ok(Bytes {
        size: hasher.bytes(),
        digest: hasher.finish(),
        source: Source::Path(into.to_owned()),
    })
}

fn add_directory(directory: &Directory, root: &mut Draft<'_>) -> Result<(), Error> {
    let owner = (
        users::user_number(root, &directory.user)?,
        users::group_number(root, &directory.group)?,
    );
    let place = |source| Error::Place {
        path: directory.path.clone(),
        source,
    };
    if directory.mode.is_none() && root.is_directory(&directory.path) {
        return Ok(());
    }
    let mode = directory.mode.unwrap_or(0o755);
    root.own_directory(&directory.path, mode, owner)
        .map_err(place)
}

/// Writes what the hosts of the image check: it is a part of the tree, so every tier has it.
fn write_checks(checks: &Checks, root: &mut Draft<'_>) -> Result<(), Error> {
    if checks.is_empty() {
        return Ok(());
    }
    let place = |source| Error::Place {
        path: Checks::PATH.to_owned(),
        source,
    };
    let text = serde_json::to_vec_pretty(checks).map_err(|error| place(error.into()))?;
    let written = root.write(Checks::PATH, Bytes::of(text), 0o644, (0, 0));
    written.map_err(place)
}
