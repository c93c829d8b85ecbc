//! Container images and registries: what was built is what others' tools see, and what travels arrives once and whole.
//!
//! It refuses to speak with any registry but one of its own on the loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use e2e::need;
use e2e::rig::{printed, run};
use e2e::shop;
use image_manifest::Digest;
use image_manifest::layout::{Attachment, Layout};
use lab::poll;
use serde_json::Value;
use tempfile::TempDir;

/// What every registry here is given for its own address.
const ANY: &str = "127.0.0.1:0";
/// An image of one file over `base`, whose packages it shares: the lock is the parent's.
const WEB: &str = r#"
name = "web"
description = "What the container of a site is made from"
extends = "../base"
outputs = ["oci"]

[[file]]
path = "etc/web.conf"
content = "listen 80\n"
"#;

/// Definitions, a cache and stores of a test's own.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        // Its build has filled the cache with the packages.
        shop::image("base");
        let desk = Self {
            folder: tempfile::tempdir().expect("a temporary directory"),
        };
        let images = shop::workspace().root.join("images");
        shop::copy_tree(&images, &desk.path("images")).expect("a copy of the definitions");
        let web = desk.path("images/web");
        fs::create_dir(&web).expect("a definition");
        fs::write(web.join("image.toml"), WEB).expect("a definition");
        fs::copy(images.join("base/image.lock"), web.join("image.lock")).expect("a lock");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn imagebuild(&self) -> Command {
        let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
        imagebuild.current_dir(self.folder.path());
        imagebuild
    }

    fn build(&self, more: &[&str]) -> Value {
        let mut build = self.imagebuild();
        build
            .args([
                "build",
                "images/web",
                "--store",
                "store",
                "--offline",
                "--json",
            ])
            .args(more);
        json(&mut build)
    }

    fn push(&self, registry: &Registry, more: &[&str]) -> Value {
        let mut push = self.imagebuild();
        push.args([
            "push",
            "web",
            &registry.at("team/web:v1"),
            "--store",
            "store",
            "--json",
            "--cache",
            "journal",
        ]);
        json(push.args(more))
    }

    /// Changes the one file of the image.
    fn edit(&self, port: &str) {
        let path = self.path("images/web/image.toml");
        let text = fs::read_to_string(&path).expect("the definition");
        fs::write(&path, text.replace("listen 80", &format!("listen {port}")))
            .expect("the definition");
    }

    /// Digests of the layers of the container image, under gzip and under zstd, lowest first.
    fn layers(&self) -> [Vec<String>; 2] {
        let store = self.path("store");
        let manifest = shop::manifest(&store, "web");
        let of = |pick: fn(&image_manifest::Layer) -> Digest| {
            manifest
                .layers
                .iter()
                .map(|layer| pick(layer).to_string())
                .collect()
        };
        [of(|layer| layer.gzip.digest), of(|layer| layer.zstd.digest)]
    }
}

/// Runs a command that must end well, and returns what it printed.
fn ok(command: &mut Command) -> String {
    printed(&run(command))
}

fn json(command: &mut Command) -> Value {
    serde_json::from_str(&ok(command)).expect("one line of JSON")
}

/// Debian's `docker-registry` on the loopback; dropping it ends it.
struct Registry {
    process: Child,
    address: String,
    folder: TempDir,
}

