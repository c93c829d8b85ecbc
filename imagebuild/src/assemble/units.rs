//! What systemd starts: units enabled, disabled and masked by the links that `systemctl` makes.
//!
//! It refuses to run `systemctl`, and to enable what is not there or does not say where it belongs.

use std::collections::BTreeSet;
use std::io;

use image_tree::Kind;

use super::draft::Draft;
use crate::definition::Units;

/// Where units stand, the first found wins; links are made in the first.
const DIRECTORIES: [&str; 2] = ["etc/systemd/system", "usr/lib/systemd/system"];

/// Why a unit could not be enabled, disabled or masked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image has no such unit.
    #[error("the image has no unit `{unit}` to enable")]
    Unknown {
        /// The unit.
        unit: String,
    },
    /// The unit does not say what it is part of.
    #[error("unit `{unit}` cannot be enabled: it has no section [Install] that says where")]
    Static {
        /// The unit.
        unit: String,
    },
    /// The unit is a template.
    #[error("unit `{unit}` is a template: say of what, as in `getty@tty1.service`")]
    Template {
        /// The unit.
        unit: String,
    },
    /// A unit or link could not be read or written.
    #[error("failed to change the links of unit `{unit}`")]
    Link {
        /// The unit.
        unit: String,
        /// Why.
        source: io::Error,
    },
}

/// Disables, enables and masks units, in this order.
pub(super) fn apply(root: &mut Draft<'_>, units: &Units) -> Result<(), Error> {
    for unit in &units.disable {
        disable(root, unit).map_err(link(unit))?;
    }
    for unit in &units.enable {
        enable(root, unit, &mut BTreeSet::new())?;
    }
    for unit in &units.mask {
        let path = format!("{}/{unit}", DIRECTORIES[0]);
        root.link(&path, "/dev/null", (0, 0)).map_err(link(unit))?;
    }
    Ok(())
}

fn link(unit: &str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Link {
        unit: unit.to_owned(),
        source,
    }
}

/// Removes all links to a unit. The unit itself, where it stands among them, stays.
fn disable(root: &mut Draft<'_>, unit: &str) -> io::Result<()> {
    let mut open = vec![DIRECTORIES[0].to_owned()];
    let mut links = Vec::new();
    while let Some(directory) = open.pop() {
        for (name, entry) in root.children(&directory) {
            let path = format!("{directory}/{name}");
            match &entry.kind {
                Kind::Directory => open.push(path),
                Kind::Symlink(target) if name == unit || file_name(target) == unit.as_bytes() => {
                    links.push(path);
                }
                _ => {}
            }
        }
    }
    links.iter().try_for_each(|path| root.remove(path))
}

