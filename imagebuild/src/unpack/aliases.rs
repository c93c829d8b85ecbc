//! Links at the top of the tree, which merge `/bin` into `/usr/bin` and the like.
//!
//! It reads what `base-files` brought, and invents no link.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Links at the top of the tree that stand for directories, such as `bin` for `usr/bin`.
#[derive(Debug, Default)]
pub(crate) struct Aliases(Vec<(Vec<u8>, Vec<u8>)>);

impl Aliases {
    pub(crate) fn read(root: &Path) -> Self {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        let links = entries.filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let target = target
                .strip_prefix("/")
                .unwrap_or(&target)
                .as_os_str()
                .as_bytes();
            let plain = target
                .split(|byte| *byte == b'/')
                .all(|name| !name.is_empty() && name != b".." && name != b".");
            plain.then(|| (entry.file_name().as_bytes().to_vec(), target.to_vec()))
        });
        Self(links.collect())
    }

    /// Names what lies below such a link by where it really is.
    pub(crate) fn resolve(&self, path: Vec<u8>) -> Vec<u8> {
        for (link, target) in &self.0 {
            if let Some(rest) = path.strip_prefix(&link[..])
                && rest.first() == Some(&b'/')
            {
                return [target, rest].concat();
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_link_is_named_by_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        for (name, target) in [("bin", "usr/bin"), ("lib", "/usr/lib"), ("up", "../x")] {
            std::os::unix::fs::symlink(target, root.path().join(name)).unwrap();
        }
        fs::create_dir(root.path().join("etc")).unwrap();
        let aliases = Aliases::read(root.path());
        let cases = [
            ("bin/sh", "usr/bin/sh"),
            ("lib/a/b", "usr/lib/a/b"),
            ("bin", "bin"),
            ("binary/x", "binary/x"),
            ("up/x", "up/x"),
            ("etc/x", "etc/x"),
        ];
        for (path, expected) in cases {
            assert_eq!(aliases.resolve(path.into()), expected.as_bytes(), "{path}");
        }
    }
}
