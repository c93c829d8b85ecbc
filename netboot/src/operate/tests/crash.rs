//! The appliance is killed at every commit and at every request of a deployment, before and after.

use std::time::Duration;

use super::rig::{Kill, Life, Rig, deploy, generations, leaks, order, until};

/// Deploys, is killed where it is said, and goes on; returns whether it came that far at all.
async fn killed(kill: Kill) -> bool {
    let rig = Rig::new().await;
    let mut host = Life::default();
    // The BMC is known before, as in a rack that was deployed once.
    let first = rig.start().await;
    first
        .operator
        .enroll(
            order(),
            "web1".parse().unwrap(),
            super::super::Enroll::Record,
        )
        .await
        .unwrap();

    rig.fate.arm(kill);
    let asked = Some("key".to_owned());
    let asked = super::super::Order {
        key: asked,
        ..order()
    };
    let died = {
        let operator = first.operator.clone();
        let deployed = async {
            // It was killed when there is no answer.
            drop(operator.deploy(asked.clone(), deploy("two")).await);
            until(&operator, "first", |state| {
                state.phase == "idle" && state.generation == Some(1)
            })
            .await;
        };
        tokio::select! {
            // First, so that a host which was answered before the kill knows that.
            biased;
            () = rig.live(&first.operator, &mut host) => unreachable!("a host lives on"),
            () = rig.fate.killed.notified() => true,
            () = deployed => false,
        }
    };
    first.kill();
    rig.fate.arm(Kill::Never);
    let second = rig.start().await;
    // Whoever asked and got no answer asks again, with the same key.
    let again = second.operator.deploy(asked, deploy("two")).await;
    again.unwrap_or_else(|refusal| panic!("{kill:?}: {refusal}"));
    let what = format!("{kill:?}");
    let ends = until(&second.operator, &what, |state| {
        state.phase == "idle" && state.generation == Some(1)
    });
    tokio::select! {
        () = rig.live(&second.operator, &mut host) => unreachable!("a host lives on"),
        () = ends => {}
    }
    let history = generations(&second.operator).await;
    assert_eq!(history.len(), 1, "{kill:?}: {history:?}");
    assert_eq!(history[0].outcome, "healthy", "{kill:?}: {history:?}");
    assert_eq!(history[0].tree, Rig::tree("two").to_string(), "{kill:?}");
    let acts = rig.chassis.acts();
    assert_eq!((rig.offs(), rig.ons()), (1, 1), "{kill:?}: {acts:?}");
    assert!(!leaks(&rig.store, rig.data.path()), "{kill:?}");
    second.kill();
    died
}

/// Walks along one kind of boundary until the deployment is over before it comes to it.
async fn walk(boundary: impl Fn(usize) -> Kill) -> usize {
    let mut number = 0;
    while tokio::time::timeout(Duration::from_mins(3), killed(boundary(number)))
        .await
        .unwrap_or_else(|_| panic!("{:?} does not end", boundary(number)))
    {
        number += 1;
        assert!(number < 500, "it has no end");
    }
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_commit_a_deployment_ends_with_one_off_and_one_on() {
    let (before, after) = tokio::join!(walk(Kill::BeforeCommit), walk(Kill::AfterCommit));
    // Accepted, off, boot device, on, booting, healthy.
    assert!(before >= 5 && after >= 5, "{before} {after} commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_request_a_deployment_ends_with_one_off_and_one_on() {
    let (before, after) = tokio::join!(walk(Kill::BeforeRequest), walk(Kill::AfterRequest));
    assert!(before >= 10 && after >= 10, "{before} {after} requests");
}
