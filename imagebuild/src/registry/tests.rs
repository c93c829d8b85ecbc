//! Registries of all kinds, as far as they differ: a few lines each, on the loopback.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use image_manifest::layout::Layout;
use image_oci::spec::{self, Descriptor};
use secrecy::SecretString;

use super::credentials::Credentials;
use super::session::{Access, Session};
use super::upload::{Blob, Sent};
use super::*;

/// What a registry is asked.
struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// A registry that answers from a function.
struct Fake {
    address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(answer: impl Fn(&str, &Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (own, kept, answer) = (address.clone(), Arc::clone(&log), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, kept, answer) = (own.clone(), Arc::clone(&kept), Arc::clone(&answer));
                thread::spawn(move || serve(&stream, &own, &kept, &*answer));
            }
        });
        Self { address, log }
    }

    fn repository(&self) -> Repository {
        Remote::parse(&format!("{}/team/x", self.address))
            .unwrap()
            .repository
    }

    fn asked(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: &TcpStream,
    own: &str,
    log: &Mutex<Vec<String>>,
    answer: &(dyn Fn(&str, &Asked) -> Answer + Send + Sync),
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let asked = Asked {
        method,
        path,
        headers,
        body,
    };
    log.lock()
        .unwrap()
        .push(format!("{} {}", asked.method, asked.path));
    let (status, headers, body) = answer(own, &asked);
    let mut head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n",
        body.len()
    );
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(b"\r\n").ok()?;
    if asked.method != "HEAD" {
        stream.write_all(&body).ok()?;
    }
    stream.flush().ok()
}

fn options(journal: &Path) -> Options {
    Options {
        plain: Plain::Loopback,
        parallel: 2,
        chunk: 4,
        journal: journal.to_owned(),
        mount_from: None,
    }
}

fn session(fake: &Fake, journal: &Path, credentials: Option<Credentials>) -> Session {
    let session = Session::new(&fake.repository(), Access::Push, &options(journal)).unwrap();
    session.with_credentials(credentials)
}

fn blob(directory: &Path, bytes: &[u8]) -> Blob {
    let path = directory.join("blob");
    std::fs::write(&path, bytes).unwrap();
    Blob {
        path,
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

fn password() -> Credentials {
    Credentials::Password {
        user: "ci".to_owned(),
        password: SecretString::from("word"),
    }
}

/// `ci:word`, as Basic writes it.
const BASIC: &str = "Basic Y2k6d29yZA==";

fn plain(status: u16) -> Answer {
    (status, Vec::new(), Vec::new())
}

#[tokio::test]
async fn a_token_is_fetched_once_and_again_when_it_is_not_taken_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = Arc::new(Mutex::new(0));
    let fake = Fake::start(move |own, asked| {
        let mut given = tokens.lock().unwrap();
        if asked.path.starts_with("/token?") {
            assert_eq!(asked.headers["authorization"], BASIC);
            assert!(
                asked
                    .path
                    .contains("scope=repository%3Ateam%2Fx%3Apull%2Cpush"),
                "{}",
                asked.path
            );
            *given += 1;
            return (
                200,
                Vec::new(),
                format!(r#"{{"token":"t{given}"}}"#).into_bytes(),
            );
        }
        let shown = asked
            .headers
            .get("authorization")
            .cloned()
            .unwrap_or_default();
        assert!(
            !shown.starts_with("Basic"),
            "a password is for the token server only"
        );
        // The first token is good for one request.
        let first = *given == 1 && asked.path.ends_with("two");
        if shown != format!("Bearer t{given}") || first {
            let challenge = format!(r#"Bearer realm="http://{own}/token",service="s""#);
            return (401, vec![("www-authenticate", challenge)], Vec::new());
        }
        (
            200,
            vec![("content-type", spec::MANIFEST.to_owned())],
            b"{}".to_vec(),
        )
    });
    let session = session(&fake, directory.path(), Some(password()));
    for reference in ["one", "one", "two"] {
        let error = session.document(reference).await.unwrap_err();
        assert!(
            matches!(error, Error::Document { .. }),
            "{reference}: {error}"
        );
    }
    let tokens = fake
        .asked()
        .iter()
        .filter(|asked| asked.contains("/token"))
        .count();
    assert_eq!(tokens, 2);
}

#[tokio::test]
async fn basic_is_shown_when_it_is_asked_for_and_never_where_a_redirect_leads() {
    let directory = tempfile::tempdir().unwrap();
    let store = Layout::create(directory.path().join("store")).unwrap();
    let elsewhere = Fake::start(|_, asked| {
        let shown = asked.headers.get("authorization");
        assert_eq!(shown, None);
        (200, Vec::new(), b"layer".to_vec())
    });
    let target = format!("http://{}/kept", elsewhere.address);
    let fake = Fake::start(move |_, asked| {
        if asked.headers.get("authorization").map(String::as_str) != Some(BASIC) {
            return (
                401,
                vec![("www-authenticate", "Basic realm=x".to_owned())],
                Vec::new(),
            );
        }
        (307, vec![("location", target.clone())], Vec::new())
    });
    let layer = Descriptor {
        media_type: spec::LAYER.to_owned(),
        digest: Digest::of(b"layer"),
        size: 5,
        artifact_type: None,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let signed_in = session(&fake, directory.path(), Some(password()));
    assert_eq!(signed_in.download(&layer, &store).await.unwrap(), 5);
    let stranger = session(&fake, directory.path(), None);
    let other = Descriptor {
        digest: Digest::of(b"other"),
        ..layer
    };
    let error = stranger.download(&other, &store).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused { status, .. } if status == 401),
        "{error}"
    );
    let error = signed_in.download(&other, &store).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
}

#[tokio::test]
async fn plain_http_to_another_computer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_, _| {
        (
            307,
            vec![("location", "http://192.0.2.1/x".to_owned())],
            Vec::new(),
        )
    });
    let error = session(&fake, directory.path(), None)
        .document("v1")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not `https`"), "{error}");
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_and_no_more_than_so_often() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_, _| {
        (
            429,
            vec![("retry-after", "0".to_owned())],
            br#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#.to_vec(),
        )
    });
    let error = session(&fake, directory.path(), None)
        .document("v1")
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("429 Too Many Requests: TOOMANYREQUESTS"),
        "{error}"
    );
    assert_eq!(fake.asked().len(), 5);
}

