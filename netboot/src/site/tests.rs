//! A directory, its copy, and every way from one to the other.

use std::sync::{Arc, Mutex};

use netboot_core::site::Site;

use super::*;
use crate::operate::{Deed, Later, Ledger, Who};
use crate::secrets::{Secrets, seal};
use crate::store::{Change, StoreError};

const SITE: &str = "[site]\nname = \"lab\"\n[role.web]\nimage = \"host\"\n";

struct Place {
    data: tempfile::TempDir,
    directory: tempfile::TempDir,
}

impl Place {
    fn new(text: &str) -> Self {
        let place = Self {
            data: tempfile::tempdir().unwrap(),
            directory: tempfile::tempdir().unwrap(),
        };
        place.write("site.toml", text.as_bytes());
        place
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn open(&self) -> (Source, Arc<Site>) {
        Source::open(self.directory.path(), self.data.path()).unwrap()
    }

    fn secrets(&self) -> Secrets {
        Secrets::open(self.data.path(), self.directory.path()).unwrap()
    }

    fn upload(&self) -> Upload {
        Files::read(self.directory.path()).unwrap().0.upload()
    }

    fn apply(&self, source: &Source) -> Plan {
        let candidate = source.candidate(&self.upload(), &self.secrets()).unwrap();
        source.apply(candidate, None, |_| {}).unwrap()
    }
}

fn upload(files: &[(&str, &str)]) -> Upload {
    let file = |(path, text): &(&str, &str)| UploadedFile {
        path: (*path).to_owned(),
        text: Some((*text).to_owned()),
        base64: None,
    };
    Upload {
        files: files.iter().map(file).collect(),
    }
}

#[test]
fn a_directory_without_a_site_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(".hidden.toml"), "x").unwrap();
    std::fs::write(directory.path().join("notes.txt"), "x").unwrap();
    assert!(matches!(
        load(directory.path()),
        Err(SiteError::Empty { .. })
    ));
    let missing = directory.path().join("missing");
    assert!(matches!(load(&missing), Err(SiteError::List { .. })));
    std::fs::write(directory.path().join("a.toml"), b"\xff").unwrap();
    assert!(matches!(
        load(directory.path()),
        Err(SiteError::Read { .. })
    ));
}

#[test]
fn nothing_but_a_sites_files_is_received() {
    let cases = [
        ("../site.toml", "is no file of a site"),
        ("/etc/site.toml", "is no file of a site"),
        ("a/../site.toml", "is no file of a site"),
        ("deep/site.toml", "is no file of a site"),
        (".hidden.toml", "is no file of a site"),
        ("secrets/.x.age", "is no file of a site"),
        ("secrets/bmc", "is no file of a site"),
        ("a\\b.pem", "is no file of a site"),
        ("", "is no file of a site"),
        ("site.toml", "is sent twice"),
    ];
    for (path, expected) in cases {
        let sent = upload(&[("site.toml", SITE), (path, "x")]);
        let error = Files::receive(&sent).unwrap_err().to_string();
        assert!(error.contains(expected), "{path}: {error}");
    }
    let both = UploadedFile {
        path: "a.toml".to_owned(),
        text: Some(String::new()),
        base64: Some(String::new()),
    };
    let sent = Upload { files: vec![both] };
    assert!(matches!(
        Files::receive(&sent),
        Err(UploadError::Content { .. })
    ));
    assert_eq!(Files::receive(&Upload::default()), Err(UploadError::Empty));
    let large = "#".repeat(TOTAL_MAX / 2 + 1);
    let sent = upload(&[("a.toml", &large), ("b.toml", &large)]);
    assert_eq!(Files::receive(&sent), Err(UploadError::Large));
}

#[test]
fn files_travel_whole_and_plain_secrets_stay() {
    let text =
        format!("{SITE}[secret.a]\nfile = \"secrets/a.age\"\n[secret.b]\nfile = \"secrets/b\"\n");
    let place = Place::new(&text);
    place.write("secrets/a.age", b"age-encryption.org/v1\n\xff\x00");
    place.write("secrets/b", b"canary");
    place.write("notes.txt", b"not of the site");
    place.write("secrets/unnamed.age", b"not named, so it stays");
    let (files, _) = Files::read(place.directory.path()).unwrap();
    let sent = files.upload();
    let paths: Vec<&str> = sent.files.iter().map(|file| &*file.path).collect();
    assert_eq!(paths, ["secrets/a.age", "site.toml"]);
    let json = serde_json::to_string(&sent).unwrap();
    assert!(!json.contains("canary"), "{json}");
    let received = Files::receive(&serde_json::from_str(&json).unwrap()).unwrap();
    assert_eq!(received.digest(), files.digest());
    assert_eq!(received, files);
}

