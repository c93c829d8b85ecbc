//! What an update would bring is told before it is written, and as much of it is written as was asked for.

use std::fs;
use std::process::{Command, Output};

use e2e::archive::{Archive, Package, SUITES, Signature};
use e2e::rig::{check, printed, run};
use e2e::shop;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::assert_refused;

const fn package<'a>(
    source: &'a str,
    name: &'a str,
    version: &'a str,
    depends: &'a str,
) -> Package<'a> {
    Package {
        name,
        version,
        source,
        depends,
        news: "New upstream release.",
    }
}

const fn secure<'a>(name: &'a str, depends: &'a str) -> Package<'a> {
    Package {
        news: "Do not greet strangers (CVE-2026-1234).",
        ..package("greet", name, "1+sec1", depends)
    }
}

/// An archive, and an image of it that was locked when it was young.
struct Desk {
    archive: Archive,
    folder: TempDir,
}

impl Desk {
    fn new() -> Option<Self> {
        let desk = Self {
            archive: Archive::new()?,
            folder: tempfile::tempdir().expect("a temporary directory"),
        };
        fs::copy(desk.archive.keyring(), desk.folder.path().join("lab.pgp")).expect("a keyring");
        let definition = format!(
            "name = \"small\"\n{}[packages]\ninstall = [\"hello\", \"old\"]\n",
            Archive::distribution()
        );
        fs::write(desk.folder.path().join("image.toml"), definition).expect("a definition");
        let [stable, security] = SUITES;
        let young = [
            package("hello", "hello", "1", "libgreet1"),
            package("greet", "libgreet1", "1", "greet-data (= 1)"),
            package("greet", "greet-data", "1", ""),
            package("old", "old", "1", "liboldest"),
            package("oldest", "liboldest", "1", ""),
        ];
        desk.archive.publish(stable, &young, Signature::Good);
        desk.archive.publish(security, &[], Signature::Good);
        Some(desk)
    }

    /// What became of the archive.
    fn age(&self) {
        let [stable, security] = SUITES;
        let stables = [
            package("hello", "hello", "2", "libgreet1, libnew1"),
            package("new", "libnew1", "1", ""),
            package("greet", "libgreet1", "1", "greet-data (= 1)"),
            package("greet", "greet-data", "1", ""),
            package("old", "old", "2", ""),
        ];
        let securities = [
            secure("libgreet1", "greet-data (= 1+sec1)"),
            secure("greet-data", ""),
        ];
        self.archive.publish(stable, &stables, Signature::Good);
        self.archive.publish(security, &securities, Signature::Good);
    }

    fn run(&self, verb: &str, words: &[&str]) -> Output {
        let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
        imagebuild
            .current_dir(self.folder.path())
            .args([verb, ".", "--cache", "cache", "--mirror"])
            .arg(self.archive.mirror())
            .args(words);
        run(&mut imagebuild)
    }

    fn update(&self, words: &[&str]) -> Value {
        let text = printed(&self.run("update", &[words, &["--json"]].concat()));
        serde_json::from_str(&text).expect("JSON")
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.folder.path().join("image.lock")).expect("a lock")
    }

    fn restore(&self, lock: &str) {
        fs::write(self.folder.path().join("image.lock"), lock).expect("a lock");
    }

    /// Name, old and new version of each package that an update changed.
    fn changes(updated: &Value) -> Vec<[Value; 3]> {
        let sources = updated["sources"].as_array().expect("sources");
        let packages = sources.iter().filter_map(|one| one["packages"].as_array());
        let triple = |one: &Value| ["name", "from", "to"].map(|key| one[key].clone());
        packages.flatten().map(triple).collect()
    }
}

#[test]
fn an_update_tells_what_comes_goes_and_changes_before_it_writes() {
    let Some(desk) = Desk::new() else { return };
    assert_refused(
        &desk.run("update", &[]),
        3,
        &["image.lock", "imagebuild lock"],
    );
    check(&desk.run("lock", &[]));
    desk.age();
    let young = desk.lock();

    let told = printed(&desk.run("update", &["--dry-run", "--changelogs"]));
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "greet (stable-security)  SECURITY",
            "    1+sec1: Do not greet strangers (CVE-2026-1234)."
        ],
        "what is for security comes first: {told}"
    );
    for line in [
        "        CVE-2026-1234",
        "  ~ libgreet1 1 -> 1+sec1, ",
        "hello (stable)",
        "    2: New upstream release.",
        "  ~ hello 1 -> 2, ",
        "  + libnew1 1, +",
        "liboldest (gone)",
        "  - liboldest 1, -",
        "small: 1 added, 1 removed, 4 changed, of 5 source packages (1 for security), ",
        "./image.lock: not written",
    ] {
        assert!(
            lines.iter().any(|one| one.starts_with(line)),
            "`{line}` in {told}"
        );
    }
    let updated = desk.update(&["--dry-run"]);
    assert_eq!(updated["written"], false);
    assert_eq!(
        updated["sources"][0]["changes"][0]["vulnerabilities"],
        json!(["CVE-2026-1234"])
    );
    assert_eq!(desk.lock(), young, "nothing was written");

    assert_eq!(desk.update(&[])["written"], true);
    assert_ne!(desk.lock(), young);
    let again = desk.update(&[]);
    assert_eq!(
        (&again["written"], &again["sources"]),
        (&json!(false), &json!([]))
    );
}

#[test]
fn a_part_of_an_update_is_what_was_asked_for_and_what_that_needs() {
    let Some(desk) = Desk::new() else { return };
    check(&desk.run("lock", &[]));
    desk.age();
    let young = desk.lock();
    let security = desk.update(&["--security"]);
    let fixed = |name: &str| [json!(name), json!("1"), json!("1+sec1")];
    assert_eq!(
        Desk::changes(&security),
        [fixed("greet-data"), fixed("libgreet1")]
    );
    let lock = desk.lock();
    assert!(
        lock.contains("1+sec1") && !lock.contains("libnew1") && lock.contains("liboldest"),
        "{lock}"
    );

    desk.restore(&young);
    let only = desk.update(&["--only", "hello"]);
    let expected = [
        [json!("hello"), json!("1"), json!("2")],
        [json!("libnew1"), Value::Null, json!("1")],
    ];
    assert_eq!(Desk::changes(&only), expected);
    let unknown = desk.run("update", &["--only", "hallo"]);
    assert_refused(&unknown, 3, &["no package `hallo`"]);
    assert_refused(
        &desk.run("update", &["--only", "old", "--security"]),
        2,
        &["--security"],
    );

    // A definition that asks for something else needs all of it resolved.
    let path = desk.folder.path().join("image.toml");
    let text = fs::read_to_string(&path).expect("a definition");
    fs::write(&path, text.replace(", \"old\"", "")).expect("a definition");
    assert_refused(
        &desk.run("update", &["--security"]),
        3,
        &["a part of it cannot be updated"],
    );
    let all = desk.update(&[]);
    assert!(
        Desk::changes(&all).iter().any(|[name, ..]| name == "old"),
        "{all}"
    );
}
