mod protocol;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use image_manifest::layout::Layout;
use image_manifest::{Artifact, Digest, Exchange, Kernel, Manifest, Report, Role, Stage};
use netboot_core::boot::Protocol;
use netboot_core::dhcp::{Arrival, Decision, Port, Request, Silence};
use netboot_core::site::{Site, SourceFile};
use netboot_core::{Mac, Timestamp};

use super::super::appliance::Appliance;
use super::super::bind::Wires;
use super::super::catalogue::{End, Outcome, Transfer, TransferLog, Wanted};
use super::super::http::{BootApi, Peer};
use crate::secrets::Secrets;
use crate::store::{Change, Memory, Sqlite, Store, Urgency};
use crate::tls::{Names, Tls};

const SITE: &str = r#"
[site]
name = "test"
[[network]]
name = "rack"
subnet = "10.77.0.0/24"
appliance = "10.77.0.1"
mode = "authoritative"
pool = { first = "10.77.0.100", last = "10.77.0.109" }
[[network]]
name = "beside"
subnet = "10.78.0.0/24"
appliance = "10.78.0.1"
mode = "proxy"
[secret.db]
file = "db.secret"
[role.web]
image = "host"
secrets = ["db"]
parameters = { tier = "front" }
[role.none]
image = "missing"
[[host]]
name = "web1"
macs = ["52:54:00:00:00:01"]
address = "10.77.0.11"
role = "web"
[[host]]
name = "none1"
macs = ["52:54:00:00:00:02"]
address = "10.77.0.12"
role = "none"
[[host]]
name = "pool1"
macs = ["52:54:00:00:00:03"]
role = "web"
"#;

const WEB1: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const POOL1: Mac = Mac([0x52, 0x54, 0, 0, 0, 3]);
const WEB1_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const APPLIANCE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn site() -> Site {
    let file = SourceFile {
        path: "site.toml".into(),
        text: SITE.into(),
    };
    Site::check(&[file]).unwrap()
}

/// Opens a store with the image `host`, whose artifacts are a word each.
fn images(directory: &Path) -> Layout {
    let layout = Layout::create(directory.join("images")).unwrap();
    let artifact = |role, name: &str| {
        let mut ingest = layout.ingest().unwrap();
        ingest.append(name.as_bytes()).unwrap();
        let (digest, size) = ingest.finish().unwrap();
        Artifact {
            role,
            name: name.to_owned(),
            media_type: "application/octet-stream".to_owned(),
            digest,
            size,
        }
    };
    let any = Digest::of(b"any");
    let manifest = Manifest {
        schema: Manifest::SCHEMA,
        name: "host".to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        tree: any,
        lock: any,
        inputs: any,
        source_date: 0,
        builder: "test".to_owned(),
        kernel: Some(Kernel {
            release: "6.12".to_owned(),
            command_line: "console=ttyS0".to_owned(),
        }),
        disk: None,
        forms: Vec::new(),
        layers: Vec::new(),
        artifacts: vec![
            artifact(Role::Kernel, "kernel"),
            artifact(Role::Initrd, "initrd"),
            artifact(Role::Rootfs, "rootfs"),
        ],
    };
    layout.publish(&manifest).unwrap();
    layout
}

async fn start(directory: &Path, store: impl Store) -> Arc<Appliance> {
    let images = images(directory);
    let tls = Tls::open(directory, Names::default(), None, Timestamp(0)).unwrap();
    let secrets = Arc::new(Secrets::open(directory, directory).unwrap());
    let wires = Wires::default();
    let started = Appliance::start(
        Arc::new(site()),
        images,
        directory,
        store,
        wires,
        tls,
        secrets,
    )
    .await;
    started.unwrap().0
}

fn exchange(nonce: &str) -> Exchange {
    Exchange {
        nonce: nonce.parse().unwrap(),
    }
}

/// Exchanges the token of a boot for its credential.
async fn credential(appliance: &Appliance, boot: &str, token: &str) -> String {
    let given = appliance
        .exchange(boot, token, exchange("n1"), peer())
        .await;
    given.unwrap().credential.expose().to_owned()
}

fn peer() -> Peer {
    at(WEB1_ADDRESS)
}

fn at(address: Ipv4Addr) -> Peer {
    let remote = SocketAddr::from((address, 50_000));
    let local = SocketAddr::from((APPLIANCE, 80));
    let channel = crate::serve::http::Channel::Plain;
    Peer {
        remote,
        local,
        channel,
    }
}

/// Returns boot id and token that a script gives.
fn given(script: &str) -> (String, String) {
    let word = |key: &str| {
        let found = script
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key));
        found
            .unwrap_or_else(|| panic!("no {key} in {script}"))
            .to_owned()
    };
    (word("firstboot.boot="), word("firstboot.token="))
}

