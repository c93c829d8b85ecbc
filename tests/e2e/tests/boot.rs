//! Hosts without disks, in real firmware, from power-on to the agent's word that all is well.
//!
//! It refuses to help a host along: what is tested is what `lab up` shows, and what a host does when
//! the appliance dies or the bytes are wrong.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use e2e::need;
use e2e::rig::{Rig, SITE, check, printed, run};
use e2e::shop;
use image_manifest::Role;
use lab::hosts::{Condition, HostView};
use lab::poll;
use lab::process::{self, Recorded};
use lab::qemu::Folder;
use lab::state::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A lab of this test's own, on the images that are there.
fn own_state() -> State {
    let shared = shop::state();
    for name in lab::images::NEEDED {
        shop::image(name);
    }
    let own = State::open(&shared.path().join("e2e")).expect("a state directory");
    if !own.store().exists() {
        symlink(shared.store(), own.store()).expect("a link to the store");
    }
    own
}

/// Takes the rack down when the test ends, however it ends.
struct Down<'a>(&'a State);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        lab(self.0, &["down"]);
    }
}

fn lab(state: &State, words: &[&str]) -> Output {
    let program = shop::workspace().binary("lab");
    let mut lab = Command::new(program);
    lab.args(words)
        .env("LAB_STATE", state.path())
        .stdin(Stdio::null());
    lab.output().expect("the lab starts")
}

#[test]
fn a_rack_with_every_firmware_boots_into_the_pinned_tree() {
    if !need::has(&["qemu-system-x86_64", "ssh"]) {
        return;
    }
    let state = own_state();
    check(&lab(&state, &["down"]));
    let _down = Down(&state);
    let up = lab(&state, &["up", "--keep", "--json"]);
    let told = String::from_utf8_lossy(&up.stderr).into_owned();
    eprintln!("{told}");
    let hosts: Vec<HostView> = serde_json::from_str(&printed(&up)).expect("JSON of hosts");
    let manifest = shop::manifest(&state.store(), "host");
    assert_eq!(hosts.len(), 3);
    for host in &hosts {
        assert!(host.runs(&manifest.tree), "{host:#?}");
    }
    assert!(
        told.contains("0 packages downloaded, nothing built"),
        "{told}"
    );

    assert_eq!(
        printed(&lab(&state, &["ssh", "uefi1", "hostname"])).trim(),
        "uefi1"
    );
    let root = printed(&lab(
        &state,
        &["ssh", "bios1", "findmnt", "-no", "FSTYPE", "/"],
    ));
    assert_eq!(root.trim(), "overlay");

    check(&lab(&state, &["down"]));
    assert_eq!(
        process::marked(state.path()),
        [],
        "nothing of the lab is left"
    );
    check(&lab(&state, &["down"]));
}

/// Root and little else fit: the initrd's modules have to be gone before the root comes, and the image has to make do.
#[test]
fn a_host_with_little_memory_compresses_what_lies_idle() {
    if !need::has(&["qemu-system-x86_64", "ssh"]) {
        return;
    }
    let state = own_state();
    check(&lab(&state, &["down"]));
    let _down = Down(&state);
    check(&lab(
        &state,
        &["up", "--keep", "--host", "bios1", "--ram", "200"],
    ));
    let seen = |command| printed(&lab(&state, &["ssh", "bios1", command]));
    let swap = seen("cat /proc/swaps");
    assert_eq!(swap.lines().count(), 2, "{swap}");
    assert!(swap.contains("/dev/zram0"), "{swap}");
    let root = seen("awk '/^Unevictable:/ {print $2 * 1024}' /proc/meminfo");
    let manifest = shop::manifest(&state.store(), "host");
    let size = manifest.artifact(Role::Rootfs).expect("a root").size;
    let unswappable: u64 = root.trim().parse().expect("bytes");
    assert!(unswappable >= size, "the root may be swapped: {root}");
}

/// Milliseconds since the kernel's start at which a report of this stage was sent, and its field.
fn reported(events: &serde_json::Value, stage: &str, field: &str) -> u64 {
    let events = events["events"].as_array().expect("events");
    let event = events.iter().find(|event| event["stage"] == stage);
    let number = event.and_then(|event| event[field].as_u64());
    number.unwrap_or_else(|| panic!("no `{field}` of `{stage}` in {events:#?}"))
}

