//! Deploys over a line that loses half of all packets: done in time, and nothing switched twice.

use tokio::task::JoinSet;

use super::*;

/// Deploys that run side by side: one alone proves nothing about chance.
const DEPLOYS: usize = 12;
/// How long one step may take before the lifecycle asks again, as it does for a BMC that may lag.
const STEP: Duration = Duration::from_secs(75);

/// One step, asked for again as the lifecycle does when nothing was sent.
async fn step(bmc: &Bmc, intent: &Intent) -> Result<Done, Error> {
    let expected = identity().expected();
    let journal = journal::Memory::default();
    loop {
        match bmc.execute(&expected, intent, &journal, STEP).await {
            Err(Error::Unreachable { .. } | Error::Busy { .. }) => {}
            other => return other,
        }
    }
}

async fn deploy() -> (Duration, Result<(), Error>, Vec<ResetKind>) {
    let rack = rack(Host::new(identity()).running(), config()).await;
    rack.faults.set(Fault::Drop(50));
    let bmc = rack.bmc();
    let began = Instant::now();
    let steps = [
        Intent::EnsureOff(Off::Forced),
        Intent::Boot(pxe()),
        Intent::EnsureOn,
    ];
    let mut done = Ok(());
    for intent in &steps {
        if let Err(error) = step(&bmc, intent).await {
            done = Err(error);
            break;
        }
    }
    (began.elapsed(), done, rack.host.acts())
}

#[tokio::test]
async fn a_deploy_is_done_over_a_line_that_loses_half() {
    let mut deploys: JoinSet<_> = (0..DEPLOYS).map(|_| deploy()).collect();
    let mut took = Vec::new();
    let mut failed = Vec::new();
    while let Some(ended) = deploys.join_next().await {
        let (elapsed, done, acts) = ended.unwrap();
        took.push(elapsed);
        if done.is_err() || acts != [ResetKind::ForceOff, ResetKind::On] {
            failed.push((elapsed, done, acts));
        }
    }
    took.sort();
    let (median, slowest) = (took[DEPLOYS / 2], took[DEPLOYS - 1]);
    eprintln!("median {median:?}, slowest {slowest:?}, failed {failed:#?}");
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(median < Duration::from_secs(90), "median {median:?}");
    assert!(slowest < Duration::from_mins(3), "slowest {slowest:?}");
}
