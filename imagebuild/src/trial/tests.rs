//! Computers that are shell scripts: they say what a host would say.

use std::process::{Command, Stdio};

use super::*;

fn computer(script: &str) -> Child {
    Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn tried(script: &str, patience: Duration) -> (Outcome, String) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("console.log");
    let outcome = follow(computer(script), &Digest::of(b"tree"), patience, &log).unwrap();
    (outcome, std::fs::read_to_string(log).unwrap())
}

fn verdict(word: &str, tree: &[u8]) -> String {
    let tree = Digest::of(tree);
    format!(
        "echo noise; echo '[ 1.0] firstboot: check passed: port 22'; \
         echo 'login: [ 1.0] firstboot: check failed: unit <a>: it is \"dead\"'; \
         echo '[ 1.1] firstboot: verdict: {word}, init running, tree {tree}'; exec sleep 60"
    )
}

#[test]
fn a_verdict_ends_the_trial() {
    let long = Duration::from_secs(50);
    let (outcome, console) = tried(&verdict("healthy", b"tree"), long);
    assert!(outcome.is_good(), "{outcome:?}");
    assert!(console.starts_with("noise\n"), "{console}");
    let (outcome, _) = tried(&verdict("unhealthy", b"tree"), long);
    assert!(
        !outcome.is_good() && outcome.failure.is_none(),
        "{outcome:?}"
    );
    let checks = outcome.verdict.unwrap().checks;
    assert_eq!(checks[1].problem.as_deref(), Some("it is \"dead\""));
}

#[test]
fn what_is_no_verdict_of_this_image_is_a_failure() {
    let long = Duration::from_secs(50);
    let failed = "echo '[ 3.0] firstboot: FAILED: no disk has the image'; exec sleep 60";
    let cases = [
        (
            "another tree",
            verdict("healthy", b"other"),
            long,
            "another tree",
        ),
        ("given up", failed.to_owned(), long, "no disk has the image"),
        (
            "silence",
            "exec sleep 60".to_owned(),
            Duration::from_millis(300),
            "no verdict within 0 s",
        ),
        ("off", "exit 0".to_owned(), long, "switched itself off"),
        (
            "complaint",
            "echo no flash >&2; exit 1".to_owned(),
            long,
            "QEMU ended: no flash",
        ),
    ];
    for (name, script, patience, expected) in cases {
        let (outcome, _) = tried(&script, patience);
        assert!(!outcome.is_good(), "{name}");
        let failure = outcome.failure.unwrap();
        assert!(failure.contains(expected), "{name}: {failure}");
    }
}

#[test]
fn a_report_has_a_case_for_each_check_and_no_markup_of_the_host() {
    let (mut outcome, _) = tried(&verdict("unhealthy", b"tree"), Duration::from_secs(50));
    outcome.elapsed_ms = 61_002;
    let expected = "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuite name=\"host\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"0\" time=\"61.002\">
  <testcase classname=\"host\" name=\"boot\"/>
  <testcase classname=\"host\" name=\"port 22\"/>
  <testcase classname=\"host\" name=\"unit &lt;a&gt;\"><failure message=\"it is &quot;dead&quot;\"/></testcase>
</testsuite>
";
    assert_eq!(junit::report("host", &outcome), expected);
    outcome.failure = Some("no verdict\u{7}".to_owned());
    let text = junit::report("host", &outcome);
    assert!(
        text.contains("name=\"boot\"><failure message=\"no verdict\u{fffd}\"/>"),
        "{text}"
    );
}
