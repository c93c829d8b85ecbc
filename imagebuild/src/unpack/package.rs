//! What the unpacker needs to know of a package, and in which order packages come.
//!
//! It does not choose packages: the set is given, and closed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use deb_archive::deb::Control;
use debversion::Version;

/// A package with its control files.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) file: PathBuf,
    pub(crate) size: u64,
    pub(crate) control: Control,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
}

impl Package {
    /// Its name in `var/lib/dpkg/info`: of one that can be installed for several architectures,
    /// with the architecture.
    pub(crate) fn info_name(&self) -> String {
        match self.control.field("Multi-Arch") {
            Some("same") => format!("{}:{}", self.name, self.architecture),
            _ => self.name.clone(),
        }
    }

    /// Says whether every system has it.
    pub(crate) fn essential(&self) -> bool {
        self.control.field("Essential") == Some("yes")
    }

    /// A control file's text, such as a script's.
    pub(crate) fn text(&self, file: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.control
            .files
            .get(file)
            .map(|file| String::from_utf8_lossy(&file.bytes))
    }

    /// Says whether it may take over files of another.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        let field = self.control.field("Replaces").unwrap_or_default();
        relations(field)
            .flatten()
            .any(|relation| relation.name == other.name && relation.admits(&other.version))
    }
}

/// One alternative of a relation: a name, and perhaps a bound on the version.
#[derive(Debug, PartialEq, Eq)]
struct Relation<'a> {
    name: &'a str,
    bound: Option<(&'a str, &'a str)>,
}

impl Relation<'_> {
    fn admits(&self, version: &str) -> bool {
        let Some((operator, bound)) = self.bound else {
            return true;
        };
        let (Ok(version), Ok(bound)) = (version.parse::<Version>(), bound.parse::<Version>())
        else {
            return false;
        };
        match operator {
            "<<" => version < bound,
            "<=" | "<" => version <= bound,
            "=" => version == bound,
            ">=" | ">" => version >= bound,
            ">>" => version > bound,
            _ => false,
        }
    }
}

/// Reads a relation field: groups of alternatives.
fn relations(field: &str) -> impl Iterator<Item = impl Iterator<Item = Relation<'_>>> {
    field
        .split(',')
        .map(|group| group.split('|').filter_map(relation))
}

fn relation(text: &str) -> Option<Relation<'_>> {
    let text = text.trim();
    let end = text
        .find(|c: char| c.is_whitespace() || c == '(')
        .unwrap_or(text.len());
    let name = text[..end]
        .split(':')
        .next()
        .filter(|name| !name.is_empty())?;
    let bound = text[end..]
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'));
    let bound = bound.map(|(inside, _)| {
        let inside = inside.trim();
        let operator = inside.trim_end_matches(|c| !matches!(c, '<' | '>' | '='));
        let operator = &inside[..inside.len().min(operator.len()).min(2)];
        (operator, inside[operator.len()..].trim())
    });
    Some(Relation { name, bound })
}

/// The order of a set: what a package depends on comes before it, what is essential before the
/// rest, and names decide where nothing else does.
#[derive(Debug)]
pub(crate) struct Order {
    /// Indices of the packages.
    pub(crate) sequence: Vec<usize>,
    /// Essential packages and all that they need: without these, no script runs.
    pub(crate) foundation: HashSet<usize>,
}

/// Finds the order of packages.
pub(crate) fn order(packages: &[Package]) -> Order {
    let mut providers: HashMap<&str, usize> = HashMap::new();
    let by_name: BTreeMap<&str, usize> = packages
        .iter()
        .enumerate()
        .map(|(index, package)| (&*package.name, index))
        .collect();
    for index in by_name.values() {
        let field = packages[*index]
            .control
            .field("Provides")
            .unwrap_or_default();
        for relation in relations(field).flatten() {
            providers.entry(relation.name).or_insert(*index);
        }
    }
    let needs: Vec<Vec<usize>> = packages
        .iter()
        .map(|package| {
            ["Pre-Depends", "Depends"]
                .iter()
                .filter_map(|field| package.control.field(field))
                .flat_map(relations)
                .filter_map(|mut group| {
                    group.find_map(|relation| {
                        by_name
                            .get(relation.name)
                            .or_else(|| providers.get(relation.name))
                            .copied()
                    })
                })
                .collect()
        })
        .collect();
    let mut order = Order {
        sequence: Vec::new(),
        foundation: HashSet::new(),
    };
    let mut seen = HashSet::new();
    for index in by_name
        .values()
        .filter(|index| packages[**index].essential())
    {
        visit(*index, &needs, &mut seen, &mut order.sequence);
    }
    order.foundation.clone_from(&seen);
    for index in by_name.values() {
        visit(*index, &needs, &mut seen, &mut order.sequence);
    }
    order
}

/// Adds what a package needs, then itself; without recursion, since a set may be any size.
fn visit(from: usize, needs: &[Vec<usize>], seen: &mut HashSet<usize>, sequence: &mut Vec<usize>) {
    if !seen.insert(from) {
        return;
    }
    let mut stack = vec![(from, 0)];
    while let Some((index, next)) = stack.last_mut() {
        if let Some(need) = needs[*index].get(*next) {
            *next += 1;
            if seen.insert(*need) {
                stack.push((*need, 0));
            }
        } else {
            sequence.push(*index);
            stack.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read() {
        let cases = [
            ("a", "a", None),
            (" a (>= 1.2) ", "a", Some((">=", "1.2"))),
            ("a:any (<< 2~)", "a", Some(("<<", "2~"))),
            ("a(=1)", "a", Some(("=", "1"))),
        ];
        for (text, name, bound) in cases {
            assert_eq!(relation(text), Some(Relation { name, bound }), "{text}");
        }
        assert_eq!(relation(" "), None);
    }

    #[test]
    fn bounds_compare_as_debian_versions() {
        let cases = [
            ("a (<< 2.0)", "2.0~rc1", true),
            ("a (<< 2.0)", "2.0", false),
            ("a (<= 1:1)", "2.0", true),
            ("a (= 1-1)", "1-1", true),
            ("a (>> 1.9)", "1.10", true),
            ("a (!! 1)", "1", false),
        ];
        for (text, version, expected) in cases {
            assert_eq!(
                relation(text).unwrap().admits(version),
                expected,
                "{text} {version}"
            );
        }
    }

    #[test]
    fn needs_come_first_and_a_circle_ends() {
        let needs = [vec![1], vec![2, 0], vec![], vec![0]];
        let (mut seen, mut sequence) = (HashSet::new(), Vec::new());
        for index in 0..4 {
            visit(index, &needs, &mut seen, &mut sequence);
        }
        assert_eq!(sequence, [2, 1, 0, 3]);
    }
}
