//! Passwords, tokens and secrets: searched for in everything that a whole day of an appliance leaves behind.
//!
//! It refuses to exempt a file but those that were made for a secret, and reads databases as the bytes that they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use e2e::desk::{admin, ask, token};
use e2e::ghost::{self, Event, Manner};
use e2e::haunted::{Haunted, IMAGES};
use e2e::need;
use e2e::rig::{Rig, check, run};
use ipmi::sim::{Fault, Moment};
use serde_json::json;

/// A secret of the host, and one that is sealed on the command line.
const DOOR: &str = "canary-open-sesame-55";
const SEALED: &str = "canary-under-wax-8812";

/// What the test looks for, with the name that a failure tells instead.
struct Canary(&'static str, String);

/// Looks at the arguments and environments of all processes until it is told to stop.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: thread::JoinHandle<BTreeSet<Vec<u8>>>,
}

impl Watch {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let seen = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !until.load(Ordering::Relaxed) {
                for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    for file in ["cmdline", "environ"] {
                        // A process that ended meanwhile has nothing to show.
                        seen.extend(fs::read(process.path().join(file)));
                    }
                }
                thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        Self { stop, seen }
    }

    fn end(self) -> Vec<u8> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.seen.join().expect("it only looks");
        seen.into_iter().flatten().collect()
    }
}

fn site() -> String {
    let secret = "[role.web]\nimage = \"host\"\nsecrets = [\"door\"]\n\n[secret.door]\nfile = \"secrets/door\"\n";
    ghost::SITE.replace("[role.web]\nimage = \"host\"\n", secret)
}

/// Keeps what a command said, and returns it.
fn keep(rig: &Rig, words: &[&str]) -> Output {
    let output = rig.netboot(words);
    let name = format!("said/{}", words.join("_").replace('/', "-"));
    let text = [&output.stdout[..], &output.stderr].concat();
    fs::write(rig.path(&name), text).expect("a file");
    output
}

/// Does what operators and hosts do in a day, well and badly.
fn day(haunted: &mut Haunted) -> Vec<Canary> {
    let mut canaries = Vec::new();
    let operator = token(&haunted.rig, "anna", &["--role", "operator"]);
    let papers = haunted.ghost.papers.clone();
    for (image, fault) in [(IMAGES[1], None), (IMAGES[0], Some(Fault::Drop(30)))] {
        haunted.ghost.faults.clear();
        if let Some(fault) = fault {
            haunted.ghost.faults.set(fault);
        }
        haunted.deploy(image);
        let mut asked = false;
        haunted.play(Duration::from_mins(2), |rig, event| {
            if !asked && event.what == "report" && event.moment == Moment::Before {
                secrets(rig, &papers.newest());
                asked = true;
            }
            event.proceed();
        });
        let papers = papers.newest();
        canaries.push(Canary("a boot's token", papers.token));
        canaries.push(Canary("a boot's credential", papers.credential));
    }
    haunted.ghost.faults.clear();
    haunted.ghost.behave(Manner::Dead);
    // From here on nobody decides how the BMC goes on.
    let events = std::mem::replace(&mut haunted.ghost.events, channel().1);
    thread::spawn(move || events.into_iter().for_each(Event::proceed));
    let rig = &haunted.rig;
    // The password is wrong from now on: what the BMC refuses is told, and not with what.
    fs::write(rig.place.site.join("secrets/bmc"), "canary-wrong-pass").expect("a secret");
    canaries.push(Canary("a wrong password", "canary-wrong-pass".to_owned()));
    for words in [
        &["power", "on", "bios1"][..],
        &["power", "status", "bios1", "--json"],
        &["inventory", "bios1"],
        &["hosts"],
        &["host", "bios1", "--json"],
        &["history", "bios1"],
        &["events", "--json"],
        &["audit", "list", "--json", "--limit", "1000"],
        &["token", "list", "--json"],
        &["deploy", "bios1", "--dry-run"],
    ] {
        let output = keep(rig, words);
        assert!(
            !output.stdout.is_empty() || !output.stderr.is_empty(),
            "{words:?}"
        );
    }
    for (number, path) in ["/v1/site", "/v1/hosts", "/v1/events", "/v1/audit"]
        .iter()
        .enumerate()
    {
        let body = ask(rig, &admin(rig), path, None).body.to_string();
        fs::write(rig.path(&format!("said/answer-{number}")), body).expect("a file");
    }
    let denied = ask(
        rig,
        &operator,
        "/v1/tokens",
        Some(&json!({"name": "x", "role": "admin"})),
    );
    assert_eq!(denied.status, 403);
    fs::write(rig.path("said/metrics"), rig.metrics()).expect("a file");
    seal(rig);
    for file in [operator, admin(rig)] {
        let text = fs::read_to_string(&file).expect("a token");
        canaries.push(Canary("an operator's token", text.trim().to_owned()));
    }
    canaries
}

