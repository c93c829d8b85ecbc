//! Backups: taken at every step of a deployment, restored elsewhere, and refused where a byte is wrong.
//!
//! It refuses to compare with the product's own eyes only: sqlite3 and diff look at the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use e2e::desk::token;
use e2e::haunted::{Haunted, IMAGES};
use e2e::need;
use e2e::rig::{Rig, check, printed, run};
use ipmi::ResetKind;
use ipmi::sim::Moment;

use super::rack;

fn backup(rig: &Rig, name: &str) -> PathBuf {
    let file = rig.path(name);
    check(&rig.netboot(&["backup", &file.display().to_string()]));
    file
}

fn restore(rig: &Rig, file: &Path, data: &Path) -> Output {
    let mut netboot = Command::new(&rig.place.netboot);
    netboot.arg("restore").arg(file).arg("--data").arg(data);
    run(&mut netboot)
}

/// Reads rows of a stopped appliance's database.
fn rows(data: &Path, sql: &str) -> String {
    printed(&run(Command::new("sqlite3")
        .arg(data.join("netboot.db"))
        .arg(sql)))
}

/// Everything that an operator can ask for, but for what changes by itself.
fn told(rig: &Rig) -> Vec<String> {
    let asked: [&[&str]; 4] = [
        &["history", "bios1", "--json"],
        &["token", "list", "--json"],
        &["audit", "list", "--json", "--limit", "1000"],
        &["plan", "--json", "--site"],
    ];
    let site = rig.place.site.display().to_string();
    let tell = |words: &[&str]| {
        let site = words.ends_with(&["--site"]).then_some(site.as_str());
        let words = [words, site.as_slice()].concat();
        printed(&rig.netboot(&words))
    };
    asked.into_iter().map(tell).collect()
}

#[test]
fn a_backup_of_any_moment_restores_elsewhere_with_nothing_lost() {
    if !need::has(&["udhcpc", "curl", "sqlite3"]) {
        return;
    }
    let mut haunted = Haunted::new();
    haunted.settle();
    let operator = token(&haunted.rig, "anna", &["--role", "operator"]);
    let site = haunted.rig.place.site.display().to_string();
    let path = haunted.rig.place.site.join("site.toml");
    let text = fs::read_to_string(&path)
        .expect("a site")
        .replace("\"30s\"", "\"40s\"");
    fs::write(&path, text).expect("a site");
    check(&haunted.rig.netboot(&["apply", "--site", &site]));

    // While the appliance changes its state: at each step of a deployment.
    let mut files = Vec::new();
    haunted.deploy(IMAGES[1]);
    haunted.play(Duration::from_mins(1), |rig, event| {
        if event.moment == Moment::After {
            files.push(backup(rig, &format!("backup-{}", files.len())));
        }
        event.proceed();
    });
    assert!(files.len() > 5, "{files:?}");
    for (number, file) in files.iter().enumerate() {
        let data = haunted.rig.path(&format!("restored-{number}"));
        check(&restore(&haunted.rig, file, &data));
        let data = data.display().to_string();
        check(
            &haunted
                .rig
                .netboot(&["audit", "verify", "--offline", "--data", &data]),
        );
    }

    let last = backup(&haunted.rig, "last");
    let before = told(&haunted.rig);
    haunted.rig.kill();
    let old = haunted.rig.place.data.clone();
    haunted.rig.place.data = haunted.rig.path("elsewhere");
    check(&restore(&haunted.rig, &last, &haunted.rig.place.data));
    for sql in [
        "select * from leases order by network, address",
        "select * from documents order by kind, name",
        "select * from records order by kind, seq",
        "select id, host, started_ms from boots order by id",
    ] {
        let (was, is) = (rows(&old, sql), rows(&haunted.rig.place.data, sql));
        assert!(!was.is_empty(), "{sql}");
        assert_eq!(was, is, "{sql}");
    }
    haunted.rig.serve().expect("the other appliance starts");
    assert_eq!(told(&haunted.rig), before);
    let file = operator.display().to_string();
    let order = [
        "deploy",
        "bios1",
        "--image",
        IMAGES[0],
        "--no-wait",
        "--token-file",
        &file,
    ];
    check(&haunted.rig.netboot(&order));
    let history = haunted.play(Duration::from_mins(1), |_, event| event.proceed());
    assert_eq!(
        (&*history[0].outcome, &*history[0].image),
        ("healthy", IMAGES[0])
    );
    check(&haunted.rig.netboot(&["audit", "verify"]));
}

