use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Mutex;

use image_manifest::Digest;

use super::*;
use crate::definition::{Definition, Distribution, Loaders};
use crate::lock::{Release, Request, Use};

const GOOD: &[u8] = b"the bytes of the lock";

/// A mirror that answers from a table, and notes what it was asked for.
#[derive(Clone)]
struct Mirror {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    /// Each path has the answers to its first, second and later requests.
    fn start(answers: &[(&str, &[&str])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut answers: HashMap<String, Vec<String>> = answers
            .iter()
            .map(|(path, answers)| {
                let turned = answers.iter().rev().map(ToString::to_string).collect();
                (path.to_string(), turned)
            })
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mirror = Self {
            address,
            asked: Arc::clone(&asked),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let answer = match answers.get_mut(&path) {
                    Some(left) if left.len() > 1 => left.pop().unwrap(),
                    Some(left) => left[0].clone(),
                    None => "404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                asked.lock().unwrap().push(path);
                write!(stream, "HTTP/1.1 {answer}").unwrap();
            }
        });
        mirror
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn ok(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    format!(
        "200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn locked(bytes: &[u8]) -> Locked {
    let definition = Definition {
        directory: PathBuf::from("."),
        name: "test".to_owned(),
        description: String::new(),
        architecture: "amd64".to_owned(),
        distribution: Distribution {
            name: "debian".to_owned(),
            release: "trixie".to_owned(),
            keyring: PathBuf::new(),
            components: vec![],
            suites: vec![],
        },
        packages: None,
        loaders: Some(Loaders {
            packages: vec!["hello".to_owned()],
            files: BTreeMap::new(),
        }),
        ..Definition::default()
    };
    let lock = Lock {
        request: Request::of(&definition).digest(),
        source_date: 1_757_146_500,
        releases: vec![Release {
            archive: "debian".to_owned(),
            suite: "trixie".to_owned(),
            date: 1_757_146_500,
            sha256: Digest::of(b""),
        }],
        packages: vec![Package {
            name: "hello".to_owned(),
            usage: Use::Loader,
            version: "1.2-3".to_owned(),
            architecture: "amd64".to_owned(),
            archive: "debian".to_owned(),
            path: "pool/hello.deb".to_owned(),
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
        }],
    };
    definition.lock(lock).unwrap()
}

fn sources(cache: &Path, mirrors: &[&Mirror]) -> Sources {
    let urls: Vec<_> = mirrors.iter().map(|mirror| mirror.url()).collect();
    Sources {
        cache: Cache::open(Some(cache)).unwrap(),
        files: None,
        mirrors: Mirrors::of(urls.iter().map(String::as_str)).unwrap(),
        network: Network::Online,
    }
}

#[tokio::test]
async fn the_first_source_with_these_bytes_is_taken() {
    let good = ok(GOOD);
    let evil = ok(b"the bytes of someone ");
    let long = ok(b"the bytes of the lock, and more");
    let moved = "302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    let busy = "503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let cut = "200 OK\r\ncontent-length: 21\r\nconnection: close\r\n\r\nthe bytes";
    let circle = "302 Found\r\nlocation: /pool/hello.deb\r\ncontent-length: 0\r\n\r\n";
    let cases: [(&str, &[&str]); 6] = [
        ("other bytes", &[&evil]),
        ("more bytes", &[&long]),
        ("busy once", &[busy, &good]),
        ("cut once", &[cut, &good]),
        ("moved", &[moved]),
        ("in circles", &[circle]),
    ];
    for (name, answers) in cases {
        let directory = tempfile::tempdir().unwrap();
        let first = Mirror::start(&[("/pool/hello.deb", answers), ("/elsewhere", &[&good])]);
        let second = Mirror::start(&[("/pool/hello.deb", &[&good])]);
        let sources = sources(directory.path(), &[&first, &second]);
        let fetched = fetch(&locked(GOOD), &sources).await.unwrap();
        assert_eq!(
            (fetched.downloaded_packages, fetched.downloaded_bytes),
            (1, 21),
            "{name}"
        );
        assert_eq!(
            std::fs::read(&fetched.packages[0].path).unwrap(),
            GOOD,
            "{name}"
        );
        let asked_second = !second.asked().is_empty();
        assert_eq!(
            asked_second,
            matches!(name, "other bytes" | "more bytes" | "in circles"),
            "{name}"
        );
        let asked = first.asked().len();
        let again = fetch(&locked(GOOD), &sources).await.unwrap();
        assert_eq!(
            (again.downloaded_packages, first.asked().len()),
            (0, asked),
            "{name}: cached"
        );
    }
}

#[tokio::test]
async fn bytes_that_differ_are_named_and_never_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mirror = Mirror::start(&[("/pool/hello.deb", &[&ok(b"the bytes of someone ")])]);
    let sources = sources(directory.path(), &[&mirror]);
    let error = fetch(&locked(GOOD), &sources).await.unwrap_err();
    let text = error.to_string();
    let expected = Digest::of(GOOD).to_string();
    let got = Digest::of(b"the bytes of someone ").to_string();
    for part in ["`hello` 1.2-3 differs", &expected, &got, &mirror.url()] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(error.fault(), Fault::Untrusted);
    let shelf = directory.path().join("packages/sha256");
    assert_eq!(std::fs::read_dir(shelf).unwrap().count(), 0);
}

#[tokio::test]
async fn a_package_that_is_gone_everywhere_is_named_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let mirror = Mirror::start(&[]);
    let mut sources = sources(directory.path(), &[&mirror]);
    sources.files = Some(directory.path().to_path_buf());
    let error = fetch(&locked(GOOD), &sources).await.unwrap_err();
    let text = error.to_string();
    for part in [
        "`hello` 1.2-3 is gone",
        "/pool/hello.deb: 404 Not Found",
        "not there",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(error.help().unwrap().contains("imagebuild lock"));
    assert_eq!(error.fault(), Fault::Gone);
    assert_eq!(
        mirror.asked().len(),
        1,
        "what is gone is not asked for again"
    );
}

#[tokio::test]
async fn the_snapshot_archive_is_asked_last_around_the_locks_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = "/debian/20250906T081500Z/pool/hello.deb";
    let snapshot = Mirror::start(&[(path, &[&ok(GOOD)])]);
    let mirror = Mirror::start(&[]);
    let mut sources = sources(directory.path(), &[]);
    sources.mirrors = Mirrors::of([mirror.url().as_str()])
        .unwrap()
        .with_snapshot(&snapshot.url())
        .unwrap();
    fetch(&locked(GOOD), &sources).await.unwrap();
    assert_eq!(mirror.asked(), ["/pool/hello.deb"]);
    assert_eq!(
        snapshot.asked(),
        ["/debian/20250906T201500Z/pool/hello.deb", path]
    );
}

#[tokio::test]
async fn files_of_the_store_spare_the_network() {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("blobs");
    std::fs::create_dir(&files).unwrap();
    let mut sources = sources(&directory.path().join("cache"), &[]);
    sources.network = Network::Offline;
    sources.files = Some(files.clone());
    let error = fetch(&locked(GOOD), &sources).await.unwrap_err();
    assert!(matches!(error, Error::Offline { count: 1, .. }), "{error}");
    std::fs::write(files.join(Digest::of(GOOD).hex()), b"the bytes of someone ").unwrap();
    assert!(fetch(&locked(GOOD), &sources).await.is_err());
    std::fs::write(files.join(Digest::of(GOOD).hex()), GOOD).unwrap();
    let fetched = fetch(&locked(GOOD), &sources).await.unwrap();
    assert_eq!(fetched.downloaded_packages, 0);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut sources = sources(directory.path(), &[]);
    sources.mirrors = Mirrors::of([url.as_str()]).unwrap();
    let error = fetch(&locked(GOOD), &sources).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&url) && text.contains("refused"), "{text}");
    assert_eq!(error.fault(), Fault::Remote);
    assert!(!text.contains("gone"), "{text}");
}

