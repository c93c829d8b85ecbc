//! The examples for CI in the README of `imagebuild`: read from there, judged by schemas, and their steps run.
//!
//! It refuses to run what belongs to a runner of its own: preparing it, installing, and booting, which other tests do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::need;
use e2e::registry::Registry;
use e2e::rig::{check, printed, run};
use e2e::shop;
use lab::python::Environment;
use serde_json::Value;
use tempfile::TempDir;

/// The blocks of the README, in order, and the schema that judges each.
const EXAMPLES: [(&str, &str); 2] = [
    ("github.yml", "vendor.github-workflows"),
    ("gitlab.yml", "vendor.gitlab-ci"),
];
/// The image that the steps are run with: it is small, and has nothing that boots.
const IMAGE: &str = "loaders";

/// The examples as files, a copy of the definitions, and the variables of a runner.
struct Runner {
    folder: TempDir,
    python: Environment,
}

impl Runner {
    fn new() -> Option<Self> {
        let python = Environment::of(&shop::state());
        if python.program("check-jsonschema").is_none() {
            assert!(!need::is_ci(), "no check-jsonschema");
            eprintln!("SKIPPED for want of check-jsonschema: `cargo lab test --install`");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let runner = Self { folder, python };
        let readme = shop::workspace().root.join("imagebuild/README.md");
        let readme = fs::read_to_string(readme).expect("the README");
        let blocks = readme.split("\n```yaml\n").skip(1);
        let blocks: Vec<_> = blocks
            .map(|rest| rest.split("\n```\n").next().unwrap_or(rest))
            .collect();
        assert_eq!(blocks.len(), EXAMPLES.len());
        for (block, (name, _)) in blocks.iter().zip(EXAMPLES) {
            fs::write(runner.path(name), block).expect("an example");
        }
        Some(runner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.python.program(name).expect("it is installed"))
    }

    fn example(&self, name: &str) -> Value {
        let read = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout, default=str)";
        let text = printed(&run(self
            .program("python3")
            .args(["-c", read])
            .arg(self.path(name))));
        serde_json::from_str(&text).expect("JSON")
    }

    /// Runs a script as a runner does, in a job's directory, with the program and the variables of the job.
    fn run(&self, job: &Path, script: &str, registry: &Registry) {
        let binary = shop::workspace().binary("imagebuild");
        let folder = binary.parent().expect("a directory").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let key = fs::read_to_string(self.path("release.key")).expect("a key");
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc", "-euo", "pipefail", "-c", script])
            .current_dir(job)
            .stdin(Stdio::null())
            .env("PATH", format!("{folder}:{path}"))
            .env("IMAGE", IMAGE)
            .env("IMAGEBUILD_KEY", key)
            .env("REGISTRY_AUTH_FILE", job.join("auth.json"));
        let (address, image) = (registry.address(), registry.at("team"));
        for (name, value) in [
            ("REGISTRY", address),
            ("REGISTRY_PASSWORD", "a word"),
            ("REGISTRY_USER", "somebody"),
            ("TARGET", "team"),
            ("VERSION", "v1"),
            ("CI_COMMIT_SHA", "v2"),
            ("CI_REGISTRY", address),
            ("CI_REGISTRY_IMAGE", &image),
            ("CI_REGISTRY_PASSWORD", "a word"),
            ("CI_REGISTRY_USER", "somebody"),
        ] {
            bash.env(name, value);
        }
        check(&run(&mut bash));
    }

