//! Network clients that no one here wrote, against the appliance.
//!
//! It refuses to test packets byte by byte: that is done beside the code.

use std::fs;
use std::process::Output;

use e2e::need;
use e2e::rig::{self, Rig, SITE, check, printed, run};
use e2e::shop;
use image_manifest::{Artifact, Digest, Role};
use lab::appliance::Error;

const LOADER: &str = "undionly.kpxe";

/// Lets `udhcpc` ask once and returns the address that it was given.
fn udhcpc(rig: &Rig) -> Option<String> {
    let script = rig.path("udhcpc.sh");
    let seen = rig.path("udhcpc.seen");
    fs::remove_file(&seen).ok();
    rig::script(
        &script,
        &format!(
            "#!/bin/sh\n[ \"$1\" = bound ] && echo \"$ip $serverid $hostname $domain\" > '{}'\nexit 0\n",
            seen.display()
        ),
    );
    let script = script.display().to_string();
    let output = rig.run(&[
        "udhcpc",
        "-i",
        rig::CLIENT,
        "-f",
        "-n",
        "-q",
        "-t",
        "4",
        "-T",
        "1",
        "-s",
        &script,
    ]);
    if !output.status.success() {
        return None;
    }
    let seen = fs::read_to_string(seen).expect("udhcpc was bound");
    Some(
        seen.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
    )
}

/// The loader as the store holds it.
fn loader() -> (Artifact, Vec<u8>) {
    let store = shop::state().store();
    shop::image("loaders");
    let manifest = shop::manifest(&store, "loaders");
    let artifact = manifest
        .artifacts
        .iter()
        .find(|one| one.role == Role::Loader && one.name == LOADER);
    let artifact = artifact.expect("the loaders hold it").clone();
    let bytes = fs::read(shop::artifact(&store, &artifact)).expect("the store holds its bytes");
    (artifact, bytes)
}

fn fetched(output: &Output, path: &std::path::Path) -> Digest {
    check(output);
    Digest::of(&fs::read(path).expect("the file arrived"))
}

#[test]
fn udhcpc_gets_the_address_of_its_host_and_keeps_it() {
    if !need::has(&["udhcpc"]) {
        return;
    }
    let mut rig = Rig::new(SITE);
    rig.set_mac("52:54:00:77:00:01");
    assert_eq!(udhcpc(&rig).as_deref(), Some("10.77.0.11"));
    rig.kill();
    rig.serve().expect("it starts again");
    assert_eq!(udhcpc(&rig).as_deref(), Some("10.77.0.11"));
}

#[test]
fn a_stranger_keeps_its_address_when_the_appliance_is_killed() {
    if !need::has(&["udhcpc"]) {
        return;
    }
    let mut rig = Rig::new(SITE);
    let first = udhcpc(&rig).expect("an address");
    assert!(
        first.starts_with("10.77.16.") || first.starts_with("10.77."),
        "{first}"
    );
    rig.kill();
    rig.serve().expect("it starts again");
    assert_eq!(udhcpc(&rig), Some(first));
}

#[test]
fn an_unlisted_host_is_ignored_where_the_site_says_so() {
    if !need::has(&["udhcpc"]) {
        return;
    }
    let rig = Rig::new(&SITE.replace("strangers = \"lease\"", "strangers = \"ignore\""));
    assert_eq!(udhcpc(&rig), None);
    rig.set_mac("52:54:00:77:00:01");
    assert_eq!(udhcpc(&rig).as_deref(), Some("10.77.0.11"));
}

