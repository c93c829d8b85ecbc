//! One `image.toml` as it was written, and how a child is laid over its parent.
//!
//! It refuses to fill in what is missing: that is decided when all documents are merged.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::DeTable;

use super::outputs::Outputs;
use super::reader::{Located, Source, Table};
use super::settings::Settings;
use super::{Directory, FILE, File, Group, Problem, Suite, User, accounts, check, overlay};

/// Longest definition that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What one file says, or what several say together.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) extends: Option<Located<String>>,
    pub(super) name: Option<Located<String>>,
    pub(super) description: Option<Located<String>>,
    pub(super) architectures: Vec<Located<String>>,
    pub(super) distribution: Distribution,
    pub(super) packages: Option<Packages>,
    pub(super) files: BTreeMap<String, Located<File>>,
    pub(super) directories: BTreeMap<String, Located<Directory>>,
    pub(super) users: Vec<Located<User>>,
    pub(super) groups: Vec<Located<Group>>,
    pub(super) enable: Vec<Located<String>>,
    pub(super) disable: Vec<Located<String>>,
    pub(super) mask: Vec<Located<String>>,
    pub(super) kernel: Option<Kernel>,
    pub(super) loaders: Option<Loaders>,
    pub(super) test: Test,
    pub(super) settings: Settings,
    pub(super) outputs: Outputs,
}

#[derive(Debug, Default)]
pub(super) struct Distribution {
    pub(super) name: Option<Located<String>>,
    pub(super) release: Option<Located<String>>,
    pub(super) keyring: Option<Located<String>>,
    pub(super) components: Vec<Located<String>>,
    /// Suites, and the architectures that they are for: all, where none is named.
    pub(super) suites: Vec<Located<(Suite, Vec<String>)>>,
}

#[derive(Debug, Default)]
pub(super) struct Packages {
    pub(super) install: Vec<Located<String>>,
    pub(super) remove_paths: Vec<Located<String>>,
}

#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) place: Located<()>,
    pub(super) package: Option<Located<String>>,
    pub(super) command_line: Option<Located<String>>,
    pub(super) modules: Vec<Located<String>>,
    pub(super) exclude_modules: Vec<Located<String>>,
    pub(super) firmware: Vec<Located<String>>,
    pub(super) initrd_modules: Vec<Located<String>>,
    pub(super) load: Vec<Located<String>>,
}

#[derive(Debug, Default)]
pub(super) struct Loaders {
    pub(super) packages: Vec<Located<String>>,
    pub(super) files: Vec<(Located<String>, Located<String>)>,
}

#[derive(Debug, Default)]
pub(super) struct Test {
    pub(super) units: Vec<Located<String>>,
    pub(super) ports: Vec<Located<u32>>,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: Located<String>,
    pub(super) run: Vec<Located<String>>,
    pub(super) timeout: Option<Located<String>>,
    pub(super) place: Located<()>,
}

/// Reads the definition in a directory; what cannot be used is noted and left out.
pub(super) fn read(directory: &Path, problems: &mut Vec<Problem>) -> Document {
    let path = directory.join(FILE);
    let text = match read_text(&path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(Problem::about_file(
                &path,
                format!("failed to read it: {error}"),
            ));
            return Document::default();
        }
    };
    let source = Source::new(&path, &text);
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        problems.push(source.problem(error.span().unwrap_or(0..0), error.message().to_owned()));
    }
    let span = table.span();
    let mut table = Table::new(table.into_inner(), span, &source, problems);
    let document = read_document(&mut table, directory);
    table.finish();
    document
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    std::fs::read_to_string(path)
}

fn read_document(table: &mut Table<'_, '_>, directory: &Path) -> Document {
    let mut document = Document {
        name: table.string("name"),
        description: table.string("description"),
        extends: table.string("extends"),
        architectures: table.strings("architectures"),
        ..Document::default()
    };
    document.distribution = table
        .table("distribution", |table| {
            Some(read_distribution(table, directory))
        })
        .unwrap_or_default();
    document.packages = table.table("packages", |table| {
        Some(Packages {
            install: table.strings("install"),
            remove_paths: table.strings("remove-paths"),
        })
    });
    overlay::read(table, directory, &mut document);
    document.users = table.tables("user", |table| {
        let user = accounts::read_user(table)?;
        Some(table.located(user))
    });
    document.groups = table.tables("group", |table| {
        let group = accounts::read_group(table)?;
        Some(table.located(group))
    });
    document.settings = Settings::read(table);
    document.outputs = Outputs::read(table, directory);
    document.kernel = table.table("kernel", |table| {
        Some(Kernel {
            place: table.located(()),
            package: table.string("package"),
            command_line: table.string("command-line"),
            modules: table.strings("modules"),
            exclude_modules: table.strings("exclude-modules"),
            firmware: table.strings("firmware"),
            initrd_modules: table.strings("initrd-modules"),
            load: table.strings("load"),
        })
    });
    document.loaders = table.table("loaders", |table| {
        Some(Loaders {
            packages: table.strings("packages"),
            files: table.map("files"),
        })
    });
    document.test = table
        .table("test", |table| Some(read_test(table)))
        .unwrap_or_default();
    document
}

