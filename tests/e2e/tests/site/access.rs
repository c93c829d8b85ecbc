//! Who may not ask: refused by status and exit code, and written down.
//!
//! It refuses to count a refusal that the audit log does not have.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::desk::{admin, ask, audited, token};
use e2e::need;
use e2e::rig::{Rig, check};
use lab::poll;
use serde_json::{Value, json};

use super::rack;

/// One who asks for what is refused.
struct Case {
    name: &'static str,
    token: PathBuf,
    /// What curl is answered, and the last word of the problem's type.
    status: u16,
    kind: &'static str,
    /// Who it is in the audit log.
    who: &'static str,
    /// What the audit log says of it.
    outcome: &'static str,
}

fn wrong_token(rig: &Rig) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = rig.path("wrong.token");
    // As long as a true one, and none of this appliance.
    fs::write(
        &path,
        format!("fb_{}A\n", "wrong_token".repeat(4)[..42].to_owned()),
    )
    .expect("a token");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a token of its owner");
    path
}

fn cases(rig: &Rig) -> Vec<Case> {
    let expired = token(rig, "brief", &["--role", "operator", "--valid", "1s"]);
    let revoked = token(rig, "revoked", &["--role", "operator"]);
    check(&rig.netboot(&["token", "revoke", "revoked"]));
    // Nobody who looks at a clock of their own decides it: the appliance says when it is over.
    let over = poll::until(Duration::from_secs(10), || {
        let tokens = ask(rig, &admin(rig), "/v1/tokens", None).body.to_string();
        tokens.contains("\"expired\"").then_some(())
    });
    over.expect("the token expires");
    let case = |name, token, status, kind, who, outcome| Case {
        name,
        token,
        status,
        kind,
        who,
        outcome,
    };
    vec![
        case(
            "wrong",
            wrong_token(rig),
            401,
            "token",
            "",
            "refused: this token is not known",
        ),
        case(
            "expired",
            expired,
            401,
            "token",
            "brief",
            "refused: this token has expired",
        ),
        case(
            "revoked",
            revoked,
            401,
            "token",
            "revoked",
            "refused: this token was revoked",
        ),
        case(
            "viewer",
            token(rig, "viewer", &["--role", "viewer"]),
            403,
            "role",
            "viewer",
            "refused: it has the role viewer, and this needs operator",
        ),
        case(
            "out of scope",
            token(rig, "scoped", &["--role", "operator", "--hosts", "uefi1"]),
            403,
            "forbidden",
            "scoped",
            "refused: ",
        ),
    ]
}

/// Returns the records of the audit log that come after these, once there are so many.
fn news(rig: &Rig, before: usize) -> Vec<Value> {
    audited(rig).split_off(before)
}

fn assert_written(case: &Case, by: &str, records: &[Value]) {
    let story = format!("{} by {by}: {records:?}", case.name);
    let [record] = records else {
        panic!("one record: {story}")
    };
    assert_eq!(record["who"], case.who, "{story}");
    assert_eq!(record["peer"], "127.0.0.1", "{story}");
    let outcome = record["outcome"].as_str().unwrap_or("");
    assert!(outcome.starts_with(case.outcome), "{story}");
}

#[test]
fn who_may_not_deploy_is_refused_and_written_down() {
    if !need::has(&["curl"]) {
        return;
    }
    let rig = rack();
    let order = json!({"hosts": ["bios1"], "image": "host"});
    for case in cases(&rig) {
        let before = audited(&rig).len();
        let answer = ask(&rig, &case.token, "/v1/deploy", Some(&order));
        assert_eq!(
            answer.status, case.status,
            "{}: {:?}",
            case.name, answer.body
        );
        let kind = format!("urn:firstboot:problem:{}", case.kind);
        assert_eq!(answer.body["type"], kind, "{}", case.name);
        assert_eq!(answer.body["status"], case.status, "{}", case.name);
        assert_written(&case, "curl", &news(&rig, before));

        let before = audited(&rig).len();
        let file = case.token.display().to_string();
        let deploy = ["deploy", "bios1", "--image", "host", "--no-wait"];
        let output = rig.netboot(&[&deploy[..], &["--token-file", &file]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{}: {said}", case.name);
        assert!(said.starts_with("error: "), "{}: {said}", case.name);
        assert!(said.contains("\n  help: "), "{}: {said}", case.name);
        let records = news(&rig, before);
        // Waiting is prepared for before the order is sent: a wrong token is refused there already.
        assert_written(&case, "the command line", &records);
    }
    let history = ask(&rig, &admin(&rig), "/v1/hosts/bios1/history", None).body;
    assert_eq!(history, json!([]), "nothing was deployed");
}

#[test]
fn each_role_may_do_what_it_is_for_and_nothing_above() {
    if !need::has(&["curl"]) {
        return;
    }
    let rig = rack();
    let viewer = token(&rig, "viewer", &["--role", "viewer"]);
    let operator = token(&rig, "operator", &["--role", "operator"]);
    let scoped = token(&rig, "scoped", &["--role", "admin", "--hosts", "uefi1"]);
    let wanted = json!({"name": "more", "role": "admin"});
    let hosts = json!({"hosts": ["bios1"], "power": "on"});
    let status =
        |token: &Path, path: &str, sent: Option<&Value>| ask(&rig, token, path, sent).status;
    let cases = [
        ("a viewer reads", &viewer, "/v1/hosts", None, 200),
        ("a viewer switches", &viewer, "/v1/power", Some(&hosts), 403),
        ("a viewer audits", &viewer, "/v1/audit", None, 403),
        (
            "an operator makes tokens",
            &operator,
            "/v1/tokens",
            Some(&wanted),
            403,
        ),
        (
            "an operator lists tokens",
            &operator,
            "/v1/tokens",
            None,
            403,
        ),
        (
            "an operator takes keys",
            &operator,
            "/v1/backup",
            Some(&Value::Null),
            403,
        ),
        (
            "an admin of one host makes tokens",
            &scoped,
            "/v1/tokens",
            Some(&wanted),
            403,
        ),
        (
            "an admin of one host audits",
            &scoped,
            "/v1/audit",
            None,
            403,
        ),
        (
            "an admin of one host takes keys",
            &scoped,
            "/v1/backup",
            Some(&Value::Null),
            403,
        ),
        (
            "an admin of one host sees another",
            &scoped,
            "/v1/hosts/bios1",
            None,
            404,
        ),
    ];
    for (name, token, path, sent, expected) in cases {
        assert_eq!(status(token, path, sent), expected, "{name}");
    }
    let tokens = ask(&rig, &admin(&rig), "/v1/tokens", None).body.to_string();
    assert!(!tokens.contains("\"more\""), "{tokens}");
}

#[test]
fn who_guesses_tokens_waits_ever_longer() {
    if !need::has(&["curl"]) {
        return;
    }
    let rig = rack();
    let wrong = wrong_token(&rig);
    let took = [(); 6].map(|()| {
        let begun = Instant::now();
        assert_eq!(ask(&rig, &wrong, "/v1/hosts", None).status, 401);
        begun.elapsed()
    });
    // Three are free; 250 ms, 500 ms and a second follow.
    assert!(took[5] >= Duration::from_secs(1), "{took:?}");
    assert!(took[0] < took[5], "{took:?}");
    assert_eq!(ask(&rig, &admin(&rig), "/v1/hosts", None).status, 200);
}