#[test]
fn what_a_site_names_must_be_there_and_be_that() {
    let host = |line: &str| {
        format!(
            "{SITE}[[network]]\nname = \"rack\"\nsubnet = \"10.7.0.0/24\"\nappliance = \"10.7.0.1\"\n[secret.bmc]\nenv = \"X\"\n[[host]]\nname = \"web1\"\nmacs = [\"52:54:00:77:00:01\"]\naddress = \"10.7.0.9\"\nrole = \"web\"\n[host.bmc]\nprotocol = \"redfish\"\naddress = \"10.7.0.51\"\nuser = \"o\"\npassword = \"bmc\"\n{line}\n"
        )
    };
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let cases = [
        (
            host("authority = \"ca.pem\""),
            "",
            ":21:13: failed to read `ca.pem`",
        ),
        (
            host("authority = \"ca.pem\""),
            "hello",
            ":21:13: `ca.pem` holds no certificate",
        ),
        (
            host("authority = \"ca.pem\""),
            key,
            ":21:13: `ca.pem` holds no certificate",
        ),
        (
            host("authority = \"ca.key\""),
            "x",
            ":21:13: `ca.key` cannot travel with the site",
        ),
        (
            format!("{SITE}[secret.a]\nfile = \"ca.age\"\n"),
            "plain",
            ":6:8: `ca.age` is not encrypted with age",
        ),
    ];
    for (text, content, expected) in cases {
        let place = Place::new(&text);
        if !content.is_empty() {
            for name in ["ca.pem", "ca.key", "ca.age"] {
                place.write(name, content.as_bytes());
            }
        }
        let Err(SiteError::Wrong { problems, .. }) = load(place.directory.path()) else {
            panic!("{text} is taken");
        };
        let told = problems[0].to_string();
        assert!(told.contains(expected), "{expected}: {told}");
        // Without the file beside it, the appliance tells the same of what was sent.
        let error = Files::receive(&upload(&[("site.toml", &text)]))
            .unwrap()
            .check();
        assert!(matches!(error, Err(SiteError::Wrong { .. })));
    }
}

#[test]
fn what_was_applied_is_served_from_then_on() {
    let place = Place::new(SITE);
    let (source, site) = place.open();
    assert_eq!(&*site.roles["web"].image.name, "host");
    place.write("site.toml", SITE.replace("host", "next").as_bytes());
    let plan = place.apply(&source);
    assert_eq!(plan.origin, Origin::Directory);
    assert_eq!(
        plan.difference.to_string(),
        "~ role web\n    image: host -> next\n"
    );
    let again = source.candidate(&place.upload(), &place.secrets()).unwrap();
    let again = source.plan(&again);
    assert!(again.empty && again.changes_nothing());
    drop(source);

    place.write("site.toml", SITE.replace("host", "third").as_bytes());
    let (source, site) = place.open();
    assert_eq!(&*site.roles["web"].image.name, "next", "not the directory");
    let served = source.served(&place.secrets());
    assert_eq!((served.origin, served.version), (Origin::Applied, plan.to));
    let candidate = source.reread(&place.secrets()).unwrap();
    let refused = source.reload(candidate, |_| {
        panic!("a directory replaces what was applied")
    });
    assert!(matches!(refused, Err(ApplyError::Moved { .. })));
}

