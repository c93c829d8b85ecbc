//! The disk of an image in UEFI firmware, without network: from power-on to the verdict, with Secure Boot on, and what
//! happens to a disk that somebody changed.
//!
//! It refuses to look at the disk with our own readers: Debian's tools say how large its partitions are and whether the
//! file system is clean, the kernel's own tools whether verity is active.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::need;
use e2e::rig::{check, printed, run};
use e2e::shop;
use lab::python::Environment;
use serde_json::Value;
use tempfile::TempDir;

const TOOLS: [&str; 6] = [
    "e2fsck",
    "openssl",
    "qemu-system-x86_64",
    "sbverify",
    "sfdisk",
    "sgdisk",
];
/// Where Debian keeps the firmware that has no keys yet.
const NO_KEYS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// What stands around what the running host is asked for.
const MARK: &str = "e2e-probe:";

/// A desk with an image's disk on it.
struct Bench {
    folder: TempDir,
    store: PathBuf,
}

impl Bench {
    fn new() -> Option<Self> {
        let fw_vars = Environment::of(&shop::state()).program("virt-fw-vars");
        if fw_vars.is_none() {
            assert!(!need::is_ci(), "missing: virt-fw-vars");
            eprintln!("SKIPPED for want of virt-fw-vars");
        }
        if !need::has(&TOOLS) || fw_vars.is_none() {
            return None;
        }
        shop::image("host");
        let place = shop::state().path().join("e2e");
        fs::create_dir_all(&place).expect("a directory");
        let bench = Self {
            // Disks are large, and the temporary directory may be in memory.
            folder: tempfile::tempdir_in(place).expect("a directory"),
            store: shop::state().store(),
        };
        bench.make_keys(&fw_vars?);
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a key that nobody trusts but the firmware of this test.
    fn make_keys(&self, fw_vars: &Path) {
        let made = Command::new("openssl")
            .current_dir(self.folder.path())
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj",
                "/CN=e2e",
                "-keyout",
                "key.pem",
                "-out",
                "certificate.pem",
            ])
            .output();
        check(&made.expect("openssl starts"));
        let owner = "11111111-2222-3333-4444-555555555555";
        let mut enrol = Command::new(fw_vars);
        enrol.current_dir(self.folder.path());
        enrol.args([
            "--input",
            NO_KEYS,
            "--output",
            "enrolled.fd",
            "--secure-boot",
        ]);
        for variable in ["--set-pk", "--add-kek", "--add-db"] {
            enrol.args([variable, owner, "certificate.pem"]);
        }
        check(&run(&mut enrol));
    }

    /// Tests the image on this disk; what it says on its console is kept beside it.
    fn test(&self, disk: &str, seconds: u32, words: &[&str]) -> Trial {
        let console = self.path(&format!("{disk}.log"));
        let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
        imagebuild
            .current_dir(self.folder.path())
            .args(["test", "host", "--json", "--disk", disk, "--memory", "768"])
            .args(["--timeout", &seconds.to_string(), "--log"])
            .arg(&console)
            .arg("--store")
            .arg(&self.store)
            .args(words);
        let output = run(&mut imagebuild);
        let console = fs::read(console).unwrap_or_default();
        Trial {
            output,
            console: String::from_utf8_lossy(&console).into_owned(),
        }
    }
}

struct Trial {
    output: Output,
    console: String,
}

