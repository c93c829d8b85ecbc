//! Checks against real commands, and tables as the kernel writes them.

use std::fs;
use std::net::TcpListener;

use super::*;

fn check(run: &[&str], timeout_seconds: u32) -> CheckCommand {
    CheckCommand {
        name: "it".to_owned(),
        run: run.iter().map(|&word| word.to_owned()).collect(),
        timeout_seconds,
    }
}

#[test]
fn a_command_is_well_or_says_why_not() {
    let many = "i=0; while [ $i -lt 40000 ]; do echo 0123456789; i=$((i+1)); done; exit 5";
    let cases: [(&str, &[&str], Option<&str>); 7] = [
        ("well", &["true"], None),
        ("not well", &["false"], Some("exit status: 1")),
        (
            "with words",
            &["sh", "-c", "echo; echo no database >&2; exit 3"],
            Some("exit status: 3: no database"),
        ),
        (
            "no shell in between",
            &["true;false"],
            Some("it does not start"),
        ),
        ("no program", &[], Some("names no program")),
        ("killed", &["sh", "-c", "kill -9 $$"], Some("signal: 9")),
        (
            "talkative",
            &["sh", "-c", many],
            Some("exit status: 5: 0123456789"),
        ),
    ];
    for (name, run, expected) in cases {
        let found = command(&check(run, 20), ALL_COMMANDS).err();
        match expected {
            None => assert_eq!(found, None, "{name}"),
            Some(expected) => {
                let found = found.unwrap_or_default();
                assert!(
                    found.starts_with(expected) || found.contains(expected),
                    "{name}: {found}"
                );
            }
        }
    }
}

#[test]
fn a_command_that_hangs_is_ended_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let script = format!(
        "sleep 600 & echo $! > {}; echo started; wait",
        pid.display()
    );
    let started = Instant::now();
    let found = command(&check(&["sh", "-c", &script], 1), ALL_COMMANDS);
    assert_eq!(found, Err("no end after 1 s: started".to_owned()));
    assert!(started.elapsed() < Duration::from_secs(10));
    let child = fs::read_to_string(pid).unwrap();
    let alive = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        // An ended child waits for its new parent to see that.
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while alive() && started.elapsed() < Duration::from_secs(10) {
        thread::sleep(LOOK);
    }
    assert!(!alive(), "the command's child still runs");
}

#[test]
fn all_commands_share_a_time() {
    let found = command(&check(&["true"], 5), Duration::ZERO).unwrap_err();
    assert!(found.contains("took all the time"), "{found}");
}

#[test]
fn ports_are_those_that_the_kernel_lists() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
        0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n   \
        1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0\n   \
        0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0\n   \
        2: nonsense\n   3: x:zz y:0 0A\n";
    assert_eq!(closed(&[22, 80, 8080, 443], table), [8080, 443]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(closed(&[port], &listeners()), [0_u16; 0]);
    drop(listener);
    assert_eq!(closed(&[port], &listeners()), [port]);
}

#[test]
fn an_image_without_checks_is_well_and_one_with_broken_checks_is_not() {
    let image = tempfile::tempdir().unwrap();
    assert_eq!(Checklist::read(image.path()).run(), []);
    let path = image.path().join(Checks::PATH);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(
        &path,
        r#"{"commands": [{"name": "db", "run": ["false"], "timeout-seconds": 5}]}"#,
    )
    .unwrap();
    let failed = Checklist::read(image.path()).run();
    assert_eq!(failed[0].name, "command db");
    fs::write(&path, "{").unwrap();
    let failed = Checklist::read(image.path()).run();
    assert_eq!(failed[0].name, "checks of the image");
}
