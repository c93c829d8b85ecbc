use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

/// A package in the making.
struct Made {
    name: &'static str,
    control: String,
    files: Vec<(&'static str, &'static str)>,
    data: tar::Builder<Vec<u8>>,
}

fn made(name: &'static str, fields: &str) -> Made {
    let control = format!("Package: {name}\nVersion: 1.0\nArchitecture: all\n{fields}");
    let data = tar::Builder::new(Vec::new());
    Made {
        name,
        control,
        files: Vec::new(),
        data,
    }
}

impl Made {
    fn entry(mut self, path: &str, kind: tar::EntryType, mode: u32, text: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(if mode & 0o2000 == 0 { 0 } else { 8 });
        header.set_mtime(5);
        if kind.is_symlink() || kind.is_hard_link() {
            header.set_size(0);
            self.data.append_link(&mut header, path, text).unwrap();
        } else {
            header.set_size(text.len() as u64);
            self.data
                .append_data(&mut header, path, text.as_bytes())
                .unwrap();
        }
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        self.entry(path, tar::EntryType::Regular, 0o644, text)
    }

    fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, mode, "")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, 0o777, target)
    }

    fn control_file(mut self, name: &'static str, text: &'static str) -> Self {
        self.files.push((name, text));
        self
    }

    fn write(self, directory: &Path) -> PathBuf {
        let mut control = tar::Builder::new(Vec::new());
        for (name, text) in self
            .files
            .iter()
            .copied()
            .chain([("control", &*self.control)])
        {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(text.len() as u64);
            control
                .append_data(&mut header, name, text.as_bytes())
                .unwrap();
        }
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", control.into_inner().unwrap()),
            ("data.tar", self.data.into_inner().unwrap()),
        ] {
            let length = content.len();
            bytes.extend(
                format!("{name:<16}0           0     0     100644  {length:<10}`\n").bytes(),
            );
            bytes.extend(content);
            if length % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        let file = directory.join(format!("{}.deb", self.name));
        fs::write(&file, bytes).unwrap();
        file
    }
}

/// A directory for packages, and a root to unpack them into.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn unpack(&self, packages: Vec<Made>, excludes: &[&str]) -> Result<Unpacked, Error> {
        let files: Vec<PathBuf> = packages
            .into_iter()
            .map(|package| package.write(self.directory.path()))
            .collect();
        unpack(&files, &self.root(), &Excludes::new(excludes))
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root().join(path)).ok()
    }
}

#[test]
fn a_package_leaves_files_owners_and_a_database() {
    let bench = Bench::new();
    let package = made("a", "Multi-Arch: same\nMaintainer: x\n")
        .directory("./", 0o755)
        .directory("./var/mail", 0o2775)
        .file("./var/mail/inside", "")
        .file("./etc/a.conf", "new")
        .file("./usr/share/doc/a/copyright", "long")
        .file("./usr/bin/a", "program")
        .entry("./usr/bin/b", tar::EntryType::Link, 0o644, "usr/bin/a")
        .control_file("conffiles", "/etc/a.conf\n")
        .control_file("postinst", "#!/bin/sh\n")
        .control_file("triggers", "interest-noawait /usr/lib/x\ninterest y\n");
    let unpacked = bench.unpack(vec![package], &["usr/share/doc/**"]).unwrap();
    let root = bench.root();
    assert_eq!(bench.read("etc/a.conf.dpkg-new").as_deref(), Some("new"));
    assert_eq!(bench.read("etc/a.conf"), None);
    assert_eq!(bench.read("usr/share/doc/a/copyright"), None);
    assert_eq!(fs::metadata(root.join("usr/bin/b")).unwrap().nlink(), 2);
    let mail = fs::metadata(root.join("var/mail")).unwrap();
    assert_eq!(mail.permissions().mode() & 0o7777, 0o2775);
    assert_eq!(
        unpacked
            .owners
            .of(mail.dev(), mail.ino())
            .map(|owner| owner.gid),
        Some(8)
    );
    let inside = fs::metadata(root.join("var/mail/inside")).unwrap();
    assert_eq!(
        unpacked.owners.of(inside.dev(), inside.ino()),
        Some(&Owner::default())
    );
    let cases = [
        (
            "status",
            "Package: a\nStatus: install ok unpacked\nVersion: 1.0\nArchitecture: all\n\
             Multi-Arch: same\nMaintainer: x\nConffiles:\n /etc/a.conf newconffile\n\n",
        ),
        (
            "info/a:all.list",
            "/.\n/var/mail\n/var/mail/inside\n/etc/a.conf\n/usr/share/doc/a/copyright\n\
             /usr/bin/a\n/usr/bin/b\n",
        ),
        ("info/a:all.postinst", "#!/bin/sh\n"),
        ("info/format", "1\n"),
        ("triggers/File", "/usr/lib/x a:all/noawait\n"),
        ("triggers/y", "a:all\n"),
        ("diversions", ""),
    ];
    for (path, expected) in cases {
        let path = format!("{}/{path}", database::DIRECTORY);
        assert_eq!(bench.read(&path).as_deref(), Some(expected), "{path}");
    }
}

