//! How hosts are powered, deployed and told apart: a good site, and everything that can be wrong.

use super::*;
use crate::lifecycle::Policy;
use crate::selector::{Selector, SelectorError};

const OPERATED: &str = r#"
[site]
name = "lab"
parameters = { ntp = "10.0.0.1", level = "site", a = 1 }
[appliance]
https-port = 8443
api = "10.77.0.1:9443"
[limits]
hosts-per-hour = 30
percent-of-role = 25
[[network]]
name = "rack"
subnet = "10.77.0.0/24"
appliance = "10.77.0.1"
pool = { first = "10.77.0.100", last = "10.77.0.199" }
router = "10.77.0.254"
[secret.bmc]
file = "secrets/bmc.age"
[secret.kg]
credential = "kg"
[secret.db]
env = "DB_PASSWORD"
[role.web]
image = "host"
secrets = ["db"]
parameters = { level = "role", workers = 4 }
[role.web.deploy]
deadline = "10m"
health-for = "1m"
max-rollbacks = 2
shutdown = "0s"
boot = "http"
heal = ["power", "tree"]
[environment.staging]
parameters = { level = "environment", workers = 2, debug = true }
[environment.production.images]
web = "stable"
[[host]]
name = "web1"
macs = ["52:54:00:77:00:01"]
address = "10.77.0.11"
role = "web"
rack = "r1"
environment = "staging"
labels = { tier = "front" }
protected = true
parameters = { level = "host" }
[host.bmc]
protocol = "ipmi"
address = "10.77.0.51:6230"
user = "operator"
password = "bmc"
kg = "kg"
waivers = ["ipmi-1.5"]
firmware = "bios"
boot = "pxe"
[[host]]
name = "web2"
macs = ["52:54:00:77:00:02"]
address = "10.77.0.12"
role = "web"
rack = "r2"
environment = "production"
[host.bmc]
protocol = "redfish"
address = "bmc2.example.net"
user = "operator"
password = "bmc"
system = "437XR1138R2"
"#;

fn host<'a>(site: &'a Site, name: &str) -> &'a Arc<Host> {
    site.host(name).unwrap()
}

#[test]
fn a_site_says_how_hosts_are_powered_and_deployed() {
    let site = check(&[OPERATED]).unwrap();
    let (web1, web2) = (host(&site, "web1"), host(&site, "web2"));
    let bmc = web1.bmc.as_ref().unwrap();
    assert_eq!(bmc.address.to_string(), "10.77.0.51:6230");
    assert_eq!(
        (bmc.protocol, bmc.firmware),
        (Protocol::Ipmi, BootFirmware::Bios)
    );
    assert!(bmc.waivers.contains(&Waiver::Ipmi15));
    assert_eq!(bmc.kg.as_deref(), Some("kg"));
    let bmc = web2.bmc.as_ref().unwrap();
    assert_eq!(
        (&bmc.trust, bmc.firmware),
        (&Trust::FirstUse, BootFirmware::Uefi)
    );
    assert_eq!(
        site.deploy_policy(web1).boot,
        BootMethod::Pxe,
        "its own firmware's"
    );
    let policy = site.deploy_policy(web2);
    assert_eq!((policy.boot, policy.max_rollbacks), (BootMethod::Http, 2));
    assert_eq!(policy.shutdown, Duration::ZERO);
    assert_eq!(policy.heal.len(), 2);
    assert_eq!(policy.ill_for, Duration::from_mins(2));
    assert_eq!(
        (site.limits.hosts_per_hour, site.limits.percent_of_role),
        (Some(30), 25)
    );
    assert_eq!(site.limits.percent_of_site, 50);
    assert_eq!(
        (site.appliance.https_port, site.appliance.api.port()),
        (8443, 9443)
    );
    let advice: Vec<String> = site.advice.iter().map(ToString::to_string).collect();
    let expected = "1.toml:64:1: [host.bmc] of `web2` has neither `certificate` nor `authority`: the first certificate that is seen will be believed and recorded";
    assert_eq!(advice, [expected]);
    assert_eq!(site.places.secrets["bmc"].to_string(), "1.toml:18:8");
}

