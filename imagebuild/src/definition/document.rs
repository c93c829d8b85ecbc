//! One `image.toml` as it was written, and how a child is laid over its parent.
//!
//! It refuses to fill in what is missing: that is decided when all documents are merged.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::DeTable;

use super::reader::{Located, Source, Table};
use super::{Content, FILE, File, Problem, Suite, User, check};

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
    pub(super) users: Vec<Located<User>>,
    pub(super) enable: Vec<Located<String>>,
    pub(super) disable: Vec<Located<String>>,
    pub(super) mask: Vec<Located<String>>,
    pub(super) kernel: Option<Kernel>,
    pub(super) loaders: Option<Loaders>,
    pub(super) test: Test,
}

#[derive(Debug, Default)]
pub(super) struct Distribution {
    pub(super) name: Option<Located<String>>,
    pub(super) release: Option<Located<String>>,
    pub(super) keyring: Option<Located<String>>,
    pub(super) components: Vec<Located<String>>,
    pub(super) suites: Vec<Located<Suite>>,
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
    let files = table.tables("file", |table| {
        let file = read_file(table, directory)?;
        Some(table.located(file))
    });
    for file in files {
        let problem = file.problem(format!("`{}` is given twice", file.value.path));
        if document
            .files
            .insert(file.value.path.clone(), file)
            .is_some()
        {
            table.note(problem);
        }
    }
    document.users = table.tables("user", |table| {
        let user = read_user(table)?;
        Some(table.located(user))
    });
    let units = table.table("units", |table| {
        Some(["enable", "disable", "mask"].map(|key| table.strings(key)))
    });
    if let Some([enable, disable, mask]) = units {
        (document.enable, document.disable, document.mask) = (enable, disable, mask);
    }
    document.kernel = table.table("kernel", |table| {
        Some(Kernel {
            place: table.located(()),
            package: table.string("package"),
            command_line: table.string("command-line"),
            modules: table.strings("modules"),
            exclude_modules: table.strings("exclude-modules"),
            firmware: table.strings("firmware"),
            initrd_modules: table.strings("initrd-modules"),
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
            let (archive, suite) = (archive?.value, suite?.value);
            Some(table.located(Suite { archive, suite }))
        }),
    }
}

fn read_file(table: &mut Table<'_, '_>, directory: &Path) -> Option<File> {
    let path = table.string("path");
    let source = table.string("source");
    let text = table.string("content");
    let target = table.string("target");
    let mode = table.string("mode");
    let owner = table.string("owner");

    if path.is_none() {
        table.missing("path");
    }
    if let Some(path) = path.as_ref().filter(|path| !check::is_path(&path.value)) {
        let message = format!(
            "`{}` is no path below the root, written without leading slash",
            path.value
        );
        table.note(path.problem(message));
    }
    let mut contents = Vec::new();
    if let Some(source) = source {
        let file = directory.join(&source.value);
        if !file.is_file() {
            table.note(source.problem(format!("there is no file `{}`", file.display())));
        }
        contents.push(Content::Source(file));
    }
    contents.extend(text.map(|text| Content::Text(text.value)));
    contents.extend(target.map(|target| Content::Target(target.value)));
    if contents.len() != 1 {
        let place = table.located(());
        table.note(
            place.problem("exactly one of `source`, `content` and `target` is needed".to_owned()),
        );
    }
    let mode = mode.map_or(Some(0o644), |mode| {
        let bits = check::mode(&mode.value);
        if bits.is_none() {
            table.note(mode.problem(format!("`{}` is no mode such as `0644`", mode.value)));
        }
        bits
    });
    let owner = owner.map_or(Some(("root".to_owned(), "root".to_owned())), |owner| {
        let pair = check::owner(&owner.value);
        if pair.is_none() {
            table.note(owner.problem(format!(
                "`{}` is no owner such as `root` or `root:mail`",
                owner.value
            )));
        }
        pair
    });
    let (user, group) = owner?;
    Some(File {
        path: path?.value,
        content: contents.pop()?,
        mode: mode?,
        user,
        group,
    })
}

fn read_user(table: &mut Table<'_, '_>) -> Option<User> {
    let name = table.string("name");
    let uid = table.number("uid");
    let home = table.string("home");
    let shell = table.string("shell");
    let groups = table.strings("groups");
    match &name {
        None => table.missing("name"),
        Some(name) if !check::is_account(&name.value) => {
            table.note(name.problem(format!("`{}` is no name of a user", name.value)));
        }
        Some(_) => {}
    }
    if uid.is_none() {
        table.missing("uid");
    }
    for path in [&home, &shell].into_iter().flatten() {
        let inner = path.value.strip_prefix('/');
        if !inner.is_some_and(check::is_path) || path.value.contains(':') {
            table.note(path.problem(format!("`{}` is no absolute path", path.value)));
        }
    }
    for group in groups
        .iter()
        .filter(|group| !check::is_account(&group.value))
    {
        table.note(group.problem(format!("`{}` is no name of a group", group.value)));
    }
    let name = name?.value;
    Some(User {
        uid: uid?.value,
        home: home.map_or_else(|| format!("/home/{name}"), |home| home.value),
        shell: shell.map_or_else(|| "/usr/sbin/nologin".to_owned(), |shell| shell.value),
        groups: groups.into_iter().map(|group| group.value).collect(),
        name,
    })
}

impl Document {
    /// Lays a child over this: its words win, its lists are appended.
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
        self.kernel = match (self.kernel, child.kernel) {
            (Some(own), Some(new)) => Some(own.extended_by(new)),
            (own, new) => new.or(own),
        };
        self.test = self.test.extended_by(child.test);
        self.users.extend(child.users);
        self.enable.extend(child.enable);
        self.disable.extend(child.disable);
        self.mask.extend(child.mask);
        self.architectures.extend(child.architectures);
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
        self
    }
}
