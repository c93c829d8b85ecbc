//! The power that people are shown: how soon it is known, and for how long it counts.

use std::time::Duration;

use ipmi::ResetKind;
use ipmi::sim::Fault;

use super::super::clock::Clock;
use super::super::{Enroll, Operator, Power, StateView};
use super::rig::{Rig, identity, order, site, state, until};

/// Sooner than the next round of the poller, by a clock that is not faster than others.
const AT_ONCE: Duration = Duration::from_secs(30);

async fn at_once(operator: &Operator, what: &str, is: impl Fn(&StateView) -> bool) {
    let waited = tokio::time::timeout(AT_ONCE, until(operator, what, is)).await;
    assert!(waited.is_ok(), "{what}: {:?}", state(operator).await);
}

fn is(power: &'static str) -> impl Fn(&StateView) -> bool {
    move |state| state.power.as_deref() == Some(power)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_of_a_new_host_is_known_at_once() {
    let rig = Rig::new().await;
    let without = site(
        "[[host]]\nname = \"web1\"\nmacs = [\"52:54:00:00:00:01\"]\naddress = \"10.77.0.11\"\nrole = \"web\"\n",
    );
    let running = rig.start_at(Clock::default(), without).await;
    let operator = running.operator.clone();
    // The first round of the poller is over.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(state(&operator).await.power, None, "it has no BMC");
    operator.swap(rig.site(""));
    at_once(&operator, "its BMC is in the site", is("on")).await;

    // Switched off by hand: nobody has to wait for the next round after the BMC was asked.
    rig.board.act(ResetKind::ForceOff).unwrap();
    let web1 = || "web1".parse().unwrap();
    operator
        .enroll(order(), web1(), Enroll::Record)
        .await
        .unwrap();
    at_once(&operator, "it was enrolled", is("off")).await;

    // Nor after an operation that failed.
    rig.board.act(ResetKind::On).unwrap();
    let other = Fault::OtherIdentity(identity("S2"));
    rig.board.faults().set(other);
    operator
        .power(order(), web1(), Power::ForceOff)
        .await
        .unwrap();
    at_once(&operator, "an operation failed", is("on")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_that_a_dead_bmc_said_counts_no_longer() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let operator = running.operator.clone();
    until(&operator, "it answers", is("on")).await;
    rig.silence();
    until(&operator, "it is old", is("unknown")).await;
    let seen = state(&operator).await;
    assert_eq!(seen.power_was.as_deref(), Some("on"), "{seen:?}");
    assert!(seen.power_was_ms.is_some(), "{seen:?}");
    until(&operator, "its BMC is named", |state| state.bmc.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_operation_leaves_the_power_unknown() {
    let rig = Rig::new().await;
    let running = rig.start().await;
    let operator = running.operator.clone();
    until(&operator, "it answers", is("on")).await;
    rig.silence();
    let web1 = "web1".parse().unwrap();
    operator.power(order(), web1, Power::Off).await.unwrap();
    until(&operator, "it failed", |state| state.phase == "stopped").await;
    let seen = state(&operator).await;
    assert_eq!(seen.power.as_deref(), Some("unknown"), "{seen:?}");
}
