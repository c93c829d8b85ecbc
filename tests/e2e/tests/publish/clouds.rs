//! All clouds at once: one run of the program publishes the host's image to every one of them, a second changes nothing, and
//! the disk that each of them holds is the image's own.
//!
//! It refuses to ask our own code what a cloud holds: disks are read back, and judged by `imagebuild verify` and by a boot.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use cloud::fake::aws::{Aws, KEY, Rules, SECRET, SnapshotDisk};
use cloud::fake::azure::{Azure, World};
use cloud::fake::gce::Gce;
use cloud::fake::glance::{OpenStack, PASSWORD};
use cloud::fake::oci::Registry;
use cloud::fake::{Act, Fault, Kind, Server, When};
use e2e::need;
use e2e::rig::run;
use e2e::shop;
use serde_json::Value;

use super::desk::{Desk, RUNTIME, json, listen, said};

const IMAGE: &str = "host";
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

/// One of each cloud, and a desk whose targets they are.
struct Clouds {
    desk: Desk,
    aws: Arc<Aws>,
    gce: Gce,
    azure: Arc<Azure>,
    openstack: OpenStack,
    registry: Arc<Registry>,
    servers: Vec<Server>,
}

impl Clouds {
    fn open(aws_lines: &str) -> Self {
        let desk = Desk::of(IMAGE);
        let aws = Aws::new(Rules::default());
        let gce = Gce::new("acme", "images");
        let azure = Arc::new(Azure::new(World::default()));
        let openstack = OpenStack::new();
        let registry = Arc::new(Registry::open());
        let servers = vec![
            listen(aws.clone()),
            listen(Arc::new(gce.clone())),
            listen(azure.clone()),
            listen(registry.clone()),
            listen(Arc::new(openstack.clone())),
        ];
        let urls: Vec<_> = servers.iter().map(Server::url).collect();
        let credentials = serde_json::json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/providers/ci",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/v1/token", urls[1]),
            "credential_source": { "file": desk.path("subject"), "format": { "type": "text" } },
        });
        fs::write(desk.path("subject"), "subject-1").expect("a token");
        fs::write(desk.path("google.json"), credentials.to_string()).expect("credentials");
        desk.targets(&format!(
            r#"
[[aws]]
name = "amazon"
regions = ["{first}", "{second}"]
endpoint = "{amazon}"
accounts = ["222233334444"]
parameters = ["/images/{{image}}/{{architecture}}"]
deprecate-after = 90
{aws_lines}

[[gce]]
name = "google"
project = "acme"
bucket = "images"
family = "{{image}}"
share-with = ["group:hosts@acme.example"]
endpoints = {{ storage = "{google}", compute = "{google}", projects = "{google}" }}

[[azure]]
name = "microsoft"
subscription = "01234567-89ab-cdef-0123-456789abcdef"
resource-group = "images"
location = "westeurope"
storage-account = "firstboot"
container = "disks"
gallery = {{ name = "gallery", publisher = "firstboot", regions = [{{ name = "westeurope" }}] }}
keep-blob = true
endpoints = {{ storage = "{microsoft}/firstboot", arm = "{microsoft}", login = "{microsoft}/login" }}

[[glance]]
name = "openstack"
visibility = "shared"
members = ["abc"]

[[oci]]
name = "registry"
repository = "{registry_host}/team/host"
tags = ["latest"]
"#,
            first = REGIONS[0],
            second = REGIONS[1],
            amazon = urls[0],
            google = urls[1],
            microsoft = urls[2],
            registry_host = urls[3].replace("http://", ""),
        ));
        Self {
            desk,
            aws,
            gce,
            azure,
            openstack,
            registry,
            servers,
        }
    }

    fn verb(&self, verb: &str) -> Command {
        let mut command = self.desk.verb(verb);
        command
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env(
                "GOOGLE_APPLICATION_CREDENTIALS",
                self.desk.path("google.json"),
            )
            .env("AZURE_TENANT_ID", "tenant")
            .env("AZURE_CLIENT_ID", "client")
            .env("AZURE_CLIENT_SECRET", "secret")
            .env("OS_AUTH_URL", format!("{}/identity", self.servers[4].url()))
            .env("OS_USERNAME", "ci")
            .env("OS_PASSWORD", PASSWORD)
            .env("OS_USER_DOMAIN_NAME", "Default")
            .env("OS_PROJECT_NAME", "images")
            .env("OS_REGION_NAME", "one");
        command
    }

    fn publish(&self, more: &[&str]) -> Value {
        json(
            self.verb("publish")
                .args(["--boot-check", "skip"])
                .args(more),
        )
    }

    fn changes(&self) -> Vec<String> {
        let calls = self.servers.iter().flat_map(Server::calls);
        let changing = calls.filter(|(called, _)| called.kind == Kind::Changing);
        changing
            .map(|(called, count)| format!("{} {count}", called.label))
            .collect()
    }

    /// The disk of the snapshot of a region's image.
    fn snapshot(&self, region: &str) -> SnapshotDisk {
        let images = self.aws.images(region);
        assert_eq!(images.len(), 1, "{region}: {images:?}");
        self.aws
            .disk(&images[0].snapshot)
            .expect("its snapshot has a disk")
    }

    fn verify(&self, file: &str) {
        let mut verify = Command::new(shop::workspace().binary("imagebuild"));
        verify
            .current_dir(self.desk.path(""))
            .args(["verify", IMAGE, "--store", "store", "--file", file]);
        let verified = run(&mut verify);
        assert!(verified.status.success(), "{file}: {}", said(&verified));
    }

    /// The build is taken back everywhere, also where a later day was said; nothing is older, and nothing is done twice.
    fn ends(&self) {
        let deprecated = |more: &[&str]| {
            let outcome = json(self.verb("deprecate").args(more));
            let images = outcome["images"].as_array().expect("images").iter();
            let targets = images.map(|image| image["target"].as_str().expect("a name").to_owned());
            targets.collect::<Vec<_>>()
        };
        let everywhere = ["amazon", "amazon", "google", "microsoft", "openstack"];
        assert_eq!(deprecated(&["--older"]), [""; 0]);
        assert_eq!(deprecated(&["--dry-run"]), everywhere);
        assert_eq!(deprecated(&[]), everywhere);
        assert_eq!(deprecated(&[]), [""; 0]);
    }

    /// The size of the raw disk.
    fn size(&self) -> u64 {
        let manifest = shop::manifest(&self.desk.path("store"), IMAGE);
        manifest.disk.expect("a disk").size
    }
}

