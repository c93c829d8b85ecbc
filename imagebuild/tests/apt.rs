//! The resolver answers what apt answers, on today's archive; apt runs privately, on an empty system.
//!
//! It needs a mirror and apt-get: without them it fails in CI, and says so and passes at a desk.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuild::cache::Cache;
use imagebuild::definition::{self, Definition};
use imagebuild::lock;
use imagebuild::mirror::Mirrors;
use time::OffsetDateTime;

/// Requests with alternatives, virtual packages, exact versions, conflicts and long chains.
const REQUESTS: [&[&str]; 9] = [
    &[],
    &[
        "bash",
        "ca-certificates",
        "coreutils",
        "iproute2",
        "kmod",
        "openssh-server",
        "systemd",
        "udev",
    ],
    &["cloud-init", "dracut", "linux-image-amd64"],
    &["exim4", "mailutils"],
    &["gnome-core"],
    &["kubernetes-client", "podman"],
    &["libvirt-daemon-system", "qemu-system-x86"],
    &["mariadb-server", "wordpress"],
    &["network-manager", "sysvinit-core"],
];

const SUITES: [(&str, &str); 3] = [
    ("debian", "trixie"),
    ("debian", "trixie-updates"),
    ("debian-security", "trixie-security"),
];

fn keyring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/keyrings/debian.pgp")
}

/// Stops a test that this machine cannot run: an error in CI.
fn lacking(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "this test needs {what}");
    eprintln!("skipped: it needs {what}");
}

fn define(directory: &Path, install: &[&str]) -> Definition {
    let mut suites = String::new();
    for (archive, suite) in SUITES {
        write!(
            suites,
            "{{ archive = \"{archive}\", suite = \"{suite}\" }}, "
        )
        .expect("a string");
    }
    let text = format!(
        "name = \"test\"\narchitectures = [\"amd64\"]\n[distribution]\nname = \"debian\"\nrelease = \"trixie\"\nkeyring = \"{}\"\ncomponents = [\"main\"]\nsuites = [{suites}]\n[packages]\ninstall = {install:?}\n",
        keyring().display()
    );
    fs::write(directory.join(definition::FILE), text).expect("a definition");
    definition::load(directory).expect("a good definition")
}

/// A private apt of its own directories, which knows an empty system.
struct Apt {
    configuration: PathBuf,
}

impl Apt {
    fn prepare(root: &Path, mirrors: &Mirrors) -> Option<Self> {
        for directory in [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial",
            "var/lib/dpkg",
            "var/cache/apt/archives/partial",
        ] {
            fs::create_dir_all(root.join(directory)).expect("a directory");
        }
        fs::write(root.join("var/lib/dpkg/status"), "").expect("a file");
        let mut sources = String::new();
        for (archive, suite) in SUITES {
            let base = mirrors.bases(archive).ok()?.first()?;
            let keyring = keyring().canonicalize().ok()?;
            writeln!(
                sources,
                "deb [signed-by={}] {base} {suite} main",
                keyring.display()
            )
            .ok()?;
        }
        fs::write(root.join("etc/apt/sources.list"), sources).expect("a file");
        let root = root.display();
        let text = format!(
            "Dir \"{root}/\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\nDir::Etc::sourceparts \"-\";\nAPT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\nAPT::Install-Recommends \"0\";\nAPT::Solver \"internal\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\npkgCacheGen::ForceEssential \",\";\n"
        );
        let configuration = PathBuf::from(format!("{root}/apt.conf"));
        fs::write(&configuration, text).expect("a file");
        let apt = Self { configuration };
        let updated = apt.command().arg("update").output().ok()?;
        updated.status.success().then_some(apt)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command
            .env("APT_CONFIG", &self.configuration)
            .env("LC_ALL", "C");
        command
    }

    /// Versions by name of what it would install.
    fn simulate(&self, install: &[&str]) -> BTreeMap<String, String> {
        let output = self
            .command()
            .args(["--simulate", "install", "?essential"])
            .args(install)
            .output()
            .expect("apt-get");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // `Inst bash (5.2.37-2 Debian:13.0/stable [amd64])`
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| {
                let mut words = line.strip_prefix("Inst ")?.split(' ');
                let name = words.next()?.to_owned();
                Some((name, words.next()?.trim_start_matches('(').to_owned()))
            })
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resolver_answers_what_apt_answers() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("apt-oracle");
    fs::create_dir_all(&scratch).expect("a directory");
    let mirrors = Mirrors::find(&[], None).expect("mirrors");
    let Some(apt) = Apt::prepare(&scratch.join("apt"), &mirrors) else {
        return lacking("apt-get, and a mirror that it can be updated from");
    };
    let cache = Cache::open(Some(&scratch.join("cache"))).expect("a cache");
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for install in REQUESTS {
        let directory = tempfile::tempdir().expect("a directory");
        let definition = define(directory.path(), install);
        let lock = lock::make(&definition, &mirrors, &cache, now)
            .await
            .expect("a lock");
        if install.len() > 4 {
            let again = lock::make(&definition, &mirrors, &cache, now)
                .await
                .expect("a lock");
            assert_eq!(lock.render(), again.render(), "equal requests, equal locks");
        }
        let ours: BTreeMap<_, _> = lock
            .packages
            .iter()
            .map(|package| (package.name.clone(), package.version.clone()))
            .collect();
        assert_eq!(ours, apt.simulate(install), "{install:?}");
    }
}

#[test]
fn the_archives_release_is_judged_as_gpgv_does() {
    let lists = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gpgv-oracle");
    let mirrors = Mirrors::find(&[], None).expect("mirrors");
    let Some(_) = Apt::prepare(&lists, &mirrors) else {
        return lacking("apt-get, and a mirror that it can be updated from");
    };
    let keys = fs::read(keyring()).expect("the keyring");
    let keys = deb_archive::openpgp::Keyring::parse(&keys).expect("a keyring");
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut seen = 0;
    for entry in fs::read_dir(lists.join("var/lib/apt/lists")).expect("lists") {
        let path = entry.expect("a list").path();
        if !path.to_string_lossy().ends_with("_InRelease") {
            continue;
        }
        seen += 1;
        let whole = fs::read_to_string(&path).expect("a release");
        let changed = whole.replacen("Origin: Debian", "Origin: Debiam", 1);
        for (text, expected) in [(whole, true), (changed, false)] {
            let copy = lists.join("judged");
            fs::write(&copy, &text).expect("a copy");
            let gpgv = Command::new("gpgv")
                .arg("--keyring")
                .arg(keyring())
                .arg(&copy)
                .output();
            let Ok(gpgv) = gpgv else {
                return lacking("gpgv");
            };
            assert_eq!(
                gpgv.status.success(),
                expected,
                "gpgv on {}",
                path.display()
            );
            assert_eq!(
                keys.verify(&text, now).is_ok(),
                expected,
                "we on {}",
                path.display()
            );
        }
    }
    assert_eq!(seen, SUITES.len());
}
