use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;
use crate::definition::{self, Content, Definition, Distribution, Loaders};
use crate::lock::{Lock, Package, Request};
use crate::verify;

/// Makes a package with a loader, a link to it, and a file that nobody wants.
fn package(directory: &Path) -> Option<PathBuf> {
    let tree = directory.join("package");
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    fs::create_dir_all(tree.join("usr/lib/loader")).unwrap();
    let control = "Package: loader\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\n\
        Description: x\n";
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    fs::write(tree.join("usr/lib/loader/real.efi"), "MZ loader").unwrap();
    fs::write(tree.join("usr/lib/unwanted"), "no").unwrap();
    symlink("real.efi", tree.join("usr/lib/loader/link.efi")).unwrap();
    let file = directory.join("loader.deb");
    let mut command = Command::new("dpkg-deb");
    command
        .args(["--root-owner-group", "--build"])
        .arg(&tree)
        .arg(&file);
    let built = command.output().is_ok_and(|done| done.status.success());
    assert!(
        built || std::env::var_os("CI").is_none(),
        "dpkg-deb is not installed"
    );
    if !built {
        eprintln!("skipped: dpkg-deb is not installed");
    }
    built.then_some(file)
}

fn definition(directory: &Path, loader: &str) -> Definition {
    Definition {
        directory: directory.to_owned(),
        name: "loaders".to_owned(),
        description: String::new(),
        architecture: "amd64".to_owned(),
        distribution: Distribution {
            name: "debian".to_owned(),
            release: "trixie".to_owned(),
            keyring: PathBuf::new(),
            components: Vec::new(),
            suites: Vec::new(),
        },
        packages: None,
        files: vec![definition::File {
            path: "etc/motd".to_owned(),
            content: Content::Text("hello".to_owned()),
            mode: 0o600,
            user: "7".to_owned(),
            group: "8".to_owned(),
        }],
        loaders: Some(Loaders {
            packages: vec!["loader".to_owned()],
            files: BTreeMap::from([("a.efi".to_owned(), loader.to_owned())]),
        }),
        ..Definition::default()
    }
}

fn fetched(file: &Path) -> FetchedPackage {
    let bytes = fs::read(file).unwrap();
    FetchedPackage {
        entry: Package {
            name: "loader".to_owned(),
            usage: Use::Loader,
            version: "1".to_owned(),
            architecture: "all".to_owned(),
            archive: "debian".to_owned(),
            path: "pool/loader.deb".to_owned(),
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
        },
        path: file.to_owned(),
    }
}

fn build(directory: &Path, file: &Path, loader: &str) -> Result<(Layout, Built), Error> {
    let definition = definition(directory, loader);
    let package = fetched(file);
    let lock = Lock {
        request: Request::of(&definition).digest(),
        source_date: 1_700_000_000,
        releases: Vec::new(),
        packages: vec![package.entry.clone()],
    };
    let locked = definition.lock(lock).unwrap();
    let plan = locked.plan().unwrap();
    let store = Layout::create(directory.join("store")).unwrap();
    let options = Options {
        work: directory.join("work"),
        helper: PathBuf::new(),
        emulator: None,
        threads: 1,
        layers: directory.join("layers"),
        facts: directory.join("facts"),
        decoded: directory.join("decoded"),
        modules: directory.join("modules"),
        configured: directory.join("configured"),
        reuse: Reuse::Earlier,
    };
    let built = execute(&plan, &locked, &[package], &[], &store, &options);
    assert_eq!(
        fs::read_dir(&options.work).unwrap().count(),
        0,
        "the workspace is gone"
    );
    Ok((store, built?))
}

#[test]
fn loaders_are_taken_as_they_are_and_twice_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let Some(file) = package(directory.path()) else {
        return;
    };
    for loader in ["usr/lib/loader/real.efi", "usr/lib/loader/link.efi"] {
        let mut digests = Vec::new();
        for name in ["one", "two"] {
            let here = directory.path().join(name);
            let (store, built) = build(&here, &file, loader).unwrap();
            let names: Vec<_> = built.manifest.artifacts.iter().map(|a| &a.name).collect();
            let expected = [
                "listing.txt",
                "a.efi",
                "sbom.cdx.json",
                "sbom.spdx.json",
                "provenance.json",
            ];
            assert_eq!(names, expected, "{loader}");
            let stored = fs::read(store.blob(&built.manifest.artifacts[1].digest)).unwrap();
            assert_eq!(stored, b"MZ loader");
            let listing = fs::read_to_string(store.blob(&built.manifest.tree)).unwrap();
            assert!(listing.contains("/etc/motd f 0600 7 8 5 "), "{listing}");
            assert!(!listing.contains("unwanted"));
            verify::verify(&store, "loaders").unwrap();
            digests.push(built.digest);
        }
        assert_eq!(digests[0], digests[1], "{loader}");
    }
}

#[test]
fn a_loader_that_is_not_there_is_named_and_nothing_is_published() {
    let directory = tempfile::tempdir().unwrap();
    let Some(file) = package(directory.path()) else {
        return;
    };
    let error = build(directory.path(), &file, "usr/lib/loader/absent.efi").unwrap_err();
    assert!(error.is_of_the_definition(), "{error}");
    assert!(error.to_string().contains("absent.efi"), "{error}");
    let store = Layout::open(directory.path().join("store")).unwrap();
    assert!(store.images().unwrap().is_empty());
}