#[tokio::test]
async fn a_signal_never_replaces_what_was_applied() {
    let place = Place::new(SITE);
    let book = Arc::new(Book::default());
    let served = Arc::new(Mutex::new(Vec::new()));
    let (source, _) = place.open();
    let (ledger, seen): (Arc<dyn Ledger>, _) = (Arc::<Book>::clone(&book), Arc::clone(&served));
    let ready: Ready = Box::new(move |_| {
        let seen = Arc::clone(&seen);
        Ok(Box::new(move |site: Arc<Site>| {
            let image = site.roles["web"].image.name.to_string();
            seen.lock().unwrap().push(image);
        }))
    });
    let sites = Sites::new(source, Arc::new(place.secrets()), ledger, ready);
    let reload = || async { sites.reload().await.unwrap() };
    let changed = |image: &str| place.write("site.toml", SITE.replace("host", image).as_bytes());

    changed("first");
    assert!(matches!(reload().await, Reloaded::Directory));
    changed("applied");
    let request = ApplyRequest {
        site: place.upload(),
        expect: None,
    };
    sites.apply(&Who::appliance(), request).await.unwrap();
    assert!(matches!(
        reload().await,
        Reloaded::Applied(Ok(Beside::Same))
    ));
    changed("old-checkout");
    assert!(matches!(
        reload().await,
        Reloaded::Applied(Ok(Beside::Other))
    ));
    place.write("site.toml", b"broken");
    assert!(matches!(reload().await, Reloaded::Applied(Err(_))));

    let images = served.lock().unwrap().clone();
    let mut expected = vec!["first", "applied"];
    // Served again each time: secrets and interfaces may have changed.
    expected.extend(["applied"; 3]);
    assert_eq!(images, expected);
    assert_eq!(sites.served().origin, Origin::Applied);
    let recorded: Vec<&str> = book
        .lines
        .lock()
        .unwrap()
        .iter()
        .map(|line| line.0)
        .collect();
    assert_eq!(recorded, ["site reload", "site apply"]);
}

#[test]
fn a_secret_that_was_never_sealed_says_how_it_is() {
    let place = Place::new(&format!("{SITE}[secret.bmc]\nfile = \"secrets/bmc.age\"\n"));
    let Err(SiteError::Wrong { problems, .. }) = load(place.directory.path()) else {
        panic!("it is taken");
    };
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1);
    let directory = place.directory.path().display();
    let command = format!("`netboot enroll secret bmc --site {directory} --data DIR`");
    assert!(
        told[0].contains(":6:8: `secrets/bmc.age` is not there yet"),
        "{told:?}"
    );
    assert!(told[0].contains(&command), "{told:?}");
}

#[test]
fn before_anything_was_applied_a_signal_keeps_nothing() {
    let place = Place::new(SITE);
    let (source, _) = place.open();
    place.write("site.toml", SITE.replace("host", "next").as_bytes());
    let candidate = source.reread(&place.secrets()).unwrap();
    let mut swapped = None;
    source
        .reload(candidate, |site| swapped = Some(site))
        .unwrap();
    assert_eq!(&*swapped.unwrap().roles["web"].image.name, "next");
    assert_eq!(source.served(&place.secrets()).origin, Origin::Directory);
    place.write("site.toml", SITE.as_bytes());
    let (_, site) = place.open();
    assert_eq!(&*site.roles["web"].image.name, "host");
}

#[test]
fn a_comment_is_kept_and_changes_nothing() {
    let place = Place::new(SITE);
    let (source, _) = place.open();
    place.apply(&source);
    place.write("site.toml", format!("# why\n{SITE}").as_bytes());
    let plan = place.apply(&source);
    assert!(plan.empty && plan.from != plan.to);
    assert!(place.apply(&source).changes_nothing());
}

#[test]
fn a_site_that_changed_meanwhile_is_not_replaced() {
    let place = Place::new(SITE);
    let (source, _) = place.open();
    let planned = source.served(&place.secrets()).version;
    place.write("site.toml", SITE.replace("host", "mine").as_bytes());
    let mine = source.candidate(&place.upload(), &place.secrets()).unwrap();
    place.write("site.toml", SITE.replace("host", "theirs").as_bytes());
    place.apply(&source);
    let error = source
        .apply(mine, Some(planned), |_| panic!("it is not served"))
        .unwrap_err();
    assert!(matches!(error, ApplyError::Moved { .. }), "{error}");
    let (_, site) = place.open();
    assert_eq!(&*site.roles["web"].image.name, "theirs");
}

