//! Container images in tools and runtimes that others wrote: skopeo, umoci, runc and podman.
//!
//! It refuses to leave anything in the storage of whoever runs it: podman keeps its images beside the test's files.

use std::fs;
use std::process::{Command, Output};

use e2e::need;
use e2e::rig::run;
use e2e::shop;
use serde_json::Value;

use super::desk::{Desk, json, ok};
use super::has_tools;

/// What the image asks of itself: a command that ends well, one that does not, and one that does not end.
const TESTS: &str = r#"
[oci]
entrypoint = ["/bin/false"]

[[test.command]]
name = "listens"
run = ["/bin/grep", "-q", "listen", "/etc/web.conf"]
"#;
const BAD: &str = r#"
[[test.command]]
name = "asks"
run = ["/bin/sh", "-c", "echo no such port; exit 4"]

[[test.command]]
name = "waits"
run = ["/bin/sleep", "60"]
timeout = "1s"
"#;

/// Unpacks the container image with umoci and runs a command in it with runc.
fn run_container(desk: &Desk, image: &str, command: &[&str]) -> String {
    let bundle = desk.path("bundle");
    ok(Command::new("umoci")
        .args(["unpack", "--image", image])
        .arg(&bundle));
    let path = bundle.join("config.json");
    let text = fs::read(&path).expect("umoci writes a configuration");
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    config["process"]["args"] = command.into();
    config["process"]["terminal"] = false.into();
    // What a container may use is the business of whoever runs this test.
    config["process"]
        .as_object_mut()
        .expect("a process")
        .remove("rlimits");
    config["linux"]
        .as_object_mut()
        .expect("settings")
        .remove("resources");
    let text = serde_json::to_vec(&config).expect("JSON");
    fs::write(&path, text).expect("the configuration");
    let mut runc = Command::new("runc");
    runc.arg("--root")
        .arg(desk.path("runc"))
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg("firstboot-e2e");
    let said = ok(&mut runc);
    fs::remove_dir_all(&bundle).expect("the bundle goes");
    said
}

#[test]
fn a_container_image_is_the_tree_for_tools_that_others_wrote() {
    if !has_tools() {
        return;
    }
    let desk = Desk::new();
    let built = desk.build(&[]);
    let store = desk.path("store");
    let layout = format!("oci:{}:web-oci", store.display());
    let told: Value =
        serde_json::from_str(&ok(Command::new("skopeo").args(["inspect", &layout]))).expect("JSON");
    assert_eq!(told["Labels"]["vnd.firstboot.tree"], built["tree"]);
    let [gzip, zstd] = desk.layers();
    assert_eq!(told["Layers"], Value::from(gzip.clone()));
    assert_eq!(
        gzip.len(),
        2,
        "one layer a definition, and nothing for a boot"
    );

    // A parent that is built alone has the very layer that its child has.
    json(desk.imagebuild().args([
        "build",
        "images/base",
        "--store",
        "other",
        "--offline",
        "--json",
    ]));
    let base = shop::manifest(&desk.path("other"), "base");
    assert_eq!(base.layers[0].gzip.digest.to_string(), gzip[0]);
    assert_eq!(base.layers[0].zstd.digest.to_string(), zstd[0]);

    // Both variants are copied, unpacked and the same tree: skopeo checks every digest on the way.
    let copy = desk.path("copy");
    ok(Command::new("skopeo")
        .args(["copy", "--quiet", "--all", &layout])
        .arg(format!("oci:{}:web", copy.display())));
    let said = run_container(
        &desk,
        &format!("{}:web-oci-amd64", store.display()),
        &["/bin/cat", "/etc/web.conf", "/etc/os-release"],
    );
    assert!(
        said.starts_with("listen 80\n") && said.contains("trixie"),
        "{said}"
    );
}

/// Gives podman a storage of the test's own, by the driver that works where this runs.
fn set_storage(desk: &Desk) {
    let folder = desk.path("podman").display().to_string();
    let [images, running] = ["images", "run"].map(|name| format!("{folder}/{name}"));
    let mut ask = Command::new("podman");
    ask.args(["--root", &images, "--runroot", &running]);
    let overlay = run(ask.args(["--storage-driver", "overlay", "info"]));
    let driver = if overlay.status.success() {
        "overlay"
    } else {
        "vfs"
    };
    let text = format!(
        "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{images}\"\nrunroot = \"{running}\"\n"
    );
    fs::write(desk.path("storage.conf"), text).expect("a configuration");
}

fn with_podman(desk: &Desk, words: &[&str]) -> Output {
    let mut imagebuild = desk.imagebuild();
    imagebuild.env("CONTAINERS_STORAGE_CONF", desk.path("storage.conf"));
    run(imagebuild.args(words))
}

/// Adds to the definition of the image, and builds it.
fn extend(desk: &Desk, more: &str) -> Value {
    let path = desk.path("images/web/image.toml");
    let text = fs::read_to_string(&path).expect("the definition");
    fs::write(&path, text + more).expect("the definition");
    desk.build(&[])
}

#[test]
fn podman_runs_an_image_and_its_commands() {
    if !need::has(&["podman"]) {
        return;
    }
    let desk = Desk::new();
    set_storage(&desk);
    let first = extend(&desk, TESTS);
    // What is asked for is run instead of what the image says.
    let script = "cat /etc/web.conf; exit 3";
    let words = [
        "run",
        "web",
        "--store",
        "store",
        "--container",
        "--no-network",
        "--",
    ];
    let output = with_podman(&desk, &[&words[..], &["sh", "-c", script]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, b"listen 80\n", "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("it ended with exit status: 3"), "{said}");

    let test = ["test", "web", "--store", "store", "--container", "--json"];
    let output = with_podman(&desk, &test);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(outcome["verdict"]["tree"], first["tree"]);
    assert_eq!(outcome["verdict"]["checks"][0]["name"], "command listens");

    extend(&desk, BAD);
    let output = with_podman(&desk, &test[..test.len() - 1]);
    let told = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}{said}");
    for line in [
        "passed   command listens",
        "FAILED   command asks: exit status: 4: no such port",
        "FAILED   command waits: it took longer than 1 s",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    assert!(said.contains("image `web` is not well"), "{said}");

    let old = format!("web@{}", first["manifest"].as_str().expect("a digest"));
    let output = with_podman(&desk, &["test", &old, "--store", "store", "--container"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is not the newest generation"), "{said}");
    shop::image("loaders");
    let store = shop::workshop().store.display().to_string();
    let output = with_podman(&desk, &["run", "loaders", "--store", &store, "--container"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("`loaders` has no container form"), "{said}");
}