fn read_test(table: &mut Table<'_, '_>) -> Test {
    Test {
        units: table.strings("units"),
        ports: table.numbers("ports"),
        commands: table.tables("command", |table| {
            let name = table.string("name");
            let run = table.strings("run");
            let timeout = table.string("timeout");
            if name.is_none() {
                table.missing("name");
            }
            Some(Command {
                name: name?,
                run,
                timeout,
                place: table.located(()),
            })
        }),
    }
}

fn read_distribution(table: &mut Table<'_, '_>, directory: &Path) -> Distribution {
    let keyring = table.string("keyring").map(|mut keyring| {
        let path = directory.join(&keyring.value);
        if !path.is_file() {
            table.note(keyring.problem(format!("there is no file `{}`", path.display())));
        }
        keyring.value = path.to_string_lossy().into_owned();
        keyring
    });
    Distribution {
        name: table.string("name"),
        release: table.string("release"),
        keyring,
        components: table.strings("components"),
        suites: table.tables("suites", |table| {
            let (archive, suite) = (table.string("archive"), table.string("suite"));
            for (key, value) in [("archive", &archive), ("suite", &suite)] {
                match value {
                    None => table.missing(key),
                    Some(value) if !check::is_word(&value.value) => {
                        table.note(value.problem(format!("`{}` is no name of one", value.value)));
                    }
                    Some(_) => {}
                }
            }
            let only = table.strings("architectures");
            let only = only.into_iter().map(|one| one.value).collect();
            let (archive, suite) = (archive?.value, suite?.value);
            Some(table.located((Suite { archive, suite }, only)))
        }),
    }
}

impl Document {
    /// Lays a child over this: its words win, its lists are appended, but for the architectures.
    pub(super) fn extended_by(mut self, child: Self) -> Self {
        let own = &mut self.distribution;
        let new = child.distribution;
        own.name = new.name.or(own.name.take());
        own.release = new.release.or(own.release.take());
        own.keyring = new.keyring.or(own.keyring.take());
        own.components.extend(new.components);
        own.suites.extend(new.suites);
        if let Some(new) = child.packages {
            let own = self.packages.get_or_insert_default();
            own.install.extend(new.install);
            own.remove_paths.extend(new.remove_paths);
        }
        if let Some(new) = child.loaders {
            let own = self.loaders.get_or_insert_default();
            own.packages.extend(new.packages);
            own.files.extend(new.files);
        }
        self.files.extend(child.files);
        self.directories.extend(child.directories);
        self.kernel = match (self.kernel, child.kernel) {
            (Some(own), Some(new)) => Some(own.extended_by(new)),
            (own, new) => new.or(own),
        };
        self.test = self.test.extended_by(child.test);
        self.users.extend(child.users);
        self.groups.extend(child.groups);
        self.settings = self.settings.extended_by(child.settings);
        self.outputs = self.outputs.extended_by(child.outputs);
        self.enable.extend(child.enable);
        self.disable.extend(child.disable);
        self.mask.extend(child.mask);
        // A child may be for fewer than its parent: this list alone replaces the parent's.
        if !child.architectures.is_empty() {
            self.architectures = child.architectures;
        }
        self.description = child.description.or(self.description);
        // The name is never inherited: two images are not one.
        self.name = child.name;
        self
    }
}

impl Test {
    /// A child's command replaces its parent's of the same name.
    fn extended_by(mut self, child: Self) -> Self {
        self.units.extend(child.units);
        self.ports.extend(child.ports);
        let replaced = |own: &Command| {
            let mut new = child.commands.iter();
            new.any(|new| new.name.value == own.name.value)
        };
        self.commands.retain(|own| !replaced(own));
        self.commands.extend(child.commands);
        self
    }
}

impl Kernel {
    fn extended_by(mut self, child: Self) -> Self {
        self.place = child.place;
        self.package = child.package.or(self.package);
        self.command_line = child.command_line.or(self.command_line);
        self.modules.extend(child.modules);
        self.exclude_modules.extend(child.exclude_modules);
        self.firmware.extend(child.firmware);
        self.initrd_modules.extend(child.initrd_modules);
        self.load.extend(child.load);
        self
    }
}