fn healthy(sequence: u64) -> Report {
    let tree = Digest::of(b"any");
    Report {
        sequence,
        uptime_ms: 9_000,
        stage: Stage::Healthy { tree },
    }
}

/// Waits until all that was handed to the writer is in the store.
async fn settle(appliance: &Appliance) {
    let commit = appliance
        .writer
        .submit(Vec::new(), Urgency::Urgent)
        .unwrap();
    commit.durable().await.unwrap();
}

fn events(store: &Memory) -> String {
    let changes = store.changes();
    let events = changes.iter().filter_map(|change| match change {
        Change::Event(row) => Some(row.event.as_str()),
        _ => None,
    });
    events.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_host_shows_the_token_of_its_script() {
    let directory = tempfile::tempdir().unwrap();
    let store = Memory::default();
    let appliance = start(directory.path(), store.clone()).await;
    let script = appliance.script(WEB1, peer()).await.unwrap();
    let (boot, token) = given(&script);
    assert!(
        script.contains("console=ttyS0 firstboot.url=http://10.77.0.1 "),
        "{script}"
    );
    assert!(script.contains(" firstboot.ip=10.77.0.11/24 "), "{script}");

    let early = appliance.host(&boot, &token, peer()).await;
    assert_eq!(early.unwrap_err().status, StatusCode::UNAUTHORIZED);
    let credential = credential(&appliance, &boot, &token).await;
    let config = appliance.host(&boot, &credential, peer()).await.unwrap();
    assert_eq!(
        (config.name.as_str(), config.network.address),
        ("web1", WEB1_ADDRESS)
    );
    let tier = config.parameters.get("tier");
    assert_eq!(tier, Some(&serde_json::Value::from("front")));
    let cases = [
        (
            "another token",
            boot.as_str(),
            "00",
            StatusCode::UNAUTHORIZED,
        ),
        ("the token", &boot, &token, StatusCode::UNAUTHORIZED),
        ("nothing", &boot, "", StatusCode::UNAUTHORIZED),
        ("another boot", "00", &credential, StatusCode::NOT_FOUND),
    ];
    for (name, boot, shown, expected) in cases {
        let config = appliance.host(boot, shown, peer()).await;
        assert_eq!(config.unwrap_err().status, expected, "{name}");
        let report = appliance.report(boot, shown, healthy(1), peer()).await;
        assert_eq!(report.unwrap_err().status, expected, "{name}");
    }
    assert!(!events(&store).contains("healthy"));
    appliance
        .report(&boot, &credential, healthy(1), peer())
        .await
        .unwrap();
    assert!(
        events(&store).contains("healthy"),
        "it is stored when the answer leaves"
    );
    let stored = format!("{:?}", store.changes());
    assert!(!stored.contains(&token), "no token is ever stored");
    assert!(!stored.contains(&credential), "nor a credential");
}

#[tokio::test]
async fn who_cannot_boot_is_told_why_on_its_console() {
    let directory = tempfile::tempdir().unwrap();
    let store = Memory::default();
    let appliance = start(directory.path(), store.clone()).await;
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    let script = appliance.script(stranger, peer()).await.unwrap();
    assert!(
        script.contains("no host of site test has 02:00:00:00:00:09"),
        "{script}"
    );
    let script = appliance
        .script(
            Mac([0x52, 0x54, 0, 0, 0, 2]),
            at(Ipv4Addr::new(10, 77, 0, 12)),
        )
        .await
        .unwrap();
    assert!(
        script.contains("none1 cannot boot: no image `missing`"),
        "{script}"
    );
}

#[tokio::test]
async fn transfers_are_joined_with_the_host_at_their_address() {
    let directory = tempfile::tempdir().unwrap();
    let store = Memory::default();
    let appliance = start(directory.path(), store.clone()).await;
    appliance.script(WEB1, peer()).await.unwrap();
    let mut transfer = Transfer {
        peer: WEB1_ADDRESS.into(),
        over: Protocol::Http,
        wanted: Wanted::Artifact(Digest::of(b"initrd")),
        first: 0,
        length: 6,
        size: 6,
    };
    let end = End {
        bytes: 6,
        elapsed: Duration::from_millis(7),
        outcome: Outcome::Complete,
    };
    appliance.began(&transfer);
    appliance.ended(&transfer, &end);
    transfer.wanted = Wanted::Artifact(Digest::of(b"rootfs"));
    transfer.peer = Ipv4Addr::new(10, 77, 0, 99).into();
    appliance.began(&transfer);
    settle(&appliance).await;
    let events = events(&store);
    assert!(events.contains(r#""file":"initrd""#), "{events}");
    assert!(
        !events.contains("rootfs"),
        "no host has that address: {events}"
    );
}

fn dhcp(kind: u8, options: &[u8]) -> Request {
    from(WEB1, APPLIANCE, kind, options)
}

/// A broadcast of a client on the wire where we have this address.
fn from(mac: Mac, local: Ipv4Addr, kind: u8, options: &[u8]) -> Request {
    let mut bytes = vec![0; 236];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[28..34].copy_from_slice(&mac.0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind]);
    bytes.extend(options);
    bytes.push(255);
    let arrival = Arrival {
        port: Port::Dhcp,
        source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
        destination: Ipv4Addr::BROADCAST,
        local,
    };
    Request::decode(&bytes, arrival).unwrap()
}

#[tokio::test]
async fn a_lease_and_a_boot_outlive_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let appliance = start(path, Sqlite::open(path).await.unwrap()).await;
    assert!(
        !appliance.decide(&dhcp(1, &[])).durable,
        "an offer waits for nothing"
    );
    let chosen = [50, 4, 10, 77, 0, 11, 54, 4, 10, 77, 0, 1];
    let decided = appliance.decide(&dhcp(3, &chosen));
    assert!(matches!(decided.decision, Decision::Send { .. }));
    assert!(decided.durable, "an ack waits for its lease");
    let commit = appliance
        .writer
        .submit(decided.changes, Urgency::Urgent)
        .unwrap();
    commit.durable().await.unwrap();
    let before = given(&appliance.script(WEB1, peer()).await.unwrap());

    // The first one is not stopped: nothing of it may matter any more.
    let again = start(path, Sqlite::open(path).await.unwrap()).await;
    let leases = Sqlite::open(path)
        .await
        .unwrap()
        .load()
        .await
        .unwrap()
        .leases;
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].client, "host:web1");
    let credential = credential(&again, &before.0, &before.1).await;
    assert!(again.host(&before.0, &credential, peer()).await.is_ok());
    let after = given(&again.script(WEB1, peer()).await.unwrap());
    assert_eq!(after, before, "the same boot goes on with the same token");
}