impl Registry {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let address = TcpListener::bind(ANY).and_then(|listener| listener.local_addr());
        let address = address.expect("a free port").to_string();
        let root = folder.path().display();
        let settings = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: '{address}', secret: lab}}\n"
        );
        fs::write(folder.path().join("config.yml"), settings).expect("a configuration");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self {
            process,
            address,
            folder,
        };
        let answers = || TcpStream::connect(&registry.address).ok();
        assert!(
            poll::until(Duration::from_secs(20), answers).is_some(),
            "the registry answers"
        );
        registry
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Digests of all files that were uploaded, in order, as the registry logged them.
    fn uploads(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("log")).expect("the log");
        let puts = log
            .lines()
            .filter(|line| line.contains("\"PUT /v2/") && line.contains("/blobs/uploads/"));
        let digest = |line: &str| {
            Some(format!(
                "sha256:{}",
                &line.split_once("digest=sha256%3A")?.1[..64]
            ))
        };
        puts.filter_map(digest).collect()
    }

    fn get(&self, path: &str) -> String {
        ok(Command::new("curl").args([
            "--silent",
            "--fail",
            "--header",
            "Accept: application/vnd.oci.image.index.v1+json",
            &format!("http://{}/v2/{path}", self.address),
        ]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A wire to a registry that is cut after so many bytes to it; from then on it holds.
struct Wire {
    address: String,
    /// Bytes that went to the registry.
    sent: Arc<AtomicU64>,
}

impl Wire {
    fn to(registry: &Registry, cut_after: i64) -> Self {
        let listener = TcpListener::bind(ANY).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (sent, left) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicI64::new(cut_after)),
        );
        let (target, count) = (registry.address.clone(), Arc::clone(&sent));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (target, count, left) = (target.clone(), Arc::clone(&count), Arc::clone(&left));
                // Ends with the connection.
                thread::spawn(move || carry(&client, &target, &count, &left));
            }
        });
        Self { address, sent }
    }
}

fn carry(client: &TcpStream, target: &str, count: &AtomicU64, left: &AtomicI64) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    let (mut back, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        drop(io::copy(&mut back, &mut to_client));
        drop(to_client.shutdown(Shutdown::Both));
    });
    let (mut client, mut to_server) = (client.try_clone()?, server);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = client.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
        let length = i64::try_from(length).unwrap_or_default();
        let before = left.fetch_sub(length, Ordering::Relaxed);
        if before > 0 && before <= length {
            break;
        }
        to_server.write_all(&buffer[..usize::try_from(length).unwrap_or_default()])?;
    }
    drop(client.shutdown(Shutdown::Both));
    to_server.shutdown(Shutdown::Both)
}

fn has_tools() -> bool {
    need::has(&["curl", "docker-registry", "runc", "skopeo", "umoci"])
}

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