#[tokio::test]
async fn gone_is_what_every_source_says() {
    let gone = "410 Gone\r\ncontent-length: 0\r\n\r\n";
    let refused = "403 Forbidden\r\ncontent-length: 0\r\n\r\n";
    let cases = [
        ("not found and gone", gone, Fault::Gone),
        ("refused by one", refused, Fault::Remote),
        (
            "lied to by one",
            &ok(b"the bytes of someone "),
            Fault::Untrusted,
        ),
    ];
    for (name, answer, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let first = Mirror::start(&[]);
        let second = Mirror::start(&[("/pool/hello.deb", &[answer])]);
        let sources = sources(directory.path(), &[&first, &second]);
        let error = fetch(&locked(GOOD), &sources).await.unwrap_err();
        assert_eq!(error.fault(), expected, "{name}: {error}");
    }
}

/// A package with nothing in it but what it says of itself.
fn package(control: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(control.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder
        .append_data(&mut header, "./control", control.as_bytes())
        .unwrap();
    let control = builder.into_inner().unwrap();
    let data = tar::Builder::new(Vec::new()).into_inner().unwrap();
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", &b"2.0\n"[..]),
        ("control.tar", &control),
        ("data.tar", &data),
    ] {
        let head = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            100_644,
            content.len()
        );
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(2), b'\n');
    }
    bytes
}

#[test]
fn a_package_must_be_the_one_that_was_locked() {
    let good = "Package: hello\nVersion: 1.2-3\nArchitecture: amd64\nDescription: x\n";
    let cases = [
        ("as locked", good.to_owned(), None),
        (
            "another version",
            good.replace("1.2-3", "99:9"),
            Some("has Version `99:9`, where the lock says `1.2-3`"),
        ),
        (
            "another name",
            good.replace("hello", "evil"),
            Some("the package locked as `hello` has Package `evil`"),
        ),
        (
            "another architecture",
            good.replace("amd64", "all"),
            Some("has Architecture `all`"),
        ),
        (
            "no version",
            good.replace("Version: 1.2-3\n", ""),
            Some("has Version ``"),
        ),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (name, control, expected) in cases {
        let bytes = package(&control);
        let path = directory.path().join("hello.deb");
        std::fs::write(&path, &bytes).unwrap();
        let entry = locked(&bytes).packages()[0].clone();
        let outcome = identify(&[FetchedPackage { entry, path }]);
        match (outcome, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{name}: {error}");
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}
