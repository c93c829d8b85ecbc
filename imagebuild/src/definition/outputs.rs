//! `outputs`, `[disk]`, `[oci]`, `[budget]` and `[sign]` of a definition: what comes out, and how large it may be.
//!
//! It refuses to say how any of them is made.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::check::{self, Check};
use super::reader::{Located, Table};
use super::{Budget, DiskSizes, Oci, Output, size};

/// As it was written; what is absent is the parent's, or else a default.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    list: Option<Vec<Located<String>>>,
    disk: [Option<Located<String>>; 3],
    oci: OciPart,
    budget: [Option<Located<String>>; 3],
    key: Option<Located<String>>,
}

#[derive(Debug, Default)]
struct OciPart {
    entrypoint: Option<Vec<Located<String>>>,
    cmd: Option<Vec<Located<String>>>,
    env: Vec<(Located<String>, Located<String>)>,
    labels: Vec<(Located<String>, Located<String>)>,
    ports: Vec<Located<String>>,
    user: Option<Located<String>>,
    working_directory: Option<Located<String>>,
    stop_signal: Option<Located<String>>,
}

/// What comes out of it all.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) list: Vec<Output>,
    pub(super) disk: DiskSizes,
    pub(super) oci: Oci,
    pub(super) budget: Budget,
    pub(super) key: Option<PathBuf>,
}

impl Outputs {
    pub(super) fn read(table: &mut Table<'_, '_>, directory: &Path) -> Self {
        let list = table.optional_strings("outputs");
        let disk = table.table("disk", |table| {
            Some(["esp", "slot", "data"].map(|key| table.string(key)))
        });
        let oci = table.table("oci", |table| Some(OciPart::read(table)));
        let budget = table.table("budget", |table| {
            Some(["tree", "rootfs", "initrd"].map(|key| table.string(key)))
        });
        let key = table.table("sign", |table| {
            let key = table.string("key");
            if key.is_none() {
                table.missing("key");
            }
            let mut key = key?;
            let path = directory.join(&key.value);
            if !path.is_file() {
                table.note(key.problem(format!("there is no file `{}`", path.display())));
            }
            key.value = path.to_string_lossy().into_owned();
            Some(key)
        });
        Self {
            list,
            disk: disk.unwrap_or_default(),
            oci: oci.unwrap_or_default(),
            budget: budget.unwrap_or_default(),
            key,
        }
    }

    pub(super) fn extended_by(self, child: Self) -> Self {
        Self {
            list: child.list.or(self.list),
            disk: overlay(self.disk, child.disk),
            oci: self.oci.extended_by(child.oci),
            budget: overlay(self.budget, child.budget),
            key: child.key.or(self.key),
        }
    }

    pub(super) fn check(self, check: &mut Check<'_>, makes: Makes) -> Checked {
        let list = match self.list {
            None => makes.defaults(),
            Some(words) => outputs(check, words, makes),
        };
        let [esp, slot, data] = self.disk.map(|part| bytes(check, part));
        let [tree, rootfs, initrd] = self.budget.map(|part| bytes(check, part));
        Checked {
            list,
            disk: DiskSizes { esp, slot, data },
            oci: self.oci.check(check),
            budget: Budget {
                tree,
                rootfs,
                initrd,
            },
            key: self.key.map(|key| PathBuf::from(key.value)),
        }
    }
}

/// What an image has to make forms of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Makes {
    /// A kernel and a root: everything.
    Disks,
    /// A root without a kernel: containers.
    Containers,
    /// Loaders only.
    Nothing,
}

impl Makes {
    fn defaults(self) -> Vec<Output> {
        match self {
            Self::Disks => Output::ALL.to_vec(),
            Self::Containers => vec![Output::Oci],
            Self::Nothing => Vec::new(),
        }
    }
}

fn outputs(check: &mut Check<'_>, words: Vec<Located<String>>, makes: Makes) -> Vec<Output> {
    let possible = makes.defaults();
    let mut kept = BTreeSet::new();
    for word in words {
        let known = Output::ALL
            .into_iter()
            .find(|output| output.word() == word.value);
        match known {
            Some(output) if possible.contains(&output) => {
                kept.insert(output);
            }
            Some(_) => {
                let message = format!("`{}` needs a `kernel` and `packages`", word.value);
                check.problems.push(word.problem(message));
            }
            None => {
                let all = Output::ALL.map(|output| format!("`{}`", output.word()));
                let message = format!("`{}` is none of {}", word.value, all.join(", "));
                check.problems.push(word.problem(message));
            }
        }
    }
    kept.into_iter().collect()
}