impl Trial {
    fn outcome(&self) -> Value {
        let text = String::from_utf8_lossy(&self.output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{:?}", self.output))
    }

    /// Asserts that the host came to a good verdict with checks that are its definition's.
    fn assert_healthy(&self) {
        assert!(
            self.output.status.success(),
            "{:?}\n{}",
            self.output,
            self.console
        );
        let outcome = self.outcome();
        assert_eq!(outcome["verdict"]["healthy"], true, "{outcome}");
        let tree = shop::manifest(&shop::state().store(), "host").tree;
        assert_eq!(outcome["verdict"]["tree"], tree.to_string());
        let checks = outcome["verdict"]["checks"].as_array().expect("checks");
        assert!(
            checks.iter().any(|check| check["name"] == "port 22"),
            "{outcome}"
        );
    }

    /// Returns what the probe in the running host printed.
    fn probed(&self) -> Vec<&str> {
        let lines = self.console.lines();
        lines
            .filter_map(|line| Some(line.split_once(MARK)?.1.trim()))
            .collect()
    }
}

/// Arguments for QEMU that hand the running host a unit to run, as any virtual computer may hand credentials to systemd:
/// the image is not changed for it.
fn probe() -> Vec<String> {
    let credential = |name: &str, text: &str| {
        let text = text.replace(',', ",,");
        [
            "-smbios".to_owned(),
            format!("type=11,value=io.systemd.credential:{name}={text}"),
        ]
    };
    let script = [
        format!("echo {MARK} verity $(dmsetup status root)"),
        format!("echo {MARK} root $(findmnt -no SOURCE,FSTYPE /run/firstboot/image)"),
        format!("echo {MARK} var $(findmnt -no FSTYPE /var)"),
        format!("echo {MARK} kept $(cat /var/lib/e2e-kept || echo nothing)"),
        "echo yes >/var/lib/e2e-kept".to_owned(),
        "sync".to_owned(),
    ];
    let script = script.join("; ").replace('$', "$$");
    let unit = format!(
        "[Unit]\nAfter=var.mount\nBefore=multi-user.target\n\
         [Service]\nType=oneshot\nStandardOutput=tty\nTTYPath=/dev/ttyS0\nExecStart=/bin/sh -c '{script}'\n"
    );
    [
        credential("systemd.extra-unit.e2e-probe.service", &unit),
        credential(
            "systemd.unit-dropin.multi-user.target",
            "[Unit]\nWants=e2e-probe.service\n",
        ),
    ]
    .concat()
}

/// The partitions of a disk as `sfdisk` sees them: name, first sector, sectors.
fn partitions(disk: &Path) -> Vec<(String, u64, u64)> {
    let output = run(Command::new("sfdisk").arg("--json").arg(disk));
    let table: Value = serde_json::from_str(&printed(&output)).expect("JSON");
    let partitions = table["partitiontable"]["partitions"]
        .as_array()
        .expect("partitions");
    let number = |partition: &Value, key: &str| partition[key].as_u64().expect("a number");
    partitions
        .iter()
        .map(|partition| {
            let name = partition["name"].as_str().expect("a name").to_owned();
            (name, number(partition, "start"), number(partition, "size"))
        })
        .collect()
}

fn partition(disk: &Path, name: &str) -> (u64, u64) {
    let found = partitions(disk)
        .into_iter()
        .find(|(found, _, _)| found == name);
    let (_, start, size) = found.unwrap_or_else(|| panic!("no partition `{name}`"));
    (start * 512, size * 512)
}

/// Asserts that the data partition reaches the disk's end, and that its file system is as large and clean.
fn assert_grown(disk: &Path, folder: &Path) {
    let whole = fs::metadata(disk).expect("a disk").len();
    let verified = printed(&run(Command::new("sgdisk").arg("--verify").arg(disk)));
    assert!(verified.contains("No problems found"), "{verified}");
    let (start, size) = partition(disk, "data");
    assert!(
        whole - (start + size) < 2 << 20,
        "{start} + {size} of {whole}"
    );

    let copy = folder.join("data.ext4");
    let mut from = fs::File::open(disk).expect("a disk");
    from.seek(SeekFrom::Start(start)).expect("it seeks");
    let mut to = fs::File::create(&copy).expect("a file");
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let read = from.read(&mut piece).expect("it reads");
        if piece[..read].iter().any(|byte| *byte != 0) {
            to.write_all_at(&piece[..read], at).expect("it writes");
        }
        at += read as u64;
    }
    to.set_len(size).expect("it grows");
    to.flush().expect("it is written");
    // The computer was switched off, so the journal is played back and the summaries of free space
    // are counted anew, as a mount would; what a mount would not survive is refused here (`-p`).
    let preened = run(Command::new("e2fsck").args(["-f", "-p"]).arg(&copy));
    let said = String::from_utf8_lossy(&preened.stdout).into_owned();
    assert!(matches!(preened.status.code(), Some(0 | 1)), "{said}");
    check(&run(Command::new("e2fsck").args(["-f", "-n"]).arg(&copy)));
    let told = printed(&run(Command::new("dumpe2fs").arg("-h").arg(&copy)));
    let field = |name: &str| -> u64 {
        let line = told.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|text| text.trim().parse().ok())
            .expect("a number")
    };
    let file_system = field("Block count:") * field("Block size:");
    assert!(size - file_system < 1 << 20, "{file_system} of {size}");
    fs::remove_file(copy).expect("it goes");
}