#[test]
fn dhclient_gets_a_lease_and_gives_it_back() {
    if !need::has(&["dhclient"]) {
        return;
    }
    let rig = Rig::new(SITE);
    let (leases, pid) = (rig.path("leases"), rig.path("pid"));
    let (leases, pid) = (leases.display().to_string(), pid.display().to_string());
    // The system's own script would write /etc/resolv.conf, which is not in the namespace.
    let configure = rig.path("dhclient.sh");
    let take = r#"#!/bin/sh
[ "$reason" = BOUND ] && ip address add "$new_ip_address/16" dev "$interface"
exit 0
"#;
    rig::script(&configure, take);
    let configure = configure.display().to_string();
    let common = [
        "-v",
        "-cf",
        "/dev/null",
        "-lf",
        &leases,
        "-pf",
        &pid,
        "-sf",
        &configure,
    ];
    let ask = [&["dhclient", "-1"], &common[..], &[rig::CLIENT]].concat();
    let said = rig.run(&ask);
    check(&said);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("DHCPACK of 10.77."), "{said}");
    assert!(
        fs::read_to_string(&leases)
            .expect("a lease file")
            .contains("fixed-address 10.77.")
    );
    let return_it = [&["dhclient", "-r"], &common[..], &[rig::CLIENT]].concat();
    let returned = rig.run(&return_it);
    check(&returned);
    let said = String::from_utf8_lossy(&returned.stderr).into_owned();
    assert!(said.contains("DHCPRELEASE of 10.77."), "{said}");
    rig.await_count(&["release"], 1.0);
}

#[test]
fn a_thousand_clients_of_perfdhcp_all_get_leases() {
    if !need::has(&["perfdhcp"]) {
        return;
    }
    let rig = Rig::new(SITE);
    rig.set_address("10.77.0.2/16");
    let output = rig.run(&[
        "perfdhcp",
        "-4",
        "-r",
        "200",
        "-R",
        "1000",
        "-n",
        "1000",
        "-W",
        "2000000",
        "-d",
        "2",
        "-l",
        rig::CLIENT,
        "10.77.0.1",
    ]);
    // perfdhcp ends with 3 when an exchange was not completed.
    let said = printed(&output);
    let drops: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("drops:"))
        .collect();
    assert_eq!(drops, ["drops: 0", "drops: 0"], "{said}");
    let received: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("received packets:"))
        .collect();
    assert_eq!(
        received,
        ["received packets: 1000", "received packets: 1000"],
        "{said}"
    );
}

#[test]
fn atftp_and_curl_fetch_the_loader_by_tftp() {
    if !need::has(&["atftp", "curl"]) {
        return;
    }
    let (artifact, _) = loader();
    let rig = Rig::new(SITE);
    rig.set_address("10.77.0.2/16");
    let target = rig.path("loader");
    let path = target.display().to_string();
    let cases: [&[&str]; 3] = [
        &[
            "atftp",
            "--get",
            "--remote-file",
            LOADER,
            "--local-file",
            &path,
            "10.77.0.1",
        ],
        &[
            "atftp",
            "--option",
            "blksize 1468",
            "--option",
            "windowsize 16",
            "--get",
            "--remote-file",
            LOADER,
            "--local-file",
            &path,
            "10.77.0.1",
        ],
        &[
            "curl",
            "-sS",
            "--tftp-blksize",
            "1468",
            "-o",
            &path,
            "tftp://10.77.0.1/undionly.kpxe",
        ],
    ];
    for words in cases {
        fs::remove_file(&target).ok();
        assert_eq!(
            fetched(&rig.run(words), &target),
            artifact.digest,
            "{words:?}"
        );
    }
    let missing = rig.run(&[
        "curl",
        "-sS",
        "-o",
        &path,
        "tftp://10.77.0.1/no-such-loader",
    ]);
    assert_eq!(
        missing.status.code(),
        Some(68),
        "curl: {}",
        String::from_utf8_lossy(&missing.stderr)
    );
}