#[test]
fn a_package_that_replaces_another_takes_its_file() {
    for (first, second) in [("Replaces: b (<< 2)\n", ""), ("", "Replaces: a\n")] {
        let bench = Bench::new();
        let packages = vec![
            made("a", first)
                .file("./usr/bin/x", "of a")
                .file("./usr/bin/big", &"y".repeat(9000)),
            made("b", second).file("./usr/bin/x", "of b"),
        ];
        bench.unpack(packages, &[]).unwrap();
        let (winner, loser) = if first.is_empty() {
            ("b", "a")
        } else {
            ("a", "b")
        };
        assert_eq!(bench.read("usr/bin/x"), Some(format!("of {winner}")));
        let list = |name| {
            bench
                .read(&format!("var/lib/dpkg/info/{name}.list"))
                .unwrap()
        };
        assert!(list(winner).contains("/usr/bin/x\n"));
        assert!(!list(loser).contains("/usr/bin/x\n"));
    }
}

#[test]
fn the_same_file_twice_is_refused_with_both_names() {
    let bench = Bench::new();
    let packages = vec![
        made("a", "Replaces: b (>= 3)\n").file("./usr/bin/x", "1"),
        made("b", "").file("./usr/bin/x", "2"),
    ];
    let text = bench.unpack(packages, &[]).unwrap_err().to_string();
    for word in ["`a`", "`b`", "`usr/bin/x`"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn merged_directories_are_one() {
    let bench = Bench::new();
    let packages = vec![
        made("a", "").directory("./bin", 0o755).file("./bin/x", "1"),
        made("base-files", "Essential: yes\n")
            .directory("./usr/bin", 0o755)
            .link("./bin", "usr/bin"),
        made("c", "").file("./usr/bin/x", "2"),
    ];
    let error = bench.unpack(packages, &[]).unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
}

#[test]
fn where_a_link_meets_a_directory_the_order_decides() {
    let bench = Bench::new();
    let packages = vec![
        made("a", "Depends: z\n")
            .directory("./usr/lib/tool", 0o755)
            .file("./usr/lib/tool/x", "1"),
        made("z", "")
            .directory("./opt/tool", 0o700)
            .link("./usr/lib/tool", "../../opt/tool"),
    ];
    bench.unpack(packages, &[]).unwrap();
    assert_eq!(bench.read("opt/tool/x").as_deref(), Some("1"));
    let mode = fs::metadata(bench.root().join("opt/tool")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_first_in_order_gives_a_directory_its_mode() {
    let bench = Bench::new();
    let packages = vec![
        made("a", "Depends: b\n")
            .directory("./srv", 0o755)
            .file("./srv/a", ""),
        made("b", "").directory("./srv", 0o511).file("./srv/b", ""),
    ];
    bench.unpack(packages, &[]).unwrap();
    let mode = fs::metadata(bench.root().join("srv")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o511);
}

#[test]
fn a_package_that_diverts_waits_and_then_keeps_its_path() {
    let bench = Bench::new();
    let packages = vec![
        made("a", "").file("./usr/bin/x", "of a"),
        made("mine", "")
            .file("./usr/bin/x", "of mine")
            .control_file("preinst", "dpkg-divert …"),
        made("other", "")
            .file("./usr/bin/y", "of other")
            .control_file("preinst", "dpkg-divert …"),
    ];
    let mut unpacked = bench.unpack(packages, &[]).unwrap();
    assert_eq!(unpacked.waiting.len(), 2);
    // As the preinst of `mine` would have done.
    let bin = bench.root().join("usr/bin");
    fs::rename(bin.join("x"), bin.join("x.real")).unwrap();
    let text = "/usr/bin/x\n/usr/bin/x.real\nmine\n/usr/bin/y\n/usr/bin/y.real\nmine\n";
    fs::write(bench.root().join("var/lib/dpkg/diversions"), text).unwrap();
    let diversions = Diversions::read(&bench.root()).unwrap();
    for index in unpacked.waiting.clone() {
        unpacked.unpack_waiting(index, &diversions).unwrap();
    }
    for (path, expected) in [("x", "of mine"), ("x.real", "of a"), ("y.real", "of other")] {
        assert_eq!(
            bench.read(&format!("usr/bin/{path}")).as_deref(),
            Some(expected),
            "{path}"
        );
    }
}

#[test]
fn a_root_that_holds_something_is_refused() {
    let bench = Bench::new();
    fs::create_dir(bench.root()).unwrap();
    fs::write(bench.root().join("precious"), "").unwrap();
    assert!(matches!(
        bench.unpack(vec![made("a", "")], &[]),
        Err(Error::Root { .. })
    ));
    assert!(bench.read("precious").is_some());
}

#[test]
fn a_torn_package_is_named() {
    let bench = Bench::new();
    let file = made("a", "")
        .file("./x", "text")
        .write(bench.directory.path());
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1200]).unwrap();
    let error = unpack(&[file], &bench.root(), &Excludes::default()).unwrap_err();
    assert!(error.to_string().contains("package `a`"), "{error}");
}