#[test]
fn a_signed_disk_boots_with_secure_boot_and_keeps_what_is_written() {
    let Some(bench) = Bench::new() else { return };
    let probe = probe();
    let mut secure = vec![
        "--secure-boot",
        "--firmware-variables",
        "enrolled.fd",
        "--secure-boot-key",
        "key.pem",
        "--secure-boot-certificate",
        "certificate.pem",
        "--",
    ];
    secure.extend(probe.iter().map(String::as_str));
    let first = bench.test("signed.raw", 300, &secure);
    first.assert_healthy();
    assert!(
        first.console.contains("Secure boot enabled"),
        "{}",
        first.console
    );
    let probed = first.probed();
    let said = |start: &str| probed.iter().any(|line| line.starts_with(start));
    // `V`: every block that was read had its hash.
    assert!(
        probed
            .iter()
            .any(|line| line.starts_with("verity") && line.ends_with("verity V")),
        "{probed:?}"
    );
    assert!(
        said("root /dev/") && said("var ext4") && said("kept nothing"),
        "{probed:?}"
    );
    let disk = bench.path("signed.raw");
    assert_grown(&disk, bench.folder.path());

    // Larger once more, in firmware that checks nothing.
    let whole = fs::metadata(&disk).expect("a disk").len();
    let file = OpenOptions::new().write(true).open(&disk).expect("a disk");
    file.set_len(whole + (1 << 30)).expect("it grows");
    let mut plain = vec!["--"];
    plain.extend(probe.iter().map(String::as_str));
    let second = bench.test("signed.raw", 300, &plain);
    second.assert_healthy();
    assert!(
        second.probed().contains(&"kept yes"),
        "{:?}",
        second.probed()
    );
    assert_grown(&disk, bench.folder.path());
}

#[test]
fn firmware_refuses_what_nobody_signed() {
    let Some(bench) = Bench::new() else { return };
    let words = ["--secure-boot", "--firmware-variables", "enrolled.fd"];
    let trial = bench.test("unsigned.raw", 300, &words);
    assert_eq!(trial.output.status.code(), Some(1), "{:?}", trial.output);
    assert!(trial.console.contains("Access Denied"), "{}", trial.console);
    assert!(
        !trial.console.contains("Linux version"),
        "{}",
        trial.console
    );
    let outcome = trial.outcome();
    let failure = outcome["failure"].as_str().expect("a failure");
    assert!(failure.contains("the firmware refuses it"), "{failure}");
}

#[test]
fn a_changed_byte_of_the_root_is_refused_at_boot() {
    let Some(bench) = Bench::new() else { return };
    let export = Command::new(shop::workspace().binary("imagebuild"))
        .current_dir(bench.folder.path())
        .args(["export", "host", "--as", "raw", "changed.raw", "--store"])
        .arg(&bench.store)
        .output();
    check(&export.expect("imagebuild starts"));
    let disk = bench.path("changed.raw");
    // In the middle of the root, where no boot would look.
    let (start, _) = partition(&disk, "root-a");
    let size = shop::manifest(&bench.store, "host")
        .artifact(image_manifest::Role::Rootfs)
        .expect("a root")
        .size;
    let at = start + size / 2 + 123;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&disk)
        .expect("a disk");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it reads");
    file.write_all_at(&[byte[0] ^ 1], at).expect("it writes");
    let trial = bench.test("changed.raw", 300, &[]);
    assert_eq!(trial.output.status.code(), Some(1), "{:?}", trial.output);
    let outcome = trial.outcome();
    let failure = outcome["failure"].as_str().expect("a failure");
    let block = (at - start) / 4096 * 4096;
    assert!(
        failure.contains("is NOT the one that was built")
            && failure.contains(&format!("byte {block} ")),
        "{failure}"
    );
    assert!(!trial.console.contains("systemd[1]"), "{}", trial.console);
}