#[tokio::test]
async fn registries_that_take_no_chunks_get_all_in_one() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(|own, asked| match asked.method.as_str() {
        "HEAD" => plain(404),
        "POST" => (
            202,
            vec![("location", format!("http://{own}/upload?s=1"))],
            Vec::new(),
        ),
        "PATCH" => plain(405),
        _ => {
            assert_eq!(asked.body, b"0123456789");
            assert!(
                asked.path.starts_with("/upload?s=1&digest=sha256%3A"),
                "{}",
                asked.path
            );
            plain(201)
        }
    });
    let blob = blob(directory.path(), b"0123456789");
    let sent = session(&fake, &directory.path().join("journal"), None)
        .upload(&blob)
        .await
        .unwrap();
    assert_eq!(sent, Sent::Uploaded(10));
}

#[tokio::test]
async fn chunks_are_as_large_as_the_registry_asks_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&kept);
    let fake = Fake::start(move |_, asked| {
        let mut kept = kept.lock().unwrap();
        let place = ("location", "/upload".to_owned());
        match asked.method.as_str() {
            "HEAD" => plain(404),
            "POST" => (
                202,
                vec![place, ("oci-chunk-min-length", "6".to_owned())],
                Vec::new(),
            ),
            "PATCH" => {
                let range = format!("{}-{}", kept.len(), kept.len() + asked.body.len() - 1);
                assert_eq!(asked.headers["content-range"], range);
                kept.extend_from_slice(&asked.body);
                let range = ("range", format!("0-{}", kept.len() - 1));
                (
                    202,
                    vec![place, range, ("oci-chunk-min-length", "6".to_owned())],
                    Vec::new(),
                )
            }
            _ => plain(201),
        }
    });
    let blob = blob(directory.path(), b"0123456789");
    let journal = directory.path().join("journal");
    let sent = session(&fake, &journal, None).upload(&blob).await.unwrap();
    assert_eq!(
        (sent, &all.lock().unwrap()[..]),
        (Sent::Uploaded(10), &b"0123456789"[..])
    );
    assert_eq!(
        fake.asked()
            .iter()
            .filter(|asked| asked.starts_with("PATCH"))
            .count(),
        2
    );
    assert_eq!(
        std::fs::read_dir(journal).unwrap().count(),
        0,
        "nothing is left of what is done"
    );
}

#[tokio::test]
async fn a_layer_of_a_neighbour_is_mounted_or_else_sent() {
    let directory = tempfile::tempdir().unwrap();
    for (status, expected) in [(201, Sent::Mounted), (401, Sent::Uploaded(3))] {
        let fake = Fake::start(move |_, asked| match asked.method.as_str() {
            "HEAD" => plain(404),
            "POST" if asked.path.contains("?mount=sha256%3A") => {
                assert!(asked.path.ends_with("&from=team%2Fbase"), "{}", asked.path);
                plain(status)
            }
            "POST" => (202, vec![("location", "/upload".to_owned())], Vec::new()),
            _ => plain(201),
        });
        let mut session = session(&fake, directory.path(), None);
        session.options.mount_from = Some(Repository {
            path: "team/base".to_owned(),
            ..fake.repository()
        });
        let sent = session
            .upload(&blob(directory.path(), b"abc"))
            .await
            .unwrap();
        assert_eq!(sent, expected);
    }
}