#[test]
fn what_is_pushed_is_what_is_pulled_and_a_change_sends_one_layer() {
    if !has_tools() {
        return;
    }
    let desk = Desk::new();
    desk.build(&[]);
    let registry = Registry::start();
    let first = desk.push(&registry, &[]);
    let image = registry.at("team/web:v1-oci");
    let inspect = || {
        ok(Command::new("skopeo").args([
            "inspect",
            "--tls-verify=false",
            &format!("docker://{image}"),
        ]))
    };
    let told: Value = serde_json::from_str(&inspect()).expect("JSON");
    assert_eq!(told["Digest"], first["tags"]["v1-oci"]);
    let copy = format!("oci:{}:web", desk.path("copy").display());
    ok(Command::new("skopeo").args([
        "copy",
        "--quiet",
        "--all",
        "--src-tls-verify=false",
        &format!("docker://{image}"),
        &copy,
    ]));

    let again = desk.push(&registry, &[]);
    assert_eq!(again["uploaded-files"], 0);
    let before = registry.uploads().len();
    assert_eq!(Value::from(before), first["uploaded-files"]);

    let old = desk.layers().map(|layers| layers[1].clone());
    desk.edit("8080");
    desk.build(&[]);
    let planned = desk.push(&registry, &["--dry-run"]);
    assert_eq!(registry.uploads().len(), before, "a plan sends nothing");
    let pushed = desk.push(&registry, &[]);
    assert_eq!(planned["missing-files"], pushed["uploaded-files"]);
    let sent = registry.uploads().split_off(before);
    for ((layers, old), encoding) in desk.layers().iter().zip(old).zip(["gzip", "zstd"]) {
        let uploaded: Vec<_> = layers.iter().filter(|layer| sent.contains(layer)).collect();
        assert_eq!(
            uploaded,
            [&layers[1]],
            "{encoding}: the layer that changed, and no other"
        );
        assert_ne!(layers[1], old);
    }

    let pull = |store: &str| {
        let mut pull = desk.imagebuild();
        pull.args([
            "pull",
            &registry.at("team/web:v1"),
            "--store",
            store,
            "--json",
            "--cache",
            "journal",
        ]);
        json(&mut pull)
    };
    let pulled = pull("pulled");
    assert_eq!(pulled["names"]["web"], pushed["tags"]["v1"]);
    assert_eq!(pulled["names"]["web-oci"], pushed["tags"]["v1-oci"]);
    assert_eq!(pull("pulled")["downloaded-files"], 0);
    json(
        desk.imagebuild()
            .args(["verify", "web", "--store", "pulled", "--json"]),
    );

    // The registry goes bad: one byte of a layer.
    let bad = &desk.layers()[0][1]["sha256:".len()..];
    let file = registry
        .folder
        .path()
        .join("data/docker/registry/v2/blobs/sha256")
        .join(&bad[..2])
        .join(bad)
        .join("data");
    let mut bytes = fs::read(&file).expect("the registry's file");
    bytes[20] ^= 1;
    fs::write(&file, bytes).expect("the registry's file");
    let output = run(desk.imagebuild().args([
        "pull",
        &registry.at("team/web:v1"),
        "--store",
        "hostile",
        "--cache",
        "journal-2",
    ]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains(bad) && said.contains("has the digest"),
        "{said}"
    );
    let hostile = Layout::open(desk.path("hostile")).expect("a store");
    assert_eq!(
        hostile.entries().expect("an index"),
        [],
        "nothing has a name"
    );
}

#[test]
fn a_push_that_is_cut_ends_well() {
    if !has_tools() {
        return;
    }
    let desk = Desk::new();
    desk.build(&[]);
    let registry = Registry::start();
    let total = desk.push(&registry, &["--dry-run"])["missing-bytes"]
        .as_u64()
        .expect("a number");
    let manifest = shop::manifest(&desk.path("store"), "web");
    let layers = manifest
        .layers
        .iter()
        .flat_map(|layer| [layer.gzip.size, layer.zstd.size]);
    let files = manifest.artifacts.iter().map(|artifact| artifact.size);
    let largest = layers.chain(files).max().expect("an image has files");
    let push = |address: &str, name: &str| {
        let mut push = desk.imagebuild();
        push.args([
            "push",
            "web",
            &format!("{address}/{name}"),
            "--store",
            "store",
            "--json",
            "--cache",
            "journal",
        ]);
        push.args(["--chunk", "1048576", "--parallel", "1"]);
        push
    };

    // The wire is cut once. This registry forgets an upload that ends within a chunk, so that one file may go twice, and no other.
    let wire = Wire::to(&registry, 9 << 20);
    let pushed = json(&mut push(&wire.address, "team/cut:v1"));
    let sent = wire.sent.load(Ordering::Relaxed);
    assert!(
        sent > total && sent < total + largest + (2 << 20),
        "{sent} of {total} went over the wire"
    );
    assert_eq!(pushed["present-files"], 0);

    // The program is killed: what was complete is not sent again.
    let wire = Wire::to(&registry, i64::MAX);
    let mut killed = push(&wire.address, "team/killed:v1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let well_in = || (wire.sent.load(Ordering::Relaxed) > largest + (4 << 20)).then_some(());
    assert!(
        poll::until(Duration::from_mins(1), well_in).is_some(),
        "it sends"
    );
    killed.kill().expect("it runs");
    killed.wait().expect("it ends");
    let before = wire.sent.load(Ordering::Relaxed);
    let pushed = json(&mut push(&wire.address, "team/killed:v1"));
    let after = wire.sent.load(Ordering::Relaxed) - before;
    assert!(
        after < total,
        "{after} of {total} went over the wire after the kill"
    );
    assert!(pushed["present-files"].as_u64().expect("a number") >= 1);
    let image = format!("docker://{}", registry.at("team/killed:v1-oci"));
    ok(Command::new("skopeo")
        .args(["copy", "--quiet", "--all", "--src-tls-verify=false", &image])
        .arg(format!("oci:{}:web", desk.path("copy").display())));
}

#[test]
fn attachments_and_packages_travel_with_the_image() {
    if !has_tools() {
        return;
    }
    let desk = Desk::new();
    desk.build(&[]);
    let store = Layout::open(desk.path("store")).expect("the store");
    let image = store
        .named("web")
        .expect("an index")
        .expect("the image")
        .digest;
    let statement = Attachment {
        artifact_type: "application/spdx+json",
        media_type: "application/spdx+json",
        file: store.put(br#"{"spdxVersion":"SPDX-2.3"}"#).expect("a file"),
        annotations: BTreeMap::new(),
    };
    let statement = store.attach(&image, &statement).expect("an attachment");
    let registry = Registry::start();
    let refused = run(desk.imagebuild().args([
        "push",
        "web",
        &registry.at("team/web:v1"),
        "--store",
        "store",
        "--packages",
    ]));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("imagebuild vendor"),
        "{said}"
    );
    json(desk.imagebuild().args([
        "vendor",
        "images/web",
        "--store",
        "store",
        "--offline",
        "--json",
    ]));
    let pushed = desk.push(&registry, &["--packages"]);
    let attached = digests(&store, &image);
    assert!(attached.contains(&statement), "{attached:?}");
    let sent = pushed["attachments"].as_u64().expect("a number");
    assert!(sent >= attached.len() as u64, "{sent} of {attached:?}");
    desk.push(&registry, &["--packages"]);

    // This registry knows no referrers, so the tag that stands in for them lists each, once.
    let tag = registry.get(&format!("team/web/manifests/sha256-{}", image.hex()));
    let listed: Value = serde_json::from_str(&tag).expect("an index");
    let listed = listed["manifests"].as_array().expect("a list");
    assert_eq!(listed.len(), attached.len(), "{tag}");
    let ours = listed
        .iter()
        .find(|one| one["digest"] == statement.to_string());
    let ours = ours.unwrap_or_else(|| panic!("{tag}"));
    assert_eq!(ours["artifactType"], "application/spdx+json");

    json(desk.imagebuild().args([
        "pull",
        &registry.at("team/web:v1"),
        "--store",
        "pulled",
        "--packages",
        "--json",
    ]));
    let pulled = Layout::open(desk.path("pulled")).expect("a store");
    assert_eq!(digests(&pulled, &image), attached);

    // Everything else is gone: the mirrors, the cache, the image. The packages are enough.
    drop(registry);
    fs::create_dir(desk.path("empty")).expect("a cache");
    let build = |store: &Path| {
        let mut build = desk.imagebuild();
        build
            .args([
                "build",
                "images/web",
                "--offline",
                "--rebuild",
                "--json",
                "--cache",
                "empty",
                "--store",
            ])
            .arg(store);
        build.args(["--mirror", "http://127.0.0.1:9/debian"]);
        json(&mut build)
    };
    let rebuilt = build(&desk.path("pulled"));
    assert_eq!(
        rebuilt["tree"],
        shop::manifest(&desk.path("store"), "web").tree.to_string()
    );
    assert_eq!(
        rebuilt["manifest"],
        image.to_string(),
        "the same image, byte for byte"
    );
}

/// Returns what is attached to an image in a store.
fn digests(store: &Layout, image: &Digest) -> BTreeSet<Digest> {
    let referrers = store.referrers(image).expect("an index");
    referrers.into_iter().map(|one| one.digest).collect()
}