#[test]
fn a_deployment_goes_on_at_the_appliance_that_was_restored() {
    if !need::has(&["udhcpc", "curl"]) {
        return;
    }
    let mut haunted = Haunted::new();
    haunted.settle();
    let before = haunted.ghost.acts().len();
    haunted.deploy(IMAGES[1]);
    let mut moved = false;
    let history = haunted.play(Duration::from_mins(2), |rig, event| {
        if !moved && event.moment == Moment::Before && event.what == "script" {
            let file = backup(rig, "midway");
            rig.kill();
            rig.place.data = rig.path("elsewhere");
            check(&restore(rig, &file, &rig.place.data));
            rig.serve().expect("the other appliance starts");
            moved = true;
        }
        event.proceed();
    });
    let acts = haunted.ghost.acts().split_off(before);
    assert!(moved, "the host asked for its script");
    assert_eq!(acts, [ResetKind::ForceOff, ResetKind::On], "{history:#?}");
    assert_eq!(history[0].outcome, "healthy", "{history:#?}");
}

#[test]
fn a_damaged_backup_is_refused_and_a_directory_in_use_is_not_touched() {
    if !need::has(&["diff"]) {
        return;
    }
    let rig = rack();
    let file = backup(&rig, "whole");
    let good = rig.path("good");
    check(&restore(&rig, &file, &good));
    let whole = fs::read(&file).expect("a backup");

    // What is in use stays as it is, to the byte.
    let used = rig.path("used");
    e2e::shop::copy_tree(&good, &used).expect("a copy");
    let output = restore(&rig, &file, &used);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is not empty"), "{said}");
    assert_same(&good, &used);

    let cut = |length: usize| whole[..length].to_vec();
    let flip = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let mut cases = vec![
        ("nothing".to_owned(), Vec::new()),
        ("no archive".to_owned(), vec![b'x'; 4096]),
        ("half".to_owned(), cut(whole.len() / 2)),
        (
            "a block less than its files".to_owned(),
            cut(whole.len() - 2048),
        ),
    ];
    let step = whole.len() / 40;
    cases.extend((0..40).map(|part| (format!("byte {}", part * step), flip(part * step))));
    let mut refused = 0;
    for (number, (name, bytes)) in cases.into_iter().enumerate() {
        let damaged = rig.path("damaged");
        fs::write(&damaged, bytes).expect("a file");
        let data = rig.path(&format!("damaged-{number}"));
        // An empty directory is one to restore into, and stays empty.
        fs::create_dir(&data).expect("a directory");
        let output = restore(&rig, &damaged, &data);
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            // What fills up blocks of the archive means nothing.
            assert!(name.starts_with("byte"), "{name}: {said}");
            assert_same(&good, &data);
            continue;
        }
        refused += 1;
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.starts_with("error: "), "{name}: {said}");
        let left = fs::read_dir(&data).expect("the directory").count();
        assert_eq!(left, 0, "{name}: nothing is restored by halves");
        let beside = data.with_file_name(format!("damaged-{number}.restoring"));
        assert!(!beside.exists(), "{name}: {}", beside.display());
    }
    assert!(refused > 30, "{refused} were refused");
}

fn assert_same(one: &Path, other: &Path) {
    let diff = run(Command::new("diff").arg("-r").arg(one).arg(other));
    assert_eq!(printed(&diff), "");
}
