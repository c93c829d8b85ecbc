//! What a host's files say, and what is refused.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use image_manifest::NetworkConfig;

use super::*;

fn host() -> HostConfig {
    HostConfig {
        name: "web1".to_owned(),
        ssh_keys: vec![
            "ssh-ed25519 AAAA a".to_owned(),
            "ssh-ed25519 BBBB b".to_owned(),
        ],
        network: NetworkConfig {
            mac: "52:54:00:77:00:01".to_owned(),
            address: [10, 77, 0, 11].into(),
            prefix: 24,
            router: Some([10, 77, 0, 1].into()),
            dns: vec![[10, 77, 0, 2].into()],
            domain: Some("lab.test".to_owned()),
        },
        heartbeat_seconds: 10,
        parameters: BTreeMap::from([("tier".to_owned(), "front".into())]),
        secrets: vec!["db-password".to_owned()],
    }
}

fn content(files: &[HostFile], path: &str) -> String {
    let file = files.iter().find(|file| file.path == path);
    file.map(|file| file.content.clone()).unwrap_or_default()
}

#[test]
fn a_host_is_its_files() {
    let files = files(&host(), "").unwrap();
    let cases = [
        ("etc/hostname", "web1\n"),
        (
            "etc/hosts",
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.77.0.11 web1.lab.test web1\n",
        ),
        (
            "run/systemd/network/10-firstboot.network",
            "[Match]\nMACAddress=52:54:00:77:00:01\nKind=!*\n\n[Network]\nDHCP=no\n\
             Address=10.77.0.11/24\nGateway=10.77.0.1\nDNS=10.77.0.2\nDomains=lab.test\n",
        ),
        ("etc/resolv.conf", "nameserver 10.77.0.2\nsearch lab.test\n"),
        (
            "root/.ssh/authorized_keys",
            "ssh-ed25519 AAAA a\nssh-ed25519 BBBB b\n",
        ),
    ];
    assert_eq!(files.len(), cases.len());
    for (path, expected) in cases {
        assert_eq!(content(&files, path), expected, "{path}");
    }
}

#[test]
fn the_images_own_hosts_stay() {
    let files = files(&host(), "127.0.0.1 localhost me").unwrap();
    let hosts = content(&files, "etc/hosts");
    assert_eq!(
        hosts,
        "127.0.0.1 localhost me\n10.77.0.11 web1.lab.test web1\n"
    );
}

#[test]
fn text_that_could_mean_more_is_refused() {
    let with = |change: fn(&mut HostConfig)| {
        let mut host = host();
        change(&mut host);
        host
    };
    let cases = [
        ("as given", with(|_| ()), true),
        ("no network beyond", with(|h| h.network.router = None), true),
        ("an empty name", with(|h| h.name.clear()), false),
        ("two names", with(|h| h.name = "a b".to_owned()), false),
        (
            "a line in the name",
            with(|h| h.name = "a\nb".to_owned()),
            false,
        ),
        (
            "two keys in one",
            with(|h| h.ssh_keys = vec!["a\nb".to_owned()]),
            false,
        ),
        (
            "a line in the mac",
            with(|h| h.network.mac = "52:54:00:77:00:01\n[X]".to_owned()),
            false,
        ),
        (
            "a line in the domain",
            with(|h| h.network.domain = Some("a\nb".to_owned())),
            false,
        ),
        ("a long prefix", with(|h| h.network.prefix = 33), false),
    ];
    for (name, host, good) in cases {
        assert_eq!(files(&host, "").is_ok(), good, "{name}");
    }
}

#[test]
fn files_are_written_with_their_modes_and_links_are_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    symlink(
        outside.path().join("hostname"),
        root.path().join("etc/hostname"),
    )
    .unwrap();
    symlink(
        "../run/systemd/resolve/stub-resolv.conf",
        root.path().join("etc/resolv.conf"),
    )
    .unwrap();
    let run = root.path().join("other-run");
    let files = files(&host(), &image_hosts(root.path())).unwrap();
    write(&files, root.path(), &run).unwrap();
    let mode = |path: &str| {
        let metadata = fs::symlink_metadata(root.path().join(path)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(mode("root/.ssh"), 0o700);
    assert_eq!(mode("root/.ssh/authorized_keys"), 0o600);
    assert_eq!(mode("etc/hostname"), 0o644);
    assert!(!outside.path().join("hostname").exists());
    assert!(run.join("systemd/network/10-firstboot.network").exists());
    assert!(root.path().join("etc/resolv.conf").is_symlink());
}
