//! A good site, and everything that can be wrong with one.

use std::net::Ipv4Addr;

use super::*;

mod operate;

const GOOD: &str = r#"
[site]
name = "lab"
[appliance]
http-port = 8080
[[network]]
name = "rack"
subnet = "10.77.0.0/24"
appliance = "10.77.0.1"
pool = { first = "10.77.0.100", last = "10.77.0.199" }
strangers = "lease"
router = "10.77.0.254"
[role.web]
image = "host"
command-line = "quiet"
ssh.keys = ["ssh-ed25519 AAAArole"]
[[host]]
name = "bios1"
macs = ["52:54:00:77:00:01"]
address = "10.77.0.11"
role = "web"
ssh.keys = ["ssh-ed25519 AAAAhost"]
[ssh]
keys = ["ssh-ed25519 AAAAsite"]
"#;

fn check(texts: &[&str]) -> Result<Site, Vec<String>> {
    let files: Vec<_> = (1..)
        .zip(texts)
        .map(|(number, text)| SourceFile {
            path: format!("{number}.toml").into(),
            text: (*text).into(),
        })
        .collect();
    Site::check(&files).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_good_site_answers_questions() {
    let site = check(&[GOOD, "[ssh]\nkeys = [\"ssh-rsa AAAAmore\"]"]).unwrap();
    let host = site.host("bios1").unwrap();
    let mac = "52:54:00:77:00:01".parse().unwrap();
    assert_eq!(site.host_by_mac(mac), Some(host));
    assert_eq!(site.reserved(Ipv4Addr::new(10, 77, 0, 11)), Some(host));
    let network = site.network_of(Ipv4Addr::new(10, 77, 0, 11)).unwrap();
    assert_eq!(&*network.name, "rack");
    assert_eq!(
        (network.mode, network.lease),
        (Mode::Authoritative, Duration::from_mins(10))
    );
    assert_eq!(site.network_of(Ipv4Addr::new(10, 78, 0, 11)), None);
    assert_eq!(site.url(network), "http://10.77.0.1:8080");
    assert!(site.is_appliance(Ipv4Addr::new(10, 77, 0, 1)));
    let role = site.role_of(host).unwrap();
    assert_eq!(
        (&*role.image.name, role.command_line.as_deref()),
        ("host", Some("quiet"))
    );
    let keys: Vec<_> = host
        .login_keys
        .iter()
        .map(|key| &key[key.len() - 4..])
        .collect();
    assert_eq!(keys, ["site", "more", "role", "host"]);
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let first = r#"
[site]
name = "Lab"
colour = 1
[[network]]
name = "rack"
subnet = "10.77.0.1/24"
appliance = "10.77.0.1"
mode = "both"
lease = "10"
"#;
    let second = r#"
[[host]]
name = "a"
macs = ["52:54:00:77:00:01", 7, "52:54:0:77:0:1"]
role = "web"
adress = "10.77.0.11"
"#;
    let problems = check(&[first, second]).unwrap_err();
    let expected = [
        "1.toml:3:8: `name`: `Lab` is not a name: at most 63 of a-z, 0-9 and `-`, with a letter or digit at both ends",
        "1.toml:4:1: unknown key `colour` in [site]; it may have: name, parameters",
        "1.toml:7:10: `subnet`: `10.77.0.1/24` has host bits; its subnet is `10.77.0.0/24`",
        "1.toml:9:8: `mode`: expected `authoritative` or `proxy`",
        "1.toml:10:9: `lease`: `10` is not a time such as `90s`, `10m`, `12h` or `7d`",
        "2.toml:4:30: `macs` must be a list of strings, and is an integer",
        "2.toml:4:33: `macs`: `52:54:0:77:0:1` is not a hardware address such as `52:54:00:00:00:01`",
        "2.toml:5:8: there is no role `web`",
        "2.toml:6:1: unknown key `adress` in [[host]] `a`; it may have: name, macs, guid, address, role, ssh, rack, environment, labels, protected, parameters, bmc",
    ];
    assert_eq!(problems, expected);
}

/// Adds a second file to the good site, and looks at what is told first.
fn first_problem(name: &str, text: &str, expected: &str) {
    let problems = check(&[GOOD, text]).unwrap_err();
    assert!(problems[0].starts_with(expected), "{name}: {problems:#?}");
}

#[test]
fn each_contradiction_of_a_host_or_role_is_a_problem() {
    let host = |name: &str, mac: &str, address: &str| {
        format!(
            "[[host]]\nname = \"{name}\"\nmacs = [\"{mac}\"]\naddress = \"{address}\"\nrole = \"web\"\n"
        )
    };
    let mac = "52:54:00:77:00:02";
    let cases = [
        ("syntax", "a = b".to_owned(), "2.toml:1:5: "),
        (
            "same mac",
            host("b", "52-54-00-77-00-01", "10.77.0.12"),
            "2.toml:3:9: hardware address 52:54:00:77:00:01 is given twice",
        ),
        (
            "same address",
            host("b", mac, "10.77.0.11"),
            "2.toml:4:11: address 10.77.0.11 is given twice",
        ),
        (
            "same name",
            host("bios1", mac, "10.77.0.12"),
            "2.toml:2:8: host `bios1` is given twice",
        ),
        (
            "in the pool",
            host("b", mac, "10.77.0.150"),
            "2.toml:4:11: address 10.77.0.150 is in the pool of network `rack`",
        ),
        (
            "in no network",
            host("b", mac, "10.1.0.150"),
            "2.toml:4:11: address 10.1.0.150 is in no network of the site",
        ),
        (
            "the router's",
            host("b", mac, "10.77.0.254"),
            "2.toml:4:11: address 10.77.0.254 is the router's",
        ),
        (
            "the broadcast",
            host("b", mac, "10.77.0.255"),
            "2.toml:4:11: address 10.77.0.255 names the subnet 10.77.0.0/24 or its broadcast",
        ),
        (
            "a group's mac",
            host("b", "01:00:5e:00:00:01", "10.77.0.12"),
            "2.toml:3:9: 01:00:5e:00:00:01 is no interface's own address",
        ),
        (
            "no macs",
            "[[host]]\nname = \"b\"\nmacs = []\nrole = \"web\"\naddress = \"10.77.0.12\""
                .to_owned(),
            "2.toml:1:1: `macs`: a host has at least one hardware address",
        ),
        (
            "second name",
            "[site]\nname = \"other\"".to_owned(),
            "2.toml:2:8: the site's name is given twice",
        ),
        (
            "second role",
            "[role.web]\nimage = \"x\"".to_owned(),
            "2.toml:1:7: role `web` is given twice",
        ),
        (
            "role without image",
            "[role.db]".to_owned(),
            "2.toml:1:1: [role.db] lacks `image`",
        ),
        (
            "bad command line",
            "[role.db]\nimage = \"x\"\ncommand-line = \"a ${b}\"".to_owned(),
            "2.toml:3:16: `command-line`: ",
        ),
        (
            "port",
            "[appliance]\nhttp-port = 0".to_owned(),
            "2.toml:1:1: [appliance] is given twice",
        ),
    ];
    for (name, text, expected) in cases {
        first_problem(name, &text, expected);
    }
}

#[test]
fn each_contradiction_of_a_network_is_a_problem() {
    let network = |lines: &str| format!("[[network]]\nname = \"more\"\n{lines}");
    let cases = [
        (
            "overlap",
            network("subnet = \"10.77.0.128/25\"\nappliance = \"10.77.0.129\""),
            "2.toml:3:10: an address of `10.77.0.0/24` and `10.77.0.128/25` is given twice",
        ),
        (
            "appliance elsewhere",
            network("subnet = \"10.78.0.0/24\"\nappliance = \"10.77.0.1\""),
            "2.toml:4:13: the appliance's address 10.77.0.1 is no host's of 10.78.0.0/24; a network behind a relay says `relayed = true`",
        ),
        (
            "pool outside",
            network(
                "subnet = \"10.78.0.0/24\"\nappliance = \"10.78.0.1\"\npool = { first = \"10.78.0.9\", last = \"10.78.1.9\" }",
            ),
            "2.toml:5:8: the pool reaches out of 10.78.0.0/24",
        ),
        (
            "pool backwards",
            network(
                "subnet = \"10.78.0.0/24\"\nappliance = \"10.78.0.1\"\npool = { first = \"10.78.0.9\", last = \"10.78.0.2\" }",
            ),
            "2.toml:5:8: the pool's first address 10.78.0.9 is above its last 10.78.0.2",
        ),
        (
            "pool over us",
            network(
                "subnet = \"10.78.0.0/24\"\nappliance = \"10.78.0.1\"\npool = { first = \"10.78.0.1\", last = \"10.78.0.2\" }",
            ),
            "2.toml:5:8: the pool holds the appliance's address 10.78.0.1",
        ),
        (
            "proxy with a pool",
            network(
                "subnet = \"10.78.0.0/24\"\nappliance = \"10.78.0.1\"\nmode = \"proxy\"\npool = { first = \"10.78.0.9\", last = \"10.78.0.9\" }",
            ),
            "2.toml:6:8: a proxy gives no addresses, so it has no pool",
        ),
        (
            "lease of nothing",
            network("subnet = \"10.78.0.0/24\"\nappliance = \"10.78.0.1\"\nstrangers = \"lease\""),
            "2.toml:5:13: `strangers = \"lease\"` needs a pool to lease from",
        ),
        (
            "eternal lease",
            network("subnet = \"10.78.0.0/24\"\nappliance = \"10.78.0.1\"\nlease = \"999d\""),
            "2.toml:5:9: a lease lasts 60s to 366d",
        ),
    ];
    for (name, text, expected) in cases {
        first_problem(name, &text, expected);
    }
}

#[test]
fn a_duplicate_names_the_first_place() {
    let file = SourceFile {
        path: "a.toml".into(),
        text: GOOD.into(),
    };
    let again = SourceFile {
        path: "b.toml".into(),
        text: "[site]\nname = \"lab\"".into(),
    };
    let problems = Site::check(&[file, again]).unwrap_err();
    assert_eq!(
        problems[0].first.as_ref().unwrap().to_string(),
        "a.toml:3:8"
    );
}

#[test]
fn nothing_is_no_site() {
    assert_eq!(check(&[]).unwrap_err(), ["site:1:1: the site lacks `site`"]);
    assert_eq!(
        check(&[""]).unwrap_err(),
        ["1.toml:1:1: the site lacks `site`"]
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_site_or_has_problems(text in "[a-z\\[\\]=\" .0-9\n]{0,200}") {
        if let Err(problems) = check(&[&text]) {
            proptest::prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn any_damage_to_a_site_is_told_and_not_more(at in 0..GOOD.len(), letter in "[ -~\n]") {
        let mut text = GOOD.to_owned();
        text.replace_range(at..=at, &letter);
        if let Err(problems) = check(&[&text]) {
            proptest::prop_assert!(!problems.is_empty() && problems.len() < 20);
        }
    }
}
