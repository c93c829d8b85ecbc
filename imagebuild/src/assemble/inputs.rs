//! The digest of all that a build is made from.
//!
//! It refuses to know where the definition stands: two copies of it have one digest.

use std::fs::File;
use std::io::{self, Write};

use image_manifest::{CheckCommand, Checks, Digest, Hasher};

use super::{Error, plan};
use crate::definition::{
    self, Budget, Content, Definition, Directory, DiskSizes, Group, Kernel, Loaders, Locale, Oci,
    Packages, Units, User,
};
use crate::stage1;

/// Words and lists that end in a digest; each is preceded by its length, so that no two different
/// sequences are the same bytes.
struct Words(Hasher);

impl Words {
    fn word(&mut self, word: impl AsRef<[u8]>) {
        let word = word.as_ref();
        self.0.update(&(word.len() as u64).to_be_bytes());
        self.0.update(word);
    }

    fn list<W: AsRef<[u8]>>(&mut self, words: impl ExactSizeIterator<Item = W>) {
        self.word(words.len().to_string());
        words.for_each(|word| self.word(word));
    }
}

/// Digests the definition, the files that it brings, the lock and this program.
pub(super) fn digest(
    definition: &Definition,
    lock: &Digest,
    builder: &str,
) -> Result<Digest, Error> {
    // Taken apart so that a new part of a definition cannot be forgotten here.
    let Definition {
        directory: _,
        ancestors,
        // It is part of what the image is called.
        name: _,
        description: _,
        architecture,
        architectures: _,
        distribution,
        packages,
        files,
        directories,
        users,
        groups,
        units,
        locale,
        // It is among the files already.
        timezone: _,
        kernel,
        loaders,
        checks,
        outputs,
        disk,
        oci,
        budget,
        key,
    } = definition;
    let mut words = Words(Hasher::new());
    let levels = format!("{} {}", plan::ROOTFS_LEVEL, plan::INITRD_LEVEL);
    let lock = lock.to_string();
    let image = definition.image_name();
    let fixed = [builder, &levels, &lock, &image, architecture];
    words.list(fixed.iter());
    words.list([&distribution.name, &distribution.release].into_iter());
    if let Some(Packages {
        install: _,
        remove_paths,
    }) = packages
    {
        words.list(remove_paths.iter());
    }
    words.word("files");
    for file in files {
        add_file(&mut words, file)?;
    }
    for directory in directories {
        add_directory(&mut words, directory);
    }
    add_accounts(&mut words, users, groups);
    let Locale { default, generate } = locale;
    words.list(default.iter());
    words.list(generate.iter());
    let Units {
        enable,
        disable,
        mask,
    } = units;
    words.word("units");
    for list in [enable, disable, mask] {
        words.list(list.iter());
    }
    add_checks(&mut words, checks);
    if let Some(kernel) = kernel {
        add_kernel(&mut words, kernel);
    }
    add_loaders(&mut words, loaders.as_ref());
    words.word(ancestors.len().to_string());
    words.list(outputs.iter().map(|output| output.word()));
    add_disk(&mut words, *disk);
    // Whether it is too large is asked when it is built.
    let Budget {
        tree,
        rootfs,
        initrd,
    } = budget;
    let sizes = [tree, rootfs, initrd].map(|size| size.map(|size| size.to_string()));
    words.list(sizes.map(Option::unwrap_or_default).iter());
    add_oci(&mut words, oci);
    if let Some(key) = key {
        add_content(&mut words, &Content::Source(key.clone()))?;
    }
    Ok(words.0.finish())
}

