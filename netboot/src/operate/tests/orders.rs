//! What people are told, refused and shown.

use std::sync::Arc;

use super::super::{Limits, Order, Power, Refusal, Run};
use super::rig::{
    Life, PASSWORD, Rig, deploy, generations, identity, leaks, order, reference, site, state, until,
};
use crate::images;
use crate::store::Change;

/// A host whose BMC nobody can reach.
const UNREACHABLE: &str = "[[host]]\nname = \"web1\"\nmacs = [\"52:54:00:00:00:01\"]\n\
     address = \"10.77.0.11\"\nrole = \"web\"\n\
     [host.bmc]\nprotocol = \"ipmi\"\naddress = \"127.0.0.1:9\"\nuser = \"operator\"\npassword = \"bmc\"\n";

/// Hosts without BMCs.
fn listed(numbers: std::ops::Range<u8>) -> String {
    let host = |number| {
        format!(
            "[[host]]\nname = \"web{number}\"\nmacs = [\"52:54:00:00:00:0{number}\"]\n\
             address = \"10.77.0.1{number}\"\nrole = \"web\"\n"
        )
    };
    numbers.map(host).collect::<Vec<_>>().concat()
}

async fn with_host<T>(
    rig: &Rig,
    running: &super::rig::Running,
    life: &mut Life,
    work: impl Future<Output = T>,
) -> T {
    tokio::select! {
        () = rig.live(&running.operator, life) => unreachable!("a host lives on"),
        done = work => done,
    }
}