/// Seals a secret that is typed in, for the site.
fn seal(rig: &Rig) {
    use std::io::Write as _;
    let site = rig.place.site.display().to_string();
    let mut netboot = rig.place.operator(&rig.rack);
    netboot.args(["enroll", "secret", "wax", "--site", &site]);
    let mut child = netboot
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("netboot starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{SEALED}").expect("a secret");
    drop(stdin);
    let output = child.wait_with_output().expect("netboot ends");
    check(&output);
    let said = [output.stdout, output.stderr].concat();
    fs::write(rig.path("said/seal"), said).expect("a file");
}

/// Asks for the host's secrets as stage1 does, and checks that they are there to be leaked.
fn secrets(rig: &Rig, papers: &ghost::Papers) {
    let header = rig.path("ghost/secrets.header");
    let body = rig.path("ghost/secrets.body");
    fs::write(
        &header,
        format!("Authorization: Bearer {}\n", papers.credential),
    )
    .expect("a file");
    fs::write(&body, json!({"nonce": papers.nonce}).to_string()).expect("a file");
    let mut curl = rig.client.command("curl");
    curl.args(["-sSf", "--interface", ghost::ADDRESS, "--cacert"]);
    curl.arg(rig.place.data.join("ca.pem"));
    curl.arg("-H").arg(format!("@{}", header.display()));
    curl.arg("-d").arg(format!("@{}", body.display()));
    let output = run(curl.arg(format!("{}/secrets", papers.boots)));
    check(&output);
}

/// Returns the files that hold a text, as grep finds them.
fn found(folder: &Path, text: &str) -> Vec<String> {
    let mut grep = Command::new("grep");
    // The text is given on standard input: this test is a process too.
    grep.args(["-rlaF", "-f", "-"]).arg(folder);
    grep.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = grep.spawn().expect("grep starts");
    {
        use std::io::Write as _;
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("a pattern");
    }
    let output = child.wait_with_output().expect("grep ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn nothing_secret_is_left_anywhere_after_a_day() {
    if !need::has(&["udhcpc", "curl", "grep"]) {
        return;
    }
    let watch = Watch::start();
    let mut haunted = Haunted::with_site(&site(), &[("secrets/door", DOOR)]);
    fs::create_dir(haunted.rig.path("said")).expect("a directory");
    haunted.restart_with(&[("RUST_LOG", Path::new("trace"))]);
    haunted.settle();
    let mut canaries = day(&mut haunted);
    let processes = watch.end();
    haunted.rig.kill();
    for (name, text) in [
        ("BMC password", ghost::PASSWORD),
        ("secret", DOOR),
        ("sealed secret", SEALED),
    ] {
        canaries.push(Canary(name, text.to_owned()));
    }

    let rig = &haunted.rig;
    let folder = rig.path("");
    // The places that were made for secrets, by an operator or by this test's own curl.
    let own = ["/site/secrets/", "/ghost/", "/curl.header", ".token"];
    for Canary(name, text) in &canaries {
        let hex = text
            .bytes()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        for form in [text.clone(), hex] {
            let files = found(&folder, &form);
            let leaks: Vec<_> = files
                .iter()
                .filter(|file| !own.iter().any(|place| file.contains(place)))
                .collect();
            assert!(leaks.is_empty(), "{name} stands in {leaks:?}");
            let shown = processes
                .windows(form.len())
                .any(|part| part == form.as_bytes());
            assert!(!shown, "{name} stood in the arguments of a process");
        }
        eprintln!("{name}: found nowhere");
    }
    // The search itself works.
    assert!(!found(&folder, DOOR).is_empty(), "the secret's own file");
    assert!(rig.log().contains(" DEBUG "), "it logged all that it can");
}
