//! The workflow in the guide to publishing: judged by GitHub's schema, without a stored secret, and its steps run.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cloud::fake::oci::Registry;
use e2e::need;
use e2e::rig::{check, printed, run};
use e2e::shop;
use lab::python::Environment;
use serde_json::Value;

use super::desk::{Desk, listen};

const READ: &str =
    "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout, default=str)";

#[test]
fn the_workflow_publishes_without_a_stored_secret() {
    let python = Environment::of(&shop::state());
    let (Some(schema), Some(program)) = (
        python.program("check-jsonschema"),
        python.program("python3"),
    ) else {
        assert!(!need::is_ci(), "no check-jsonschema");
        eprintln!("SKIPPED for want of check-jsonschema: `cargo lab test --install`");
        return;
    };
    let guide = shop::workspace().root.join("imagebuild/docs/publish.md");
    let guide = fs::read_to_string(guide).expect("the guide");
    let blocks = guide.split("\n```yaml\n").nth(1);
    let block = blocks
        .and_then(|rest| rest.split("\n```\n").next())
        .expect("a workflow");
    assert!(!block.contains("secrets."), "no secret is stored");
    let desk = Desk::of("base");
    let file = desk.path("publish.yml");
    fs::write(&file, block).expect("the workflow");
    let judged = run(Command::new(schema)
        .args(["--builtin-schema", "vendor.github-workflows"])
        .arg(&file));
    check(&judged);
    let read = printed(&run(Command::new(program).args(["-c", READ]).arg(&file)));
    let workflow: Value = serde_json::from_str(&read).expect("JSON");
    let job = &workflow["jobs"]["publish"];
    assert_eq!(job["permissions"]["id-token"], "write");

    let registry = Arc::new(Registry::closed("somebody:a word"));
    let server = listen(registry.clone());
    let host = server.url().replace("http://", "");
    let targets = format!(
        "[[oci]]\nname = \"registry\"\nrepository = \"{host}/base\"\ntags = [\"latest\"]\n"
    );
    fs::create_dir(desk.path("images")).expect("a directory");
    fs::write(desk.path("images/targets.toml"), targets).expect("targets");
    let binary = shop::workspace().binary("imagebuild");
    let folder = binary.parent().expect("a directory").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let steps = job["steps"].as_array().expect("steps").iter();
    let mut ran = 0;
    for script in steps.filter_map(|step| step["run"].as_str()) {
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc", "-euo", "pipefail", "-c", script])
            .current_dir(desk.path(""))
            .stdin(Stdio::null())
            .env("PATH", format!("{folder}:{path}"))
            .env("HOME", desk.path(""))
            .env("IMAGE", "base")
            .env("REGISTRY", &host)
            .env("REGISTRY_AUTH_FILE", desk.path("auth.json"))
            .env("REGISTRY_PASSWORD", "a word")
            .env("REGISTRY_USER", "somebody");
        check(&run(&mut bash));
        ran += 1;
    }
    assert_eq!(ran, 2);
    assert!(registry.tags("base").contains_key("latest"));
    let record = fs::read(desk.path("record.json")).expect("the record");
    let record: Value = serde_json::from_slice(&record).expect("JSON");
    assert_eq!(record["stage"], "current");
}
