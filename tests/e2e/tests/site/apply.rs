//! `plan`, `apply`, `promote`: what a site directory changes, and that nothing else does.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::desk::{admin, ask, audited};
use e2e::haunted::build_images;
use e2e::need;
use e2e::rig::{Rig, printed, run};
use e2e::shop;
use serde_json::json;

/// A site with two environments, and comments that people wrote.
const SITE: &str = r#"# The rack downstairs.
[site]
name = "applied"

[[network]]
name = "rack"
subnet = "10.77.0.0/16"
appliance = "10.77.0.1"
mode = "authoritative"

[role.web]
image = "host"   # what nobody chose otherwise

[role.web.deploy]
deadline = "30s"

[environment.staging.images]
web = "next"

[environment.production]   # paying customers
[environment.production.images]
web  =  "host"   # changed by `netboot promote`, read by people

[[host]]
name = "bios1"
macs = ["52:54:00:77:00:01"]
address = "10.77.0.11"
role = "web"
environment = "production"

[[host]]
name = "web2"
macs = ["52:54:00:77:00:02"]
address = "10.77.0.12"
role = "web"
environment = "staging"
"#;

fn rack() -> Rig {
    build_images();
    Rig::with_store(SITE, &shop::state().store())
}

/// Runs a verb on a site directory; returns its exit code, what it printed, and what it said.
fn on_site(rig: &Rig, words: &[&str], site: &Path) -> (i32, String, String) {
    let site = site.display().to_string();
    let output = rig.netboot(&[words, &["--site", &site]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("it ends by itself");
    (code, text(&output.stdout), text(&output.stderr))
}

fn edit(site: &Path, changes: &[(&str, &str)]) {
    let path = site.join("site.toml");
    let mut text = fs::read_to_string(&path).expect("a site");
    for (from, to) in changes {
        assert!(text.contains(from), "no `{from}`");
        text = text.replace(from, to);
    }
    fs::write(&path, text).expect("a site");
}

fn assert_nothing_changes(rig: &Rig, site: &Path) {
    let (code, printed, said) = on_site(rig, &["plan"], site);
    assert_eq!(
        (code, &*printed, &*said),
        (0, "", "nothing changes\n"),
        "the plan"
    );
    let (_, json, _) = on_site(rig, &["plan", "--json"], site);
    let plan: serde_json::Value = serde_json::from_str(&json).expect("a plan");
    assert_eq!(plan["empty"], true, "{plan}");
    assert_eq!(plan["from"], plan["to"], "{plan}");
}

fn names(rig: &Rig) -> Vec<String> {
    let hosts = ask(rig, &admin(rig), "/v1/hosts", None).body;
    let hosts = hosts.as_array().expect("hosts");
    let name = |host: &serde_json::Value| host["name"].as_str().unwrap_or("").to_owned();
    hosts.iter().map(name).collect()
}

#[test]
fn a_plan_shows_the_difference_and_none_is_left_after_apply() {
    if !need::has(&["curl"]) {
        return;
    }
    let mut rig = rack();
    let site = rig.place.site.clone();
    assert_nothing_changes(&rig, &site);
    edit(
        &site,
        &[
            ("\"30s\"", "\"40s\""),
            ("name = \"web2\"", "name = \"web3\""),
        ],
    );
    let (code, planned, said) = on_site(&rig, &["plan"], &site);
    assert_eq!(code, 0, "{said}");
    for line in [
        "~ role web",
        "    deploy.deadline: 30s -> 40s",
        "- host web2",
        "+ host web3",
        "no longer served, and forgotten: web2",
    ] {
        assert!(planned.lines().any(|one| one == line), "{line}\n{planned}");
    }
    let (_, json, _) = on_site(&rig, &["plan", "--json"], &site);
    let plan: serde_json::Value = serde_json::from_str(&json).expect("a plan");
    assert_eq!(plan["empty"], false, "{plan}");
    let changes = plan["difference"]["changes"].as_array();
    assert_eq!(changes.map(Vec::len), Some(3), "{plan}");

    let (code, dry, _) = on_site(&rig, &["apply", "--dry-run"], &site);
    assert_eq!((code, &dry), (0, &planned), "a dry run shows the plan");
    assert_eq!(names(&rig), ["bios1", "web2"], "a dry run does nothing");

    let (code, applied, said) = on_site(&rig, &["apply"], &site);
    assert_eq!((code, &applied), (0, &planned), "{said}");
    assert_eq!(names(&rig), ["bios1", "web3"]);
    assert_nothing_changes(&rig, &site);
    let before = audited(&rig);
    let (code, again, said) = on_site(&rig, &["apply"], &site);
    assert_eq!((code, &*again), (0, ""), "{said}");
    assert_eq!(audited(&rig), before, "what changes nothing is no change");
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(before[0]["action"], "site apply", "{before:?}");

    rig.kill();
    fs::write(site.join("site.toml"), SITE).expect("a site");
    rig.serve().expect("it starts again");
    assert_eq!(names(&rig), ["bios1", "web3"], "what was applied is served");
    let (_, reverse, _) = on_site(&rig, &["plan"], &site);
    assert!(reverse.contains("deploy.deadline: 40s -> 30s"), "{reverse}");
}

/// What is wrong on purpose: the file's text, and what it is turned into, with its line and column.
const WRONG: [(&str, &str, &str); 4] = [
    ("\"authoritative\"", "\"sometimes\"", "9:8"),
    ("\"10.77.0.11\"", "\"10.99.0.11\"", "27:11"),
    ("web = \"next\"", "wep = \"next\"", "18:1"),
    (
        "environment = \"staging\"",
        "environment = \"stagging\"",
        "36:15",
    ),
];

#[test]
fn a_wrong_site_is_told_with_every_line_and_changes_nothing() {
    if !need::has(&["curl", "sha256sum"]) {
        return;
    }
    let rig = rack();
    let site = rig.place.site.clone();
    edit(&site, &[("\"30s\"", "\"40s\"")]);
    assert_eq!(on_site(&rig, &["apply"], &site).0, 0);
    let kept = sums(&rig);
    let served = ask(&rig, &admin(&rig), "/v1/site", None).body;

    let changes = WRONG.map(|(from, to, _)| (from, to));
    edit(&site, &changes);
    fs::write(site.join("more.toml"), "[role.db]\nimage = 7\n").expect("a file");
    let path = site.display();
    let mut places = vec![format!("{path}/more.toml:2:9: ")];
    places.extend(WRONG.map(|(_, _, at)| format!("{path}/site.toml:{at}: ")));
    for verb in [
        &["check"][..],
        &["plan"],
        &["apply"],
        &["apply", "--dry-run"],
    ] {
        let (code, printed, said) = on_site(&rig, verb, &site);
        assert_eq!((code, &*printed), (3, ""), "{verb:?}: {said}");
        for place in &places {
            assert!(said.contains(place), "{verb:?}: no {place} in\n{said}");
        }
        assert!(said.contains("the site has 5 problems"), "{verb:?}: {said}");
    }

    // Whoever asks without our client is told the same.
    let text = |name: &str| fs::read_to_string(site.join(name)).expect("a file");
    let sent = json!({"files": [
        {"path": "site.toml", "text": text("site.toml")},
        {"path": "more.toml", "text": text("more.toml")},
    ]});
    for route in ["/v1/site/plan", "/v1/site"] {
        let answer = ask(&rig, &admin(&rig), route, Some(&sent));
        assert_eq!(answer.status, 422, "{:?}", answer.body);
        let problems = answer.body["problems"].to_string();
        assert_eq!(answer.body["problems"].as_array().map(Vec::len), Some(5));
        for place in WRONG.map(|(_, _, at)| format!("site.toml:{at}: ")) {
            assert!(problems.contains(&place), "{route}: {place}: {problems}");
        }
    }
    assert_eq!(ask(&rig, &admin(&rig), "/v1/site", None).body, served);
    assert_eq!(sums(&rig), kept, "no file of the applied site changed");
}

/// Sums the files of the applied site.
fn sums(rig: &Rig) -> String {
    let find = "find site -type f | sort | xargs sha256sum && readlink site/current";
    let mut sh = Command::new("sh");
    let sums = printed(&run(sh.args(["-c", find]).current_dir(&rig.place.data)));
    assert!(sums.contains("site.toml"), "{sums}");
    sums
}

#[test]
fn a_promotion_changes_one_line_and_shows_which_hosts_it_means() {
    if !need::has(&["diff"]) {
        return;
    }
    let rig = rack();
    let site = rig.place.site.clone();
    let (before, after) = (rig.path("before.toml"), site.join("site.toml"));
    fs::copy(&after, &before).expect("a copy");
    let promote = ["promote", "web", "--from", "staging", "--to", "production"];
    let (code, dry, said) = on_site(&rig, &[&promote[..], &["--dry-run"]].concat(), &site);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read_to_string(&after).expect("a site"), SITE);

    let (code, shown, said) = on_site(&rig, &promote, &site);
    assert_eq!((code, &shown), (0, &dry), "{said}");
    let old = "web  =  \"host\"   # changed by `netboot promote`, read by people";
    let new = old.replace("host", "next");
    for line in [&format!("-{old}"), &format!("+{new}")] {
        assert!(shown.lines().any(|one| one == line), "{line}\n{shown}");
    }
    let diff = run(Command::new("diff").arg(&before).arg(&after));
    let told = String::from_utf8_lossy(&diff.stdout).into_owned();
    assert_eq!(told, format!("22c22\n< {old}\n---\n> {new}\n"));

    let (_, planned, _) = on_site(&rig, &["plan"], &site);
    let boots = "at their next deployment, these boot another image:\n  bios1: host -> next\n";
    assert!(planned.ends_with(boots), "{planned}");
    assert!(!planned.contains("web2"), "{planned}");

    let (code, shown, said) = on_site(&rig, &promote, &site);
    assert_eq!((code, &*shown), (0, ""), "{said}");
    assert!(said.contains("already"), "{said}");
}
