//! One instance is launched before anybody may use an image, judged by what it says, and terminated in any case.

use std::time::Duration;

use cloud::aws::Bounds;
use cloud::fake::aws::{Instance, Rules};
use cloud::fake::{Act, Fault, Reply, When};
use cloud::{Error, Provider as _, Stage};
use image_manifest::Digest;

use crate::bench::{Bench, advance};

const TARGET: &str = "
regions = ['eu-west-1', 'eu-north-1']
accounts = ['444455556666']
launch = { type = 't3.small' }
";
/// The same in one region.
const ONE: &str = "
regions = ['eu-west-1']
accounts = ['444455556666']
launch = { type = 't3.small' }
";
const HOME: &str = "eu-west-1";

#[tokio::test]
async fn a_healthy_one_is_launched_once_and_terminated() {
    let rules = Rules {
        pending: 2,
        hidden: 2,
        ..Rules::default()
    };
    let mut bench = Bench::new(rules, TARGET).await;
    bench.publish().await.unwrap();
    bench.assert_published(&[HOME, "eu-north-1"]);
    let instances = bench.aws.instances(HOME);
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0].kind, "t3.small");
    assert_eq!(instances[0].tags["firstboot:target"], "prod");
    assert!(bench.aws.instances("eu-north-1").is_empty());
    bench.server.reset();
    bench.publish().await.unwrap();
    assert_eq!(bench.server.changes(), 0, "it was seen to be healthy");
    // Others may have all tags of their image.
    let users = Instance {
        id: "i-users".to_owned(),
        state: "running".to_owned(),
        tags: bench.aws.images(HOME).remove(0).tags,
        ..instances[0].clone()
    };
    bench.aws.put_instance(users);
    // An older type, whose console is shown late.
    bench.target = bench.target.replace("t3.small", "t2.small");
    bench.publish().await.unwrap();
    let instances = bench.aws.instances(HOME);
    let live = instances.iter().filter(|one| one.is_live());
    let live: Vec<_> = live.map(|one| one.id.as_str()).collect();
    assert_eq!(live, ["i-users"], "nobody else's is terminated");
    assert_eq!(instances.len(), 3);
}

#[tokio::test]
async fn what_is_not_healthy_is_shared_with_nobody() {
    let tree = tree();
    let cases = [
        (
            format!(
                "firstboot: check failed: port 22: closed\nfirstboot: verdict: unhealthy, init degraded, tree {tree}"
            ),
            "unhealthy, with tree sha256:",
        ),
        (
            format!(
                "firstboot: verdict: healthy, init running, tree {}",
                image_manifest::Digest::of(b"another")
            ),
            "healthy, with tree sha256:",
        ),
        (
            "[ 1.0] Kernel panic - not syncing: VFS: unable to mount root".to_owned(),
            "Kernel panic - not syncing: VFS",
        ),
        (
            "BdsDxe: starting\n[ 0.3] waiting for /dev/nvme0n1".to_owned(),
            "last seen: [ 0.3] waiting for /dev/nvme0n1",
        ),
    ];
    for (console, expected) in cases {
        let rules = Rules {
            console: Some(console),
            ..Rules::default()
        };
        let mut bench = Bench::new(rules, &TARGET.replace(", 'eu-north-1'", "")).await;
        bench.bounds = Bounds {
            boot: Duration::from_millis(300),
            ..bench.bounds
        };
        let error = bench.publish().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("i-"), "{error}");
        let instances = bench.aws.instances(HOME);
        assert!(
            !instances.iter().any(cloud::fake::aws::Instance::is_live),
            "{instances:?}"
        );
        let image = bench.aws.images(HOME).remove(0);
        assert!(image.grants.is_empty(), "{image:?}");
        // Somebody mended it: another is launched.
        bench.aws.rules(|rules| rules.console = None);
        bench.publish().await.unwrap();
        bench.assert_published(&[HOME]);
        assert_eq!(bench.aws.instances(HOME).len(), 2);
    }
}

#[tokio::test]
async fn a_run_that_was_killed_leaves_its_instance_to_the_next() {
    for (label, when, launched) in [
        ("ec2:RunInstances", When::After, 1),
        ("ec2:GetConsoleOutput", When::Before, 1),
        ("ec2:TerminateInstances", When::Before, 1),
        // What it had said went with the run.
        ("ec2:TerminateInstances", When::After, 2),
    ] {
        let bench = Bench::new(Rules::default(), TARGET).await;
        bench.server.fault(Fault {
            label: Some(label.to_owned()),
            skip: 0,
            times: 1,
            when,
            act: Act::Hang,
        });
        let mut killed = bench.publisher();
        tokio::select! {
            finished = advance(&mut killed) => panic!("{finished:?}"),
            () = bench.server.stopped() => {}
        }
        drop(killed);
        bench.publish().await.unwrap();
        bench.assert_published(&[HOME, "eu-north-1"]);
        let instances = bench.aws.instances(HOME);
        assert_eq!(instances.len(), launched, "{label} {when:?}: {instances:?}");
    }
}

