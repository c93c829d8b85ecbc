//! A tree that a definition is laid over, with paths followed as the image itself would follow them.
//!
//! It refuses to leave the tree: an absolute link leads to the tree's own path, and `..` at the root stays there. Nothing
//! of it is on disk, so a file more or less costs what that file costs.

use std::io::{self, Read};

use image_tree::{Content, Entry, Kind, Tree};

/// Links followed on one path at most, as Linux has it.
const LINKS: usize = 40;
/// Far above any file that is edited here.
const TEXT_LIMIT: u64 = 16 << 20;

/// A tree on its way to be an image's.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    tree: &'a mut Tree,
}

/// What is done with a link at the end of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Keep,
    Follow,
}

impl<'a> Draft<'a> {
    pub(super) fn new(tree: &'a mut Tree) -> Self {
        Self { tree }
    }

    /// Finds what stands at a path; a link at its end is told, not followed.
    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        let place = self.resolve(path, Last::Keep).ok()?;
        self.tree.get(&place)
    }

    /// Whether a path leads to a directory.
    pub(super) fn is_directory(&self, path: &str) -> bool {
        let place = self.resolve(path, Last::Follow);
        let entry = place.ok().and_then(|place| self.tree.get(&place));
        entry.is_some_and(|entry| entry.kind == Kind::Directory)
    }

    /// Names of what is in a directory, sorted, and what it is.
    pub(super) fn children(&self, directory: &str) -> Vec<(String, &Entry)> {
        let Ok(place) = self.resolve(directory, Last::Follow) else {
            return Vec::new();
        };
        let start = if place.is_empty() { 0 } else { place.len() + 1 };
        let below = self.tree.below(&place);
        let children = below.filter(|(path, _)| !path[start..].contains(&b'/'));
        children
            .map(|(path, entry)| (String::from_utf8_lossy(&path[start..]).into_owned(), entry))
            .collect()
    }

    /// Finds a regular file, with every link followed.
    pub(super) fn file(&self, path: &str) -> io::Result<&Content> {
        self.find(path).map(|(_, content)| content)
    }

    /// Reads a text file.
    pub(super) fn read(&self, path: &str) -> io::Result<String> {
        let content = self.file(path)?;
        io::read_to_string(content.open()?.take(TEXT_LIMIT))
    }

    /// Puts a file in place of what was there.
    pub(super) fn write(
        &mut self,
        path: &str,
        content: Content,
        mode: u32,
        owner: (u32, u32),
    ) -> io::Result<()> {
        self.put(path, Kind::File(content), mode, owner)
    }

    /// Makes a symbolic link in place of what was there.
    pub(super) fn link(&mut self, path: &str, target: &str, owner: (u32, u32)) -> io::Result<()> {
        self.put(path, Kind::Symlink(target.into()), 0o777, owner)
    }

    /// Writes a file with the mode and the owner that the one there has, under all of its names.
    pub(super) fn rewrite(&mut self, path: &str, text: &str) -> io::Result<()> {
        let (place, _) = self.find(path)?;
        self.tree.rewrite(&place, &Content::of(text.as_bytes()));
        Ok(())
    }

    /// Removes a file or link.
    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        let place = self.resolve(path, Last::Keep)?;
        match self.tree.get(&place).map(|entry| &entry.kind) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Kind::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            Some(_) => {
                self.tree.remove(&place);
                Ok(())
            }
        }
    }

    /// Makes a directory and those that lead to it, and gives it a mode and an owner, also when it is there.
    pub(super) fn own_directory(
        &mut self,
        path: &str,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> io::Result<()> {
        let place = self.make_directory(path)?;
        let entry = Entry {
            uid,
            gid,
            ..Entry::new(Kind::Directory, mode)
        };
        self.insert(&place, entry)
    }

    fn put(&mut self, path: &str, kind: Kind, mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.make_directory(directory)?;
        }
        let place = self.resolve(path, Last::Keep)?;
        let there = self.tree.get(&place).map(|entry| &entry.kind);
        if there == Some(&Kind::Directory) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let entry = Entry {
            uid,
            gid,
            ..Entry::new(kind, mode)
        };
        self.insert(&place, entry)
    }

    /// Makes a directory and those that lead to it, where they are missing.
    fn make_directory(&mut self, path: &str) -> io::Result<Vec<u8>> {
        let slashes = path.match_indices('/').map(|(at, _)| at);
        let mut place = Vec::new();
        for end in slashes.chain([path.len()]) {
            place = self.resolve(&path[..end], Last::Follow)?;
            match self.tree.get(&place).map(|entry| &entry.kind) {
                None => self.insert(&place, Entry::directory())?,
                Some(Kind::Directory) => {}
                Some(_) => return Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        Ok(place)
    }

    fn insert(&mut self, place: &[u8], entry: Entry) -> io::Result<()> {
        let inserted = self.tree.insert(place, entry);
        inserted.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    fn find(&self, path: &str) -> io::Result<(Vec<u8>, &Content)> {
        let place = self.resolve(path, Last::Follow)?;
        match self.tree.get(&place).map(|entry| &entry.kind) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Kind::File(content)) => Ok((place, content)),
            Some(_) => {
                let said = "not a regular file";
                Err(io::Error::new(io::ErrorKind::InvalidInput, said))
            }
        }
    }

    /// Where a path stands in the tree once the links in it are followed.
    fn resolve(&self, path: &str, last: Last) -> io::Result<Vec<u8>> {
        let split = |path: &[u8]| -> Vec<Vec<u8>> {
            let parts = path.split(|byte| *byte == b'/').rev();
            parts.map(<[u8]>::to_vec).collect()
        };
        let mut rest = split(path.as_bytes());
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    names.pop();
                    continue;
                }
                _ => names.push(name),
            }
            if last == Last::Keep && rest.iter().all(Vec::is_empty) {
                break;
            }
            let here = self.tree.get(&names.join(&b'/'));
            let Some(Kind::Symlink(target)) = here.map(|entry| &entry.kind) else {
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(io::Error::other("too many symbolic links"));
            }
            names.pop();
            if target.starts_with(b"/") {
                names.clear();
            }
            rest.extend(split(target));
        }
        Ok(names.join(&b'/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a tree of directories (no target), files and links.
    fn tree() -> Tree {
        let mut tree = Tree::new();
        let link = |target: &str| Entry::new(Kind::Symlink(target.into()), 0o777);
        for (path, entry) in [
            ("etc", Entry::directory()),
            ("usr/lib", Entry::directory()),
            ("lib", link("usr/lib")),
            ("usr/run", link("/run")),
            ("usr/up", link("../../../..")),
            ("loop", link("loop")),
            ("absolute", link("/no/where")),
            ("inside", link("/run/a/b")),
            ("top", link("/")),
        ] {
            tree.insert_all(path.as_bytes(), entry).unwrap();
        }
        tree
    }

    #[test]
    fn no_link_leads_out_of_the_tree() {
        let mut tree = tree();
        let mut draft = Draft::new(&mut tree);
        let cases = [
            ("lib/x", "usr/lib/x"),
            ("usr/run/x", "run/x"),
            ("usr/up/x", "x"),
            ("../../etc/x", "etc/x"),
            ("lib", "lib"),
            ("lib/.", "usr/lib"),
        ];
        for (given, expected) in cases {
            let place = draft.resolve(given, Last::Keep).unwrap();
            assert_eq!(place, expected.as_bytes(), "{given}");
        }
        assert!(draft.resolve("loop/x", Last::Keep).is_err());
        let text = |text: &str| Content::of(text.as_bytes());
        draft
            .write("usr/run/a/b", text("text"), 0o640, (1, 2))
            .unwrap();
        assert_eq!(draft.read("/inside").unwrap(), "text");
        draft.rewrite("inside", "again").unwrap();
        assert_eq!(draft.read("top/run/a/b").unwrap(), "again");
        for given in ["absolute", "top", "run", "loop"] {
            assert!(draft.read(given).is_err(), "{given}");
            assert!(draft.rewrite(given, "x").is_err(), "{given}");
        }
        assert!(draft.write("usr/lib", text("x"), 0o644, (0, 0)).is_err());
        assert!(draft.write("inside/x", text("x"), 0o644, (0, 0)).is_err());
        let entry = draft.get("run/a/b").unwrap();
        assert_eq!((entry.mode, entry.uid, entry.gid), (0o640, 1, 2));
        assert!(draft.is_directory("usr/run/a") && !draft.is_directory("inside"));
        let names: Vec<_> = draft.children("usr").into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["lib", "run", "up"]);
        draft.link("run/a/b", "c", (0, 0)).unwrap();
        assert!(draft.remove("run/a").is_err());
        draft.remove("run/a/b").unwrap();
        assert!(draft.get("run/a/b").is_none());
        draft.own_directory("lib/y/z", 0o700, (3, 4)).unwrap();
        let made = ["usr/lib/y", "usr/lib/y/z"].map(|path| draft.get(path).unwrap().mode);
        assert_eq!(made, [0o755, 0o700]);
    }
}
