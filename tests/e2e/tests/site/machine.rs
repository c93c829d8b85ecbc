//! What hosts may not do: tokens shown twice, reports repeated or forged, secrets asked for late.
//!
//! It refuses to believe a status alone: each refusal is counted, and the host's state stays as it was.

use std::fs;
use std::time::Duration;

use e2e::ghost::{ADDRESS, Papers};
use e2e::haunted::Haunted;
use e2e::need;
use e2e::rig::{CLIENT, Rig, check, run};
use image_manifest::{Report, Stage};
use ipmi::sim::Moment;
use serde_json::{Value, json};

/// The ghost's site, whose role has a secret.
fn site() -> String {
    let secret = "[role.web]\nimage = \"host\"\nsecrets = [\"door\"]\n\n[secret.door]\nfile = \"secrets/door\"\n";
    let site = e2e::ghost::SITE.replace("[role.web]\nimage = \"host\"\n", secret);
    assert!(site.contains("secrets/door"));
    site
}

/// What the secret of the role is.
const DOOR: &str = "canary-open-sesame";

/// Asks the appliance as a host does, from an address of the rack; what comes back is status and body.
fn ask(rig: &Rig, from: &str, token: &str, url: &str, sent: &Value) -> (u16, String) {
    let (header, body) = (rig.path("host.header"), rig.path("host.body"));
    fs::write(&header, format!("Authorization: Bearer {token}\n")).expect("a header");
    fs::write(&body, sent.to_string()).expect("a body");
    let mut curl = rig.client.command("curl");
    curl.args([
        "-sS",
        "--max-time",
        "10",
        "-w",
        "\n%{http_code}",
        "--interface",
        from,
    ]);
    curl.arg("--cacert").arg(rig.place.data.join("ca.pem"));
    curl.arg("-H").arg(format!("@{}", header.display()));
    curl.arg("-d").arg(format!("@{}", body.display())).arg(url);
    let output = run(&mut curl);
    check(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.parse().expect("a status"), body.to_owned())
}

fn refused(rig: &Rig, why: &str) -> f64 {
    let metrics = rig.metrics();
    let label = format!("\"{why}\"");
    let lines = metrics
        .lines()
        .filter(|line| line.contains("boot_refusals") && line.contains(&label));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Checks that something is refused with a status, and counted once under a word.
fn assert_refused(
    rig: &Rig,
    name: &str,
    (status, why): (u16, &str),
    asked: impl FnOnce() -> (u16, String),
) {
    let before = refused(rig, why);
    let (found, body) = asked();
    assert_eq!(found, status, "{name}: {body}");
    assert!(!body.contains(DOOR), "{name}: {body}");
    let after = refused(rig, why);
    assert!(
        (after - before - 1.0).abs() < 0.1,
        "{name}: {before} and {after} times `{why}`"
    );
}

fn report(sequence: u64, stage: Stage) -> Value {
    let report = Report {
        sequence,
        uptime_ms: 1_000 * sequence,
        stage,
    };
    serde_json::to_value(report).expect("a report")
}

/// What the appliance says of the host, but for what changes by itself.
fn state(haunted: &Haunted) -> Value {
    let history = haunted.history();
    let output = haunted.rig.netboot(&["host", "bios1", "--json"]);
    let mut host: Value = serde_json::from_slice(&output.stdout).expect("a host");
    if let Some(deployment) = host["deployment"].as_object_mut() {
        deployment.remove("power");
        deployment.remove("bmc");
    }
    json!([host["deployment"], format!("{history:?}")])
}

/// What is tried while the host boots: it has its credential, and has not handed over.
fn try_early(rig: &Rig, papers: &Papers) {
    let Papers {
        boots,
        token,
        nonce,
        credential,
        ..
    } = papers;
    let url = |route: &str| format!("{boots}/{route}");
    let mine = json!({"nonce": nonce});
    let other = json!({"nonce": "of-somebody-else"});
    let (status, body) = ask(rig, ADDRESS, token, &url("credential"), &mine);
    assert_eq!(status, 200, "the same question has the same answer: {body}");
    assert!(body.contains(credential.as_str()));
    assert_refused(rig, "a token shown again", (403, "exchanged"), || {
        ask(rig, ADDRESS, token, &url("credential"), &other)
    });
    assert_refused(rig, "no token", (401, "wrong-token"), || {
        ask(rig, ADDRESS, &"0".repeat(32), &url("credential"), &mine)
    });
    assert_refused(
        rig,
        "a token instead of a credential",
        (401, "wrong-token"),
        || ask(rig, ADDRESS, token, &url("secrets"), &mine),
    );
    assert_refused(
        rig,
        "secrets for another nonce",
        (403, "handed-over"),
        || ask(rig, ADDRESS, credential, &url("secrets"), &other),
    );
    let (status, body) = ask(rig, ADDRESS, credential, &url("secrets"), &mine);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("door"), "{body}");
}