#[test]
fn a_role_says_how_long_its_hosts_may_be_ill() {
    let text = OPERATED.replace("health-for = \"1m\"", "ill-for = \"7m\"");
    let site = check(&[&text]).unwrap();
    let policy = Policy::of(&site, host(&site, "web2"));
    assert_eq!(policy.ill_for, Duration::from_mins(7));
}

#[test]
fn an_environment_has_images_of_its_own() {
    let site = check(&[OPERATED]).unwrap();
    let image = |name| site.image_of(host(&site, name)).unwrap().to_string();
    assert_eq!(
        (image("web1"), image("web2")),
        ("host".to_owned(), "stable".to_owned())
    );
    let all: Vec<String> = site.images().iter().map(ToString::to_string).collect();
    assert_eq!(all, ["host", "stable"]);
}

#[test]
fn parameters_are_of_the_site_the_role_the_environment_and_the_host_in_this_order() {
    let site = check(&[OPERATED]).unwrap();
    let told = |name| serde_json::to_string(&site.parameters_of(host(&site, name))).unwrap();
    assert_eq!(
        told("web1"),
        r#"{"a":1,"debug":true,"level":"host","ntp":"10.0.0.1","workers":2}"#
    );
    assert_eq!(
        told("web2"),
        r#"{"a":1,"level":"role","ntp":"10.0.0.1","workers":4}"#
    );
}

