use std::io::{self, Write};

use proptest::prelude::*;

use super::*;

fn tar(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(8);
        header.set_mtime(5);
        header.set_username("root").unwrap();
        header.set_groupname("mail").unwrap();
        let link = kind.is_hard_link() || kind.is_symlink();
        header.set_size(if link { 0 } else { content.len() as u64 });
        if link {
            header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content);
        }
        // Written behind the builder's back, which refuses `..` itself.
        if path.len() < 100 {
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder
                .append(&header, if link { &[][..] } else { content })
                .unwrap();
        } else {
            builder.append_data(&mut header, path, *content).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn compress(ending: &str, bytes: &[u8]) -> Vec<u8> {
    match ending {
        ".gz" => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        ".xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        ".zst" => zstd::encode_all(bytes, 1).unwrap(),
        _ => bytes.to_vec(),
    }
}

fn package(ending: &str, control: &[u8], data: &[u8]) -> Vec<u8> {
    assemble(ending, compress(ending, control), compress(ending, data))
}

/// Puts members together that are compressed already.
fn assemble(ending: &str, control: Vec<u8>, data: Vec<u8>) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    let members = [
        ("debian-binary".to_owned(), b"2.0\n".to_vec()),
        ("_note/".to_owned(), b"odd".to_vec()),
        (format!("control.tar{ending}"), control),
        (format!("data.tar{ending}"), data),
    ];
    for (name, content) in members {
        writeln!(
            bytes,
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`",
            0,
            0,
            0,
            100_644,
            content.len()
        )
        .unwrap();
        bytes.extend_from_slice(&content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn control() -> Vec<u8> {
    tar(&[
        ("./", tar::EntryType::Directory, b""),
        (
            "./control",
            tar::EntryType::Regular,
            b"Package: hello\nVersion: 1\n",
        ),
        ("./postinst", tar::EntryType::Regular, b"#!/bin/sh\n"),
        (
            "./conffiles",
            tar::EntryType::Regular,
            b"/etc/hello\nremove-on-upgrade /etc/old\n",
        ),
    ])
}

#[test]
fn every_compression_gives_the_same_package() {
    let long = format!("./usr/{}/file", "long/".repeat(40).trim_end_matches('/'));
    let data = tar(&[
        ("./", tar::EntryType::Directory, b""),
        ("./etc/hello", tar::EntryType::Regular, b"world"),
        ("./etc/again", tar::EntryType::Link, b"./etc/hello"),
        ("./etc/link", tar::EntryType::Symlink, b"/usr/../x"),
        (&long, tar::EntryType::Regular, b"deep"),
    ]);
    let cases =
        ["", ".gz", ".xz", ".zst"].map(|ending| (ending, package(ending, &control(), &data)));
    let (outcome, anew) = recompressed(&cases[2].1);
    assert_eq!(outcome.unwrap(), Recompressed::Written);
    let mut cases = cases.to_vec();
    cases.push(("from .xz", anew));
    for (ending, bytes) in cases {
        let deb = Deb::open(&bytes[..]).unwrap();
        assert_eq!(deb.control().field("package"), Some("hello"));
        assert_eq!(deb.control().conffiles(), ["etc/hello"]);
        assert_eq!(deb.control().files["postinst"].mode, 0o755);
        let mut data = deb.into_data();
        let mut seen = Vec::new();
        for entry in data.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            assert_eq!((entry.user(), entry.group()), (&b"root"[..], &b"mail"[..]));
            assert_eq!((entry.uid(), entry.gid(), entry.modified()), (0, 8, 5));
            let path = String::from_utf8(entry.path().to_vec()).unwrap();
            seen.push((path, entry.kind().clone(), content));
        }
        let hello = || b"etc/hello".to_vec();
        assert_eq!(seen.len(), 5, "{ending}");
        assert_eq!(seen[0], (String::new(), Kind::Directory, String::new()));
        assert_eq!(seen[1].1, Kind::File { size: 5 });
        assert_eq!(seen[1].2, "world");
        assert_eq!(seen[2].1, Kind::HardLink { target: hello() });
        assert_eq!(
            seen[3].1,
            Kind::Symlink {
                target: b"/usr/../x".to_vec()
            }
        );
        assert_eq!(seen[4].0, long[2..]);
        assert_eq!(seen[4].2, "deep");
    }
}

fn recompressed(bytes: &[u8]) -> (Result<Recompressed, RecompressError>, Vec<u8>) {
    let mut out = io::Cursor::new(Vec::new());
    let outcome = recompress(bytes, &mut out);
    (outcome, out.into_inner())
}

#[test]
fn a_package_is_recompressed_where_that_helps_and_whole() {
    let data = tar(&[("./a", tar::EntryType::Regular, b"content")]);
    for ending in ["", ".gz", ".zst"] {
        let outcome = recompressed(&package(ending, &control(), &data)).0;
        assert_eq!(outcome.unwrap(), Recompressed::Needless, "{ending}");
    }
    let whole = package(".xz", &control(), &data);
    for length in 0..whole.len() - 1 {
        assert!(recompressed(&whole[..length]).0.is_err(), "cut at {length}");
    }
    // What xz fills up with nothing may become so small that its reader takes it for a bomb.
    let mut packed = compress(".xz", &vec![0; 96 << 20]);
    packed.resize(packed.len().next_multiple_of(4) + (64 << 10), 0);
    let bytes = assemble(".xz", compress(".xz", &control()), packed);
    let outcome = recompressed(&bytes).0;
    assert_eq!(outcome.unwrap(), Recompressed::Needless);
    let bomb = compress(".xz", &vec![0; 96 << 20]);
    let bytes = assemble(".xz", compress(".xz", &control()), bomb);
    assert!(recompressed(&bytes).0.is_err());
}

#[test]
fn hostile_entries_are_refused() {
    let climbing = format!("./{}/../../etc/passwd", "a/".repeat(60));
    let wide = format!("./{}", "a".repeat(300));
    let file = tar::EntryType::Regular;
    let cases: [(&str, &str, tar::EntryType, &[u8]); 10] = [
        ("disk", "./dev/sda", tar::EntryType::Block, b""),
        ("memory", "./dev/mem", tar::EntryType::Char, b""),
        ("absolute", "/etc/passwd", file, b""),
        ("climbing", "./a/../../etc/passwd", file, b""),
        ("climbing by a long name", &climbing, file, b""),
        ("longer than a file name", &wide, file, b""),
        ("hard link out", "./a", tar::EntryType::Link, b"../b"),
        ("link to nothing", "./a", tar::EntryType::Symlink, b""),
        ("sparse file", "./a", tar::EntryType::GNUSparse, b""),
        ("root as a file", "./", file, b"x"),
    ];
    for (name, path, kind, content) in cases {
        let bytes = package("", &control(), &raw_tar(path, kind, content));
        let mut data = Deb::open(&bytes[..]).unwrap().into_data();
        let outcome: Result<Vec<_>, _> = data
            .entries()
            .unwrap()
            .map(|entry| entry.map(drop))
            .collect();
        assert!(outcome.is_err(), "{name}");
    }
}

#[test]
fn a_bomb_is_defused_by_its_own_size() {
    let (free, more) = (FREE_DATA, 32 << 20);
    for (size, fits) in [(free / 2, true), (free + more, false)] {
        let mut header = tar::Header::new_gnu();
        header.set_path("./zeros").unwrap();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let zeros = io::repeat(0).take(size + 1024);
        let mut packed = Vec::new();
        let data = header.as_bytes().chain(zeros);
        zstd::stream::copy_encode(data, &mut packed, 1).unwrap();
        assert!((packed.len() as u64) * MAX_RATIO < more, "it is a bomb");
        let bytes = assemble(".zst", compress(".zst", &control()), packed);
        let mut data = Deb::open(&bytes[..]).unwrap().into_data();
        let mut entries = data.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        let read = io::copy(&mut entry, &mut io::sink());
        assert_eq!(read.is_ok(), fits, "{size}: {read:?}");
    }
}

/// A tar of one entry, with a GNU long name in front where it needs one.
fn raw_tar(path: &str, kind: tar::EntryType, content: &[u8]) -> Vec<u8> {
    if path.len() < 100 {
        return tar(&[(path, kind, content)]);
    }
    let named = tar(&[(
        "././@LongLink",
        tar::EntryType::GNULongName,
        path.as_bytes(),
    )]);
    let blocks = 512 + path.len().div_ceil(512) * 512;
    [&named[..blocks], &tar(&[("x", kind, content)])[..]].concat()
}

#[test]
fn damaged_packages_are_refused() {
    let whole = package(".xz", &control(), &tar(&[]));
    let no_control = package(
        "",
        &tar(&[("./postinst", tar::EntryType::Regular, b"")]),
        &tar(&[]),
    );
    let nested = package(
        "",
        &tar(&[("./a/control", tar::EntryType::Regular, b"")]),
        &tar(&[]),
    );
    let cases: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("not ar", b"hello world"),
        ("cut in the header", &whole[..40]),
        ("cut in the control files", &whole[..220]),
        ("no control file", &no_control),
        ("control file in a directory", &nested),
    ];
    for (name, bytes) in cases {
        assert!(Deb::open(bytes).is_err(), "{name}");
    }
    let bzip2 =
        String::from_utf8_lossy(&package("", &control(), b"")).replace("data.tar ", "data.tar.bz2");
    assert!(matches!(
        Deb::open(bzip2.as_bytes()),
        Err(Error::UnknownCompression { .. } | Error::MalformedMember)
    ));
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(position in 0usize..3000, value: u8, ending in 0usize..4) {
        let ending = ["", ".gz", ".xz", ".zst"][ending];
        let data = tar(&[("./etc/hello", tar::EntryType::Regular, b"world")]);
        let mut bytes = package(ending, &control(), &data);
        let position = position % bytes.len();
        bytes[position] = value;
        if let Ok(deb) = Deb::open(&bytes[..]) {
            let mut data = deb.into_data();
            if let Ok(entries) = data.entries() {
                for entry in entries.flatten() {
                    prop_assert!(!entry.path().starts_with(b"/"));
                }
            }
        }
    }
}
