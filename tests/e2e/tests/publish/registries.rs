//! Registries as targets: a strict one of our own that counts, and docker's, which skopeo reads.

use std::process::Command;
use std::sync::Arc;

use cloud::fake::oci::Registry;
use cloud::fake::{Act, Fault, Kind, Reply, When};
use e2e::rig::run;
use image_manifest::Digest;

use super::desk::{Desk, RUNTIME, json, listen, said};

const IMAGE: &str = "base";

fn targets(desk: &Desk, url: &str) {
    let host = url.trim_start_matches("http://");
    desk.targets(&format!(
        r#"
[[oci]]
name = "registry"
repository = "{host}/team/base"
tags = ["{{version}}-run", "latest"]
"#
    ));
}

#[test]
fn a_second_publish_changes_nothing_and_the_record_knows_every_name() {
    let desk = Desk::of(IMAGE);
    let registry = Arc::new(Registry::open());
    let server = listen(registry.clone());
    targets(&desk, &server.url());
    let plan = json(desk.verb("publish").arg("--plan"));
    assert_eq!(server.changes(), 0, "a plan only looks");
    let steps = plan["steps"].as_array().expect("steps").len();
    assert!(steps > 5, "{plan}");
    let staged = desk.publish(&["--until", "verified"]);
    assert_eq!(staged["stage"], "verified");
    assert!(!registry.tags("team/base").contains_key("latest"));
    let promoted = json(
        desk.verb("promote")
            .args(["--to", "current", "--boot-check", "skip"]),
    );
    assert_eq!(promoted["stage"], "current");
    let tags = registry.tags("team/base");
    let container: Digest = promoted["container"]
        .as_str()
        .expect("a digest")
        .parse()
        .expect("a digest");
    assert_eq!(tags.get("latest"), Some(&container));
    let version = promoted["version"].as_str().expect("a version");
    assert_eq!(
        tags.get(version).map(ToString::to_string).as_deref(),
        promoted["manifest"].as_str()
    );

    server.reset();
    let again = desk.publish(&[]);
    let changing: Vec<_> = server
        .calls()
        .into_iter()
        .filter(|(called, _)| called.kind == Kind::Changing)
        .collect();
    assert!(changing.is_empty(), "{changing:?}");
    assert_eq!(again, promoted);
    let nothing = json(desk.verb("publish").arg("--plan"));
    assert_eq!(nothing["steps"], serde_json::json!([]), "{nothing}");

    drop(server);
    for what in [
        container.to_string(),
        promoted["tree"].as_str().expect("a tree").to_owned(),
    ] {
        let mut find = Command::new(e2e::shop::workspace().binary("imagebuild"));
        find.current_dir(desk.path(""))
            .args(["where", &what, "--store", "store", "--json"]);
        let found = json(&mut find);
        assert_eq!(found[0]["record"], promoted, "{what}, offline");
    }
}

#[test]
fn a_publish_that_is_killed_at_any_change_is_finished_by_the_next() {
    let desk = Desk::of(IMAGE);
    let whole = Arc::new(Registry::open());
    let server = listen(whole.clone());
    targets(&desk, &server.url());
    desk.publish(&[]);
    let changes = server.changes();
    let expected = whole.tags("team/base");
    assert!(changes > 5, "{changes}");
    for skip in 0..changes {
        let when = if skip % 2 == 0 {
            When::Before
        } else {
            When::After
        };
        let registry = Arc::new(Registry::open());
        let server = listen(registry.clone());
        let desk = Desk::of(IMAGE);
        targets(&desk, &server.url());
        server.fault(Fault {
            label: None,
            skip,
            times: 1,
            when,
            act: Act::Hang,
        });
        let mut publish = desk.verb("publish");
        let mut publish = publish
            .args(["--boot-check", "skip"])
            .spawn()
            .expect("it starts");
        RUNTIME.block_on(server.stopped());
        publish.kill().expect("it is killed");
        publish.wait().expect("it ended");
        desk.publish(&[]);
        assert_eq!(
            registry.tags("team/base"),
            expected,
            "killed at change {skip}"
        );
    }
}

#[test]
fn who_may_not_write_is_told_at_once_and_throttling_is_waited_out() {
    let desk = Desk::of(IMAGE);
    let server = listen(Arc::new(Registry::open()));
    targets(&desk, &server.url());
    let answer = |label: &str, times, reply| Fault {
        label: Some(label.to_owned()),
        skip: 0,
        times,
        when: When::Before,
        act: Act::Answer(reply),
    };
    let denied = Reply::json(
        403,
        &serde_json::json!({"errors": [{"code": "DENIED", "message": "no"}]}),
    );
    server.fault(answer("oci:POST:upload-begin", u64::MAX, denied));
    let begun = std::time::Instant::now();
    let output = run(desk.verb("publish").args(["--boot-check", "skip"]));
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(
        said(&output).contains("the credentials lack `push`"),
        "{}",
        said(&output)
    );
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    server.faults().faults.clear();
    let later = Reply::empty(429).with("retry-after", "1");
    server.fault(answer("oci:POST:upload-begin", 2, later));
    desk.publish(&[]);
}
