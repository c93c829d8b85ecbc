//! The `OpenAPI` document, judged by a validator that no one here wrote, and what is really answered, judged by the document.
//!
//! It refuses answers that the document does not describe.

use std::fs;
use std::process::Command;

use e2e::desk::{API, admin, ask, token};
use e2e::need;
use e2e::rig::{Rig, printed, run};
use e2e::shop;
use lab::python::Environment;
use serde_json::{Value, json};

use super::rack;

/// Judges answers: each line is a method, a path of the document, a status and the body.
const JUDGE: &str = r#"
import json, sys
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

document = json.load(open(sys.argv[1]))
validate(document)
for line in open(sys.argv[2]):
    method, path, status, body = json.loads(line)
    answer = document["paths"][path][method]["responses"][str(status)]
    ((media, content),) = answer["content"].items()
    assert media == ("application/json" if status < 400 else "application/problem+json"), (path, media)
    schema = dict(content["schema"], components=document["components"])
    errors = list(Draft202012Validator(schema).iter_errors(body))
    assert not errors, (method, path, status, errors[0].message, list(errors[0].path))
    print(method, path, status)
"#;

#[test]
fn the_document_is_valid_and_answers_are_as_it_says() {
    if !need::has(&["curl"]) {
        return;
    }
    let Some(python) = Environment::of(&shop::state()).program("python3") else {
        assert!(!need::is_ci(), "run `cargo lab test --install`");
        eprintln!("SKIPPED for want of python's peers: `cargo lab test --install` installs them");
        return;
    };
    let rig = rack();
    let document = rig.path("openapi.json");
    let authority = rig.place.data.join("ca.pem").display().to_string();
    let url = format!("{API}/v1/openapi.json");
    let served = run(rig
        .rack
        .command("curl")
        .args(["-sf", "--cacert", &authority, &url]));
    fs::write(&document, printed(&served)).expect("a file");

    let lines = answers(&rig);
    let count = lines.len();
    let file = rig.path("answers.jsonl");
    fs::write(&file, lines.join("\n")).expect("a file");
    let judged = run(Command::new(python)
        .args(["-c", JUDGE])
        .arg(document)
        .arg(file));
    assert_eq!(printed(&judged).lines().count(), count);
}

/// Asks for everything that can be asked for without a BMC, well and badly.
fn answers(rig: &Rig) -> Vec<String> {
    let admin = admin(rig);
    let viewer = token(rig, "viewer", &["--role", "viewer"]);
    let site = fs::read_to_string(rig.place.site.join("site.toml")).expect("a site");
    let upload =
        json!({"files": [{"path": "site.toml", "text": site.replace("\"10m\"", "\"20m\"")}]});
    let wrong = json!({"files": [{"path": "site.toml", "text": "[site]\nnaem = 1\n"}]});
    let deploy = json!({"hosts": ["bios1"], "image": "host"});
    let rollout = json!({"hosts": ["all"], "image": "host", "batch": 1});
    let wanted =
        json!({"name": "ci", "role": "operator", "hosts": ["role=web"], "valid-seconds": 60});
    let asked: [(&std::path::Path, &str, &str, Option<&Value>); 23] = [
        (
            &admin,
            "/v1/deploy",
            "/v1/deploy?dry-run=true",
            Some(&deploy),
        ),
        (&admin, "/v1/deploy", "/v1/deploy", Some(&deploy)),
        (&viewer, "/v1/deploy", "/v1/deploy", Some(&deploy)),
        (&admin, "/v1/deploy", "/v1/deploy", Some(&json!({}))),
        (
            &admin,
            "/v1/rollback",
            "/v1/rollback",
            Some(&json!({"hosts": ["uefi1"]})),
        ),
        (
            &admin,
            "/v1/rollouts",
            "/v1/rollouts?dry-run=true",
            Some(&rollout),
        ),
        (&admin, "/v1/rollouts", "/v1/rollouts", None),
        (&admin, "/v1/rollouts/{id}", "/v1/rollouts/nothing", None),
        (
            &admin,
            "/v1/cancel",
            "/v1/cancel",
            Some(&json!({"hosts": ["bios1"]})),
        ),
        (
            &admin,
            "/v1/power",
            "/v1/power",
            Some(&json!({"hosts": ["bios1"], "power": "on"})),
        ),
        (&admin, "/v1/hosts", "/v1/hosts", None),
        (&admin, "/v1/hosts/{name}", "/v1/hosts/bios1", None),
        (&admin, "/v1/hosts/{name}", "/v1/hosts/nobody", None),
        (
            &admin,
            "/v1/hosts/{name}/history",
            "/v1/hosts/bios1/history",
            None,
        ),
        (&admin, "/v1/events", "/v1/events", None),
        (&admin, "/v1/audit", "/v1/audit", None),
        (&admin, "/v1/audit/verify", "/v1/audit/verify", None),
        (&admin, "/v1/tokens", "/v1/tokens", Some(&wanted)),
        (&admin, "/v1/tokens", "/v1/tokens", None),
        (&admin, "/v1/site", "/v1/site", None),
        (&admin, "/v1/site/plan", "/v1/site/plan", Some(&upload)),
        (&admin, "/v1/site/plan", "/v1/site/plan", Some(&wrong)),
        (&admin, "/v1/site", "/v1/site", Some(&upload)),
    ];
    let lines = asked.map(|(token, route, path, sent)| {
        let answer = ask(rig, token, path, sent);
        let method = if sent.is_some() { "post" } else { "get" };
        json!([method, route, answer.status, answer.body]).to_string()
    });
    lines.to_vec()
}
