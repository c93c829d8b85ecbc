//! What a merged document must say, and the definition that it then is.
//!
//! It refuses what cannot be meant: names that no archive has, paths that climb, two users of one name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use image_manifest::Checks;

use super::document::{self, Document};
use super::outputs::Makes;
use super::reader::Located;
use super::{
    Definition, Distribution, FILE, Kernel, Loaders, PackageRequest, Packages, Problem, Suite,
    Units,
};

/// What stands for the architecture in names of packages.
const ARCHITECTURE: &str = "{architecture}";

/// Whether a text can be a name of an archive, suite, component or image.
pub(super) fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // Suites of some archives have a slash, such as `bookworm/updates`.
    text.split('/').all(|part| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric()) && part.bytes().all(plain)
    })
}

/// Whether a text can be a name of a package (Debian Policy §5.6.1).
fn is_package(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    text.len() >= 2 && !text.starts_with(['+', '-', '.']) && text.bytes().all(plain)
}

/// Whether a text can be the name of a user or group.
pub(super) fn is_account(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    text.len() <= 32
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && text.bytes().all(plain)
}

/// Whether a text is a path below the root, without leading slash, empty parts, `.` and `..`.
pub(super) fn is_path(text: &str) -> bool {
    text.len() < 4096
        && !text.contains('\0')
        && text
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.len() < 256)
}

/// Reads permission bits, such as `0644`.
pub(super) fn mode(text: &str) -> Option<u32> {
    let digits =
        (3..=5).contains(&text.len()) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let bits = u32::from_str_radix(text, 8).ok()?;
    (digits && bits <= 0o7777).then_some(bits)
}

/// Reads an owner, such as `root`, `root:mail` or `0:8`; a lone user brings the group of that name.
pub(super) fn owner(text: &str) -> Option<(String, String)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let known = |name: &str| is_account(name) || name.parse::<u32>().is_ok();
    (known(user) && known(group)).then(|| (user.to_owned(), group.to_owned()))
}

/// Whether a text is the name of a unit, with its type.
pub(super) fn is_unit(text: &str) -> bool {
    text.rsplit_once('.')
        .is_some_and(|(name, kind)| !name.is_empty() && !kind.is_empty())
        && !text.contains(['/', '\0'])
}

fn request(text: &str) -> Option<PackageRequest> {
    let (name, version) = match text.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let version_is_plain = version.is_none_or(|version| {
        version.starts_with(|first: char| first.is_ascii_digit())
            && version
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".+~:-".contains(&byte))
    });
    (is_package(name) && version_is_plain).then(|| PackageRequest {
        name: name.to_owned(),
        version: version.map(str::to_owned),
    })
}

