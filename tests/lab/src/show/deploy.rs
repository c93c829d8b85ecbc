//! A new image on running hosts, over both protocols, and the way back.

use super::Error;
use super::stage::{Holds, Stage};

/// One host with IPMI, one with Redfish.
pub(super) const HOSTS: [&str; 2] = ["bios1", "uefi1"];

pub(super) fn show(stage: &mut Stage) -> Result<(), Error> {
    let [over_ipmi, over_redfish] = HOSTS;
    let changed = |stage: &Stage| HOSTS.map(|host| stage.power(host).len());
    let before = changed(stage);
    stage.netboot(&["deploy", over_ipmi, over_redfish, "--image", "next"])?;
    judge(stage, "next", "deploy to healthy", before)?;

    let before = changed(stage);
    stage.netboot(&["deploy", over_ipmi, over_redfish, "--image", "next"])?;
    let after = changed(stage);
    stage.claim(
        "deploying what runs already switches nothing",
        Holds::that(before == after, || format!("{before:?} became {after:?}")),
    );

    stage.netboot(&["rollback", over_ipmi, over_redfish])?;
    judge(stage, "host", "rollback to healthy", before)
}

fn judge(stage: &mut Stage, image: &str, what: &str, before: [usize; 2]) -> Result<(), Error> {
    for (host, before) in HOSTS.into_iter().zip(before) {
        stage.claim_power(host, before, &["off", "on"]);
        stage.claim_runs(host, image)?;
        let history = stage.history(host)?;
        let newest = history.first();
        let outcome = newest.map_or("missing", |newest| &newest.outcome);
        stage.claim(
            format!("the newest generation of {host} is healthy"),
            Holds::equal(outcome, "healthy"),
        );
        if let Some(took) = newest.and_then(|newest| newest.took_ms) {
            stage.took(what, host, took);
        }
    }
    Ok(())
}