/// Digests what the configured tree is made from: the lock, this program, and the parts of the definition that are at work
/// before its own files are laid over it.
pub(super) fn configured(definition: &Definition, lock: &Digest, builder: &str) -> Digest {
    // Taken apart so that a new part of a definition cannot be forgotten here.
    let Definition {
        directory: _,
        ancestors: _,
        name: _,
        description: _,
        architecture,
        architectures: _,
        distribution,
        packages,
        files: _,
        directories: _,
        users: _,
        groups: _,
        units: _,
        locale,
        timezone: _,
        kernel,
        loaders,
        checks: _,
        outputs: _,
        disk: _,
        oci: _,
        budget: _,
        key: _,
    } = definition;
    let mut words = Words(Hasher::new());
    let lock = lock.to_string();
    words.list([builder, "configured", &lock, architecture].into_iter());
    words.list([&distribution.name, &distribution.release].into_iter());
    words.word(if packages.is_some() {
        "packages"
    } else {
        "none"
    });
    if let Some(packages) = packages {
        words.list(packages.remove_paths.iter());
    }
    words.list(locale.generate.iter());
    if let Some(kernel) = kernel {
        add_kernel(&mut words, kernel);
    }
    add_loaders(&mut words, loaders.as_ref());
    words.0.finish()
}

fn add_loaders(words: &mut Words, loaders: Option<&Loaders>) {
    if let Some(Loaders { packages, files }) = loaders {
        words.list(packages.iter());
        words.list(files.keys());
        words.list(files.values());
    }
}

fn add_accounts(words: &mut Words, users: &[User], groups: &[Group]) {
    words.word("users");
    for user in users {
        let User {
            name,
            uid,
            kind,
            group,
            comment,
            home,
            shell,
            groups,
            ssh_keys,
        } = user;
        let uid = uid.to_string();
        words.list([name, &uid, kind.word(), comment, home, shell].into_iter());
        for list in [groups, ssh_keys] {
            words.list(list.iter());
        }
        words.list(group.iter());
    }
    words.word("groups");
    for group in groups {
        let Group { name, gid, members } = group;
        words.list([name, &gid.to_string()].into_iter());
        words.list(members.iter());
    }
}

fn add_directory(words: &mut Words, directory: &Directory) {
    let Directory {
        path,
        mode,
        user,
        group,
    } = directory;
    let mode = mode.map_or_else(String::new, |mode| format!("{mode:o}"));
    words.list(["directory", path, &mode, user, group].into_iter());
}

fn add_checks(words: &mut Words, checks: &Checks) {
    let Checks {
        units,
        ports,
        commands,
    } = checks;
    words.word("checks");
    words.list(units.iter());
    words.list(ports.iter().map(u16::to_string));
    for command in commands {
        let CheckCommand {
            name,
            run,
            timeout_seconds,
        } = command;
        words.list([name, &timeout_seconds.to_string()].into_iter());
        words.list(run.iter());
    }
}

fn add_kernel(words: &mut Words, kernel: &Kernel) {
    let Kernel {
        package,
        command_line,
        modules,
        exclude_modules,
        firmware,
        initrd_modules,
    } = kernel;
    words.list(["kernel", package, command_line].into_iter());
    for list in [modules, exclude_modules, firmware, initrd_modules] {
        words.list(list.iter());
    }
    words.word(Digest::of(stage1::INIT).to_string());
}

fn add_disk(words: &mut Words, disk: DiskSizes) {
    let DiskSizes { esp, slot, data } = disk;
    let sizes = [esp, slot, data].map(|size| size.map(|size| size.to_string()));
    words.list(sizes.map(Option::unwrap_or_default).iter());
}

fn add_oci(words: &mut Words, oci: &Oci) {
    let Oci {
        entrypoint,
        cmd,
        env,
        labels,
        ports,
        user,
        working_directory,
        stop_signal,
    } = oci;
    words.list(entrypoint.iter());
    words.list(cmd.iter());
    for map in [env, labels] {
        words.list(map.keys());
        words.list(map.values());
    }
    words.word(ports.len().to_string());
    for port in ports {
        words.word(port);
    }
    for one in [user, working_directory, stop_signal] {
        words.list(one.iter());
    }
}

fn add_file(words: &mut Words, file: &definition::File) -> Result<(), Error> {
    let definition::File {
        path,
        content,
        mode,
        user,
        group,
    } = file;
    words.list([path, &format!("{mode:o}"), user, group].into_iter());
    add_content(words, content)
}

