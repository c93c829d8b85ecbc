use image_manifest::Digest;

use super::part::select;
use super::*;

fn package(usage: Use, name: &str, version: &str) -> Package {
    Package {
        name: name.to_owned(),
        usage,
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        archive: "debian".to_owned(),
        path: format!("pool/{name}_{version}.deb"),
        size: 10,
        sha256: Digest::of(format!("{name} {version}").as_bytes()),
    }
}

fn lock(packages: &[(Use, &str, &str)]) -> Lock {
    let mut packages: Vec<_> = packages
        .iter()
        .map(|(usage, name, version)| package(*usage, name, version))
        .collect();
    packages.sort();
    Lock {
        request: Digest::of(b""),
        source_date: 0,
        releases: Vec::new(),
        packages,
    }
}

/// What the archive says: name, version, source, suite, depends, breaks.
type Said<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str);

fn made(lock: Lock, said: &[Said<'_>]) -> Made {
    let candidates = said
        .iter()
        .map(|(name, version, source, suite, depends, breaks)| {
            let candidate = Candidate {
                source: (*source).to_owned(),
                archive: "debian".to_owned(),
                suite: (*suite).to_owned(),
                depends: (*depends).to_owned(),
                breaks: (*breaks).to_owned(),
                ..Candidate::default()
            };
            (((*name).to_owned(), (*version).to_owned()), candidate)
        });
    Made {
        lock,
        candidates: candidates.collect(),
    }
}

const I: Use = Use::Install;

fn world() -> (Lock, Made) {
    let old = lock(&[
        (I, "app", "1"),
        (I, "app-data", "1"),
        (I, "lib", "1"),
        (I, "old-plugin", "1"),
        (I, "other", "1"),
        (I, "hole", "1"),
        (Use::Kernel, "linux-image-6.1", "6.1"),
    ]);
    let new = lock(&[
        (I, "app", "2"),
        (I, "app-data", "2"),
        (I, "extra", "1"),
        (I, "lib", "2"),
        (I, "old-plugin", "2"),
        (I, "other", "2"),
        (I, "hole", "2"),
        (Use::Kernel, "linux-image-6.2", "6.2"),
        (Use::Kernel, "linux-modules-6.2", "6.2"),
    ]);
    let said = [
        (
            "app",
            "2",
            "app",
            "trixie",
            "lib (>= 2), extra",
            "old-plugin (<< 2)",
        ),
        ("app-data", "2", "app", "trixie", "", ""),
        ("extra", "1", "extra", "trixie", "", ""),
        ("lib", "2", "lib", "trixie", "", ""),
        ("old-plugin", "2", "plugin", "trixie", "", ""),
        ("other", "2", "other", "trixie", "", ""),
        ("hole", "2", "hole", "trixie-security", "", ""),
        ("linux-image-6.2", "6.2", "linux", "trixie-security", "", ""),
        (
            "linux-modules-6.2",
            "6.2",
            "linux",
            "trixie-security",
            "",
            "",
        ),
    ];
    (old, made(new, &said))
}

fn names(lock: &Lock) -> Vec<String> {
    let packages = lock.packages.iter();
    packages
        .map(|one| format!("{} {}", one.name, one.version))
        .collect()
}

#[test]
fn a_part_brings_along_what_it_needs_and_nothing_else() {
    let (old, made) = world();
    let part = select(&old, &made, |package, _| package.name == "app");
    let expected = [
        "app 2",
        "app-data 2",
        "extra 1",
        "hole 1",
        "lib 2",
        "linux-image-6.1 6.1",
        "old-plugin 2",
        "other 1",
    ];
    assert_eq!(names(&part), expected);
    let part = select(&old, &made, |package, _| package.name == "other");
    assert_eq!(
        names(&part)
            .iter()
            .filter(|one| one.ends_with(" 2"))
            .count(),
        1
    );
}

#[test]
fn security_alone_takes_the_kernel_as_a_whole() {
    let (old, made) = world();
    let part = select(&old, &made, |_, candidate| candidate.is_security());
    let expected = [
        "app 1",
        "app-data 1",
        "hole 2",
        "lib 1",
        "linux-image-6.2 6.2",
        "linux-modules-6.2 6.2",
        "old-plugin 1",
        "other 1",
    ];
    assert_eq!(names(&part), expected);
}

#[test]
fn changes_are_grouped_by_source() {
    let (old, made) = world();
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(directory.path())).unwrap();
    let groups = group(&old, &made.lock, &made, &cache);
    let told: Vec<_> = groups
        .iter()
        .map(|group| (group.source.as_str(), group.security, group.packages.len()))
        .collect();
    let expected = [
        ("app", false, 2),
        ("extra", false, 1),
        ("hole", true, 1),
        ("lib", false, 1),
        ("linux", true, 2),
        ("linux-image-6.1", false, 1),
        ("other", false, 1),
        ("plugin", false, 1),
    ];
    assert_eq!(told, expected);
    assert!(group(&old, &old, &made, &cache).is_empty());
}