/// A registry with one document under every tag.
fn serving(media_type: &'static str, document: Vec<u8>, blobs: Vec<Vec<u8>>) -> Fake {
    Fake::start(move |_, asked| {
        if asked.path.contains("/manifests/v1") && !asked.path.contains("/v1-") {
            return (
                200,
                vec![("content-type", media_type.to_owned())],
                document.clone(),
            );
        }
        let named = blobs
            .iter()
            .find(|blob| asked.path.ends_with(&Digest::of(blob).to_string()));
        named.map_or_else(|| plain(404), |blob| (200, Vec::new(), blob.clone()))
    })
}

#[tokio::test]
async fn a_hostile_image_is_refused_and_gets_no_name() {
    let layer = |path: &[u8]| {
        let entry = image_tree::Entry::file(&b""[..], 0o644);
        let mut bytes = image_oci::archive::write::header(path, &entry, None, 0).unwrap();
        bytes.extend(image_oci::archive::write::end());
        bytes
    };
    let image = |layer: &[u8], media_type: &str, diff_id: Digest, size: u64| {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[{{"mediaType":"{media_type}","digest":"{}","size":{size}}}]}}"#,
            spec::CONFIG,
            Digest::of(config.as_bytes()),
            config.len(),
            Digest::of(layer),
        );
        (
            manifest.into_bytes(),
            vec![config.into_bytes(), layer.to_vec()],
        )
    };
    let good = layer(b"etc");
    let evil = layer(b"../etc/passwd");
    let size = good.len() as u64;
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let cases = [
        (
            "good",
            image(&good, spec::LAYER, Digest::of(&good), size),
            None,
        ),
        (
            "upwards",
            image(&evil, spec::LAYER, Digest::of(&evil), evil.len() as u64),
            Some("is refused"),
        ),
        (
            "another archive",
            image(&good, spec::LAYER, Digest::of(b"x"), size),
            Some("is refused"),
        ),
        (
            "a foreign layer",
            image(&good, foreign, Digest::of(&good), size),
            Some(foreign),
        ),
        (
            "longer than said",
            image(&good, spec::LAYER, Digest::of(&good), size - 1),
            Some("larger than"),
        ),
        (
            "shorter than said",
            image(&good, spec::LAYER, Digest::of(&good), size + 1),
            Some("failed to get"),
        ),
        (
            "endless",
            image(&good, spec::LAYER, Digest::of(&good), u64::MAX),
            Some("larger than"),
        ),
    ];
    for (name, (manifest, blobs), expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let store = Layout::create(directory.path().join("store")).unwrap();
        let fake = serving(spec::MANIFEST, manifest, blobs);
        let remote = Remote::parse(&format!("{}/team/x:v1", fake.address)).unwrap();
        let outcome = pull(
            &store,
            &remote,
            Things::Image,
            &options(&directory.path().join("journal")),
        )
        .await;
        let entries = store.entries().unwrap();
        match (outcome, expected) {
            (Ok(_), None) => assert_eq!(entries[0].name.as_deref(), Some("x-oci"), "{name}"),
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{name}: {error}");
                assert_eq!(entries, [], "{name}");
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn an_attachment_that_the_registry_forgets_is_listed_by_the_tag() {
    let directory = tempfile::tempdir().unwrap();
    let kept = Arc::new(Mutex::new(BTreeMap::<String, Vec<u8>>::new()));
    // It says that it knows referrers, and lists none: so did a large one for a while.
    let fake = Fake::start(move |_, asked| {
        let mut kept = kept.lock().unwrap();
        let kind = ("content-type", spec::INDEX.to_owned());
        let empty = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        if asked.path.contains("/referrers/") {
            return (200, vec![kind], empty.to_vec());
        }
        if asked.method == "PUT" {
            kept.insert(asked.path.clone(), asked.body.clone());
            return (
                201,
                vec![("oci-subject", "sha256:…".to_owned())],
                Vec::new(),
            );
        }
        kept.get(&asked.path)
            .map_or_else(|| plain(404), |index| (200, vec![kind], index.clone()))
    });
    let session = session(&fake, directory.path(), None);
    let subject = Digest::of(b"image");
    for text in ["one", "two", "one"] {
        let attachment = Descriptor {
            media_type: spec::MANIFEST.to_owned(),
            digest: Digest::of(text.as_bytes()),
            size: 3,
            artifact_type: Some("application/spdx+json".to_owned()),
            platform: None,
            annotations: BTreeMap::new(),
        };
        session.attach(&subject, &attachment).await.unwrap();
    }
    let listed = session.referrers(&subject).await.unwrap();
    let digests: Vec<_> = listed.iter().map(|one| one.digest).collect();
    assert_eq!(digests, [Digest::of(b"one"), Digest::of(b"two")]);
}
