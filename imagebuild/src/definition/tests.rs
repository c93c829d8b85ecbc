use std::fs;

use super::*;

mod architectures;

const BASE: &str = r#"
name = "base"
description = "small"
architectures = ["amd64"]
[distribution]
name = "debian"
release = "trixie"
keyring = "keys.pgp"
components = ["main"]
suites = [{ archive = "debian", suite = "trixie" }]
[packages]
install = ["bash", "tzdata=2025b-4"]
remove-paths = ["usr/share/doc/**"]
[[file]]
path = "etc/issue"
content = "hello"
[[user]]
name = "ops"
uid = 1000
groups = ["adm"]
"#;

const CHILD: &str = r#"
name = "host"
extends = "../base"
[distribution]
components = ["non-free-firmware", "main"]
[packages]
install = ["bash=5.2", "udev"]
[kernel]
package = "linux-image-amd64"
command-line = "quiet"
modules = ["overlay", "kernel/fs/**"]
firmware = ["firmware-bnx2"]
[units]
enable = ["ssh.service"]
[[file]]
path = "etc/issue"
target = "../run/issue"
owner = "ops:adm"
mode = "0600"
"#;

fn site(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn load_base(text: &str) -> Result<Definition, Vec<Problem>> {
    let site = site(&[("base/image.toml", text), ("base/keys.pgp", "")]);
    load(&site.path().join("base"))
}

#[test]
fn a_child_overrides_words_and_appends_lists() {
    let site = site(&[
        ("base/image.toml", BASE),
        ("base/keys.pgp", ""),
        ("host/image.toml", CHILD),
    ]);
    let host = load(&site.path().join("host")).unwrap();
    assert_eq!(
        (host.name.as_str(), host.description.as_str()),
        ("host", "small")
    );
    assert_eq!(host.architecture, "amd64");
    assert_eq!(host.distribution.components, ["main", "non-free-firmware"]);
    assert!(host.distribution.keyring.ends_with("base/keys.pgp"));
    let packages = host.packages.clone().unwrap();
    let install: Vec<_> = packages
        .install
        .iter()
        .map(|request| (request.name.as_str(), request.version.as_deref()))
        .collect();
    assert_eq!(
        install,
        [
            ("bash", Some("5.2")),
            ("tzdata", Some("2025b-4")),
            ("udev", None)
        ]
    );
    assert_eq!(packages.remove_paths, ["usr/share/doc/**"]);
    assert_eq!(
        host.files.len(),
        1,
        "the child's file replaces its parent's"
    );
    assert_eq!(
        host.files[0].content,
        Content::Target("../run/issue".to_owned())
    );
    assert_eq!(
        (host.files[0].mode, host.files[0].group.as_str()),
        (0o600, "adm")
    );
    assert_eq!(host.users[0].home, "/home/ops");
    assert_eq!(host.kernel.as_ref().unwrap().firmware, ["firmware-bnx2"]);
    assert_eq!(
        host.roles(),
        [
            Role::Kernel,
            Role::Initrd,
            Role::Rootfs,
            Role::Listing,
            Role::Verity,
            Role::Uki,
            Role::Boot,
            Role::BlockMap
        ]
    );
    let base = load(&site.path().join("base")).unwrap();
    assert_eq!(base.roles(), [Role::Rootfs, Role::Listing]);
    assert_eq!(
        (base.files[0].mode, base.files[0].user.as_str()),
        (0o644, "root")
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one table")]
fn each_mistake_is_found_in_its_place() {
    let cases = [
        (
            "unknown key",
            "name = \"base\"",
            "name = \"base\"\nnmae = 1",
            ":3:1: unknown key `nmae`",
        ),
        (
            "unknown key in a table",
            "install =",
            "instal =",
            ":12:1: unknown key `instal`",
        ),
        (
            "wrong type",
            "uid = 1000",
            "uid = \"x\"",
            ":19:7: `uid` is a string, expected a number",
        ),
        (
            "wrong type in a list",
            "[\"adm\"]",
            "[1]",
            ":20:11: `groups` is a number, expected a string",
        ),
        (
            "negative number",
            "uid = 1000",
            "uid = -1",
            ":19:7: `uid` is a number, expected a number from 0",
        ),
        (
            "no package",
            "\"bash\"",
            "\"Bash\"",
            ":12:12: `Bash` is no package",
        ),
        (
            "no version",
            "tzdata=2025b-4",
            "tzdata=$x",
            "`tzdata=$x` is no package",
        ),
        (
            "two versions",
            "\"bash\"",
            "\"bash=1\", \"bash=2\"",
            "version `1` too",
        ),
        (
            "leading slash",
            "\"etc/issue\"",
            "\"/etc/issue\"",
            ":15:8: `/etc/issue` is no path",
        ),
        ("climbing", "\"etc/issue\"", "\"etc/../x\"", "is no path"),
        (
            "two contents",
            "content =",
            "source = \"keys.pgp\"\ncontent =",
            "exactly one of",
        ),
        (
            "no content",
            "content = \"hello\"",
            "",
            ":14:1: exactly one of",
        ),
        (
            "no source",
            "content = \"hello\"",
            "source = \"absent\"",
            ":16:10: there is no file",
        ),
        (
            "bad mode",
            "content =",
            "mode = \"0999\"\ncontent =",
            "`0999` is no mode",
        ),
        (
            "no keyring",
            "keys.pgp",
            "other.pgp",
            ":8:11: there is no file",
        ),
        (
            "no suite",
            ", suite = \"trixie\"",
            "",
            ":10:11: `suite` is missing",
        ),
        (
            "no name",
            "name = \"base\"",
            "",
            "image.toml: `name` is missing",
        ),
        (
            "no architecture",
            "architectures = [\"amd64\"]",
            "",
            "image.toml: `architectures` is missing",
        ),
        (
            "no name of an architecture",
            "[\"amd64\"]",
            "[\"amd64\", \"ARM64\"]",
            ":4:27: `ARM64` is no architecture",
        ),
        ("no toml", "name = \"base\"", "name = base", ":2:8: "),
        (
            "absent parent",
            "name = \"base\"",
            "name = \"base\"\nextends = \"../no\"",
            ":3:11: there is no definition",
        ),
        (
            "itself",
            "name = \"base\"",
            "name = \"base\"\nextends = \"../base\"",
            ":3:11: ",
        ),
        (
            "user twice",
            "[[user]]",
            "[[user]]\nname = \"ops\"\nuid = 1\n[[user]]",
            "`ops` is taken",
        ),
        (
            "no port",
            "[[user]]",
            "[test]\nports = [22, 65536]\n[[user]]",
            ":18:14: `65536` is no port",
        ),
        (
            "a port that is no number",
            "[[user]]",
            "[test]\nports = [\"ssh\"]\n[[user]]",
            ":18:10: `ports` is a string, expected a number",
        ),
        (
            "a check of no unit",
            "[[user]]",
            "[test]\nunits = [\"ssh\"]\n[[user]]",
            ":18:10: `ssh` is no unit",
        ),
        (
            "unknown key in a check",
            "[[user]]",
            "[[test.command]]\nname = \"a\"\nrun = [\"a\"]\nshell = \"b\"\n[[user]]",
            ":20:1: unknown key `shell`",
        ),
        (
            "a command without program",
            "[[user]]",
            "[[test.command]]\nname = \"a\"\n[[user]]",
            ":17:1: `run` is missing",
        ),
        (
            "a command line",
            "[[user]]",
            "[[test.command]]\nname = \"a\"\nrun = [\"curl localhost\"]\n[[user]]",
            ":19:8: `curl localhost` is no program",
        ),
        (
            "a command that never ends",
            "[[user]]",
            "[[test.command]]\nname = \"a\"\nrun = [\"a\"]\ntimeout = \"5m\"\n[[user]]",
            ":20:11: `5m` is no time",
        ),
        (
            "a command twice",
            "[[user]]",
            "[[test.command]]\nname = \"a\"\nrun = [\"a\"]\n[[test.command]]\nname = \"a\"\nrun = [\"b\"]\n[[user]]",
            ":21:8: `a` is given twice",
        ),
        (
            "the file of the checks",
            "etc/issue",
            "usr/lib/firstboot/test.json",
            "is written from `[test]`",
        ),
        (
            "no unit",
            "[[user]]",
            "[units]\nmask = [\"ssh\"]\n[[user]]",
            "`ssh` is no unit",
        ),
    ];
    for (name, from, to, expected) in cases {
        let text = BASE.replacen(from, to, 1);
        assert_ne!(text, BASE, "{name}");
        let problems = load_base(&text).unwrap_err();
        let found = problems
            .iter()
            .any(|problem| problem.to_string().contains(expected));
        assert!(found, "{name}: {problems:?}");
    }
}

#[test]
fn all_problems_of_all_files_come_at_once() {
    let base = BASE
        .replace("uid = 1000", "uid = true")
        .replace("[packages]", "[packages]\ntypo = 1");
    let child = CHILD.replace("enable", "enabel").replace("0600", "rw");
    let site = site(&[
        ("base/image.toml", &base),
        ("base/keys.pgp", ""),
        ("host/image.toml", &child),
    ]);
    let problems = load(&site.path().join("host")).unwrap_err();
    let mut found: Vec<_> = problems
        .iter()
        .map(|problem| {
            let directory = problem.file.parent().unwrap().file_name().unwrap();
            (directory.to_str().unwrap(), problem.position().unwrap())
        })
        .collect();
    found.sort_unstable();
    let expected = [
        ("base", (12, 1)),
        ("base", (18, 1)),
        ("base", (20, 7)),
        ("host", (14, 1)),
        ("host", (19, 8)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn checks_are_inherited_and_need_no_new_lock() {
    let parent = "[test]\nunits = [\"a.service\"]\nports = [22]\n[[test.command]]\nname = \"db\"\nrun = [\"old\"]\n\
        [[test.command]]\nname = \"kept\"\nrun = [\"kept\", \"a b\"]\ntimeout = \"3s\"\n[[user]]";
    let child = "[test]\nunits = [\"a.service\", \"b.service\"]\nports = [80]\n[[test.command]]\nname = \"db\"\n\
        run = [\"new\"]\n[kernel]";
    let load = |parent: &str, child: &str| {
        let site = site(&[
            ("base/image.toml", &BASE.replace("[[user]]", parent)),
            ("base/keys.pgp", ""),
            ("host/image.toml", &CHILD.replace("[kernel]", child)),
        ]);
        super::load(&site.path().join("host")).unwrap()
    };
    let host = load(parent, child);
    assert_eq!(host.checks.units, ["a.service", "b.service"]);
    assert_eq!(host.checks.ports, [22, 80]);
    let commands = host.checks.commands.iter();
    let commands: Vec<_> = commands
        .map(|command| {
            (
                command.name.as_str(),
                command.run.join("|"),
                command.timeout_seconds,
            )
        })
        .collect();
    let expected = [
        ("kept", "kept|a b".to_owned(), 3),
        ("db", "new".to_owned(), 10),
    ];
    assert_eq!(commands, expected);
    let request = |definition: &Definition| crate::lock::Request::of(definition).digest();
    assert_eq!(request(&host), request(&load("[[user]]", "[kernel]")));
}

/// What a definition says beside packages: all of it.
const RICH: &str = r#"
name = "rich"
extends = "../base"
timezone = "Europe/Berlin"
outputs = ["oci", "oci"]
[[directory]]
path = "srv/site"
source = "site"
owner = "ops:adm"
mode = "0750"
[[user]]
name = "web"
uid = 900
system = true
group = "sites"
comment = "Serves"
ssh-keys = []
[[group]]
name = "sites"
gid = 901
members = ["ops"]
[[units.drop-in]]
unit = "ssh.service"
name = "10-x.conf"
content = "[Service]\nNice=1\n"
[sysctl]
net.ipv4.ip_forward = 1
"kernel.core_pattern" = "|/bin/false"
[locale]
default = "de_DE.UTF-8"
generate = ["de_DE.UTF-8", "C.UTF-8"]
[budget]
tree = "400 MB"
[disk]
slot = "1 GiB"
[oci]
entrypoint = ["/usr/bin/web"]
ports = ["443/tcp"]
env = { A = "b" }
[oci.labels]
"org.example" = "x"
"#;

fn rich(text: &str) -> Result<Definition, Vec<Problem>> {
    let site = site(&[
        ("base/image.toml", BASE),
        ("base/keys.pgp", ""),
        ("rich/image.toml", text),
        ("rich/key.pub", ""),
        ("rich/site/b/page", "hello"),
        ("rich/site/run", "#!"),
    ]);
    let run = site.path().join("rich/site/run");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(run, mode).unwrap();
    std::os::unix::fs::symlink("b/page", site.path().join("rich/site/index")).unwrap();
    load(&site.path().join("rich"))
}

#[test]
fn settings_become_files() {
    let rich = rich(RICH).unwrap();
    let text = |path: &str| {
        let file = rich.files.iter().find(|file| file.path == path);
        let file = file.unwrap_or_else(|| panic!("no `{path}`"));
        match &file.content {
            Content::Text(text) => text.clone(),
            Content::Target(target) => format!("-> {target}"),
            Content::Source(_) => format!("{:o} {}:{}", file.mode, file.user, file.group),
        }
    };
    let cases = [
        (
            "etc/sysctl.d/90-image.conf",
            "kernel.core_pattern = |/bin/false\nnet.ipv4.ip_forward = 1\n",
        ),
        ("etc/locale.conf", "LANG=de_DE.UTF-8\n"),
        ("etc/localtime", "-> ../usr/share/zoneinfo/Europe/Berlin"),
        ("etc/timezone", "Europe/Berlin\n"),
        (
            "etc/systemd/system/ssh.service.d/10-x.conf",
            "[Service]\nNice=1\n",
        ),
        ("srv/site/b/page", "644 ops:adm"),
        ("srv/site/run", "755 ops:adm"),
        ("srv/site/index", "-> b/page"),
    ];
    for (path, expected) in cases {
        assert_eq!(text(path), expected, "{path}");
    }
    let directories: Vec<_> = rich
        .directories
        .iter()
        .map(|one| (one.path.as_str(), one.mode))
        .collect();
    let expected = [("srv/site", Some(0o750)), ("srv/site/b", None)];
    assert_eq!(directories, expected);
    assert_eq!(rich.users[1].home, NO_HOME);
    assert_eq!(rich.users[1].group.as_deref(), Some("sites"));
    assert_eq!(rich.groups[0].members, ["ops"]);
    assert_eq!(rich.outputs, [Output::Oci]);
    assert_eq!(rich.budget.tree, Some(400_000_000));
    assert_eq!(rich.disk.slot, Some(1 << 30));
    assert_eq!(rich.oci.env["A"], "b");
    assert!(rich.locale.generate.iter().eq(["de_DE.UTF-8"]));
    assert_eq!(rich.ancestors.len(), 2);
    assert!(rich.ancestors[1].ends_with("rich"));
}

#[test]
fn mistakes_in_settings_are_found_in_their_places() {
    let cases = [
        ("uid = 900", "uid = 1900", "is no number of a system user"),
        ("system = true", "system = 1", "expected true or false"),
        ("gid = 901", "gid = 1000", "group `sites` is taken"),
        ("ssh-keys = []", "ssh-keys = [\"x y\"]", "no type of key"),
        (
            "ssh-keys = []",
            "ssh-keys = [\"ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==\"]",
            "of another type",
        ),
        (
            "ssh-keys = []",
            "ssh-keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==\"]",
            "keys need a `home`",
        ),
        ("10-x.conf", "10-x.txt", "does not end in `.conf`"),
        ("unit = \"ssh.service\"", "unit = \"ssh\"", "is no unit"),
        (
            "ip_forward = 1",
            "ip_forward = true",
            "a string or a number",
        ),
        ("\"kernel.core_pattern\"", "\"a b\"", "no name of a kernel"),
        ("default = \"de", "default = \"fr", "`locale.generate`"),
        ("\"de_DE.UTF-8\",", "\"de_DE\",", "`de_DE` is no locale"),
        ("Europe/Berlin", "../x", "is no time zone"),
        ("400 MB", "400", "is no size"),
        ("[\"oci\", ", "[\"iso\", ", "`iso` is none of `raw`"),
        ("[\"oci\", ", "[\"raw\", ", "`raw` needs a `kernel`"),
        ("443/tcp", "0/tcp", "is no port"),
        ("A = \"b\"", "A = 1", "expected a string"),
        ("source = \"site\"", "source = \"no\"", "failed to copy"),
        (
            "[sysctl]",
            "[sign]\nkye = \"x\"\n[sysctl]",
            "unknown key `kye`",
        ),
        (
            "[sysctl]",
            "[sign]\nkey = \"x\"\n[sysctl]",
            "there is no file",
        ),
        (
            "[sysctl]",
            "[[file]]\npath = \"etc/locale.conf\"\ncontent = \"\"\n[sysctl]",
            "is written from `[locale]`",
        ),
        (
            "[[user]]",
            "[[directory]]\npath = \"srv/site\"\n[[user]]",
            "given twice",
        ),
    ];
    for (from, to, expected) in cases {
        let text = RICH.replacen(from, to, 1);
        assert_ne!(text, RICH, "{from}");
        let problems = rich(&text).unwrap_err();
        let found = problems
            .iter()
            .any(|problem| problem.to_string().contains(expected) && problem.position().is_some());
        assert!(found, "{to}: {problems:?}");
    }
}

#[test]
fn an_absent_definition_is_a_problem() {
    let problems = load(Path::new("/nonexistent")).unwrap_err();
    assert!(problems[0].to_string().contains("there is no definition"));
}
