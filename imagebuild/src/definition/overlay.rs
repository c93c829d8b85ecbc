//! What a definition lays into the tree: `[[file]]`, `[[directory]]`, and `[units]` with its drop-ins.
//!
//! It refuses anything but plain files, directories and links: no device, no attribute.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::document::Document;
use super::reader::{Located, Table};
use super::{Content, Directory, File, check};

/// Most paths of one directory that is copied.
const MOST: usize = 65_536;
/// Where drop-ins of units stand.
const UNITS: &str = "etc/systemd/system";

/// Reads all of it into a document.
pub(super) fn read(table: &mut Table<'_, '_>, directory: &Path, document: &mut Document) {
    let files = table.tables("file", |table| {
        let file = read_file(table, directory)?;
        Some(table.located(file))
    });
    let copies = table.tables("directory", |table| {
        let copy = read_directory(table, directory)?;
        Some(table.located(copy))
    });
    let units = table.table("units", |table| {
        let lists = ["enable", "disable", "mask"].map(|key| table.strings(key));
        let drop_ins = table.tables("drop-in", |table| {
            let file = read_drop_in(table, directory)?;
            Some(table.located(file))
        });
        Some((lists, drop_ins))
    });
    let ([enable, disable, mask], drop_ins) = units.unwrap_or_default();
    (document.enable, document.disable, document.mask) = (enable, disable, mask);
    let mut given = BTreeSet::new();
    for copy in copies {
        let (place, content) = copy.apart();
        for file in content.files {
            let file = place.with(file);
            document.files.insert(file.value.path.clone(), file);
        }
        for one in content.directories {
            if one.mode.is_some() && !given.insert(one.path.clone()) {
                let message = format!("directory `{}` is given twice", one.path);
                table.note(place.problem(message));
            }
            let one = place.with(one);
            document.directories.insert(one.value.path.clone(), one);
        }
    }
    let mut given = BTreeSet::new();
    for file in files.into_iter().chain(drop_ins) {
        if !given.insert(file.value.path.clone()) {
            table.note(file.problem(format!("`{}` is given twice", file.value.path)));
        }
        document.files.insert(file.value.path.clone(), file);
    }
}

/// A directory of the definition, with what is copied into it.
#[derive(Default)]
struct Copied {
    directories: Vec<Directory>,
    files: Vec<File>,
}

/// Reads a directory to make, and perhaps to fill with a copy of one beside the definition.
fn read_directory(table: &mut Table<'_, '_>, directory: &Path) -> Option<Copied> {
    let path = table.string("path");
    let source = table.string("source");
    let mode = read_mode(table, 0o755);
    let owner = read_owner(table);
    if path.is_none() && source.is_none() {
        table.missing("path");
    }
    check_path(table, path.as_ref());
    let (user, group) = owner?;
    let mut copied = Copied::default();
    let path = path.map(|path| path.value).unwrap_or_default();
    if !path.is_empty() {
        copied.directories.push(Directory {
            path: path.clone(),
            mode: Some(mode?),
            user: user.clone(),
            group: group.clone(),
        });
    }
    if let Some(source) = source {
        let from = directory.join(&source.value);
        let owner = (user.as_str(), group.as_str());
        if let Err(error) = copied.take(&from, &path, owner) {
            let message = format!("failed to copy `{}`: {error}", from.display());
            table.note(source.problem(message));
        }
    }
    Some(copied)
}

impl Copied {
    /// Takes all that is in a directory, sorted. Of modes only whether a file is executable counts, as in git.
    fn take(&mut self, from: &Path, to: &str, owner: (&str, &str)) -> io::Result<()> {
        let mut entries = fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().into_string();
            let name = name.map_err(|name| refused(&name.to_string_lossy(), "is not UTF-8"))?;
            let path = if to.is_empty() {
                name
            } else {
                format!("{to}/{name}")
            };
            if self.directories.len() + self.files.len() >= MOST {
                return Err(refused(&path, "is one of more than 65536 paths"));
            }
            let kind = entry.file_type()?;
            let (user, group) = (owner.0.to_owned(), owner.1.to_owned());
            if kind.is_dir() {
                self.take(&entry.path(), &path, owner)?;
                let mode = None;
                self.directories.push(Directory {
                    path,
                    mode,
                    user,
                    group,
                });
                continue;
            }
            let mut mode = 0o644;
            let content = if kind.is_symlink() {
                let target = fs::read_link(entry.path())?.into_os_string();
                let target = target.into_string();
                Content::Target(target.map_err(|_| refused(&path, "leads to what is not UTF-8"))?)
            } else if kind.is_file() {
                if entry.metadata()?.permissions().mode() & 0o111 != 0 {
                    mode = 0o755;
                }
                Content::Source(entry.path())
            } else {
                return Err(refused(&path, "is neither file, directory nor link"));
            };
            self.files.push(File {
                path,
                content,
                mode,
                user,
                group,
            });
        }
        Ok(())
    }
}

