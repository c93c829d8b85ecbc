//! The firmware that kept modules name.
//!
//! It refuses to keep what no module names, and follows symbolic links only within the list.

use std::collections::{BTreeMap, BTreeSet};

use super::glob;

/// Links followed from one name at most, as the kernel's path walk.
const LINKS: usize = 40;
/// What the kernel's firmware loader tries behind a name.
const SUFFIXES: [&str; 3] = ["", ".xz", ".zst"];

/// One path below `lib/firmware`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareFile {
    /// The path below `lib/firmware`.
    pub path: String,
    /// Where it points, when it is a symbolic link.
    pub target: Option<String>,
}

/// Selects the paths that are reached from names or patterns of firmware.
#[must_use]
pub fn keep_firmware<'a>(
    files: &[FirmwareFile],
    wanted: impl IntoIterator<Item = &'a str>,
) -> BTreeSet<String> {
    let links: BTreeMap<&str, &str> = files
        .iter()
        .filter_map(|file| Some((file.path.as_str(), file.target.as_deref()?)))
        .collect();
    let present: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let mut kept = BTreeSet::new();
    for name in wanted {
        for suffix in SUFFIXES {
            let name = format!("{name}{suffix}");
            if name.contains(['*', '?']) {
                for path in present.iter().filter(|path| glob::matches(&name, path)) {
                    reach(path, &links, &present, &mut kept);
                }
            } else {
                reach(&name, &links, &present, &mut kept);
            }
        }
    }
    kept
}

/// Keeps a path and the links on the way to it, if there is something at its end.
fn reach(
    path: &str,
    links: &BTreeMap<&str, &str>,
    present: &BTreeSet<&str>,
    kept: &mut BTreeSet<String>,
) {
    let mut path = path.to_owned();
    let mut passed = Vec::new();
    for _ in 0..LINKS {
        let ends = path
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        let link = ends
            .map(|end| &path[..end])
            .find_map(|prefix| Some((prefix.to_owned(), *links.get(prefix)?)));
        let Some((link, target)) = link else {
            break;
        };
        let Some(directory) = resolve(&link, target) else {
            return;
        };
        path = format!("{directory}{}", &path[link.len()..]);
        passed.push(link);
    }
    if present.contains(path.as_str()) && !links.contains_key(path.as_str()) {
        kept.extend(passed);
        kept.insert(path);
    }
}

/// Resolves the target of a link, if it stays below `lib/firmware`.
fn resolve(link: &str, target: &str) -> Option<String> {
    let mut names: Vec<&str> = link.split('/').collect();
    names.pop();
    if target.starts_with('/') {
        return None;
    }
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_kept_with_the_links_that_lead_to_it() {
        let files = [
            ("bnx2/a.fw", None),
            ("bnx2/b.fw.xz", None),
            ("bnx2/unused.fw", None),
            ("qed/new.bin", None),
            ("qed/old.bin", Some("new.bin")),
            ("model", Some("vendor/model-1")),
            ("vendor/model-1/x.bin", None),
            ("loop", Some("loop")),
            ("outside", Some("../../etc/passwd")),
            ("dangling", Some("nothing")),
        ];
        let files = files.map(|(path, target)| FirmwareFile {
            path: path.to_owned(),
            target: target.map(str::to_owned),
        });
        let cases: [(&str, &[&str], &[&str]); 6] = [
            ("plain", &["bnx2/a.fw", "absent.fw"], &["bnx2/a.fw"]),
            ("compressed", &["bnx2/b.fw"], &["bnx2/b.fw.xz"]),
            ("link", &["qed/old.bin"], &["qed/new.bin", "qed/old.bin"]),
            (
                "linked directory",
                &["model/x.bin"],
                &["model", "vendor/model-1/x.bin"],
            ),
            ("pattern", &["qed/*.bin"], &["qed/new.bin", "qed/old.bin"]),
            ("nowhere", &["loop", "outside", "dangling"], &[]),
        ];
        for (name, wanted, expected) in cases {
            let kept = keep_firmware(&files, wanted.iter().copied());
            assert_eq!(
                kept.iter().map(String::as_str).collect::<Vec<_>>(),
                expected,
                "{name}"
            );
        }
    }
}
