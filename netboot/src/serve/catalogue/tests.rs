//! A store to serve from, for the tests of everything that serves; and the tests of the catalogue.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use image_manifest::layout::Layout;
use image_manifest::{Artifact, Digest, Manifest, Role};
use netboot_core::boot::Protocol;
use netboot_core::tftp::Mode;
use tempfile::TempDir;

use super::*;

/// A store with one image named `loaders`.
pub(in crate::serve) struct TestStore {
    pub(in crate::serve) directory: TempDir,
    pub(in crate::serve) layout: Layout,
}

impl TestStore {
    pub(in crate::serve) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path().join("store")).unwrap();
        Self { directory, layout }
    }

    pub(in crate::serve) fn add(&self, bytes: &[u8]) -> Digest {
        let mut ingest = self.layout.ingest().unwrap();
        ingest.append(bytes).unwrap();
        ingest.finish().unwrap().0
    }

    pub(in crate::serve) fn publish(&self, image: &str, loaders: &[(&str, &[u8])]) {
        let artifact = |(name, bytes): &(&str, &[u8])| Artifact {
            role: Role::Loader,
            name: (*name).to_owned(),
            media_type: "application/octet-stream".to_owned(),
            digest: self.add(bytes),
            size: bytes.len() as u64,
        };
        let any = Digest::of(image.as_bytes());
        let manifest = Manifest {
            schema: Manifest::SCHEMA,
            name: image.to_owned(),
            architecture: "amd64".to_owned(),
            distribution: "debian/trixie".to_owned(),
            tree: any,
            lock: any,
            inputs: any,
            source_date: 0,
            builder: "test".to_owned(),
            kernel: None,
            disk: None,
            forms: Vec::new(),
            layers: Vec::new(),
            artifacts: loaders.iter().map(artifact).collect(),
        };
        self.layout.publish(&manifest).unwrap();
    }

    pub(in crate::serve) fn catalogue(&self) -> Arc<Catalogue> {
        Arc::new(Catalogue::new(self.layout.clone()).unwrap())
    }
}

/// Bytes that differ at every offset that a mistake could mix up.
pub(in crate::serve) fn content(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap())
        .collect()
}

/// What was told about transfers, in words.
#[derive(Debug, Default)]
pub(in crate::serve) struct Told(Mutex<Vec<String>>);

impl Told {
    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub(in crate::serve) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until something is told.
    pub(in crate::serve) async fn until(&self, line: &str) {
        for _ in 0..1000 {
            if self.lines().iter().any(|told| told == line) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("`{line}` was never told, but {:?}", self.lines());
    }
}

impl TransferLog for Told {
    fn began(&self, transfer: &Transfer) {
        self.push(format!("began {}", name(transfer)));
    }

    fn ended(&self, transfer: &Transfer, end: &End) {
        let outcome = match &end.outcome {
            Outcome::Complete => "complete",
            Outcome::Cut(reason) => reason,
        };
        self.push(format!("{} {} {outcome}", name(transfer), end.bytes));
    }

    fn refused(&self, _: IpAddr, _: Protocol, asked: &str, reason: &str) {
        self.push(format!("refused {asked}: {reason}"));
    }

    fn ignored(&self, _: Protocol, why: &'static str) {
        self.push(why.to_owned());
    }
}

fn name(transfer: &Transfer) -> String {
    match &transfer.wanted {
        Wanted::Loader(name) => name.clone(),
        Wanted::Artifact(digest) => format!("{} from {}", digest.short(), transfer.first),
    }
}

/// Prepares an outside program. When it is not here, the test is skipped, aloud; in CI it fails.
pub(in crate::serve) fn tool(name: &str) -> Option<tokio::process::Command> {
    let mut probe = Command::new(name);
    probe
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if probe.status().is_ok() {
        let mut command = tokio::process::Command::new(name);
        command.kill_on_drop(true).stdin(Stdio::null());
        return Some(command);
    }
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "`{name}` is not installed"
    );
    eprintln!("skipped: `{name}` is not installed");
    None
}

#[test]
fn loaders_are_found_by_name_and_follow_the_store() {
    let store = TestStore::new();
    store.publish("loaders", &[("ipxe.efi", b"one")]);
    store.publish("other", &[("ipxe.efi", b"another"), ("shim.efi", b"shim")]);
    let catalogue = store.catalogue();
    let read = |name: &str| {
        let loader = catalogue.loader(name)?;
        catalogue.open_loader(&loader, Mode::Octet)
    };
    assert_eq!(
        read("ipxe.efi").unwrap(),
        &b"one"[..],
        "the image `loaders` wins"
    );
    assert_eq!(read("shim.efi").unwrap(), &b"shim"[..]);
    assert!(matches!(read("../index.json"), Err(OpenError::NoLoader(_))));

    store.publish("loaders", &[("ipxe.efi", b"a newer one")]);
    assert_eq!(read("ipxe.efi").unwrap(), &b"a newer one"[..]);
}

#[test]
fn a_file_that_is_missing_or_damaged_is_refused_by_name() {
    let store = TestStore::new();
    store.publish(
        "loaders",
        &[("gone", b"gone"), ("short", b"shortened"), ("empty", b"")],
    );
    let catalogue = store.catalogue();
    std::fs::remove_file(store.layout.blob(&Digest::of(b"gone"))).unwrap();
    std::fs::remove_file(store.layout.blob(&Digest::of(b"shortened"))).unwrap();
    std::fs::write(store.layout.blob(&Digest::of(b"shortened")), b"short").unwrap();
    let open = |name: &str| {
        let loader = catalogue.loader(name).unwrap();
        catalogue.open_loader(&loader, Mode::Octet)
    };
    assert!(matches!(open("gone"), Err(OpenError::NoArtifact(_))));
    let error = open("short").unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Size {
                expected: 9,
                found: 5,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        error.reason(),
        "this file is damaged in the appliance's store"
    );
    assert_eq!(open("empty").unwrap(), &b""[..]);
}

#[test]
fn no_more_files_stay_open_than_the_limit() {
    let store = TestStore::new();
    let catalogue = store.catalogue();
    let files: Vec<_> = (0..=OPEN_FILES)
        .map(|file| store.add(&file.to_be_bytes()))
        .collect();
    for digest in &files {
        catalogue.open(&files[0]).unwrap();
        catalogue.open(digest).unwrap();
    }
    let open = files
        .iter()
        .filter(|digest| catalogue.opened(digest).is_some())
        .count();
    assert_eq!(open, OPEN_FILES);
    assert!(catalogue.opened(&files[0]).is_some(), "used each time");
    assert!(catalogue.opened(&files[1]).is_none(), "used longest ago");
}
