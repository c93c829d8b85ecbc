//! A small archive of Debian packages on the loopback, signed with a key that is thrown away.
//!
//! It refuses to stand in for Debian: packages are made by dpkg-deb, indexes are written as apt reads them, and gpg signs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use image_manifest::Digest;
use tempfile::TempDir;

use crate::need;
use crate::rig::{check, printed, run};

/// What the archive calls itself where a definition names it.
pub const ARCHIVE: &str = "lab";
/// The suite of all of its packages, and the one of those that are for security.
pub const SUITES: [&str; 2] = ["stable", "stable-security"];

/// A package of the archive.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its source package.
    pub source: &'a str,
    /// What it depends on, as a control file says it.
    pub depends: &'a str,
    /// What its changelog says about its version.
    pub news: &'a str,
}

/// How a suite's release is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// By the key of the keyring.
    Good,
    /// By nobody.
    None,
    /// By the key of the keyring, until yesterday.
    Expired,
    /// By the key of the keyring; then a letter was changed.
    Broken,
}

/// The archive; dropping it ends the agent of its key.
#[derive(Debug)]
pub struct Archive {
    folder: TempDir,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    url: String,
}

impl Archive {
    /// Makes a key and an empty archive; nothing where a tool is missing at a desk.
    ///
    /// # Panics
    /// When the key cannot be made.
    #[must_use]
    pub fn new() -> Option<Self> {
        if !need::has(&["dpkg-deb", "gpg", "gzip", "xz"]) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let files = Arc::new(Mutex::new(BTreeMap::new()));
        let served = Arc::clone(&files);
        let find = move |path: &str| {
            let files: std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> =
                served.lock().unwrap_or_else(PoisonError::into_inner);
            files.get(path).cloned()
        };
        let url = format!("http://{}/{ARCHIVE}", listen(find));
        let archive = Self { folder, files, url };
        let home = archive.home();
        fs::create_dir(&home).expect("a directory");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("a mode");
        let words = [
            "--quick-generate-key",
            "Lab <lab@lab.test>",
            "ed25519",
            "sign",
            "never",
        ];
        check(&run(archive.gpg().args(words)));
        let keyring = archive.keyring();
        check(&run(archive
            .gpg()
            .arg("--output")
            .arg(keyring)
            .arg("--export")));
        Some(archive)
    }

    /// The file that a definition names as its keyring.
    #[must_use]
    pub fn keyring(&self) -> PathBuf {
        self.folder.path().join("lab.pgp")
    }

    /// What follows `--mirror`.
    #[must_use]
    pub fn mirror(&self) -> String {
        format!("{ARCHIVE}={}", self.url)
    }

    /// The part of a definition that names this archive, with the keyring beside it.
    #[must_use]
    pub fn distribution() -> String {
        let suites =
            SUITES.map(|suite| format!("{{ archive = \"{ARCHIVE}\", suite = \"{suite}\" }}"));
        format!(
            "architectures = [\"amd64\"]\n[distribution]\nname = \"debian\"\nrelease = \"stable\"\n\
             keyring = \"lab.pgp\"\ncomponents = [\"main\"]\nsuites = [{}]\n",
            suites.join(", ")
        )
    }