#[test]
fn selectors_name_hosts() {
    let site = check(&[OPERATED]).unwrap();
    let cases = [
        ("all", Ok(vec!["web1", "web2"])),
        ("web2", Ok(vec!["web2"])),
        ("role=web", Ok(vec!["web1", "web2"])),
        ("role=web,rack=r1", Ok(vec!["web1"])),
        ("rack=r2 rack=r1", Ok(vec!["web1", "web2"])),
        ("environment=production", Ok(vec!["web2"])),
        ("label.tier=front", Ok(vec!["web1"])),
        ("web9", Err("`web9` selects no host of site `lab`")),
        (
            "web1 rack=r9",
            Err("`rack=r9` selects no host of site `lab`"),
        ),
        (
            "rack=r1,web2",
            Err("`rack=r1,web2` selects no host of site `lab`"),
        ),
        ("", Err("no hosts are named; `all` is every host")),
        ("role=", Err("`role=` selects nothing; ")),
        ("colour=red", Err("`colour=red` selects nothing; ")),
        ("label.=x", Err("`label.=x` selects nothing; ")),
        ("web1,,web2", Err("`web1,,web2` selects nothing; ")),
    ];
    for (text, expected) in cases {
        let selected = text.parse::<Selector>().and_then(|selector| {
            selector.check(&site)?;
            assert_eq!(selector.to_string(), text);
            Ok(selector)
        });
        match (selected, expected) {
            (Ok(selector), Ok(expected)) => {
                let found: Vec<&str> = site.select(&selector).iter().map(|it| &*it.name).collect();
                assert_eq!(found, expected, "{text}");
            }
            (Err(error), Err(expected)) => {
                assert!(error.to_string().starts_with(expected), "{text}: {error}");
            }
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }
    let many = vec!["web1"; 5000];
    assert_eq!(Selector::of(&many), Err(SelectorError::TooMany));
}

/// Replaces a part of the good site, and looks at what is told first.
fn first_problem(name: &str, (from, to): (&str, &str), expected: &str) {
    let text = OPERATED.replacen(from, to, 1);
    assert_ne!(text, OPERATED, "{name}");
    let problems = check(&[&text]).unwrap_err();
    assert!(problems[0].starts_with(expected), "{name}: {problems:#?}");
}

#[test]
fn each_contradiction_of_a_bmc_is_a_problem() {
    let cases = [
        (
            "unknown secret",
            ("password = \"bmc\"", "password = \"bmd\""),
            "1.toml:52:12: there is no secret `bmd`",
        ),
        (
            "unknown kg",
            ("kg = \"kg\"", "kg = \"key\""),
            "1.toml:53:6: there is no secret `key`",
        ),
        (
            "a shared address",
            ("bmc2.example.net\"", "10.77.0.51:6230\""),
            "1.toml:66:11: BMC 10.77.0.51:6230 is given twice",
        ),
        (
            "a host's address",
            ("10.77.0.51:6230", "10.77.0.12"),
            "1.toml:50:11: address 10.77.0.12 is host `web2`'s",
        ),
        (
            "in a pool",
            ("10.77.0.51:6230", "10.77.0.150"),
            "1.toml:50:11: address 10.77.0.150 is in the pool of network `rack`",
        ),
        (
            "the appliance's",
            ("10.77.0.51:6230", "10.77.0.1"),
            "1.toml:50:11: address 10.77.0.1 is the appliance's",
        ),
        (
            "no address",
            ("10.77.0.51:6230", "10.77.0.256"),
            "1.toml:50:11: `address`: expected an address such as",
        ),
        (
            "a port of nothing",
            ("10.77.0.51:6230", "10.77.0.51:0"),
            "1.toml:50:11: `address`: expected an address such as",
        ),
        (
            "an unknown waiver",
            ("\"ipmi-1.5\"", "\"telnet\""),
            "1.toml:54:12: `waivers`: expected `ipmi-1.5`",
        ),
        (
            "a waiver of the other protocol",
            ("system = \"437XR1138R2\"", "waivers = [\"ipmi-1.5\"]"),
            "1.toml:69:12: the waiver `ipmi-1.5` is for ipmi only",
        ),
        (
            "a key of the other protocol",
            ("kg = \"kg\"", "system = \"1\""),
            "1.toml:53:10: `system` is only for Redfish",
        ),
        (
            "kg of Redfish",
            ("system = \"437XR1138R2\"", "kg = \"kg\""),
            "1.toml:69:6: `kg` is only for IPMI",
        ),
        (
            "a long user",
            ("user = \"operator\"", "user = \"operator-of-the-rack\""),
            "1.toml:51:8: a user of IPMI has at most 16 bytes",
        ),
        (
            "a path out of the site",
            ("system = \"437XR1138R2\"", "authority = \"../ca.pem\""),
            "1.toml:69:13: `authority`: `../ca.pem` is not a path in the site directory",
        ),
        (
            "a BMC without a user",
            ("user = \"operator\"\n", ""),
            "1.toml:48:1: [host.bmc] of `web1` lacks `user`",
        ),
    ];
    for (name, change, expected) in cases {
        first_problem(name, change, expected);
    }
}

#[test]
fn each_contradiction_of_a_policy_is_a_problem() {
    let cases = [
        (
            "deadline",
            ("deadline = \"10m\"", "deadline = \"5s\""),
            "1.toml:28:12: a deadline is 30s to 24h",
        ),
        (
            "health for longer than the deadline",
            ("health-for = \"1m\"", "health-for = \"10m\""),
            "1.toml:29:14: `health-for` must be shorter than `deadline`",
        ),
        (
            "ill for days",
            ("health-for = \"1m\"", "ill-for = \"25h\""),
            "1.toml:29:11: a host may be ill for at most 24h",
        ),
        (
            "rollbacks",
            ("max-rollbacks = 2", "max-rollbacks = 9"),
            "1.toml:30:17: `max-rollbacks`: 9 is not 0 to 8",
        ),
        (
            "shutdown",
            ("shutdown = \"0s\"", "shutdown = \"2h\""),
            "1.toml:31:12: a shutdown takes at most 1h",
        ),
        (
            "boot",
            ("boot = \"http\"", "boot = \"floppy\""),
            "1.toml:32:8: `boot`: expected `pxe` or `http`",
        ),
        (
            "heal",
            ("\"tree\"]", "\"disk\"]"),
            "1.toml:33:18: `heal`: expected `power`, `tree` or `overlay`",
        ),
        (
            "percent",
            ("percent-of-role = 25", "percent-of-role = 250"),
            "1.toml:10:19: `percent-of-role`: 250 is not 1 to 100",
        ),
        (
            "limits twice",
            ("[limits]", "[limits]\n[limit]"),
            "1.toml:9:2: unknown key `limit` in a site file",
        ),
        (
            "two ports of one number",
            ("https-port = 8443", "https-port = 80"),
            "1.toml:6:14: HTTP and HTTPS need two ports",
        ),
        (
            "metrics on the API's port",
            ("api = \"10.77.0.1:9443\"", "metrics = \"127.0.0.1:9443\""),
            "1.toml:7:11: 127.0.0.1:9443 is the API's",
        ),
        (
            "an unknown environment",
            ("environment = \"staging\"", "environment = \"testing\""),
            "1.toml:44:15: there is no environment `testing`",
        ),
        (
            "an image for an unknown role",
            ("web = \"stable\"", "wed = \"stable\""),
            "1.toml:37:1: there is no role `wed`",
        ),
        (
            "a secret from two places",
            ("credential = \"kg\"", "credential = \"kg\"\nenv = \"KG\""),
            "1.toml:19:1: a secret comes from one of `file`, `env` and `credential`",
        ),
        (
            "a secret from nowhere",
            ("credential = \"kg\"", ""),
            "1.toml:19:1: [secret.kg] lacks `file`",
        ),
        (
            "an unknown secret of a role",
            ("secrets = [\"db\"]", "secrets = [\"dc\"]"),
            "1.toml:25:12: there is no secret `dc`",
        ),
        (
            "a parameter with structure",
            ("workers = 4", "workers = [4]"),
            "1.toml:26:42: `workers` must be a string, an integer, true or false, and is a list",
        ),
        (
            "a label that no selector can name",
            ("tier = \"front\"", "tier = \"front row\""),
            "1.toml:45:19: `tier`: `front row` is not a label's value",
        ),
    ];
    for (name, change, expected) in cases {
        first_problem(name, change, expected);
    }
}

#[test]
fn one_controller_may_answer_for_several_systems() {
    let systems = |first: &str, second: &str| {
        let text = OPERATED.replace(
            "protocol = \"ipmi\"\naddress = \"10.77.0.51:6230\"\nuser = \"operator\"\npassword = \"bmc\"\nkg = \"kg\"\nwaivers = [\"ipmi-1.5\"]\n",
            &format!("protocol = \"redfish\"\naddress = \"bmc2.example.net:443\"\nuser = \"o\"\npassword = \"bmc\"\n{first}\n"),
        );
        check(&[&text.replace("system = \"437XR1138R2\"", second)])
    };
    assert!(systems("system = \"1\"", "system = \"2\"").is_ok());
    for (first, second) in [("system = \"1\"", "system = \"1\""), ("", "system = \"2\"")] {
        let problems = systems(first, second).unwrap_err();
        assert!(problems[0].contains("is given twice"), "{problems:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_damage_to_an_operated_site_is_told_and_not_more(at in 0..OPERATED.len(), letter in "[ -~\n]") {
        let mut text = OPERATED.to_owned();
        text.replace_range(at..=at, &letter);
        if let Err(problems) = check(&[&text]) {
            proptest::prop_assert!(!problems.is_empty() && problems.len() < 20, "{problems:#?}");
        }
    }

    /// Any words are a selector that says itself again, or are refused.
    #[test]
    fn a_selector_reads_what_it_writes(text in "[a-z0-9=,. _-]{0,60}") {
        if let Ok(selector) = text.parse::<Selector>() {
            proptest::prop_assert_eq!(&selector.to_string().parse::<Selector>().unwrap(), &selector);
            let json = serde_json::to_string(&selector).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<Selector>(&json).unwrap(), selector);
        }
    }

    #[test]
    fn an_address_reads_what_it_writes(text in "[a-f0-9.:\\[\\]-]{0,30}") {
        if let Ok(address) = text.parse::<BmcAddress>() {
            proptest::prop_assert_eq!(address.to_string().parse::<BmcAddress>(), Ok(address));
        }
    }
}
