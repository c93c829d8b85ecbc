//! One instance is launched before anybody may use an image, judged by what it says, and terminated in any case.

use std::time::Duration;

use cloud::Error;
use cloud::aws::Bounds;
use cloud::fake::aws::{Instance, Rules};
use cloud::fake::{Act, Fault, When};

use crate::bench::{Bench, advance};

const TARGET: &str = "
regions = ['eu-west-1', 'eu-north-1']
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
    let findings = cloud::Provider::check(&mut publisher).await.unwrap();
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
fn tree() -> image_manifest::Digest {
    image_manifest::Digest::of(b"tree")
}