fn overlay(own: [Option<Located<String>>; 3], new: [Option<Located<String>>; 3]) -> Three {
    let mut own = own.into_iter();
    new.map(|new| {
        let old = own.next().flatten();
        new.or(old)
    })
}

type Three = [Option<Located<String>>; 3];

fn bytes(check: &mut Check<'_>, written: Option<Located<String>>) -> Option<u64> {
    let written = written?;
    let bytes = size::parse(&written.value).filter(|bytes| *bytes > 0);
    if bytes.is_none() {
        let message = format!("`{}` is no size such as `400 MB`", written.value);
        check.problems.push(written.problem(message));
    }
    bytes
}

impl OciPart {
    fn read(table: &mut Table<'_, '_>) -> Self {
        Self {
            entrypoint: table.optional_strings("entrypoint"),
            cmd: table.optional_strings("cmd"),
            env: table.map("env"),
            labels: table.map("labels"),
            ports: table.strings("ports"),
            user: table.string("user"),
            working_directory: table.string("working-directory"),
            stop_signal: table.string("stop-signal"),
        }
    }

    /// A child's program brings its own arguments; variables and labels are laid over by name.
    fn extended_by(mut self, child: Self) -> Self {
        if child.entrypoint.is_some() {
            self.entrypoint = child.entrypoint;
            self.cmd = None;
        }
        self.cmd = child.cmd.or(self.cmd);
        self.env.extend(child.env);
        self.labels.extend(child.labels);
        self.ports.extend(child.ports);
        self.user = child.user.or(self.user);
        self.working_directory = child.working_directory.or(self.working_directory);
        self.stop_signal = child.stop_signal.or(self.stop_signal);
        self
    }

    fn check(self, check: &mut Check<'_>) -> Oci {
        let mut word = |word: Located<String>, what: &str, meant: fn(&str) -> bool| {
            if !meant(&word.value) {
                let message = format!("`{}` is no {what}", word.value);
                check.problems.push(word.problem(message));
            }
            word.value
        };
        let mut argv = |words: Option<Vec<Located<String>>>| -> Vec<String> {
            let words = words.unwrap_or_default().into_iter();
            words
                .map(|one| word(one, "argument", |text| !text.contains('\0')))
                .collect()
        };
        let (entrypoint, cmd) = (argv(self.entrypoint), argv(self.cmd));
        let env = self.env.into_iter().map(|(name, value)| {
            let name = word(name, "name of a variable", is_variable);
            (name, word(value, "value", |text| !text.contains('\0')))
        });
        let env = env.collect();
        let labels = self.labels.into_iter();
        Oci {
            entrypoint,
            cmd,
            env,
            labels: labels
                .map(|(name, text)| (name.value, text.value))
                .collect(),
            ports: self
                .ports
                .into_iter()
                .map(|port| word(port, "port such as `443/tcp`", is_port))
                .collect(),
            user: self.user.map(|user| {
                word(user, "user such as `web` or `web:web`", |text| {
                    check::owner(text).is_some()
                })
            }),
            working_directory: self
                .working_directory
                .map(|path| word(path, "absolute path", |path| path.starts_with('/'))),
            stop_signal: self.stop_signal.map(|signal| {
                word(signal, "signal such as `SIGTERM`", |text| {
                    text.starts_with("SIG") && text.bytes().all(|b| b.is_ascii_alphanumeric())
                })
            }),
        }
    }
}

fn is_variable(text: &str) -> bool {
    !text.is_empty() && !text.contains(['=', '\0']) && !text.contains(char::is_whitespace)
}

fn is_port(text: &str) -> bool {
    let (number, kind) = text.split_once('/').unwrap_or((text, "tcp"));
    matches!(kind, "tcp" | "udp" | "sctp")
        && number.bytes().all(|digit| digit.is_ascii_digit())
        && number.parse::<u16>().is_ok_and(|port| port > 0)
}