/// Boots one host and tells how long stage1 took by itself, and how long after the kernel's start it switched.
fn boot_once(state: &State) -> (u64, u64) {
    check(&lab(state, &["down"]));
    check(&lab(state, &["up", "--keep", "--host", "uefi1"]));
    let host = Command::new(shop::workspace().binary("netboot"))
        .args(["host", "uefi1", "--json", "--site"])
        .arg(state.site())
        .arg("--data")
        .arg(state.data())
        .output()
        .expect("netboot starts");
    let events = serde_json::from_str(&printed(&host)).expect("JSON of a host");
    let started = reported(&events, "stage1", "started-ms");
    let switched = reported(&events, "switch-root", "uptime-ms");
    (switched - started, switched)
}

/// Fetches the root once more, in the same host, by programs that no one here wrote, and tells how long it took.
fn fetch_once(state: &State, into: &str) -> u64 {
    let manifest = shop::manifest(&state.store(), "host");
    let root = manifest.artifact(Role::Rootfs).expect("a root").digest;
    let script = format!(
        "exec 3<>/dev/tcp/10.77.0.1/80; a=$(date +%s%N); \
         printf 'GET /blob/{root} HTTP/1.1\\r\\nHost: 10.77.0.1\\r\\nConnection: close\\r\\n\\r\\n' >&3; \
         {into} <&3 >/dev/null; b=$(date +%s%N); echo $(((b - a) / 1000000))"
    );
    printed(&lab(state, &["ssh", "uefi1", &script]))
        .trim()
        .parse()
        .expect("milliseconds")
}

/// Measured is what stage1 can answer for: the time from its own start until it switches, against the same bytes
/// fetched and checked as it has to check them. The kernel's own start is printed and not judged: it is over before
/// any program of ours runs, and in an emulator it takes as long as the machine pleases. A busy machine slows one boot
/// and not the next: the best of up to three counts.
#[test]
fn stage1_takes_little_longer_than_the_wire() {
    if !need::has(&["qemu-system-x86_64", "ssh"]) {
        return;
    }
    let state = own_state();
    let _down = Down(&state);
    for _ in 0..3 {
        let (own, switched) = boot_once(&state);
        let (wire, checked) = (fetch_once(&state, "cat"), fetch_once(&state, "sha256sum"));
        eprintln!(
            "stage1 took {own} ms until switch_root, which was {switched} ms after the kernel's start; \
             the root took {wire} ms on the wire, {checked} ms with its digest"
        );
        if own * 2 <= checked * 3 {
            return;
        }
    }
    panic!("in none of three boots stage1 took at most 1.5 times what the bytes take");
}

#[test]
fn a_rack_that_fails_says_why_and_exits_with_it() {
    if !need::has(&["qemu-system-x86_64"]) {
        return;
    }
    let state = own_state();
    let _down = Down(&state);
    check(&lab(&state, &["down"]));
    // More than the initrd needs, less than the root does.
    let up = lab(&state, &["up", "--host", "bios1", "--ram", "152"]);
    let said = String::from_utf8_lossy(&up.stderr);
    assert_eq!(up.status.code(), Some(1), "{said}");
    let verdict = said.lines().find(|line| line.starts_with("error: bios1"));
    let verdict = verdict.unwrap_or_else(|| panic!("no verdict in {said}"));
    assert!(verdict.contains("MiB of memory"), "{verdict}");
    assert!(said.contains("console.log"), "{said}");
    assert_eq!(process::marked(state.path()), [], "it leaves nothing");
}

