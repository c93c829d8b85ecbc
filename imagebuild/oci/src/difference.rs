//! What one definition adds to another: the difference of two listings, as the content of a layer.
//!
//! It refuses names that a layer cannot hold: those that OCI reserves to say that something is gone.

use std::collections::BTreeMap;

use image_tree::{Entry, Tree, listing};

/// How the name of a file begins that says that another is gone (OCI image specification, "Whiteouts").
pub const WHITEOUT: &[u8] = b".wh.";

/// Directories whose content only a boot needs; containers share all else.
const BOOT: [&[u8]; 5] = [
    b"boot/",
    b"lib/firmware/",
    b"lib/modules/",
    b"usr/lib/firmware/",
    b"usr/lib/modules/",
];

/// One step from a tree to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A path is there, as this.
    Put(&'a [u8], &'a Entry),
    /// A path is gone, with all that was below it.
    Gone(Vec<u8>),
}

impl Change<'_> {
    /// The path that it is about.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Put(path, _) => path,
            Self::Gone(path) => path,
        }
    }
}

/// A name that no layer can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`/{}` cannot be in a layer: OCI reserves names that begin with `.wh.`", String::from_utf8_lossy(.0))]
pub struct Reserved(pub Vec<u8>);

/// Whether a path is only for the boot of a machine.
#[must_use]
pub fn is_for_boot(path: &[u8]) -> bool {
    BOOT.iter().any(|directory| path.starts_with(directory))
}

/// Says what a tree has that a listing has not, and what it has not any more; what is for the boot does not count.
///
/// Without a listing it is the whole tree.
///
/// # Errors
/// When a name of the tree is one that OCI reserves.
pub fn changes<'a>(parent: Option<&[u8]>, tree: &'a Tree) -> Result<Vec<Change<'a>>, Reserved> {
    let before: BTreeMap<_, _> = parent
        .map(|text| {
            listing::lines(text)
                .filter(|(path, _)| !is_for_boot(path))
                .collect()
        })
        .unwrap_or_default();
    let text = tree.listing();
    let mut changes = Vec::new();
    for ((path, entry), (_, said)) in tree.iter().zip(listing::lines(&text)) {
        check_name(path)?;
        // The root is there without being said, as long as it is like any other.
        let implied = before.is_empty() && path.is_empty() && *entry == Entry::directory();
        if !is_for_boot(path) && before.get(path) != Some(&said) && !implied {
            changes.push(Change::Put(path, entry));
        }
    }
    let mut gone: Option<&[u8]> = None;
    for path in before.keys() {
        let below = gone.is_some_and(|above| is_below(path, above));
        if below || tree.get(path).is_some() {
            continue;
        }
        gone = Some(path);
        // What is no directory any more takes along what was in it.
        let parent = parent_of(path).and_then(|parent| tree.get(parent));
        if parent.is_some_and(|parent| parent.kind == image_tree::Kind::Directory) {
            changes.push(Change::Gone(path.clone()));
        }
    }
    changes.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(changes)
}

/// All of a tree that is only for the boot of a machine.
///
/// # Errors
/// When a name of the tree is one that OCI reserves.
pub fn boot(tree: &Tree) -> Result<Vec<Change<'_>>, Reserved> {
    let boot = tree.iter().filter(|(path, _)| is_for_boot(path));
    boot.map(|(path, entry)| {
        check_name(path)?;
        Ok(Change::Put(path, entry))
    })
    .collect()
}

fn check_name(path: &[u8]) -> Result<(), Reserved> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    if name.starts_with(WHITEOUT) {
        return Err(Reserved(path.to_vec()));
    }
    Ok(())
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn parent_of(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    let slash = path.iter().rposition(|byte| *byte == b'/');
    Some(&path[..slash.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use image_tree::Kind;

    use super::*;

    fn tree(paths: &[(&str, Entry)]) -> Tree {
        let mut tree = Tree::new();
        for (path, entry) in paths {
            tree.insert_all(path.as_bytes(), entry.clone()).unwrap();
        }
        tree
    }

    fn told(changes: &[Change<'_>]) -> Vec<String> {
        let tell = |change: &Change<'_>| {
            let path = String::from_utf8_lossy(change.path()).into_owned();
            match change {
                Change::Put(..) => format!("+{path}"),
                Change::Gone(_) => format!("-{path}"),
            }
        };
        changes.iter().map(tell).collect()
    }

    #[test]
    fn a_layer_is_what_the_trees_differ_in() {
        let file = |text: &str| Entry::file(text.as_bytes(), 0o644);
        let parent = tree(&[
            ("etc/a", file("a")),
            ("etc/b", file("b")),
            ("opt/x/y", file("y")),
            ("srv/d/e/f", file("f")),
            ("boot/old", file("old")),
        ]);
        let child = tree(&[
            ("etc/a", file("A")),
            ("etc/b", file("b")),
            ("etc/b-more", file("more")),
            ("boot/vmlinuz", file("kernel")),
            ("srv/d", Entry::new(Kind::Symlink(b"x".to_vec()), 0o777)),
        ]);
        let found = changes(Some(&parent.listing()), &child).unwrap();
        assert_eq!(told(&found), ["+etc/a", "+etc/b-more", "-opt", "+srv/d"]);
        assert_eq!(told(&boot(&child).unwrap()), ["+boot/vmlinuz"]);
        let all = changes(None, &child).unwrap();
        assert_eq!(
            told(&all),
            [
                "+boot",
                "+etc",
                "+etc/a",
                "+etc/b",
                "+etc/b-more",
                "+srv",
                "+srv/d"
            ]
        );
        assert_eq!(changes(Some(&child.listing()), &child).unwrap(), []);
    }

    #[test]
    fn a_reserved_name_is_refused() {
        let tree = tree(&[("etc/.wh.motd", Entry::directory())]);
        assert_eq!(
            changes(None, &tree),
            Err(Reserved(b"etc/.wh.motd".to_vec()))
        );
    }
}
