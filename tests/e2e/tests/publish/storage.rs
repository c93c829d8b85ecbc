//! Cloud Storage as somebody else made it: the archive of the host's image passes through an emulator and comes back the same.
//!
//! It refuses to judge by our own fake what was stored: the bytes are read over HTTP, and verified by `imagebuild verify`.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud::fake::Kind;
use cloud::fake::gce::Gce;
use e2e::need;
use e2e::rig::run;
use e2e::shop;
use lab::python::Environment;

use super::desk::{Desk, json, listen, said};

/// The emulator, until it is dropped.
struct Emulator {
    child: Child,
    url: String,
}

impl Emulator {
    fn start(desk: &Desk) -> Option<Self> {
        let python = Environment::of(&shop::state());
        let Some(program) = python.program("gcp-storage-emulator") else {
            assert!(!need::is_ci(), "no gcp-storage-emulator");
            eprintln!("SKIPPED for want of gcp-storage-emulator: `cargo lab test --install`");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = port.expect("a port");
        let child = Command::new(program)
            .arg("-d")
            .arg(desk.path("buckets"))
            .args(["start", "--host", "127.0.0.1", "--default-bucket", "images"])
            .args(["--port", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it listens");
            std::thread::sleep(Duration::from_millis(50));
        }
        let url = format!("http://{address}");
        Some(Self { child, url })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

#[test]
fn an_emulator_takes_the_archive_and_gives_the_same_bytes_back() {
    let desk = Desk::of("host");
    let Some(emulator) = Emulator::start(&desk) else {
        return;
    };
    let cloud = Gce::new("acme", "images");
    let server = listen(Arc::new(cloud.clone()));
    let url = server.url();
    let credentials = serde_json::json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/providers/ci",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{url}/v1/token"),
        "credential_source": { "file": desk.path("subject"), "format": { "type": "text" } },
    });
    fs::write(desk.path("subject"), "subject-1").expect("a token");
    fs::write(desk.path("google.json"), credentials.to_string()).expect("credentials");
    desk.targets(&format!(
        "[[gce]]\nname = \"google\"\nproject = \"acme\"\nbucket = \"images\"\ncredentials-file = \"google.json\"\n\
         endpoints = {{ storage = \"{}\", compute = \"{url}\", projects = \"{url}\" }}\n",
        emulator.url
    ));
    // Our fake of Compute Engine does not see the emulator's bucket, so this run ends after the upload.
    let output = run(desk.verb("publish").args(["--boot-check", "skip"]));
    assert!(!output.status.success());
    assert!(said(&output).contains("insert-image"), "{}", said(&output));

    let plan = json(desk.verb("publish").arg("--plan"));
    let steps = plan["steps"].as_array().expect("steps");
    let removal = steps.iter().find(|step| step["action"] == "remove-object");
    let object = removal.expect("the object is there")["object"]
        .as_str()
        .expect("its name");
    let stored = desk.path("stored.tar.gz");
    let media = format!(
        "{}/storage/v1/b/images/o/{}?alt=media",
        emulator.url,
        cloud::escape::escape(object)
    );
    let mut curl = Command::new("curl");
    curl.args(["-sSf", "--noproxy", "*", "-o"])
        .arg(&stored)
        .arg(media);
    let read = run(&mut curl);
    assert!(read.status.success(), "{}", said(&read));
    let mut verify = Command::new(shop::workspace().binary("imagebuild"));
    verify.current_dir(desk.path("")).args([
        "verify",
        "host",
        "--store",
        "store",
        "--file",
        "stored.tar.gz",
    ]);
    let verified = run(&mut verify);
    assert!(verified.status.success(), "{}", said(&verified));

    // With the same bytes in sight of Compute Engine the next run finishes, and sends nothing again.
    cloud.put_object(object, fs::read(&stored).expect("the bytes"));
    server.reset();
    let record = desk.publish(&[]);
    assert_eq!(record["stage"], "current", "{record}");
    let inserted = server.calls();
    let inserted = inserted
        .iter()
        .filter(|(called, _)| called.kind == Kind::Changing);
    assert_eq!(
        inserted.map(|(_, count)| count).sum::<u64>(),
        1,
        "the image is made, and nothing else"
    );
    let plan = json(desk.verb("publish").arg("--plan"));
    assert_eq!(
        plan["steps"],
        serde_json::json!([]),
        "the object is gone from the bucket"
    );
}