/// What it is, the answer that it deserves, the credential, the path and the body.
type Case<'a> = (&'a str, (u16, &'a str), &'a str, &'a str, &'a Value);

/// What is tried when the host has handed over and is well.
fn try_late(haunted: &Haunted, old: &Papers) {
    let rig = &haunted.rig;
    let papers = haunted.ghost.papers.newest();
    assert_ne!(papers.boots, old.boots);
    let Papers {
        boots,
        nonce,
        credential,
        tree,
        ..
    } = &papers;
    let before = state(haunted);
    let reports = format!("{boots}/reports");
    let lie = |sequence| {
        report(
            sequence,
            Stage::Failed {
                reason: "forged".to_owned(),
            },
        )
    };
    let well = report(2, Stage::Healthy { tree: *tree });
    let cases: [Case<'_>; 7] = [
        (
            "a report said again",
            (409, "replayed"),
            credential,
            &reports,
            &well,
        ),
        (
            "an older number",
            (409, "replayed"),
            credential,
            &reports,
            &lie(1),
        ),
        (
            "no number",
            (409, "replayed"),
            credential,
            &reports,
            &lie(0),
        ),
        (
            "a forged credential",
            (401, "wrong-token"),
            &"f".repeat(64),
            &reports,
            &lie(9),
        ),
        (
            "the credential of the boot before",
            (401, "wrong-token"),
            &old.credential,
            &reports,
            &lie(9),
        ),
        (
            "a boot that is over",
            (404, "unknown-boot"),
            &old.credential,
            &format!("{}/reports", old.boots),
            &lie(9),
        ),
        (
            "secrets after hand-over",
            (403, "handed-over"),
            credential,
            &format!("{boots}/secrets"),
            &json!({"nonce": nonce}),
        ),
    ];
    for (name, expected, token, url, sent) in cases {
        assert_refused(rig, name, expected, || ask(rig, ADDRESS, token, url, sent));
    }
    // The right words from another address: that host's credential was stolen.
    rig.client
        .run(["ip", "address", "add", "10.77.0.99/16", "dev", CLIENT])
        .expect("ip runs");
    assert_refused(rig, "a thief", (403, "wrong-peer"), || {
        ask(rig, "10.77.0.99", credential, &reports, &lie(9))
    });
    assert_eq!(state(haunted), before, "nothing of it changed the host");
    // Only the true next one counts.
    let (status, body) = ask(
        rig,
        ADDRESS,
        credential,
        &reports,
        &report(3, Stage::Healthy { tree: *tree }),
    );
    assert!((200..300).contains(&status), "{status} {body}");
}

#[test]
fn forged_repeated_and_late_questions_of_hosts_are_refused_and_counted() {
    if !need::has(&["udhcpc", "curl"]) {
        return;
    }
    let mut haunted = Haunted::with_site(&site(), &[("secrets/door", DOOR)]);
    haunted.settle();
    let papers = haunted.ghost.papers.clone();
    let old = papers.newest();
    haunted.deploy("next");
    let mut tried = false;
    let history = haunted.play(Duration::from_mins(1), |rig, event| {
        if !tried && event.what == "report" && event.moment == Moment::Before {
            try_early(rig, &papers.newest());
            tried = true;
        }
        event.proceed();
    });
    assert!(tried, "the ghost reported");
    assert_eq!(history[0].outcome, "healthy", "{history:#?}");
    try_late(&haunted, &old);
}
