use std::fs;

use super::*;

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
        [Role::Kernel, Role::Initrd, Role::Rootfs, Role::Listing]
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
            "two architectures",
            "[\"amd64\"]",
            "[\"amd64\", \"arm64\"]",
            ":4:27: one image",
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

#[test]
fn an_absent_definition_is_a_problem() {
    let problems = load(Path::new("/nonexistent")).unwrap_err();
    assert!(problems[0].to_string().contains("there is no definition"));
}