/// The last name of a path.
fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Makes the links that a unit's section [Install] asks for.
fn enable(root: &mut Draft<'_>, unit: &str, done: &mut BTreeSet<String>) -> Result<(), Error> {
    if !done.insert(unit.to_owned()) {
        return Ok(());
    }
    let unknown = || Error::Unknown {
        unit: unit.to_owned(),
    };
    let (path, text) = find(root, unit).ok_or_else(unknown)?;
    let install = Install::parse(&text);
    let (template, instance) = match unit.split_once('@') {
        Some((name, rest)) => (Some(name), rest.split('.').next().unwrap_or("")),
        None => (None, ""),
    };
    let mut name = unit.to_owned();
    if let (Some(stem), "") = (template, instance) {
        let suffix = unit.rsplit('.').next().unwrap_or("service");
        let Some(instance) = &install.default_instance else {
            let unit = unit.to_owned();
            return Err(Error::Template { unit });
        };
        name = format!("{stem}@{instance}.{suffix}");
    }
    if install.links.is_empty() && install.aliases.is_empty() && install.also.is_empty() {
        let unit = unit.to_owned();
        return Err(Error::Static { unit });
    }
    let target = format!("/{path}");
    let instance = name
        .split_once('@')
        .map_or("", |(_, rest)| rest.split('.').next().unwrap_or(""));
    for (other, kind) in &install.links {
        let other = other.replace("%i", instance);
        let path = format!("{}/{other}.{kind}/{name}", DIRECTORIES[0]);
        root.link(&path, &target, (0, 0)).map_err(link(unit))?;
    }
    for alias in &install.aliases {
        let path = format!("{}/{}", DIRECTORIES[0], alias.replace("%i", instance));
        root.link(&path, &target, (0, 0)).map_err(link(unit))?;
    }
    for other in &install.also {
        match enable(root, other, done) {
            // As systemctl: what comes along may be static, or be missing in this image.
            Ok(()) | Err(Error::Static { .. } | Error::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Finds a unit's file, or that of its template, and its text.
fn find(root: &Draft<'_>, unit: &str) -> Option<(String, String)> {
    let template = unit.split_once('@').map(|(name, rest)| {
        let suffix = rest.rsplit('.').next().unwrap_or("service");
        format!("{name}@.{suffix}")
    });
    for name in [Some(unit), template.as_deref()].into_iter().flatten() {
        for directory in DIRECTORIES {
            let path = format!("{directory}/{name}");
            // An alias is followed to the unit that it stands for, in the same directory.
            if let Some(Kind::Symlink(target)) = root.get(&path).map(|entry| &entry.kind) {
                let file = String::from_utf8_lossy(file_name(target)).into_owned();
                if file != name && file != "null" {
                    return find(root, &file);
                }
                continue;
            }
            if let Ok(text) = root.read(&path) {
                return Some((path, text));
            }
        }
    }
    None
}

/// The section [Install] of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Install {
    /// Other units, and whether they want, require or uphold this one.
    links: Vec<(String, &'static str)>,
    aliases: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

impl Install {
    fn parse(text: &str) -> Self {
        let mut install = Self::default();
        let mut inside = false;
        let joined = text.replace("\\\n", " ");
        for line in joined.lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line == "[Install]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside) else {
                continue;
            };
            if line.starts_with(['#', ';']) {
                continue;
            }
            // A name with a slash is none; as systemd, it is passed over.
            let words = value
                .split_ascii_whitespace()
                .filter(|word| !word.contains('/'));
            let mut words = words.map(str::to_owned);
            match key.trim_end() {
                "WantedBy" => install.links.extend(words.map(|word| (word, "wants"))),
                "RequiredBy" => install.links.extend(words.map(|word| (word, "requires"))),
                "UpheldBy" => install.links.extend(words.map(|word| (word, "upholds"))),
                "Alias" => install.aliases.extend(words),
                "Also" => install.also.extend(words),
                "DefaultInstance" => install.default_instance = words.next_back(),
                _ => {}
            }
        }
        install
    }
}

#[cfg(test)]
mod tests {
    use image_tree::{Entry, Tree};

    use super::*;

    /// Makes a root with units and applies what is asked; returns all links under `etc`.
    fn run(units: &Units) -> Result<Vec<String>, Error> {
        let mut tree = Tree::new();
        for (name, text) in [
            (
                "ssh.service",
                "[Unit]\nWantedBy=no\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n",
            ),
            (
                "net.service",
                "[Install]\nWantedBy=a.target \\\n b.target\nAlso=net.socket gone.socket\n",
            ),
            ("net.socket", "[Install]\nRequiredBy=sockets.target\n"),
            (
                "getty@.service",
                "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n",
            ),
            ("static.service", "[Service]\n"),
        ] {
            let path = format!("{}/{name}", DIRECTORIES[1]);
            let entry = Entry::file(text.as_bytes(), 0o644);
            tree.insert_all(path.as_bytes(), entry).unwrap();
        }
        let mut root = Draft::new(&mut tree);
        let alias = format!("{}/alias.service", DIRECTORIES[1]);
        root.link(&alias, "net.service", (0, 0)).unwrap();
        root.link(
            "etc/systemd/system/old.target.wants/static.service",
            "/usr/x/static.service",
            (0, 0),
        )
        .unwrap();
        apply(&mut root, units)?;
        let links = tree.below(DIRECTORIES[0].as_bytes());
        let mut found: Vec<_> = links
            .filter_map(|(path, entry)| match &entry.kind {
                Kind::Symlink(target) => {
                    let path = &path[DIRECTORIES[0].len() + 1..];
                    let [path, target] = [path, target].map(String::from_utf8_lossy);
                    Some(format!("{path} {target}"))
                }
                _ => None,
            })
            .collect();
        found.sort();
        Ok(found)
    }

    #[test]
    fn units_are_linked_where_they_say() {
        let strings = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let old = "old.target.wants/static.service /usr/x/static.service";
        let lib = "/usr/lib/systemd/system";
        let cases: [(&str, &[&str], Vec<String>); 4] = [
            (
                "alias",
                &["ssh.service"],
                vec![
                    format!("multi-user.target.wants/ssh.service {lib}/ssh.service"),
                    old.to_owned(),
                    format!("sshd.service {lib}/ssh.service"),
                ],
            ),
            (
                "also",
                &["net.service"],
                vec![
                    format!("a.target.wants/net.service {lib}/net.service"),
                    format!("b.target.wants/net.service {lib}/net.service"),
                    old.to_owned(),
                    format!("sockets.target.requires/net.socket {lib}/net.socket"),
                ],
            ),
            (
                "template",
                &["getty@.service"],
                vec![
                    format!("getty.target.wants/getty@tty1.service {lib}/getty@.service"),
                    old.to_owned(),
                ],
            ),
            (
                "instance",
                &["getty@hvc0.service"],
                vec![
                    format!("getty.target.wants/getty@hvc0.service {lib}/getty@.service"),
                    old.to_owned(),
                ],
            ),
        ];
        for (name, enable, expected) in cases {
            let enable = strings(enable);
            let units = Units {
                enable,
                ..Units::default()
            };
            assert_eq!(run(&units).unwrap(), expected, "{name}");
        }
        let units = Units {
            enable: Vec::new(),
            disable: strings(&["static.service"]),
            mask: strings(&["ssh.service"]),
        };
        assert_eq!(run(&units).unwrap(), ["ssh.service /dev/null"]);
    }

    #[test]
    fn what_cannot_be_enabled_is_named() {
        for unit in ["absent.service", "static.service"] {
            let units = Units {
                enable: vec![unit.to_owned()],
                ..Units::default()
            };
            let error = run(&units).unwrap_err();
            assert!(error.to_string().contains(unit), "{error}");
        }
    }
}