    /// Publishes a suite anew; packages that were published before stay in the pool.
    ///
    /// # Panics
    /// When a package cannot be made or the release not be signed.
    pub fn publish(&self, suite: &str, packages: &[Package<'_>], signature: Signature) {
        let built = packages
            .iter()
            .map(|package| (*package, self.build(package)));
        self.publish_files(suite, &built.collect::<Vec<_>>(), signature);
    }

    /// Does the same with packages whose bytes are the test's own.
    ///
    /// # Panics
    /// When the release cannot be signed.
    pub fn publish_files(
        &self,
        suite: &str,
        packages: &[(Package<'_>, Vec<u8>)],
        signature: Signature,
    ) {
        let mut index = String::new();
        for (package, deb) in packages {
            let path = format!("pool/{}_{}_all.deb", package.name, package.version);
            writeln!(
                index,
                "{}Filename: {path}\nSize: {}\nSHA256: {}\n",
                control(package),
                deb.len(),
                Digest::of(deb).hex()
            )
            .expect("a text");
            self.put(&path, deb.clone());
        }
        let path = self.folder.path().join("Packages");
        fs::write(&path, index).expect("an index");
        let packed = run(Command::new("xz").args(["--stdout", "--keep"]).arg(&path));
        check(&packed);
        let date = |when: &str| {
            let mut date = Command::new("date");
            date.env("LC_ALL", "C");
            let words = ["--utc", "--date", when, "+%a, %d %b %Y %H:%M:%S UTC"];
            printed(&run(date.args(words)))
        };
        let (made, until) = match signature {
            Signature::Expired => ("3 days ago", "1 day ago"),
            _ => ("1 hour ago", "7 days"),
        };
        let release = format!(
            "Origin: Lab\nSuite: {suite}\nCodename: {suite}\nDate: {}Valid-Until: {}SHA256:\n {} {} main/binary-amd64/Packages.xz\n",
            date(made),
            date(until),
            Digest::of(&packed.stdout).hex(),
            packed.stdout.len()
        );
        self.put(
            &format!("dists/{suite}/main/binary-amd64/Packages.xz"),
            packed.stdout,
        );
        self.put(
            &format!("dists/{suite}/InRelease"),
            self.sign(&release, signature).into_bytes(),
        );
    }

    fn sign(&self, release: &str, signature: Signature) -> String {
        if signature == Signature::None {
            return release.to_owned();
        }
        let path = self.folder.path().join("Release");
        fs::write(&path, release).expect("a release");
        let words = ["--output", "-", "--clearsign"];
        let signed = printed(&run(self.gpg().args(words).arg(&path)));
        match signature {
            Signature::Broken => signed.replace("Origin: Lab", "Origin: Lib"),
            _ => signed,
        }
    }

    fn build(&self, package: &Package<'_>) -> Vec<u8> {
        let root = self.folder.path().join(package.name);
        let documents = root.join("usr/share/doc").join(package.name);
        fs::create_dir_all(root.join("DEBIAN")).expect("a directory");
        fs::create_dir_all(&documents).expect("a directory");
        let text = format!("{}Description: {}\n", control(package), package.name);
        fs::write(root.join("DEBIAN/control"), text).expect("a control file");
        let changelog = documents.join("changelog.Debian");
        let text = format!(
            "{} ({}) stable; urgency=high\n\n  * {}\n\n -- Lab <lab@lab.test>  Sat, 21 Nov 2026 10:00:00 +0000\n",
            package.source, package.version, package.news
        );
        fs::write(&changelog, text).expect("a changelog");
        check(&run(Command::new("gzip")
            .args(["--force", "--no-name"])
            .arg(&changelog)));
        pack(&root, &self.folder.path().join("package.deb"))
    }

    fn put(&self, path: &str, bytes: Vec<u8>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(format!("/{ARCHIVE}/{path}"), bytes);
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("gnupg")
    }

    fn gpg(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(self.home());
        gpg.args(["--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"]);
        gpg.args(["--passphrase", ""]);
        gpg
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let mut end = Command::new("gpgconf");
        end.arg("--homedir").arg(self.home());
        drop(end.args(["--kill", "gpg-agent"]).status());
    }
}

/// The fields that a control file and an index share.
#[must_use]
pub fn control(package: &Package<'_>) -> String {
    let Package {
        name,
        version,
        source,
        depends,
        ..
    } = package;
    let depends = match *depends {
        "" => String::new(),
        depends => format!("Depends: {depends}\n"),
    };
    format!(
        "Package: {name}\nSource: {source}\nVersion: {version}\nArchitecture: all\nMaintainer: Lab <lab@lab.test>\n{depends}"
    )
}

/// Makes a package of a directory, and returns its bytes.
///
/// # Panics
/// When dpkg-deb refuses.
#[must_use]
pub fn pack(root: &Path, file: &Path) -> Vec<u8> {
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]);
    check(&run(build.arg(root).arg(file)));
    fs::read(file).expect("a package")
}

/// Answers requests on the loopback from a function of the path; returns the address.
///
/// # Panics
/// When there is no port.
#[must_use]
pub fn listen(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(&stream, &*answer));
        }
    });
    address.to_string()
}

fn serve(mut stream: &TcpStream, answer: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next()?.ok()?;
    let path = request.split(' ').nth(1)?.to_owned();
    while !lines.next()?.ok()?.is_empty() {}
    let (status, body) =
        answer(&path).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .ok()?;
    stream.write_all(&body).ok()
}