/// Ended as `timeout` ends it, without a `down` after it.
#[test]
fn a_rack_that_is_told_to_end_takes_its_hosts_along() {
    if !need::has(&["qemu-system-x86_64"]) {
        return;
    }
    let state = own_state();
    let _down = Down(&state);
    check(&lab(&state, &["down"]));
    let mut up = Command::new(shop::workspace().binary("lab"));
    let up = up
        .args(["up", "--host", "bios1"])
        .env("LAB_STATE", state.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the lab starts");
    let host = Folder::of(state.path(), "bios1");
    let started = poll::until(Duration::from_mins(1), || host.power_events().pop());
    let host = started.and_then(|event| Recorded::now("bios1", event.process?));
    assert!(host.is_some_and(|host| host.is_alive()), "the host runs");
    let lab = i32::try_from(up.id()).expect("a process id");
    kill(Pid::from_raw(lab), Signal::SIGTERM).expect("the lab runs");
    let up = up.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&up.stderr);
    assert_eq!(up.status.code(), Some(1), "{said}");
    assert!(said.contains("error: interrupted"), "{said}");
    assert_eq!(process::marked(state.path()), [], "it leaves nothing");
    let log = fs::read_to_string(state.appliance_log()).expect("a log");
    assert!(log.contains("appliance stops"), "it was asked first: {log}");
}

#[test]
fn a_boot_goes_on_when_the_appliance_was_killed() {
    if !need::has(&["qemu-system-x86_64"]) {
        return;
    }
    let state = own_state();
    let manifest = shop::manifest(&state.store(), "host");
    let mut rig = Rig::with_store(SITE, &state.store());
    let reached = |host: &HostView| {
        host.boot
            .as_ref()
            .is_some_and(|boot| boot.stages.iter().any(|stage| stage.name == "stage1"))
    };
    let before = rig.boot_until("bios1", reached);
    rig.kill();
    rig.serve().expect("it starts again");
    let after = rig.wait_until("bios1", HostView::is_settled);
    assert!(
        after.runs(&manifest.tree),
        "{after:#?}\n{}",
        rig.console("bios1")
    );
    assert_eq!(after.address, before.address);
    let ids = [before, after].map(|host| host.boot.map(|boot| boot.id));
    assert_eq!(ids[0], ids[1], "it is the same boot");
}

#[test]
fn one_flipped_byte_in_the_root_is_refused_and_said_aloud() {
    if !need::has(&["qemu-system-x86_64"]) {
        return;
    }
    let state = own_state();
    let folder = tempfile::tempdir_in(state.path()).expect("a directory");
    let store = folder.path().join("store");
    shop::copy_tree(&state.store(), &store).expect("a copy of the store");
    let root = shop::artifact(
        &store,
        shop::manifest(&store, "host")
            .artifact(Role::Rootfs)
            .expect("a root"),
    );
    flip_byte_in_the_middle(&root);

    let rig = Rig::with_store(SITE, &store);
    let host = rig.boot_until("bios1", HostView::is_settled);
    assert_eq!(host.condition(), Condition::Failed, "{host:#?}");
    let said = host.boot.expect("it booted").verdict.text;
    assert!(said.contains("digest") || said.contains("sha256"), "{said}");
    let console = rig.console("bios1");
    assert!(
        console.contains("digest") || console.contains("sha256"),
        "{console}"
    );
    assert!(
        !console.contains("Welcome to"),
        "it must not boot: {console}"
    );
}

/// Builds the host image with a key in its initrd, and returns the store.
fn build_with_key(folder: &Path) -> PathBuf {
    let store = folder.join("store");
    let images = shop::workspace().root.join("images");
    shop::copy_tree(&images, &folder.join("images")).expect("a copy of the definitions");
    shop::copy_tree(&shop::state().store(), &store).expect("a copy of the store");
    check(&imagebuild(folder, &["key", "make", "release.key"]));
    let host = folder.join("images/host");
    fs::rename(folder.join("release.key.pub"), host.join("release.pub")).expect("a public key");
    let toml = host.join("image.toml");
    let text = fs::read_to_string(&toml).expect("a definition");
    let sign = "\n[sign]\nkey = \"release.pub\"\n";
    fs::write(&toml, text + sign).expect("a definition");
    check(&imagebuild(
        folder,
        &["build", "images/host", "--store", "store", "--offline"],
    ));
    store
}

fn imagebuild(folder: &Path, words: &[&str]) -> Output {
    let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
    run(imagebuild.current_dir(folder).args(words))
}

