//! Page blobs, judged by others: azurite holds one that the program wrote, the cloud's own library reads it, and QEMU's tools
//! take it for the disk that it is.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cloud::fake::Server;
use cloud::fake::azure::{Azure, World};
use e2e::need;
use e2e::rig::{printed, run};
use e2e::shop;
use lab::npm::Peers;
use lab::poll;
use lab::python::Environment;
use serde_json::Value;
use tempfile::TempDir;

use super::desk::{Desk, json, listen};

const IMAGE: &str = "host";

/// A container on a server, as the cloud's library names it.
struct Blobs {
    url: String,
    world: World,
}

impl Blobs {
    /// Runs the cloud's library; `None` at a desk without it.
    fn library(&self, words: &[&str]) -> Option<String> {
        let python = Environment::of(&shop::state());
        let root = &shop::workspace().root;
        let program = python.program("python3").filter(|_| {
            let mut ask = Command::new(python.program("python3").unwrap_or_default());
            run(ask.args(["-c", "import azure.storage.blob"]))
                .status
                .success()
        });
        let Some(program) = program else {
            assert!(!need::is_ci(), "no azure-storage-blob");
            eprintln!("SKIPPED for want of azure-storage-blob: `cargo lab test --install`");
            return None;
        };
        let connection = format!(
            "DefaultEndpointsProtocol=http;AccountName={};AccountKey={};BlobEndpoint={};",
            self.world.account, self.world.key, self.url
        );
        let mut ask = Command::new(program);
        ask.arg(root.join("tests/e2e/tests/publish/blobs.py"));
        Some(printed(&run(ask.args(words).env("CONNECTION", connection))))
    }

    /// Has the library fetch a page blob into a file.
    fn fetch(&self, name: &str, file: &Path) -> Option<Value> {
        let file = file.to_string_lossy();
        let said = self.library(&["fetch", &self.world.container, name, &file])?;
        Some(serde_json::from_str(&said).expect("JSON"))
    }
}

/// Azurite on the loopback; dropping it ends it.
struct Azurite {
    process: Child,
    _folder: TempDir,
    blobs: Blobs,
}

impl Azurite {
    /// Starts one with nothing in it; `None` at a desk without it.
    fn start(world: World) -> Option<Self> {
        let Some(program) = Peers::of(&shop::state()).program("azurite-blob") else {
            assert!(!need::is_ci(), "no azurite");
            eprintln!("SKIPPED for want of azurite: `cargo lab test --install`");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary directory");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.expect("a free port");
        let process = Command::new(program)
            .args([
                "--silent",
                "--disableTelemetry",
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
            ])
            .arg(address.port().to_string())
            .arg("--location")
            .arg(folder.path())
            .env(
                "AZURITE_ACCOUNTS",
                format!("{}:{}", world.account, world.key),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("azurite starts");
        let url = format!("http://{address}/{}", world.account);
        let azurite = Self {
            process,
            _folder: folder,
            blobs: Blobs { url, world },
        };
        let answers = || TcpStream::connect(address).ok();
        let answers = poll::until(Duration::from_mins(1), answers);
        assert!(answers.is_some(), "azurite answers");
        Some(azurite)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn targets(desk: &Desk, blobs: &Blobs, manager: &Server) {
    let (world, url) = (&blobs.world, manager.url());
    desk.targets(&format!(
        r#"
[[azure]]
name = "azure"
subscription = "{}"
resource-group = "{}"
location = "{}"
storage-account = "{}"
container = "{}"
image-name = "{{image}}-{{version}}"
keep-blob = true
endpoints = {{ storage = "{}", arm = "{url}", login = "{url}/login" }}
"#,
        world.subscription, world.group, world.location, world.account, world.container, blobs.url,
    ));
}

/// Publishes; returns the record.
fn publish(desk: &Desk, world: &World) -> Value {
    let mut publish = desk.verb("publish");
    publish
        .args(["--boot-check", "skip"])
        .env("AZURE_TENANT_ID", "tenant")
        .env("AZURE_CLIENT_ID", &world.client.0)
        .env("AZURE_CLIENT_SECRET", &world.client.1)
        .env("AZURE_STORAGE_KEY", &world.key);
    json(&mut publish)
}

/// Name of the page blob, as the record has it.
fn blob(record: &Value) -> String {
    let receipts = record["receipts"].as_array().expect("receipts").iter();
    let mut blobs = receipts.filter(|receipt| receipt["kind"] == "page-blob");
    let id = blobs.next().expect("a page blob")["id"]
        .as_str()
        .expect("a URL");
    id.rsplit('/').next().expect("a name").to_owned()
}

/// What was fetched is the disk that the image has, and its name is true.
fn is_the_disk(desk: &Desk, name: &str, seen: &Value) {
    let vhd = desk.path("disk.vhd");
    let digest = printed(&run(Command::new("sha256sum").arg(&vhd)));
    let digest = digest.split(' ').next().expect("a digest");
    assert_eq!(name, format!("azure-{digest}.vhd"));
    let mut info = Command::new("qemu-img");
    info.args(["info", "--output=json", "-f", "vpc"]).arg(&vhd);
    let info: Value = serde_json::from_str(&printed(&run(&mut info))).expect("JSON");
    let size = seen["size"].as_u64().expect("a size");
    assert_eq!(info["virtual-size"].as_u64(), Some(size - 512));
    let mut export = Command::new(shop::workspace().binary("imagebuild"));
    let store = desk.path("store");
    export
        .args(["export", IMAGE, "--as", "raw"])
        .arg(desk.path("disk.raw"));
    assert!(run(export.arg("--store").arg(store)).status.success());
    let mut compare = Command::new("qemu-img");
    compare
        .args(["compare", "-f", "vpc", "-F", "raw"])
        .arg(&vhd);
    let same = run(compare.arg(desk.path("disk.raw")));
    assert!(same.status.success(), "{same:?}");
    let sent = seen["sent"].as_u64().expect("bytes");
    assert!(
        sent < size,
        "{sent} of {size} bytes were sent: only data is"
    );
    assert_eq!(
        (&seen["kind"], seen["sequence"].as_u64()),
        (&"PageBlob".into(), Some(1))
    );
}

#[test]
fn azurite_holds_the_page_blob_and_qemu_reads_it() {
    if !need::has(&["node", "qemu-img"]) {
        return;
    }
    let world = World {
        blobs_elsewhere: true,
        ..World::default()
    };
    let Some(azurite) = Azurite::start(world.clone()) else {
        return;
    };
    let blobs = &azurite.blobs;
    if blobs.library(&["create", &world.container]).is_none() {
        return;
    }
    let desk = Desk::of(IMAGE);
    let manager = listen(Arc::new(Azure::new(world.clone())));
    targets(&desk, blobs, &manager);
    let record = publish(&desk, &world);
    let name = blob(&record);
    let seen = blobs
        .fetch(&name, &desk.path("disk.vhd"))
        .expect("the library");
    is_the_disk(&desk, &name, &seen);
    assert_eq!(seen["notes"]["firstboot_manifest"], record["manifest"]);

    manager.reset();
    assert_eq!(publish(&desk, &world), record);
    let again = blobs
        .fetch(&name, &desk.path("again.vhd"))
        .expect("the library");
    assert_eq!((manager.changes(), &again["etag"]), (0, &seen["etag"]));
}