fn add_content(words: &mut Words, content: &Content) -> Result<(), Error> {
    match content {
        Content::Source(source) => {
            let read = |error| Error::Source {
                path: source.clone(),
                source: error,
            };
            let mut hasher = Hasher::new();
            let mut file = File::open(source).map_err(read)?;
            io::copy(&mut file, &mut hasher).map_err(read)?;
            hasher.flush().map_err(read)?;
            words.list(["bytes", &hasher.finish().to_string()].into_iter());
        }
        Content::Text(text) => {
            words.list(["bytes", &Digest::of(text.as_bytes()).to_string()].into_iter());
        }
        Content::Target(target) => words.list(["link", target].into_iter()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::definition::Distribution;

    fn definition(directory: &Path) -> Definition {
        Definition {
            directory: directory.to_owned(),
            ancestors: vec![directory.to_owned()],
            name: "host".to_owned(),
            description: String::new(),
            architecture: "amd64".to_owned(),
            distribution: Distribution {
                name: "debian".to_owned(),
                release: "trixie".to_owned(),
                keyring: directory.join("keyring"),
                components: Vec::new(),
                suites: Vec::new(),
            },
            packages: Some(Packages::default()),
            files: vec![definition::File {
                path: "etc/motd".to_owned(),
                content: Content::Source(directory.join("motd")),
                mode: 0o644,
                user: "root".to_owned(),
                group: "root".to_owned(),
            }],
            ..Definition::default()
        }
    }

    type Change = fn(&mut Definition);

    #[test]
    fn only_what_shows_in_the_image_changes_the_digest() {
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = directories.each_ref().map(|directory| {
            std::fs::write(directory.path().join("motd"), "hello").unwrap();
            definition(directory.path())
        });
        let lock = Digest::of(b"lock");
        let of = |definition: &Definition| digest(definition, &lock, "builder").unwrap();
        assert_eq!(of(&first), of(&second), "where it stands does not count");

        let changes: [(&str, Change); 9] = [
            ("mode", |changed| {
                changed.files[0].mode = 0o600;
            }),
            ("path", |changed| {
                changed.files[0].path = "etc/issue".to_owned();
            }),
            ("unit", |changed| {
                changed.units.mask.push("a.service".to_owned());
            }),
            ("group", |changed| {
                changed.groups.push(Group {
                    name: "web".to_owned(),
                    gid: 900,
                    members: Vec::new(),
                });
            }),
            ("locale", |changed| {
                changed.locale.generate.insert("de_DE.UTF-8".to_owned());
            }),
            ("entrypoint", |changed| {
                changed.oci.entrypoint.push("/bin/sh".to_owned());
            }),
            ("check", |changed| {
                changed.checks.ports.push(22);
            }),
            ("removed paths", |changed| {
                changed.packages = Some(Packages {
                    remove_paths: vec!["usr/share/doc/**".to_owned()],
                    ..Packages::default()
                });
            }),
            ("content", |changed| {
                changed.files[0].content = Content::Text("hullo".to_owned());
            }),
        ];
        let before = |definition: &Definition| configured(definition, &lock, "builder");
        assert_eq!(before(&first), before(&second));
        for (name, edit) in changes {
            let mut other = second.clone();
            edit(&mut other);
            assert_ne!(of(&other), of(&first), "{name}");
            let runs_scripts = ["locale", "removed paths"].contains(&name);
            assert_eq!(before(&other) != before(&first), runs_scripts, "{name}");
        }
        assert_ne!(
            configured(&first, &Digest::of(b"other"), "builder"),
            before(&first)
        );
        assert_ne!(configured(&first, &lock, "another"), before(&first));
        let mut same = second;
        same.files[0].content = Content::Text("hello".to_owned());
        assert_eq!(
            of(&same),
            of(&first),
            "the bytes count, not where they come from"
        );
        assert_ne!(
            digest(&first, &Digest::of(b"other"), "builder").unwrap(),
            of(&first)
        );
        assert_ne!(digest(&first, &lock, "another").unwrap(), of(&first));
    }
}