/// Writes what a cloud holds to a file.
fn write(path: PathBuf, size: u64, read: impl Fn(u64, &mut [u8]) -> io::Result<()>) {
    let file = File::create(path).expect("a file");
    file.set_len(size).expect("its size");
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let left = usize::try_from(size - at).unwrap_or(usize::MAX);
        let part = &mut buffer[..left.min(1 << 20)];
        read(at, part).expect("the cloud has it all");
        if part.iter().any(|byte| *byte != 0) {
            file.write_all_at(part, at).expect("it is written");
        }
        at += part.len() as u64;
    }
}

#[test]
fn one_run_publishes_everywhere_and_a_second_changes_nothing() {
    let clouds = Clouds::open("");
    let plan = json(clouds.verb("publish").arg("--plan"));
    assert_eq!(clouds.changes(), [""; 0], "a plan only looks");
    for target in ["amazon", "google", "microsoft", "openstack", "registry"] {
        let mut steps = plan["steps"].as_array().expect("steps").iter();
        assert!(
            steps.any(|step| step["target"] == target),
            "{target} in {plan}"
        );
    }
    let record = clouds.publish(&[]);
    assert_eq!(record["stage"], "current", "{record}");
    for server in &clouds.servers {
        assert!(server.changes() > 0);
        server.reset();
    }
    let again = clouds.publish(&[]);
    assert_eq!(clouds.changes(), [""; 0]);
    assert_eq!(again, record);

    let size = clouds.size();
    let snapshot = clouds.snapshot(REGIONS[1]);
    write(clouds.desk.path("amazon.raw"), size, |at, part| {
        snapshot.read_at(at, part)
    });
    let images = clouds.gce.images();
    let name = images[0]["name"].as_str().expect("a name");
    fs::write(
        clouds.desk.path("google.tar.gz"),
        clouds.gce.archive(name).expect("its archive"),
    )
    .expect("a file");
    let blob = clouds.azure.blobs().remove(0);
    write(clouds.desk.path("microsoft.vhd"), size + 512, |at, part| {
        clouds.azure.read_blob(&blob, at, part)
    });
    let images = clouds.openstack.images();
    let id = images[0]["id"].as_str().expect("an id");
    fs::write(
        clouds.desk.path("openstack.qcow2"),
        clouds.openstack.bytes(id).expect("its bytes"),
    )
    .expect("a file");
    for file in [
        "amazon.raw",
        "google.tar.gz",
        "microsoft.vhd",
        "openstack.qcow2",
    ] {
        clouds.verify(file);
    }
    assert!(clouds.registry.tags("team/host").contains_key("latest"));

    let parameter = clouds
        .aws
        .parameter(REGIONS[0], "/images/host/amd64")
        .expect("a parameter");
    let mut find = Command::new(shop::workspace().binary("imagebuild"));
    find.current_dir(clouds.desk.path(""));
    find.args(["where", &parameter.value, "--store", "store", "--json"]);
    let found = json(&mut find);
    assert_eq!(found[0]["record"], record, "by the AMI, offline");
    clouds.ends();
}

