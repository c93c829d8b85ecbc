//! Two sites, and what is told of them.

use super::*;
use crate::site::SourceFile;

const OLD: &str = r#"
[site]
name = "lab"
parameters = { ntp = "10.0.0.1" }
[[network]]
name = "rack"
subnet = "10.77.0.0/24"
appliance = "10.77.0.1"
[role.web]
image = "host"
secrets = ["db"]
[role.web.deploy]
deadline = "10m"
[role.db]
image = "host"
[secret.db]
file = "secrets/db.age"
[secret.bmc]
env = "BMC"
[environment.staging]
[environment.production]
[environment.production.images]
web = "host"
[[host]]
name = "web1"
macs = ["52:54:00:77:00:01"]
address = "10.77.0.11"
role = "web"
environment = "staging"
[[host]]
name = "web2"
macs = ["52:54:00:77:00:02"]
address = "10.77.0.12"
role = "web"
environment = "production"
[host.bmc]
protocol = "ipmi"
address = "10.77.0.102"
user = "operator"
password = "bmc"
[[host]]
name = "db1"
macs = ["52:54:00:77:00:03"]
address = "10.77.0.13"
role = "db"
"#;

fn site(text: &str) -> Site {
    let file = SourceFile {
        path: "site.toml".into(),
        text: text.into(),
    };
    Site::check(&[file]).unwrap()
}

fn compare(old: &str, new: &str) -> Difference {
    let files = BTreeMap::new();
    let (old, new) = (site(old), site(new));
    let version = |site| Version {
        site,
        files: &files,
    };
    difference(version(&old), version(&new))
}

#[test]
fn a_site_does_not_differ_from_itself_in_other_words() {
    assert!(compare(OLD, OLD).is_empty());
    let commented = OLD.replace("\n[", "\n# a comment\n[");
    assert_eq!(compare(OLD, &commented), Difference::default());
    assert_eq!(compare(OLD, OLD).to_string(), "");
}

#[test]
fn every_change_is_told_with_what_follows() {
    let cases = [
        (
            "a role's image reaches the hosts whose environment has none of its own",
            ("image = \"host\"\nsecrets", "image = \"next\"\nsecrets"),
            "~ role web\n    image: host -> next\nat their next deployment, these boot another image:\n  web1: host -> next\n",
        ),
        (
            "an environment's image reaches its hosts",
            ("web = \"host\"", "web = \"next\""),
            "~ environment production\n    images.web: host -> next\nat their next deployment, these boot another image:\n  web2: host -> next\n",
        ),
        (
            "another environment is another image",
            ("environment = \"production\"", "environment = \"staging\""),
            "~ host web2\n    environment: production -> staging\n",
        ),
        (
            "a port needs a restart",
            ("[site]", "[appliance]\nhttp-port = 8080\n[site]"),
            "~ the appliance\n    http-port: 80 -> 8080\nserved only after a restart: http-port of the appliance\n",
        ),
        (
            "a lease does not",
            (
                "appliance = \"10.77.0.1\"",
                "appliance = \"10.77.0.1\"\nlease = \"1h\"",
            ),
            "~ network rack\n    lease: 10m -> 1h\n",
        ),
        (
            "a deadline",
            ("deadline = \"10m\"", "deadline = \"20m\""),
            "~ role web\n    deploy.deadline: 10m -> 20m\n",
        ),
        (
            "a parameter that goes",
            ("parameters = { ntp = \"10.0.0.1\" }", ""),
            "~ the site\n    parameters.ntp: 10.0.0.1 -> nothing\n",
        ),
        (
            "a BMC",
            ("10.77.0.102", "10.77.0.103"),
            "~ host web2\n    bmc.address: 10.77.0.102 -> 10.77.0.103\n",
        ),
        (
            "a key of the site is told at each host",
            ("[site]", "[ssh]\nkeys = [\"ssh-rsa AAAAsite\"]\n[site]"),
            "~ host db1\n    ssh.keys of the site: ssh-rsa AAAAsite\n~ host web1\n    ssh.keys of the site: ssh-rsa AAAAsite\n~ host web2\n    ssh.keys of the site: ssh-rsa AAAAsite\n",
        ),
        (
            "a renamed host is another",
            ("name = \"db1\"", "name = \"db9\""),
            "- host db1\n+ host db9\n    address: 10.77.0.13\n    macs: 52:54:00:77:00:03\n    protected: false\n    role: db\nno longer served, and forgotten: db1\n",
        ),
    ];
    for (name, (from, to), expected) in cases {
        let new = OLD.replace(from, to);
        assert_ne!(new, OLD, "{name}");
        assert_eq!(compare(OLD, &new).to_string(), expected, "{name}");
    }
}

#[test]
fn a_file_beside_the_site_is_compared_by_its_digest() {
    let site = site(OLD);
    let file = |content: &[u8]| BTreeMap::from([("secrets/db.age".into(), Digest::of(content))]);
    let (old, new) = (file(b"old"), file(b"new"));
    let version = |files| Version { site: &site, files };
    assert!(difference(version(&old), version(&old)).is_empty());
    let changed = difference(version(&old), version(&new));
    assert_eq!(
        changed.changes[0].subject,
        Subject::File("secrets/db.age".into())
    );
}

#[test]
fn a_difference_survives_json() {
    let new = OLD.replace("db1", "db2").replace("10m", "11m");
    let told = compare(OLD, &new);
    let json = serde_json::to_string(&told).unwrap();
    assert_eq!(serde_json::from_str::<Difference>(&json).unwrap(), told);
}

proptest::proptest! {
    /// Whatever is damaged and still a site: comparing is empty exactly when the facts are equal,
    /// and the way back tells the same subjects.
    #[test]
    fn a_difference_is_the_same_both_ways(at in 0..OLD.len(), letter in "[a-z0-9.]") {
        let mut text = OLD.to_owned();
        text.replace_range(at..=at, &letter);
        let file = SourceFile { path: "site.toml".into(), text: text.as_str().into() };
        if Site::check(&[file]).is_ok() {
            let (there, back) = (compare(OLD, &text), compare(&text, OLD));
            let subjects = |told: &Difference| -> Vec<_> {
                told.changes.iter().map(|change| change.subject.clone()).collect()
            };
            proptest::prop_assert_eq!(subjects(&there), subjects(&back));
            proptest::prop_assert_eq!(there.images.len(), back.images.len());
            proptest::prop_assert!(compare(&text, &text).is_empty());
        }
    }
}
