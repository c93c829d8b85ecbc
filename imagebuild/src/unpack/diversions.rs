//! Diversions: files that one package moves out of the way of another.
//!
//! It reads what `dpkg-divert` wrote; it makes none.

use std::fs;
use std::io;
use std::path::Path;

use super::database::DIRECTORY;
use super::place::inside;

/// One diversion, with paths as written, from the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diversion {
    /// The path that is diverted.
    pub(crate) path: String,
    /// Where it goes.
    pub(crate) to: String,
    /// The package that keeps the path, or `:` when none does.
    pub(crate) package: String,
}

/// All diversions of a tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diversions(pub(crate) Vec<Diversion>);

impl Diversions {
    /// Reads the diversions of a tree.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(inside(root, &format!("{DIRECTORY}/diversions"))?)?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let diversion = |three: &[&str]| Diversion {
            path: three[0].to_owned(),
            to: three[1].to_owned(),
            package: three[2].to_owned(),
        };
        Self(lines.chunks_exact(3).map(diversion).collect())
    }

    /// Says where a package's file goes instead; both paths are without leading slash.
    pub(crate) fn target(&self, path: &[u8], package: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|diversion| {
            diversion.path.as_bytes().strip_prefix(b"/") == Some(path)
                && diversion.package != package
        })?;
        let to = found.to.strip_prefix('/')?;
        let safe = to.split('/').all(|name| !matches!(name, "" | "." | ".."));
        safe.then_some(to.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_diverted_and_the_diverter_is_not() {
        let text = "/usr/bin/a\n/usr/bin/a.real\nmine\n/x\n/../y\n:\n/torn\n";
        let diversions = Diversions::parse(text);
        let cases = [
            ("usr/bin/a", "other", Some("usr/bin/a.real")),
            ("usr/bin/a", "mine", None),
            ("usr/bin/b", "other", None),
            ("x", "other", None),
            ("torn", "other", None),
        ];
        for (path, package, expected) in cases {
            let target = diversions.target(path.as_bytes(), package);
            assert_eq!(target, expected.map(str::as_bytes), "{path} of {package}");
        }
    }
}