fn refused(path: &str, why: &str) -> io::Error {
    io::Error::other(format!("`{path}` {why}"))
}

/// Reads a drop-in of a unit: a file beside it that changes a part of it.
fn read_drop_in(table: &mut Table<'_, '_>, directory: &Path) -> Option<File> {
    let unit = table.string("unit");
    let name = table.string("name");
    let content = read_content(table, directory, &[]);
    for (key, value) in [("unit", &unit), ("name", &name)] {
        match value {
            None => table.missing(key),
            Some(value) if !check::is_path(&value.value) || value.value.contains('/') => {
                table.note(value.problem(format!("`{}` is no file name", value.value)));
            }
            Some(_) => {}
        }
    }
    let (unit, name) = (unit?, name?);
    if !check::is_unit(&unit.value) {
        table.note(unit.problem(format!("`{}` is no unit with its type", unit.value)));
    }
    if Path::new(&name.value).extension() != Some("conf".as_ref()) {
        table.note(name.problem(format!("`{}` does not end in `.conf`", name.value)));
    }
    Some(File {
        path: format!("{UNITS}/{}.d/{}", unit.value, name.value),
        content: content?,
        mode: 0o644,
        user: "root".to_owned(),
        group: "root".to_owned(),
    })
}

fn read_file(table: &mut Table<'_, '_>, directory: &Path) -> Option<File> {
    let path = table.string("path");
    let content = read_content(table, directory, &["target"]);
    let mode = read_mode(table, 0o644);
    let owner = read_owner(table);
    if path.is_none() {
        table.missing("path");
    }
    check_path(table, path.as_ref());
    let (user, group) = owner?;
    Some(File {
        path: path?.value,
        content: content?,
        mode: mode?,
        user,
        group,
    })
}

/// Reads what a file holds, from the one key of several that says so.
fn read_content(
    table: &mut Table<'_, '_>,
    directory: &Path,
    also: &[&'static str],
) -> Option<Content> {
    let mut contents = Vec::new();
    if let Some(source) = table.string("source") {
        let file = directory.join(&source.value);
        if !file.is_file() {
            table.note(source.problem(format!("there is no file `{}`", file.display())));
        }
        contents.push(Content::Source(file));
    }
    contents.extend(
        table
            .string("content")
            .map(|text| Content::Text(text.value)),
    );
    for key in also {
        contents.extend(
            table
                .string(key)
                .map(|target| Content::Target(target.value)),
        );
    }
    if contents.len() != 1 {
        let place = table.located(());
        let message = match also {
            [] => "exactly one of `source` and `content` is needed",
            _ => "exactly one of `source`, `content` and `target` is needed",
        };
        table.note(place.problem(message.to_owned()));
    }
    contents.pop()
}

fn check_path(table: &mut Table<'_, '_>, path: Option<&Located<String>>) {
    if let Some(path) = path.filter(|path| !check::is_path(&path.value)) {
        let message = format!(
            "`{}` is no path below the root, written without leading slash",
            path.value
        );
        table.note(path.problem(message));
    }
}

fn read_mode(table: &mut Table<'_, '_>, default: u32) -> Option<u32> {
    let Some(mode) = table.string("mode") else {
        return Some(default);
    };
    let bits = check::mode(&mode.value);
    if bits.is_none() {
        table.note(mode.problem(format!("`{}` is no mode such as `0644`", mode.value)));
    }
    bits
}

fn read_owner(table: &mut Table<'_, '_>) -> Option<(String, String)> {
    let Some(owner) = table.string("owner") else {
        return Some(("root".to_owned(), "root".to_owned()));
    };
    let pair = check::owner(&owner.value);
    if pair.is_none() {
        table.note(owner.problem(format!(
            "`{}` is no owner such as `root` or `root:mail`",
            owner.value
        )));
    }
    pair
}