#[tokio::test]
async fn no_copy_is_told_to_be_further_than_the_image_that_was_judged() {
    let rules = Rules {
        console: Some("Kernel panic - not syncing".to_owned()),
        ..Rules::default()
    };
    let bench = Bench::new(rules, &TARGET.replace("accounts = ['444455556666']", "")).await;
    let mut publisher = bench.publisher();
    advance(&mut publisher).await.unwrap_err();
    let receipts = publisher.receipts();
    assert_eq!(receipts.len(), 2 * 2, "{receipts:#?}");
    for receipt in receipts {
        assert_eq!(receipt.stage, Stage::Private, "{receipt:#?}");
    }
}

#[tokio::test]
async fn one_that_is_not_seen_yet_is_terminated_too() {
    let rules = Rules {
        hidden: 6,
        denied: ["ec2:GetConsoleOutput".to_owned()].into(),
        ..Rules::default()
    };
    let bench = Bench::new(rules, ONE).await;
    let error = bench.publish().await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert_eq!(states(&bench), ["terminated"]);
}

#[tokio::test]
async fn one_that_cannot_be_terminated_is_told_with_what_was_before() {
    let rules = Rules {
        console: Some("Kernel panic - not syncing".to_owned()),
        denied: ["ec2:TerminateInstances".to_owned()].into(),
        ..Rules::default()
    };
    let bench = Bench::new(rules, ONE).await;
    let error = bench.publish().await.unwrap_err();
    let id = bench.aws.instances(HOME).remove(0).id;
    let told = cloud::http::chain(&error);
    for words in [
        &format!("instance {id} in {HOME} may still run, and costs; before that: "),
        "Kernel panic - not syncing, expected healthy",
        "the credentials lack `ec2:TerminateInstances`",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(error.help().is_some_and(|help| help.contains("by hand")));
    assert_eq!(states(&bench), ["running"]);
    // The next run goes on with it, and launches no other.
    bench.aws.rules(|rules| {
        rules.denied.clear();
        rules.console = None;
    });
    bench.publish().await.unwrap();
    assert_eq!(states(&bench), ["terminated"]);
}

#[tokio::test]
async fn a_cloud_that_rests_is_asked_again_to_terminate() {
    let bench = Bench::new(Rules::default(), ONE).await;
    bench.server.fault(Fault {
        label: Some("ec2:TerminateInstances".to_owned()),
        skip: 0,
        times: 3,
        when: When::Before,
        act: Act::Answer(Reply::xml(200, "<html>")),
    });
    bench.server.fault(Fault {
        label: Some("ec2:TerminateInstances".to_owned()),
        skip: 0,
        times: 1,
        when: When::Before,
        act: Act::Cut,
    });
    bench.publish().await.unwrap();
    bench.assert_published(&[HOME]);
}

#[tokio::test]
async fn a_launch_whose_answer_was_lost_leaves_nothing() {
    let rules = Rules {
        hidden: 3,
        ..Rules::default()
    };
    let bench = Bench::new(rules, ONE).await;
    bench.server.fault(Fault {
        label: Some("ec2:RunInstances".to_owned()),
        skip: 0,
        times: 1,
        when: When::After,
        act: Act::Answer(Reply::xml(200, "<html>")),
    });
    let error = bench.publish().await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert_eq!(states(&bench), ["terminated"]);
}

#[tokio::test]
async fn only_what_killed_runs_left_is_terminated_beside_ours() {
    let bench = Bench::new(Rules::default(), ONE).await;
    let mut killed = bench.publisher();
    bench.server.fault(Fault {
        label: Some("ec2:TerminateInstances".to_owned()),
        skip: 0,
        times: 1,
        when: When::Before,
        act: Act::Hang,
    });
    tokio::select! {
        finished = advance(&mut killed) => panic!("{finished:?}"),
        () = bench.server.stopped() => {}
    }
    let ours = bench.aws.instances(HOME).remove(0);
    let put = |id: &str, state: &str, age: i64, tags: [(&str, Option<&str>); 2]| {
        let mut one = ours.clone();
        (one.id, one.state) = (id.to_owned(), state.to_owned());
        one.launched -= age;
        for (tag, value) in tags {
            one.tags.remove(&format!("firstboot:{tag}"));
            let value = value.map(|value| (format!("firstboot:{tag}"), value.to_owned()));
            one.tags.extend(value);
        }
        bench.aws.put_instance(one);
    };
    let another = Some("sha256:another");
    let (check, manifest) = (
        ("launch-check", Some("prod")),
        (
            "manifest",
            ours.tags.get("firstboot:manifest").map(String::as_str),
        ),
    );
    // An hour ago, which is longer than anybody watches one.
    put(
        "i-abandoned",
        "running",
        3600,
        [check, ("manifest", another)],
    );
    put("i-stopped-by-somebody", "stopped", 3600, [check, manifest]);
    put(
        "i-stays-for-its-run",
        "running",
        0,
        [check, ("manifest", another)],
    );
    put(
        "i-stays-of-another",
        "running",
        3600,
        [("launch-check", Some("test")), manifest],
    );
    put(
        "i-stays-of-users",
        "running",
        3600,
        [("launch-check", None), ("manifest", another)],
    );
    bench.publish().await.unwrap();
    for one in bench.aws.instances(HOME) {
        assert_eq!(one.is_live(), one.id.starts_with("i-stays"), "{one:?}");
    }
}

#[tokio::test]
async fn another_one_may_be_launched_however_often_it_was_not_healthy() {
    let rules = Rules {
        console: Some("Kernel panic - not syncing".to_owned()),
        ..Rules::default()
    };
    let bench = Bench::new(rules, ONE).await;
    for _ in 0..12 {
        let error = bench.publish().await.unwrap_err().to_string();
        assert!(error.contains("Kernel panic"), "{error}");
    }
    bench.aws.rules(|rules| rules.console = None);
    bench.publish().await.unwrap();
    assert_eq!(states(&bench), ["terminated"; 13]);
}

#[tokio::test]
async fn one_that_ends_is_healthy_when_another_run_saw_it_so() {
    for (cause, tagged) in [
        ("Client.UserInitiatedShutdown", true),
        ("Client.UserInitiatedShutdown", false),
        ("Server.InternalError", false),
    ] {
        let rules = Rules {
            console: Some("booting".to_owned()),
            ..Rules::default()
        };
        let mut bench = Bench::new(rules, ONE).await;
        bench.bounds.visible = Duration::from_millis(700);
        let mut publisher = bench.publisher();
        let others = async {
            while bench.aws.instances(HOME).is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut one = bench.aws.instances(HOME).remove(0);
            "terminated".clone_into(&mut one.state);
            cause.clone_into(&mut one.cause);
            bench.aws.put_instance(one);
            // They terminate it first, and tag then.
            if tagged {
                let ended = looks(&bench);
                while looks(&bench) < ended + 3 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let mut image = bench.aws.images(HOME).remove(0);
                let tag = ("firstboot:launched".to_owned(), "t3.small".to_owned());
                image.tags.extend([tag]);
                bench.aws.put_image(image);
            }
        };
        let both = async { tokio::join!(advance(&mut publisher), others) };
        let both = tokio::time::timeout(Duration::from_secs(20), both).await;
        let (came, ()) = both.expect("a watch that goes on until it is tagged");
        match came {
            Ok(()) => assert!(tagged, "{cause}"),
            Err(error) => {
                let told = error.to_string();
                assert!(!tagged && told.contains(cause), "{told}");
            }
        }
    }
}

#[tokio::test]
async fn two_at_once_launch_one() {
    let rules = Rules {
        pending: 3,
        hidden: 1,
        ..Rules::default()
    };
    let bench = Bench::new(rules, TARGET).await;
    bench.publish_twice_at_once().await;
    bench.assert_published(&[HOME, "eu-north-1"]);
}

#[tokio::test]
async fn who_may_not_launch_is_told_before_the_first_byte() {
    let bench = Bench::new(Rules::default(), &TARGET.replace(", 'eu-north-1'", "")).await;
    bench
        .aws
        .rules(|rules| rules.denied.extend(["ec2:RunInstances".to_owned()]));
    let mut publisher = bench.publisher();
    let findings = publisher.check().await.unwrap();
    assert!(
        findings.len() == 1 && findings[0].message.contains("ec2:RunInstances"),
        "{findings:?}"
    );
    let error = bench.publish().await.unwrap_err();
    let named =
        matches!(&error, Error::Denied { permission, .. } if permission == "ec2:RunInstances");
    assert!(named, "{error}");
}

/// The tree of the image that the tests publish.
fn tree() -> Digest {
    Digest::of(b"tree")
}

/// How often a console was read.
fn looks(bench: &Bench) -> u64 {
    let calls = bench.server.calls().into_iter();
    let looks = calls.filter(|(called, _)| called.label == "ec2:GetConsoleOutput");
    looks.map(|(_, count)| count).sum()
}

fn states(bench: &Bench) -> Vec<String> {
    let instances = bench.aws.instances(HOME).into_iter();
    instances.map(|one| one.state).collect()
}