#[tokio::test]
async fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let before = rig.store.changes().len();
    let dry = Order {
        run: Run::Dry,
        ..order()
    };
    let plan = running.operator.deploy(dry, deploy("two")).await.unwrap();
    assert!(!plan.done && plan.id.is_none());
    let steps = plan.hosts[0].steps.join("\n");
    for step in [
        "generation 1",
        "it is off",
        "network",
        "it is on",
        "report itself well",
    ] {
        assert!(steps.contains(step), "{step} in {steps}");
    }
    assert_eq!(rig.store.changes().len(), before);
    assert_eq!(rig.chassis.acts(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_never_reports_is_rolled_back_within_its_deadline() {
    let rig = Rig::new().await;
    let mut life = Life::default();
    life.mute.push("three");
    let running = rig.start().await;
    let operator = running.operator.clone();
    let work = async {
        operator.deploy(order(), deploy("two")).await.unwrap();
        until(&operator, "healthy", |state| {
            state.phase == "idle" && state.generation == Some(1)
        })
        .await;
        operator.deploy(order(), deploy("three")).await.unwrap();
        until(&operator, "rolled back", |state| {
            state.phase == "idle" && state.generation == Some(3)
        })
        .await;
    };
    with_host(&rig, &running, &mut life, work).await;
    let history = generations(&operator).await;
    let outcomes: Vec<&str> = history.iter().map(|one| one.outcome.as_str()).collect();
    assert_eq!(outcomes, ["healthy", "failed", "healthy"], "{history:?}");
    assert_eq!(history[0].tree, history[2].tree);
    assert!(
        history[1].why.as_ref().unwrap().contains("2 min"),
        "{history:?}"
    );
    assert_eq!((rig.offs(), rig.ons()), (3, 3));
    assert!(!leaks(&rig.store, rig.data.path()));
    let told = format!("{:?}", rig.store.records("event"));
    assert!(told.contains("rolled-back"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_full_store_nothing_is_done_until_there_is_room() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let operator = running.operator.clone();
    rig.store.fill();
    let refused = operator.deploy(order(), deploy("two")).await;
    assert!(
        matches!(refused, Err(Refusal::Unavailable { .. })),
        "{refused:?}"
    );
    let refused = operator
        .power(order(), "web1".parse().unwrap(), Power::ForceOff)
        .await;
    assert!(
        matches!(refused, Err(Refusal::Unavailable { .. })),
        "{refused:?}"
    );
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(
        rig.chassis.acts(),
        [],
        "nothing was promised, nothing was done"
    );
    assert_eq!(state(&operator).await.phase, "idle");
    rig.store.make_room();
    let mut life = Life::default();
    let work = async {
        operator.deploy(order(), deploy("two")).await.unwrap();
        // Full again in the midst of it: what was begun waits, and ends when there is room.
        rig.store.fill();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        rig.store.make_room();
        until(&operator, "healthy", |state| {
            state.phase == "idle" && state.generation == Some(1)
        })
        .await;
    };
    with_host(&rig, &running, &mut life, work).await;
    assert_eq!((rig.offs(), rig.ons()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_behind_the_bmc_is_not_touched() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let operator = running.operator.clone();
    let web1 = || "web1".parse().unwrap();
    operator
        .enroll(order(), web1(), super::super::Enroll::Record)
        .await
        .unwrap();
    rig.board
        .faults()
        .set(ipmi::sim::Fault::OtherIdentity(identity("S2")));
    operator
        .power(order(), web1(), Power::ForceOff)
        .await
        .unwrap();
    until(&operator, "refused", |state| state.bmc.is_some()).await;
    let seen = state(&operator).await;
    assert!(seen.bmc.unwrap().contains("another machine"));
    assert_eq!(rig.chassis.acts(), []);
    let refused = operator
        .enroll(order(), web1(), super::super::Enroll::Record)
        .await;
    assert!(
        matches!(refused, Err(Refusal::Conflict { .. })),
        "{refused:?}"
    );
    operator
        .enroll(order(), web1(), super::super::Enroll::Replace)
        .await
        .unwrap();
    operator
        .power(order(), web1(), Power::ForceOff)
        .await
        .unwrap();
    until(&operator, "off", |state| state.phase == "idle").await;
    assert_eq!(rig.offs(), 1);
}

#[tokio::test]
async fn orders_are_refused_with_reasons() {
    let rig = Rig::new().await;
    let hosts = listed(2..6);
    let more = format!(
        "{hosts}protected = true\n[limits]\nhosts-at-once = 2\npercent-of-site = 60\npercent-of-role = 100\n"
    );
    let running = rig.start_with(rig.site(&more)).await;
    let operator = &running.operator;
    let of = |hosts: &str| {
        let mut deploy = deploy("two");
        deploy.hosts = hosts.parse().unwrap();
        deploy
    };
    let scoped = || {
        let mut order = order();
        order.who.scope = Some("web1".parse().unwrap());
        order
    };
    let cases = [
        ("no such host", order(), of("web9"), "unknown"),
        ("another's host", scoped(), of("web2"), "forbidden"),
        ("a protected host", order(), of("web5"), "protected"),
        (
            "most of the site",
            order(),
            of("web1 web2 web3 web4"),
            "too-wide",
        ),
        (
            "more than at once",
            order(),
            of("web1 web2 web3"),
            "too-wide",
        ),
        (
            "no such image",
            order(),
            super::super::DeployOrder {
                image: Some("nine".to_owned()),
                ..of("web1")
            },
            "invalid",
        ),
    ];
    for (name, order, deploy, expected) in cases {
        let refused = operator.deploy(order, deploy).await;
        assert_eq!(
            refused.as_ref().map_err(Refusal::label).err(),
            Some(expected),
            "{name}: {refused:?}"
        );
    }
    let overridden = Order {
        limits: Limits::Overridden,
        run: Run::Dry,
        ..order()
    };
    operator.deploy(overridden, of("all")).await.unwrap();
    let refused = operator
        .power(order(), "web2".parse().unwrap(), Power::Off)
        .await;
    assert!(
        matches!(refused, Err(Refusal::Conflict { .. })),
        "it has no BMC: {refused:?}"
    );
}

#[tokio::test]
async fn a_key_makes_asking_twice_asking_once() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let keyed = || Order {
        key: Some("k".to_owned()),
        ..order()
    };
    let first = running
        .operator
        .deploy(keyed(), deploy("two"))
        .await
        .unwrap();
    let second = running
        .operator
        .deploy(keyed(), deploy("two"))
        .await
        .unwrap();
    assert_eq!(first, second);
    let other = running.operator.deploy(keyed(), deploy("three")).await;
    assert!(matches!(other, Err(Refusal::Conflict { .. })), "{other:?}");
    assert_eq!(generations(&running.operator).await.len(), 1);
    running.kill();
    let again = rig.start().await;
    let third = again.operator.deploy(keyed(), deploy("two")).await.unwrap();
    assert_eq!(first, third, "after a restart too");
    let deeds = rig.store.changes();
    let deeds = deeds.iter().filter(|change| {
        matches!(change, Change::Append(row) if row.kind == "audit" && row.body.contains("\"deploy\""))
    });
    assert_eq!(deeds.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_changes_meanwhile_is_followed() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let operator = running.operator.clone();
    // A BMC that cannot be reached; then the site is put right while the operation is under way.
    operator.swap(site(UNREACHABLE));
    let asked = operator.deploy(order(), deploy("two")).await;
    asked.unwrap();
    until(&operator, "unreachable", |state| state.bmc.is_some()).await;
    operator.swap(rig.site(""));
    let mut life = Life::default();
    let work = until(&operator, "healthy", |state| {
        state.phase == "idle" && state.generation == Some(1)
    });
    with_host(&rig, &running, &mut life, work).await;
    assert_eq!((rig.offs(), rig.ons()), (1, 1));
    // Gone from the site: nobody asks it, and it is there again as it was.
    operator.swap(site(""));
    let gone = operator.deploy(order(), deploy("two")).await;
    assert!(matches!(gone, Err(Refusal::Unknown { .. })), "{gone:?}");
    operator.swap(Arc::clone(&rig.site("")));
    let back = operator.history(&"web1".into()).await;
    assert_eq!(back.map(|history| history.len()), Ok(1));
    assert!(!leaks(&rig.store, rig.data.path()), "{PASSWORD}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_host_is_switched_off_for_an_image_that_was_swept_meanwhile() {
    let rig = Rig::new().await;
    let found = images::resolve(&rig.images, &reference("two")).unwrap();
    let running = rig.start().await;
    let operator = running.operator.clone();
    // The order is given while the image is there, and carried out when it is not.
    operator.swap(site(UNREACHABLE));
    operator.deploy(order(), deploy("two")).await.unwrap();
    let (blob, aside) = (
        rig.images.blob(&found.rootfs.digest),
        rig.data.path().join("aside"),
    );
    std::fs::rename(&blob, &aside).unwrap();
    operator.swap(rig.site(""));
    until(&operator, "told", |state| {
        let trouble = state.trouble.as_deref().unwrap_or_default();
        trouble.contains("could not boot again")
            && trouble.contains(&found.rootfs.digest.hex()[..12])
    })
    .await;
    assert_eq!(rig.chassis.acts(), []);
    // Brought back, it is carried out as it was asked for.
    std::fs::rename(&aside, &blob).unwrap();
    let mut life = Life::default();
    let work = until(&operator, "healthy", |state| {
        state.phase == "idle" && state.generation == Some(1)
    });
    with_host(&rig, &running, &mut life, work).await;
    assert_eq!((rig.offs(), rig.ons()), (1, 1));
}

/// Starts a host by hand, and lets it report itself well or ill.
async fn boot(operator: &super::super::Operator, name: &str, tree: &str, number: u32) {
    let host: Arc<str> = name.into();
    let chosen = operator.choose(&host).await.unwrap().unwrap();
    let boot = format!("{name}-{number}");
    let began = super::super::Began {
        host: Arc::clone(&host),
        boot: boot.clone(),
        generation: chosen.generation,
        adopt: None,
    };
    operator.began(began).await.unwrap();
    let stage = match tree {
        "" => image_manifest::Stage::Failed {
            reason: "no disk".to_owned(),
        },
        tree => image_manifest::Stage::Healthy {
            tree: Rig::tree(tree),
        },
    };
    let reported = super::super::Reported {
        host,
        boot,
        stage,
        changes: Vec::new(),
    };
    operator.reported(reported).await.unwrap();
}

/// Returns how far a rollout is: its state, and those of its hosts.
async fn progress(operator: &super::super::Operator) -> (String, Vec<String>) {
    let rollout = operator.rollouts().await.unwrap().remove(0);
    let hosts = rollout.hosts.into_iter().map(|host| host.state).collect();
    (rollout.state, hosts)
}

async fn comes_to(operator: &super::super::Operator, state: &str, hosts: &[&str]) {
    for _ in 0..500 {
        let (is, seen) = progress(operator).await;
        if is == state && seen == hosts {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{state} {hosts:?}: {:?}", progress(operator).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_goes_on_after_a_restart_and_halts_at_a_failure() {
    let rig = Rig::new().await;
    let limits = "[limits]\npercent-of-site = 100\npercent-of-role = 100\n";
    let served = site(&format!("{}{limits}", listed(1..5)));
    let running = rig.start_with(Arc::clone(&served)).await;
    let mut all = deploy("two");
    all.hosts = "all".parse().unwrap();
    let rollout = super::super::RolloutOrder {
        deploy: all,
        pace: super::super::Pace {
            canary: Some(1),
            batch: Some("2".to_owned()),
            max_failures: Some(1),
            ..Default::default()
        },
    };
    let begun = running
        .operator
        .rollout_start(order(), rollout)
        .await
        .unwrap();
    let id = begun.id.unwrap();
    let operator = running.operator.clone();
    comes_to(
        &operator,
        "running",
        &["deploying", "waiting", "waiting", "waiting"],
    )
    .await;
    boot(&operator, "web1", "two", 1).await;
    comes_to(
        &operator,
        "running",
        &["healthy", "deploying", "deploying", "waiting"],
    )
    .await;
    running.kill();

    let running = rig.start_with(served).await;
    let operator = running.operator.clone();
    comes_to(
        &operator,
        "running",
        &["healthy", "deploying", "deploying", "waiting"],
    )
    .await;
    boot(&operator, "web3", "", 1).await;
    comes_to(
        &operator,
        "halted",
        &["healthy", "deploying", "failed", "waiting"],
    )
    .await;
    // What was begun goes on to its end, and proves its batch: a halt is a halt.
    boot(&operator, "web2", "two", 1).await;
    comes_to(
        &operator,
        "halted",
        &["healthy", "healthy", "failed", "waiting"],
    )
    .await;
    let control = super::super::Control::Resume;
    let resumed = operator.rollout_control(order(), id.clone(), control).await;
    assert!(
        matches!(resumed, Err(Refusal::Conflict { .. })),
        "{resumed:?}"
    );
    let history = operator.history(&"web4".into()).await.unwrap();
    assert_eq!(history, [], "the rest is untouched");
    let undo = super::super::Control::Undo;
    operator.rollout_control(order(), id, undo).await.unwrap();
    // Nothing was proven before it, so there is nothing to go back to.
    comes_to(
        &operator,
        "undone",
        &["not-undone", "not-undone", "failed", "waiting"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_of_hosts_that_left_the_site_is_not_everybodys() {
    let rig = Rig::new().await;
    let limits = "[limits]\npercent-of-site = 100\npercent-of-role = 100\n";
    let running = rig
        .start_with(site(&format!("{}{limits}", listed(1..3))))
        .await;
    let mut both = deploy("two");
    both.hosts = "all".parse().unwrap();
    let rollout = super::super::RolloutOrder {
        deploy: both,
        pace: super::super::Pace::default(),
    };
    let begun = running.operator.rollout_start(order(), rollout).await;
    let id = begun.unwrap().id.unwrap();
    running.kill();

    let running = rig.start_with(site(&listed(3..5))).await;
    let mut scoped = order();
    scoped.who.scope = Some("web3".parse().unwrap());
    let control = super::super::Control::Halt;
    let halted = running
        .operator
        .rollout_control(scoped, id.clone(), control)
        .await;
    assert!(
        matches!(halted, Err(Refusal::Forbidden { .. })),
        "{halted:?}"
    );
    let halted = running.operator.rollout_control(order(), id, control).await;
    assert!(halted.is_ok(), "{halted:?}");
}
