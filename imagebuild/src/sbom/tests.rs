use super::*;
use crate::facts::Licence;
use crate::lock::Use;

fn package(name: &str, version: &str) -> Package {
    Package {
        name: name.to_owned(),
        usage: Use::Install,
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        archive: "debian".to_owned(),
        path: format!("pool/main/{name}_{version}_amd64.deb"),
        size: 7,
        sha256: Digest::of(name.as_bytes()),
    }
}

fn subject() -> Subject<'static> {
    Subject {
        name: "host",
        description: "A host",
        architecture: "amd64",
        distribution: "debian/trixie",
        tree: Digest::of(b"tree"),
        source_date: 1_757_146_500,
        builder: "imagebuild 0.1.0+abc",
    }
}

#[test]
fn package_urls_are_escaped_as_their_specification_says() {
    let url = package_url(&package("libstdc++6", "1:14.2-1~x+b1"), "debian/trixie");
    assert_eq!(
        url,
        "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2-1~x%2Bb1?arch=amd64&distro=trixie"
    );
}

#[test]
fn documents_name_every_package_and_follow_from_their_input_alone() {
    let facts = Facts {
        source: "gcc-14".to_owned(),
        source_version: "14.2-1".to_owned(),
        summary: "library".to_owned(),
        installed: 2048,
        licence: Licence::parse(
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-3+ and mine\n",
        ),
        ..Facts::default()
    };
    let packages = [package("libstdc++6", "14.2"), package("libstdcxx6", "14.2")];
    let pairs: Vec<_> = packages.iter().map(|one| (one, &facts)).collect();
    for format in Format::ALL {
        let first = write(format, &subject(), &pairs);
        assert_eq!(first, write(format, &subject(), &pairs));
        let text = String::from_utf8(first).unwrap();
        for expected in [
            "GPL-3.0-or-later AND LicenseRef-mine",
            "2025-09-06T08:15:00Z",
            "install-libstdc-x2b--x2b-6-14.2",
            "pkg:deb/debian/libstdcxx6@14.2?arch=amd64&distro=trixie",
            &Digest::of(b"libstdcxx6").hex(),
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
    let document = write(Format::CycloneDx, &subject(), &pairs);
    let read = components(&document).unwrap();
    assert_eq!(read.len(), 2);
    assert_eq!((read[0].size, read[0].installed), (7, 2048));
    assert_eq!(read[0].source, "gcc-14 14.2-1");
    assert!(components(b"{}").is_err());
}
