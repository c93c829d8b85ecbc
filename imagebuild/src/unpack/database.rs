//! The database of dpkg, as dpkg would have left it with every package unpacked.
//!
//! It writes no state beyond `unpacked`: configuring is dpkg's own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::package::Package;
use super::place::inside;

/// Where the database is.
pub(crate) const DIRECTORY: &str = "var/lib/dpkg";

/// A package and the paths that it lists, each with a leading slash.
pub(crate) struct Listed<'a> {
    pub(crate) package: &'a Package,
    pub(crate) paths: &'a [Vec<u8>],
}

/// Writes the whole database.
pub(crate) fn write(root: &Path, packages: &[Listed<'_>]) -> io::Result<()> {
    let directory = inside(root, DIRECTORY)?;
    for name in ["alternatives", "info", "parts", "triggers", "updates"] {
        // A script may have put a link there.
        fs::create_dir_all(inside(root, &format!("{DIRECTORY}/{name}"))?)?;
    }
    put(&directory.join("info/format"), b"1\n", 0o644)?;
    for name in ["available", "diversions", "statoverride", "triggers/Lock"] {
        let path = directory.join(name);
        if !path.exists() {
            put(&path, b"", 0o644)?;
        }
    }
    let mut status = String::new();
    for Listed { package, paths } in packages {
        status.push_str(&stanza(package));
        let info = |kind: &str| directory.join(format!("info/{}.{kind}", package.info_name()));
        let mut list = Vec::new();
        for path in *paths {
            list.extend_from_slice(path);
            list.push(b'\n');
        }
        put(&info("list"), &list, 0o644)?;
        for (kind, file) in &package.control.files {
            put(&info(kind), &file.bytes, file.mode & 0o755)?;
        }
    }
    put(&directory.join("status"), status.as_bytes(), 0o644)?;
    triggers(&directory.join("triggers"), packages)
}

/// Writes all control files of one package where dpkg keeps them while its preinst runs; returns
/// the directory.
pub(crate) fn write_incoming(root: &Path, package: &Package) -> io::Result<PathBuf> {
    let directory = inside(root, DIRECTORY)?.join("tmp.ci");
    fs::create_dir(&directory)?;
    put(
        &directory.join("control"),
        package.control.text().as_bytes(),
        0o644,
    )?;
    for (name, file) in &package.control.files {
        put(&directory.join(name), &file.bytes, file.mode & 0o755)?;
    }
    Ok(directory)
}

/// Removes them again.
pub(crate) fn remove_incoming(root: &Path) -> io::Result<()> {
    fs::remove_dir_all(inside(root, DIRECTORY)?.join("tmp.ci"))
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A link that a package left here would lead us elsewhere.
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path)?;
    }
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// One package of the status file.
fn stanza(package: &Package) -> String {
    let mut text = String::new();
    for line in package.control.text().trim_end().lines() {
        text.push_str(line);
        text.push('\n');
        if line.starts_with("Package:") {
            text.push_str("Status: install ok unpacked\n");
        }
    }
    let conffiles = package.text("conffiles").unwrap_or_default();
    let mut lines = conffiles.lines().filter_map(conffile).peekable();
    if lines.peek().is_some() {
        text.push_str("Conffiles:\n");
        lines.for_each(|line| text.push_str(&line));
    }
    text.push('\n');
    text
}

/// A configuration file as the status file names it.
fn conffile(line: &str) -> Option<String> {
    // The mark of one that was unpacked as `.dpkg-new` and waits for its name.
    match line.trim_end().rsplit_once(' ') {
        Some(("remove-on-upgrade", path)) => {
            Some(format!(" {path} newconffile remove-on-upgrade\n"))
        }
        _ => line
            .starts_with('/')
            .then(|| format!(" {} newconffile\n", line.trim_end())),
    }
}

/// Interests in triggers, as `deb-triggers` says; what is activated reaches nobody yet, since no
/// package is configured.
fn triggers(directory: &Path, packages: &[Listed<'_>]) -> io::Result<()> {
    let mut files = String::new();
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for Listed { package, .. } in packages {
        let text = package.text("triggers").unwrap_or_default();
        for (trigger, options) in text.lines().filter_map(interest) {
            let name = package.info_name();
            if trigger.starts_with('/') {
                writeln!(files, "{trigger} {name}{options}").unwrap_or_default();
            } else if plain_name(trigger) {
                let file = named.entry(trigger.to_owned()).or_default();
                writeln!(file, "{name}{options}").unwrap_or_default();
            }
        }
    }
    put(&directory.join("File"), files.as_bytes(), 0o644)?;
    put(&directory.join("Unincorp"), b"", 0o644)?;
    for (trigger, text) in named {
        put(&directory.join(trigger), text.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Reads a line of a `triggers` file that declares an interest.
fn interest(line: &str) -> Option<(&str, &'static str)> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_whitespace();
    let options = match words.next()? {
        "interest" | "interest-await" => "",
        "interest-noawait" => "/noawait",
        _ => return None,
    };
    Some((words.next()?, options))
}

/// A trigger's name becomes a file's name here.
fn plain_name(name: &str) -> bool {
    !name.contains('/')
        && !name.starts_with('.')
        && !["File", "Unincorp", "Lock"].contains(&name)
        && name.len() < 200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conffiles_are_marked_as_new() {
        let cases = [
            ("/etc/a b", Some(" /etc/a b newconffile\n")),
            (
                "remove-on-upgrade /etc/old",
                Some(" /etc/old newconffile remove-on-upgrade\n"),
            ),
            ("etc/relative", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(conffile(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn interests_are_read() {
        let cases = [
            (
                "interest-noawait /usr/lib/x",
                Some(("/usr/lib/x", "/noawait")),
            ),
            ("interest-await ldconfig # why", Some(("ldconfig", ""))),
            (" interest /etc/sgml", Some(("/etc/sgml", ""))),
            ("activate-noawait ldconfig", None),
            ("# interest x", None),
            ("interest", None),
        ];
        for (line, expected) in cases {
            assert_eq!(interest(line), expected, "{line}");
        }
        assert!(!plain_name("../../etc/passwd") && !plain_name("File") && plain_name("ldconfig"));
    }
}