    /// Runs the steps that build and publish; of a step that boots, whether its words are understood.
    fn run_all(&self, scripts: &[String], version: &str, registry: &Registry) {
        let job = self.path(version);
        shop::copy_tree(&shop::workspace().root.join("images"), &job.join("images"))
            .expect("the definitions");
        let mut published = false;
        for script in scripts {
            let understood = script.contains("imagebuild test ");
            let script = if understood {
                format!("{script} --help")
            } else {
                script.clone()
            };
            published |= script.contains("imagebuild push ");
            self.run(&job, &script, registry);
        }
        assert!(published, "{scripts:?}");
        let auth = fs::read_to_string(job.join("auth.json")).expect("credentials");
        let auth: Value = serde_json::from_str(&auth).expect("credentials are JSON");
        assert!(auth["auths"][registry.address()]["auth"].is_string());
        let tag = format!("docker://{}/{IMAGE}:{version}", registry.at("team"));
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--raw", "--tls-verify=false", &tag]);
        let manifest: Value = serde_json::from_str(&printed(&run(&mut skopeo))).expect("JSON");
        assert!(
            manifest["layers"]
                .as_array()
                .is_some_and(|all| !all.is_empty()),
            "{manifest}"
        );
    }
}

/// The steps of a workflow that are ours to run.
fn steps(workflow: &Value) -> Vec<String> {
    let mut scripts = Vec::new();
    for job in ["build", "publish"] {
        let steps = workflow["jobs"][job]["steps"].as_array().expect("steps");
        for step in steps {
            let own = matches!(
                step["name"].as_str(),
                Some("Build" | "Boot" | "Trim" | "Publish")
            );
            if own {
                scripts.push(
                    step["run"]
                        .as_str()
                        .expect("a script")
                        .trim_end()
                        .to_owned(),
                );
            }
        }
    }
    scripts
}

/// The scripts of a pipeline. All lines of one job are one shell's; what boots stands alone.
fn scripts(pipeline: &Value) -> Vec<String> {
    let mut scripts = Vec::new();
    for job in ["build", "publish"] {
        let lines = pipeline[job]["script"].as_array().expect("a script");
        let mut text: Vec<String> = Vec::new();
        for line in lines {
            let line = line.as_str().expect("a line").to_owned();
            if line.starts_with("imagebuild test ") {
                scripts.push(std::mem::take(&mut text).join("\n"));
                scripts.push(line);
            } else {
                text.push(line);
            }
        }
        scripts.push(text.join("\n"));
    }
    scripts
}

#[test]
fn the_examples_for_ci_fit_their_schemas_and_pin_what_they_use() {
    let Some(runner) = Runner::new() else { return };
    for (name, schema) in EXAMPLES {
        let mut judge = runner.program("check-jsonschema");
        check(&run(judge
            .args(["--builtin-schema", schema])
            .arg(runner.path(name))));
    }
    let text = fs::read_to_string(runner.path("github.yml")).expect("the workflow");
    let used = text.lines().filter_map(|line| line.split_once("uses: "));
    let used: Vec<_> = used.map(|(_, action)| action).collect();
    assert!(used.len() > 4);
    for action in used {
        let (_, commit) = action.split_once('@').expect("a version");
        let commit = commit.split(' ').next().expect("a commit");
        assert_eq!(commit.len(), 40, "{action} is not pinned");
    }
    let workflow = runner.example("github.yml");
    assert_eq!(
        workflow["permissions"],
        serde_json::json!({ "contents": "read" })
    );
}

#[test]
fn the_steps_of_the_examples_for_ci_build_sign_and_publish() {
    if !need::has(&["base64", "bash", "docker-registry", "skopeo"]) {
        return;
    }
    let Some(runner) = Runner::new() else { return };
    shop::image(IMAGE);
    let mut key = Command::new(shop::workspace().binary("imagebuild"));
    check(&run(key
        .args(["key", "make"])
        .arg(runner.path("release.key"))));
    let registry = Registry::start();
    let workflow = steps(&runner.example("github.yml"));
    assert_eq!(workflow.len(), 4);
    runner.run_all(&workflow, "v1", &registry);
    let pipeline = scripts(&runner.example("gitlab.yml"));
    assert_eq!(pipeline.len(), 4);
    runner.run_all(&pipeline, "v2", &registry);
}
