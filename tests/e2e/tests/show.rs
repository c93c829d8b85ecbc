//! What operators do, in real firmware: the lab's scenes, and no password anywhere after them.
//!
//! It refuses to judge the scenes itself: `lab show` does, from outside the appliance.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::need;
use e2e::rig::check;
use e2e::shop;
use lab::state::State;

#[test]
fn operators_deploy_roll_back_and_roll_out() {
    if !need::has(&["qemu-system-x86_64", "ssh"]) {
        return;
    }
    let shared = shop::state();
    for name in lab::images::NEEDED {
        shop::image(name);
    }
    let state = State::open(&shared.path().join("show")).expect("a state directory");
    if !state.store().exists() {
        std::os::unix::fs::symlink(shared.store(), state.store()).expect("a link to the store");
    }
    let lab = |words: &[&str]| {
        let mut lab = Command::new(shop::workspace().binary("lab"));
        lab.args(words).env("LAB_STATE", state.path());
        lab.stdin(Stdio::null()).output().expect("the lab starts")
    };
    check(&lab(&["down"]));
    let shown = lab(&["show", "all", "--keep"]);
    eprintln!("{}", String::from_utf8_lossy(&shown.stderr));
    let table = String::from_utf8_lossy(&shown.stdout).into_owned();
    let password = fs::read_to_string(state.bmc_password()).unwrap_or_default();
    let leaks = find(state.path(), password.as_bytes(), &[state.bmc_password()]);
    check(&lab(&["down"]));
    println!("{table}");
    check(&shown);
    assert!(password.len() >= 16, "there is a password to look for");
    assert_eq!(leaks, [""; 0], "the BMCs' password stands in these files");
}

/// Finds the files below a directory that hold some bytes, other than those that are meant to.
fn find(folder: &Path, needle: &[u8], meant: &[PathBuf]) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            found.extend(find(&path, needle, meant));
        } else if kind.is_file() && !meant.contains(&path) {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes
                .windows(needle.len().max(1))
                .any(|part| part == needle)
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