/// Options of a PXE ROM under a BIOS.
const ROM: &[u8] = b"\x3c\x20PXEClient:Arch:00000:UNDI:002001\x5d\x02\0\0";
/// Options of iPXE.
const IPXE: &[u8] = b"\x3c\x20PXEClient:Arch:00000:UNDI:002001\x5d\x02\0\0\x4d\x04iPXE";

#[tokio::test]
async fn a_script_is_for_its_host_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = Memory::default();
    let appliance = start(directory.path(), store.clone()).await;
    let others = [
        ("another address of the network", [10, 77, 0, 50]),
        ("the appliance", [10, 77, 0, 1]),
        ("another host's", [10, 77, 0, 12]),
        ("another server's network", [10, 78, 0, 50]),
        ("nowhere", [192, 0, 2, 1]),
    ];
    appliance.decide(&dhcp(1, ROM));
    let (boot, token) = given(&appliance.script(WEB1, peer()).await.unwrap());
    let mine = credential(&appliance, &boot, &token).await;
    let stored = events(&store).lines().count();
    for (name, address) in others {
        let other = at(Ipv4Addr::from(address));
        let exchanged = appliance
            .exchange(&boot, &token, exchange("n1"), other)
            .await;
        let config = appliance.host(&boot, &mine, other).await;
        let report = appliance.report(&boot, &mine, healthy(1), other).await;
        if name == "another server's network" {
            // Its own system may be there, by another interface: the token decides.
            continue;
        }
        assert_eq!(
            exchanged.unwrap_err().status,
            StatusCode::FORBIDDEN,
            "{name}"
        );
        assert_eq!(config.unwrap_err().status, StatusCode::FORBIDDEN, "{name}");
        assert_eq!(report.unwrap_err().status, StatusCode::FORBIDDEN, "{name}");
        let script = appliance.script(WEB1, other).await.unwrap();
        assert!(!script.contains("token"), "{name}: {script}");
        assert!(script.contains("is not the address of"), "{name}: {script}");
    }
    settle(&appliance).await;
    let events = events(&store).lines().count() - stored;
    assert!(events <= 1, "strangers add nothing to a timeline");
}