#[test]
fn curl_fetches_exact_ranges_of_artifacts() {
    if !need::has(&["curl"]) {
        return;
    }
    let (artifact, bytes) = loader();
    let rig = Rig::new(SITE);
    rig.set_address("10.77.0.2/16");
    let url = format!("http://10.77.0.1/blob/{}", artifact.digest);
    let get = |more: &[&str]| run(rig.client.command("curl").arg("-sS").args(more).arg(&url));
    let last = bytes.len() - 1;
    let whole = get(&["-w", "%{stderr}%{http_code}"]);
    assert_eq!(String::from_utf8_lossy(&whole.stderr), "200");
    assert_eq!(whole.stdout, bytes);
    let cases = [
        ("0-0".to_owned(), &bytes[..1]),
        ("10-4105".to_owned(), &bytes[10..=4105]),
        (format!("{last}-"), &bytes[last..]),
        ("-7".to_owned(), &bytes[bytes.len() - 7..]),
    ];
    for (range, expected) in cases {
        let part = get(&["-r", &range, "-w", "%{stderr}%{http_code}"]);
        assert_eq!(String::from_utf8_lossy(&part.stderr), "206", "{range}");
        assert_eq!(part.stdout, expected, "{range}");
    }
    let beyond = get(&[
        "-r",
        &format!("{}-", bytes.len()),
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ]);
    assert_eq!(String::from_utf8_lossy(&beyond.stdout), "416");
    let head = String::from_utf8_lossy(&get(&["-I"]).stdout).to_lowercase();
    assert!(
        head.contains(&format!("content-length: {}", bytes.len())),
        "{head}"
    );
    let boot = run(rig
        .client
        .command("curl")
        .args(["-sSf", &format!("http://10.77.0.1/boot/{LOADER}")]));
    assert_eq!(boot.stdout, bytes);
}

#[test]
fn malformed_packets_are_counted_and_nothing_breaks() {
    if !need::has(&["bash", "curl", "udhcpc"]) {
        return;
    }
    let mut rig = Rig::new(SITE);
    rig.set_address("10.77.0.2/16");
    let mut long_address = vec![0; 300];
    // A request whose hardware address is longer than its field: what panics others' readers.
    long_address[..4].copy_from_slice(&[1, 1, 17, 0]);
    long_address[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    let dhcp = [
        vec![0xff],
        vec![1; 20],
        vec![0; 240],
        vec![0x41; 1400],
        long_address,
    ];
    rig.send(67, &dhcp);
    rig.await_count(&["malformed"], 5.0);
    let tftp = [
        vec![0],
        vec![0, 1],
        b"\0\x01no-end".to_vec(),
        vec![0, 9, 9],
        vec![0xff; 600],
    ];
    rig.send(69, &tftp);
    rig.await_count(&["transfers_total", "tftp"], 5.0);
    assert!(rig.is_serving());
    rig.set_mac("52:54:00:77:00:01");
    assert_eq!(udhcpc(&rig).as_deref(), Some("10.77.0.11"));
}

#[test]
fn a_port_in_use_is_named() {
    let mut rig = Rig::new(SITE);
    let second = lab::appliance::Place {
        data: rig.path("other"),
        log: rig.path("other.log"),
        ..rig.place.clone()
    };
    let Err(Error::Ended(said)) = second.start(&rig.rack) else {
        panic!("a second appliance must not start");
    };
    assert!(
        said.contains("in use")
            && (said.contains("67") || said.contains("80") || said.contains("69")),
        "{said}"
    );
    assert!(rig.is_serving());
}

#[test]
fn a_site_with_mistakes_is_refused_with_every_line() {
    let rig = Rig::new(SITE);
    let wrong = SITE
        .replace("lease = \"10m\"", "leese = \"10m\"")
        .replace("10.77.0.11", "10.99.0.11");
    fs::write(rig.place.site.join("site.toml"), wrong).expect("the site is written");
    let output = run(std::process::Command::new(&rig.place.netboot)
        .arg("check")
        .arg("--site")
        .arg(&rig.place.site));
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("leese") && said.contains("site.toml:12"),
        "{said}"
    );
}