#[test]
fn an_image_with_a_key_boots_when_that_key_signed_it_and_not_before() {
    if !need::has(&["qemu-system-x86_64"]) {
        return;
    }
    let state = own_state();
    let folder = tempfile::tempdir_in(state.path()).expect("a directory");
    let store = build_with_key(folder.path());
    let sign = |key: &str| {
        let words = ["sign", "host", "--store", "store", "--key", key];
        check(&imagebuild(folder.path(), &words));
    };
    check(&imagebuild(folder.path(), &["key", "make", "other.key"]));
    sign("other.key");
    let rig = Rig::with_store(SITE, &store);
    let host = rig.boot_until("bios1", HostView::is_settled);
    assert_eq!(host.condition(), Condition::Failed, "{host:#?}");
    let said = host.boot.expect("it booted").verdict.text;
    let why = "no signature of it is by a trusted key";
    assert!(
        said.contains("image `host` is refused") && said.contains(why),
        "{said}"
    );
    let console = rig.console("bios1");
    assert!(
        console.contains("FAILED: image `host` is refused"),
        "{console}"
    );
    assert!(
        !console.contains("Welcome to"),
        "it must not boot: {console}"
    );

    sign("release.key");
    let manifest = shop::manifest(&store, "host");
    let host = rig.boot_until("uefi1", HostView::is_settled);
    let console = rig.console("uefi1");
    assert!(host.runs(&manifest.tree), "{host:#?}\n{console}");
    let said = "the image's manifest is signed by a trusted key";
    assert!(console.contains(said), "{console}");
}

fn flip_byte_in_the_middle(path: &Path) {
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("it can be written");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("the root opens");
    let middle = file.metadata().expect("it has a size").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("it is read");
    file.write_all_at(&[byte[0] ^ 1], middle)
        .expect("it is written");
}

#[test]
fn missing_firmware_is_named_with_its_package() {
    let state = own_state();
    let program = shop::workspace().binary("lab");
    let output = Command::new(program)
        .args(["up", "--host", "uefi1"])
        .env("LAB_STATE", state.path())
        .env("LAB_FIRMWARE", "/nonexistent")
        .stdin(Stdio::null())
        .output()
        .expect("the lab starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("OVMF_CODE_4M.fd") && said.contains("ovmf"),
        "{said}"
    );
}

#[test]
fn a_host_that_does_not_exist_is_refused() {
    let output = lab(&own_state(), &["up", "--host", "mars"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no host `mars`"));
}

/// Bytes of an initrd's files, leaving out modules and their firmware: stage1 and what it is told.
fn bytes_of_stage1(cpio: &[u8]) -> usize {
    let number = |field: &[u8]| {
        let text = std::str::from_utf8(field).expect("hexadecimal digits");
        usize::from_str_radix(text, 16).expect("hexadecimal digits")
    };
    let (mut at, mut sum) = (0, 0);
    loop {
        // A head of 110 bytes, the name, the content; each of the last two ends at a multiple of four.
        let head = &cpio[at..at + 110];
        let (size, length) = (number(&head[54..62]), number(&head[94..102]));
        let name = &cpio[at + 110..at + 110 + length - 1];
        if name == b"TRAILER!!!" {
            return sum;
        }
        let content = (at + 110 + length).next_multiple_of(4);
        at = (content + size).next_multiple_of(4);
        let path = name.strip_prefix(b"./").unwrap_or(name);
        if !path.starts_with(b"lib/")
            && !path.starts_with(b"usr/lib/")
            && !path.ends_with(b"modules.index")
        {
            sum += size;
        }
    }
}

#[test]
fn the_initrd_without_modules_is_small() {
    let state = own_state();
    let manifest = shop::manifest(&state.store(), "host");
    let initrd = manifest.artifact(Role::Initrd).expect("an initrd");
    let packed = fs::read(shop::artifact(&state.store(), initrd)).expect("the initrd");
    let cpio = zstd::decode_all(&packed[..]).expect("zstd");
    let bytes = bytes_of_stage1(&cpio);
    eprintln!("the initrd without modules: {bytes} bytes, not packed");
    assert!(bytes > 100_000, "stage1 is in it");
    assert!(bytes < 2 << 20, "{bytes} bytes");
}