impl Document {
    /// Checks all values and makes the definition, if what is needed is there.
    pub(super) fn finish(
        mut self,
        directory: &Path,
        architecture: Option<&str>,
        problems: &mut Vec<Problem>,
    ) -> Option<Definition> {
        let mut check = Check {
            file: directory.join(FILE),
            problems,
        };
        let architectures = std::mem::take(&mut self.architectures);
        let architectures = check.architectures(architectures);
        let architecture = check.architecture(&architectures, architecture);
        let known = architecture.as_deref();
        self.name_architecture(known.unwrap_or_default());
        let name = check.needed("name", self.name);
        let name = check.word(name);
        let distribution = check.distribution(self.distribution, known);
        let packages = self.packages.map(|packages| check.packages(packages));
        let users = check.users(self.users);
        let groups = check.groups(self.groups, &users);
        let mut files = self.files;
        let (kernel, load) = match self.kernel {
            Some(mut kernel) => {
                let load = std::mem::take(&mut kernel.load);
                (Some(kernel), load)
            }
            None => (None, Vec::new()),
        };
        let (locale, timezone) = self.settings.check(&mut check, load, &mut files);
        let makes = match (&packages, &kernel) {
            (Some(_), Some(_)) => Makes::Disks,
            (Some(_), None) => Makes::Containers,
            (None, _) => Makes::Nothing,
        };
        let outputs = self.outputs.check(&mut check, makes);
        let units = Units {
            enable: check.units(self.enable),
            disable: check.units(self.disable),
            mask: check.units(self.mask),
        };
        let kernel = kernel.map(|kernel| check.kernel(kernel));
        let loaders = self.loaders.map(|loaders| check.loaders(loaders));
        let checks = check.checks(self.test);
        if let Some(file) = files.get(Checks::PATH) {
            let message = format!("`{}` is written from `[test]`", Checks::PATH);
            check.problems.push(file.problem(message));
        }
        if packages.is_none() && loaders.is_none() {
            check.note("it has neither `packages` nor `loaders`: there is nothing to build");
        }
        if packages.is_none() && kernel.is_some() {
            check.note("it has a `kernel` and no `packages`: nothing would run on it");
        }
        let kernel = match kernel {
            Some(kernel) => Some(kernel?),
            None => None,
        };
        Some(Definition {
            directory: directory.to_path_buf(),
            ancestors: Vec::new(),
            name: name?,
            description: self.description.map(|text| text.value).unwrap_or_default(),
            architecture: architecture?,
            architectures,
            distribution: distribution?,
            packages,
            files: values(files),
            directories: values(self.directories),
            users,
            groups,
            units,
            locale,
            timezone,
            kernel,
            loaders,
            checks,
            outputs: outputs.list,
            disk: outputs.disk,
            oci: outputs.oci,
            budget: outputs.budget,
            key: outputs.key,
        })
    }
}

impl Document {
    /// Writes the architecture where names of packages ask for it.
    fn name_architecture(&mut self, architecture: &str) {
        let install = self.packages.iter_mut().flat_map(|part| &mut part.install);
        let loaders = self.loaders.iter_mut().flat_map(|part| &mut part.packages);
        let kernel = self.kernel.iter_mut();
        let kernel = kernel.flat_map(|part| part.package.iter_mut().chain(&mut part.firmware));
        for name in install.chain(loaders).chain(kernel) {
            name.value = name.value.replace(ARCHITECTURE, architecture);
        }
    }
}

fn values<T>(located: BTreeMap<String, Located<T>>) -> Vec<T> {
    located.into_values().map(|one| one.value).collect()
}

pub(super) struct Check<'p> {
    file: PathBuf,
    pub(super) problems: &'p mut Vec<Problem>,
}

