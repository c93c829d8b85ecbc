use std::io::Cursor;
use std::os::unix::fs::MetadataExt as _;

use deb_archive::deb::Deb;

use super::*;
use crate::lock::{Package, Use};

/// Makes a package as Debian does, with one file.
fn package(directory: &Path, content: &str) -> FetchedPackage {
    let tar = |path: &str, content: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        let appended = builder.append_data(&mut header, path, content.as_bytes());
        appended.unwrap();
        let mut packed = Vec::new();
        let plain = Cursor::new(builder.into_inner().unwrap());
        liblzma::copy_encode(plain, &mut packed, 0).unwrap();
        packed
    };
    let control = tar("control", "Package: a\nVersion: 1\nArchitecture: all\n");
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.xz", control),
        ("data.tar.xz", tar("a", content)),
    ] {
        let length = content.len();
        let header = format!("{name:<16}0           0     0     100644  {length:<10}`\n");
        bytes.extend(header.bytes());
        bytes.extend(content);
        if length % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    let path = directory.join(Digest::of(&bytes).hex());
    fs::write(&path, &bytes).unwrap();
    FetchedPackage {
        entry: Package {
            name: "a".to_owned(),
            usage: Use::Install,
            version: "1".to_owned(),
            architecture: "all".to_owned(),
            archive: "debian".to_owned(),
            path: "pool/a.deb".to_owned(),
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
        },
        path,
    }
}

fn content(place: &Path) -> String {
    let mut data = Deb::open(File::open(place).unwrap()).unwrap().into_data();
    let mut entry = data.entries().unwrap().next().unwrap().unwrap();
    let mut content = String::new();
    entry.read_to_string(&mut content).unwrap();
    content
}

#[test]
fn a_package_is_decoded_once_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = directory.path().join("decoded");
    let package = package(directory.path(), "hello");
    let first = Decoded::new(&shelf);
    let place = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| first.place(&package)))
            .collect();
        let places = threads.into_iter().map(|thread| thread.join().unwrap());
        places.reduce(|one, other| {
            assert_eq!(one, other);
            one
        })
    });
    let place = place.unwrap();
    assert_eq!(place.parent(), Some(&*shelf));
    assert_eq!(content(&place), "hello");
    let file = place.metadata().unwrap().ino();
    assert_eq!(Decoded::new(&shelf).places(&[&package])[0], place);
    assert_eq!(place.metadata().unwrap().ino(), file, "it is the same file");
    first.bound();
    assert_eq!(fs::read_dir(&shelf).unwrap().count(), 1);
}

#[test]
fn what_went_bad_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = directory.path().join("decoded");
    let wanted = package(directory.path(), "hello");
    let place = Decoded::new(&shelf).place(&wanted);
    let whole = fs::read(&place).unwrap();
    let other = package(directory.path(), "other");
    let other = fs::read(Decoded::new(&shelf).place(&other)).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cases: [(&str, &[u8]); 4] = [
        ("a flipped bit", &flipped),
        ("cut", &whole[..whole.len() - 1]),
        ("nothing", b""),
        ("another package's", &other),
    ];
    for (name, bytes) in cases {
        fs::write(&place, bytes).unwrap();
        assert_eq!(Decoded::new(&shelf).place(&wanted), place, "{name}");
        assert_eq!(fs::read(&place).unwrap(), whole, "{name}");
    }
}

#[test]
fn what_cannot_be_kept_is_read_from_the_package() {
    let directory = tempfile::tempdir().unwrap();
    let whole = package(directory.path(), "hello");
    let blocked = directory.path().join("blocked");
    fs::write(&blocked, "no directory").unwrap();
    assert_eq!(Decoded::new(&blocked).place(&whole), whole.path);

    let shelf = directory.path().join("decoded");
    let bytes = fs::read(&whole.path).unwrap();
    fs::write(&whole.path, &bytes[..bytes.len() - 8]).unwrap();
    let decoded = Decoded::new(&shelf);
    assert_eq!(decoded.place(&whole), whole.path, "it is damaged");
    decoded.bound();
    assert_eq!(fs::read_dir(&shelf).unwrap().count(), 0);
}

#[test]
fn the_oldest_go_and_none_that_another_build_may_open() {
    let shelf = tempfile::tempdir().unwrap();
    let ages = [3, 2, 0].map(Duration::from_hours);
    let places = ages.map(|age| {
        let name = Digest::of(&age.as_secs().to_be_bytes()).hex();
        let place = shelf.path().join(name);
        let file = File::create(&place).unwrap();
        // Without a block of it on disk.
        file.set_len(MOST).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        place
    });
    let fresh = shelf.path().join(Digest::of(b"fresh").hex());
    File::create(&fresh).unwrap().set_len(MOST).unwrap();
    // This build decodes nothing: an earlier one may have failed.
    Decoded::new(shelf.path()).bound();
    let left = places.map(|place| place.exists());
    assert_eq!(left, [false, false, true]);
    assert!(fresh.exists());
}
