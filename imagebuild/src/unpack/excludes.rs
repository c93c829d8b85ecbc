//! Globs of paths that never enter a tree.
//!
//! `**` stands for any directories, `*` and `?` for characters of one name. Nothing else is special.

/// The globs of a definition.
#[derive(Clone, Debug, Default)]
pub struct Excludes {
    globs: Vec<Vec<Vec<u8>>>,
}

impl Excludes {
    /// Takes globs of paths without leading slash.
    pub fn new<S: AsRef<[u8]>>(globs: impl IntoIterator<Item = S>) -> Self {
        let split = |glob: S| {
            let glob = glob.as_ref();
            let glob = glob.strip_prefix(b"/").unwrap_or(glob);
            glob.split(|byte| *byte == b'/')
                .map(<[u8]>::to_vec)
                .collect()
        };
        Self {
            globs: globs.into_iter().map(split).collect(),
        }
    }

    /// Says whether a path, without leading slash, is left out.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        self.globs.iter().any(|glob| matches(glob, &names))
    }
}

/// Matches whole names, with one point to go back to: linear in practice, quadratic at worst.
fn matches(glob: &[Vec<u8>], names: &[&[u8]]) -> bool {
    let (mut g, mut n, mut back) = (0, 0, None);
    loop {
        if g < glob.len() && glob[g] == b"**" {
            back = Some((g, n));
            g += 1;
            // At the end it stands for something below, not for the directory itself.
            if g == glob.len() {
                return n < names.len();
            }
        } else if g < glob.len() && n < names.len() && name_matches(&glob[g], names[n]) {
            g += 1;
            n += 1;
        } else if g == glob.len() && n == names.len() {
            return true;
        } else {
            match back {
                Some((at, from)) if from < names.len() => {
                    back = Some((at, from + 1));
                    g = at + 1;
                    n = from + 1;
                }
                _ => return false,
            }
        }
    }
}

fn name_matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n, mut back) = (0, 0, None);
    while n < name.len() {
        if g < glob.len() && glob[g] == b'*' {
            back = Some((g, n));
            g += 1;
        } else if g < glob.len() && (glob[g] == b'?' || glob[g] == name[n]) {
            g += 1;
            n += 1;
        } else if let Some((at, from)) = back {
            back = Some((at, from + 1));
            g = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_match_paths() {
        let cases = [
            ("usr/share/doc/**", "usr/share/doc/bash/copyright", true),
            ("usr/share/doc/**", "usr/share/doc/bash", true),
            ("usr/share/doc/**", "usr/share/doc", false),
            ("usr/share/doc/**", "usr/share/docs/x", false),
            ("**/*.pyc", "usr/lib/python3/a.pyc", true),
            ("**/*.pyc", "a.pyc", true),
            ("usr/*/x", "usr/a/x", true),
            ("usr/*/x", "usr/a/b/x", false),
            ("usr/**/x", "usr/a/b/x", true),
            ("usr/**/x", "usr/x", true),
            ("/etc/rc?.d/**", "etc/rc2.d/S01", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("usr/lib/x", "usr/lib/x", true),
        ];
        for (glob, path, expected) in cases {
            assert_eq!(
                Excludes::new([glob]).matches(path.as_bytes()),
                expected,
                "{glob} {path}"
            );
        }
        assert!(!Excludes::default().matches(b"anything"));
    }

    proptest! {
        #[test]
        fn any_glob_ends_on_any_path(glob in "[a*?/]{0,24}", path in "[ab/]{0,48}") {
            let every = Excludes::new([&*glob, "**"]);
            prop_assert!(every.matches(path.as_bytes()));
        }

        #[test]
        fn a_path_matches_itself(path in "[a-z]{1,4}(/[a-z]{1,4}){0,5}") {
            prop_assert!(Excludes::new([&path]).matches(path.as_bytes()));
        }
    }
}