#[test]
fn a_secret_that_the_appliance_cannot_read_is_told_at_its_line() {
    let text = format!(
        "{SITE}[secret.a]\nfile = \"a.age\"\n[secret.b]\nenv = \"NETBOOT_TEST_IS_NOT_SET\"\n[secret.c]\nfile = \"c\"\n"
    );
    let place = Place::new(SITE);
    let (source, _) = place.open();
    let other = Place::new(SITE);
    let recipient = other.secrets().recipient().unwrap();
    let sealed = seal(b"canary", &[recipient]).unwrap();
    let sealed = String::from_utf8(sealed).unwrap();
    let sent = upload(&[("site.toml", &text), ("a.age", &sealed)]);
    let Err(SiteError::Wrong { problems, .. }) = source.candidate(&sent, &place.secrets()) else {
        panic!("it is taken");
    };
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        "site.toml:6:8: failed to read secret `a` from file `a.age`: it is encrypted for others",
        "site.toml:8:7: failed to read secret `b` from environment variable `NETBOOT_TEST_IS_NOT_SET`: it is not set",
        "site.toml:10:8: failed to read secret `c` from file `c`",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}");
        assert!(!told.contains("canary"));
    }
}

/// A ledger that remembers, or is out of order.
#[derive(Debug, Default)]
struct Book {
    lines: Mutex<Vec<(&'static str, String, String)>>,
    broken: bool,
}

impl Ledger for Book {
    fn commit(&self, deed: Deed, _: Vec<Change>) -> Later<'_, Result<(), StoreError>> {
        let line = (deed.action, deed.who.name, deed.outcome);
        self.lines.lock().unwrap().push(line);
        let done = if self.broken {
            Err(StoreError::Closed)
        } else {
            Ok(())
        };
        Box::pin(async { done })
    }
}

fn sites(place: &Place, book: &Arc<Book>) -> Sites {
    let (source, _) = place.open();
    let ledger: Arc<dyn Ledger> = Arc::<Book>::clone(book);
    let secrets = Arc::new(place.secrets());
    Sites::new(source, secrets, ledger, Box::new(|_| Ok(Box::new(|_| {}))))
}

#[tokio::test]
async fn each_change_is_recorded_and_none_without() {
    let place = Place::new(SITE);
    let book = Arc::new(Book::default());
    let sites = sites(&place, &book);
    let who = Who {
        name: "ann".to_owned(),
        ..Who::appliance()
    };
    let request = |expect| ApplyRequest {
        site: place.upload(),
        expect,
    };
    for _ in 0..2 {
        sites.apply(&who, request(None)).await.unwrap();
    }
    let stranger = Some(image_manifest::Digest::of(b"another site"));
    place.write("site.toml", SITE.replace("host", "next").as_bytes());
    let moved = sites.apply(&who, request(stranger)).await.unwrap_err();
    assert!(
        matches!(moved, ChangeError::Apply(ApplyError::Moved { .. })),
        "{moved}"
    );
    let lines: Vec<String> = book
        .lines
        .lock()
        .unwrap()
        .iter()
        .map(|(action, who, outcome)| format!("{who}: {action}: {}", &outcome[..8]))
        .collect();
    let expected = [
        "ann: site apply: accepted",
        "ann: site apply: accepted",
        "ann: site apply: failed: ",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(expected.starts_with(line.as_str()), "{lines:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let place = Place::new(SITE);
    let book = Arc::new(Book {
        broken: true,
        ..Book::default()
    });
    let sites = sites(&place, &book);
    let request = ApplyRequest {
        site: place.upload(),
        expect: None,
    };
    let error = sites.apply(&Who::appliance(), request).await.unwrap_err();
    assert!(matches!(error, ChangeError::Record(_)), "{error}");
    assert_eq!(sites.served().origin, Origin::Directory);
}

#[test]
fn the_example_site_passes_and_shows_everything() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../site/example");
    let (files, site) = Files::read(Path::new(example)).unwrap();
    assert_eq!(site.advice, [], "an example needs no advice");
    assert_eq!(
        files.beside().len(),
        3,
        "an authority and two sealed secrets"
    );
    assert_eq!(site.environments.len(), 3);
    let protocols: Vec<_> = site
        .hosts()
        .filter_map(|host| Some(host.bmc.as_ref()?.protocol))
        .collect();
    assert_eq!(protocols.len(), 4);
    assert!(site.hosts().any(|host| host.protected));
    let received = Files::receive(&files.upload()).unwrap();
    assert_eq!(received.check().unwrap().hosts().len(), site.hosts().len());
}