#[tokio::test]
async fn the_address_of_a_host_is_the_one_that_it_has_now() {
    let directory = tempfile::tempdir().unwrap();
    let appliance = start(directory.path(), Memory::default()).await;
    let Decision::Send { reply, .. } = appliance.decide(&from(POOL1, APPLIANCE, 1, ROM)).decision
    else {
        panic!("no offer");
    };
    let leased = reply.yiaddr;
    let script = appliance.script(POOL1, at(leased)).await.unwrap();
    assert!(!script.contains("token"), "an offer is no lease: {script}");
    let chosen = [&[50, 4][..], &leased.octets(), &[54, 4, 10, 77, 0, 1], IPXE].concat();
    appliance.decide(&from(POOL1, APPLIANCE, 3, &chosen));
    let script = appliance.script(POOL1, at(leased)).await.unwrap();
    assert!(
        script.contains(&format!(" firstboot.ip={leased}/24 ")),
        "{script}"
    );

    // It is carried to a network of another server, and answers its offer by broadcast.
    let beside = Ipv4Addr::new(10, 78, 0, 1);
    let here = Ipv4Addr::new(10, 78, 0, 44);
    appliance.decide(&from(POOL1, beside, 1, ROM));
    let chosen = [&[50, 4][..], &here.octets(), &[54, 4, 10, 78, 0, 2], IPXE].concat();
    appliance.decide(&from(POOL1, beside, 3, &chosen));
    let script = appliance.script(POOL1, at(here)).await.unwrap();
    assert!(
        script.contains("firstboot.url=http://10.78.0.1"),
        "{script}"
    );
    assert!(!script.contains("firstboot.ip=10."), "{script}");
    for other in [leased, Ipv4Addr::new(10, 78, 0, 45)] {
        let script = appliance.script(POOL1, at(other)).await.unwrap();
        assert!(!script.contains("token"), "{other}: {script}");
    }
}

#[tokio::test]
async fn the_address_that_another_server_gave_outlives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let appliance = start(path, Sqlite::open(path).await.unwrap()).await;
    let beside = Ipv4Addr::new(10, 78, 0, 1);
    let here = Ipv4Addr::new(10, 78, 0, 44);
    let chosen = [&[50, 4][..], &here.octets(), &[54, 4, 10, 78, 0, 2], IPXE].concat();
    for request in [from(POOL1, beside, 1, ROM), from(POOL1, beside, 3, &chosen)] {
        let changes = appliance.decide(&request).changes;
        let commit = appliance.writer.submit(changes, Urgency::Urgent).unwrap();
        commit.durable().await.unwrap();
    }
    let before = given(&appliance.script(POOL1, at(here)).await.unwrap());

    // The first one is not stopped, and there is no lease to know the address by.
    let again = start(path, Sqlite::open(path).await.unwrap()).await;
    let host = again.host_at(here).map(|host| Arc::clone(&host.name));
    assert_eq!(host.as_deref(), Some("pool1"), "its transfers have a host");
    let after = given(&again.script(POOL1, at(here)).await.unwrap());
    assert_eq!(after, before, "the same boot goes on with the same token");
}

#[tokio::test]
async fn trouble_with_an_address_is_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let appliance = start(directory.path(), Memory::default()).await;
    let mine = [50, 4, 10, 77, 0, 11, 54, 4, 10, 77, 0, 1];
    let tell = |kind, options: &[u8]| {
        let trouble = appliance.decide(&dhcp(kind, options)).trouble?;
        Some(trouble.silence.map_or("declined", Silence::label))
    };
    let steps = [
        ("an offer", 1, &[][..], None),
        ("an ack", 3, &mine, None),
        ("declined", 4, &mine, Some("declined")),
        ("asks again", 1, &[], Some("address-declined")),
        ("and again", 1, &[], None),
    ];
    for (name, kind, options, expected) in steps {
        assert_eq!(tell(kind, options), expected, "{name}");
    }
}

#[tokio::test]
async fn a_healthy_host_is_heard_whatever_others_say_about_it() {
    let directory = tempfile::tempdir().unwrap();
    let appliance = start(directory.path(), Memory::default()).await;
    appliance.decide(&dhcp(1, ROM));
    let (boot, token) = given(&appliance.script(WEB1, peer()).await.unwrap());
    let mine = credential(&appliance, &boot, &token).await;
    let sequence = AtomicU64::new(1);
    let report = || {
        let next = sequence.fetch_add(1, Ordering::SeqCst);
        appliance.report(&boot, &mine, healthy(next), peer())
    };
    report().await.unwrap();

    let script = appliance.script(WEB1, peer()).await.unwrap();
    assert!(!script.contains("token"), "no firmware asked: {script}");
    report().await.unwrap();
    appliance.began(&Transfer {
        peer: WEB1_ADDRESS.into(),
        over: Protocol::Tftp,
        wanted: Wanted::Loader("undionly.kpxe".to_owned()),
        first: 0,
        length: 6,
        size: 6,
    });
    report().await.unwrap();
    for _ in 0..5 {
        appliance.decide(&dhcp(1, ROM));
        appliance.decide(&dhcp(1, IPXE));
    }
    report().await.unwrap();

    // Now it does start again, and with its first report the boot before has ended.
    appliance.decide(&dhcp(1, ROM));
    let (next, secret) = given(&appliance.script(WEB1, peer()).await.unwrap());
    assert_ne!(next, boot);
    report().await.unwrap();
    // Its stage1 runs: that is enough.
    credential(&appliance, &next, &secret).await;
    assert_eq!(report().await.unwrap_err().status, StatusCode::NOT_FOUND);
}