impl Check<'_> {
    fn note(&mut self, message: &str) {
        self.problems
            .push(Problem::about_file(&self.file, message.to_owned()));
    }

    fn needed<T>(&mut self, key: &str, value: Option<Located<T>>) -> Option<Located<T>> {
        if value.is_none() {
            self.note(&format!("`{key}` is missing"));
        }
        value
    }

    fn word(&mut self, value: Option<Located<String>>) -> Option<String> {
        let value = value?;
        if !is_word(&value.value) || value.value.contains('/') {
            let message = format!(
                "`{}` is not made of letters, digits, `.`, `_` and `-`",
                value.value
            );
            self.problems.push(value.problem(message));
        }
        Some(value.value)
    }

    /// Keeps the first of equal values, in order, and notes those that cannot be meant.
    pub(super) fn list(
        &mut self,
        values: Vec<Located<String>>,
        what: &str,
        is_meant: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut kept = Vec::new();
        for value in values {
            if !is_meant(&value.value) {
                self.problems
                    .push(value.problem(format!("`{}` is no {what}", value.value)));
            } else if seen.insert(value.value.clone()) {
                kept.push(value.value);
            }
        }
        kept
    }

    fn architectures(&mut self, values: Vec<Located<String>>) -> Vec<String> {
        let none = values.is_empty();
        let architectures = self.list(values, "architecture", is_package);
        if none {
            self.note("`architectures` is missing");
        }
        architectures
    }

    /// Finds the architecture that is asked for, or the first.
    fn architecture(&mut self, all: &[String], asked: Option<&str>) -> Option<String> {
        let Some(asked) = asked else {
            return all.first().cloned();
        };
        if !all.iter().any(|one| one == asked) {
            let all = all.join("`, `");
            self.note(&format!("it is for `{all}`, and not for `{asked}`"));
            return None;
        }
        Some(asked.to_owned())
    }

    fn distribution(
        &mut self,
        part: document::Distribution,
        architecture: Option<&str>,
    ) -> Option<Distribution> {
        let name = self.needed("distribution.name", part.name);
        let release = self.needed("distribution.release", part.release);
        let keyring = self.needed("distribution.keyring", part.keyring);
        let (name, release) = (self.word(name), self.word(release));
        let components = self.list(part.components, "component", is_word);
        let mut suites: Vec<Suite> = Vec::new();
        for Located { value, .. } in part.suites {
            let (suite, only) = value;
            let own =
                only.is_empty() || architecture.is_none_or(|own| only.iter().any(|one| one == own));
            if own && !suites.contains(&suite) {
                suites.push(suite);
            }
        }
        if components.is_empty() {
            self.note("`distribution.components` is missing");
        }
        if suites.is_empty() {
            self.note("`distribution.suites` is missing, or has none for this architecture");
        }
        Some(Distribution {
            name: name?,
            release: release?,
            keyring: PathBuf::from(keyring?.value),
            components,
            suites,
        })
    }

    fn packages(&mut self, part: document::Packages) -> Packages {
        let mut install: BTreeMap<String, PackageRequest> = BTreeMap::new();
        for located in part.install {
            let Some(new) = request(&located.value) else {
                let message = format!("`{}` is no package, nor `package=version`", located.value);
                self.problems.push(located.problem(message));
                continue;
            };
            let known = install
                .entry(new.name.clone())
                .or_insert_with(|| new.clone());
            match (&known.version, &new.version) {
                (Some(one), Some(other)) if one != other => {
                    let message =
                        format!("`{}` is asked for in version `{one}` too", located.value);
                    self.problems.push(located.problem(message));
                }
                (None, Some(_)) => *known = new,
                _ => {}
            }
        }
        Packages {
            install: install.into_values().collect(),
            remove_paths: self.list(part.remove_paths, "glob below the root", is_path),
        }
    }

    pub(super) fn units(&mut self, units: Vec<Located<String>>) -> Vec<String> {
        self.list(units, "unit with its type, such as `ssh.service`", is_unit)
    }

    fn kernel(&mut self, part: document::Kernel) -> Option<Kernel> {
        if part.package.is_none() {
            self.problems
                .push(part.place.problem("`package` is missing".to_owned()));
        }
        let package = self.list(part.package.into_iter().collect(), "package", is_package);
        let one_line = |text: &str| !text.contains(['\n', '\0']);
        let command_line = self.list(
            part.command_line.into_iter().collect(),
            "single line",
            one_line,
        );
        let module = "module, nor glob of modules";
        Some(Kernel {
            command_line: command_line.into_iter().next().unwrap_or_default(),
            modules: self.list(part.modules, module, is_path),
            exclude_modules: self.list(part.exclude_modules, module, is_path),
            firmware: self.list(part.firmware, "package", is_package),
            initrd_modules: self.list(part.initrd_modules, module, is_path),
            package: package.into_iter().next()?,
        })
    }

    fn loaders(&mut self, part: document::Loaders) -> Loaders {
        let mut files = BTreeMap::new();
        for (name, path) in part.files {
            if !is_path(&name.value) || name.value.contains('/') {
                self.problems
                    .push(name.problem(format!("`{}` is no file name", name.value)));
            }
            if !is_path(&path.value) {
                self.problems
                    .push(path.problem(format!("`{}` is no path in a package", path.value)));
            }
            files.insert(name.value, path.value);
        }
        Loaders {
            packages: self.list(part.packages, "package", is_package),
            files,
        }
    }
}