#[test]
fn a_publish_that_is_killed_goes_on_with_the_same_snapshot() {
    let clouds = Clouds::open("");
    // In the middle of the upload, and when the answers to registering and copying are lost.
    let moments = [
        ("ebs:PutSnapshotBlock", 100, When::After),
        ("ec2:RegisterImage", 0, When::After),
        ("ec2:CopyImage", 0, When::Before),
    ];
    for (label, skip, when) in moments {
        clouds.servers[0].fault(Fault {
            label: Some(label.to_owned()),
            skip,
            times: u64::MAX,
            when,
            act: Act::Hang,
        });
        let mut publish = clouds.verb("publish");
        let mut publish = publish
            .args(["--boot-check", "skip", "--target", "amazon"])
            .spawn()
            .expect("it starts");
        RUNTIME.block_on(clouds.servers[0].stopped());
        publish.kill().expect("it is killed");
        publish.wait().expect("it ended");
        clouds.servers[0].faults().faults.clear();
    }
    let record = clouds.publish(&["--target", "amazon"]);
    assert_eq!(record["stage"], "current", "{record}");
    for region in REGIONS {
        assert_eq!(clouds.aws.images(region).len(), 1, "{region}");
        assert_eq!(clouds.aws.snapshots(region).len(), 1, "{region}");
    }
    let calls = clouds.servers[0].calls();
    let written = calls
        .iter()
        .filter(|(called, _)| called.label == "ebs:PutSnapshotBlock");
    let written: u64 = written.map(|(_, count)| count).sum();
    let blocks = clouds.aws.snapshots(REGIONS[0])[0].written() as u64;
    assert!(
        written < blocks + blocks / 2,
        "{written} writes of {blocks} blocks: acknowledged ones are not sent again"
    );
}

#[test]
fn a_failed_target_does_not_stop_the_others_and_nothing_is_shared_before_all_are_there() {
    let clouds = Clouds::open("");
    clouds.aws.rules(|rules| {
        rules.denied.insert("ec2:CopyImage".to_owned());
    });
    let begun = std::time::Instant::now();
    let output = run(clouds.verb("publish").args(["--boot-check", "skip"]));
    assert!(!output.status.success());
    let words = said(&output);
    assert!(words.contains("ec2:CopyImage"), "{words}");
    let images = clouds.gce.images();
    assert!(
        images.iter().all(|image| image["family"].is_null()),
        "{images:?}"
    );
    assert!(!clouds.registry.tags("team/host").contains_key("latest"));
    assert!(begun.elapsed() < std::time::Duration::from_mins(1));
    clouds.aws.rules(|rules| rules.denied.clear());
    let record = clouds.publish(&[]);
    assert_eq!(record["stage"], "current", "{record}");
    assert_eq!(record["unfinished"], Value::Null);
}

#[test]
fn an_encrypted_snapshot_whose_holes_are_noise_boots_and_verifies() {
    if !need::has(&["qemu-system-x86_64", "qemu-img"]) {
        return;
    }
    let keys = REGIONS.map(|region| {
        format!("{region} = \"arn:aws:kms:{region}:111122223333:key/00000000-0000-0000-0000-000000000000\"")
    });
    let clouds = Clouds::open(&format!("kms-keys = {{ {} }}", keys.join(", ")));
    clouds.publish(&["--target", "amazon"]);
    let size = clouds.size();
    let snapshot = clouds.snapshot(REGIONS[0]);
    write(clouds.desk.path("noise.raw"), size, |at, part| {
        snapshot.read_at(at, part)
    });
    let manifest = shop::manifest(&clouds.desk.path("store"), IMAGE);
    let mut boot = Command::new(shop::workspace().binary("imagebuild"));
    boot.current_dir(clouds.desk.path(""));
    boot.args([
        "test",
        IMAGE,
        "--store",
        "store",
        "--disk",
        "noise.raw",
        "--json",
    ]);
    let outcome = json(&mut boot);
    assert_eq!(
        outcome["verdict"]["tree"],
        Value::from(manifest.tree.to_string())
    );
    assert_eq!(outcome["verdict"]["healthy"], true);
}
