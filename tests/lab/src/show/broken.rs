//! Images that are broken, each in its own way, and the hosts that come back from them by themselves.

use super::Error;
use super::stage::{Generation, Holds, Stage};

/// One broken image, and the host that it is deployed to.
pub(super) struct Case {
    pub(super) host: &'static str,
    pub(super) image: &'static str,
    /// A word of the reason that has to be given.
    pub(super) reason: &'static str,
}

/// None of [`super::deploy::HOSTS`]: these are waited for while those are deployed.
pub(super) const CASES: [Case; 3] = [
    Case {
        host: "bios2",
        image: "dead",
        reason: "within 4 min",
    },
    Case {
        host: "bios3",
        image: "ailing",
        reason: "canary",
    },
    Case {
        host: "bios4",
        image: "mute",
        reason: "within 4 min",
    },
];

/// How often each host's power had changed when it was deployed, and its newest generation then.
pub(super) struct Begun([(usize, u32); CASES.len()]);

pub(super) fn begin(stage: &Stage) -> Result<Begun, Error> {
    let before = CASES.map(|case| (stage.power(case.host).len(), newest(stage, case.host)));
    for case in &CASES {
        stage.netboot(&["deploy", case.host, "--image", case.image, "--no-wait"])?;
    }
    Ok(Begun(before))
}

pub(super) fn end(stage: &mut Stage, Begun(before): Begun) -> Result<(), Error> {
    for (case, (changes, number)) in CASES.iter().zip(before) {
        let host = case.host;
        let (failed, back) =
            stage.wait(&format!("{host} is back from `{}`", case.image), |stage| {
                let history = stage.history(host)?;
                let of = |number| history.iter().find(|one| one.number == number).cloned();
                let back = of(number + 2).filter(|back| back.outcome != "pending");
                Ok(of(number + 1).zip(back))
            })?;
        judge(stage, case, changes, &failed, &back)?;
    }
    Ok(())
}

fn newest(stage: &Stage, host: &str) -> u32 {
    let history = stage.history(host).unwrap_or_default();
    history.first().map_or(0, |newest| newest.number)
}

fn judge(
    stage: &mut Stage,
    case: &Case,
    changes: usize,
    failed: &Generation,
    back: &Generation,
) -> Result<(), Error> {
    let Case {
        host,
        image,
        reason,
    } = *case;
    stage.claim(
        format!("`{image}` on {host} is judged failed"),
        Holds::equal(&failed.outcome, "failed"),
    );
    let why = failed.why.clone().unwrap_or_default();
    stage.claim(
        format!("it says why: {why}"),
        Holds::that(why.contains(reason), || format!("no `{reason}` in `{why}`")),
    );
    stage.claim(
        format!("{host} went back by itself"),
        Holds::equal(&back.outcome, "healthy"),
    );
    stage.claim_runs(host, "host")?;
    stage.claim_power(host, changes, &["off", "on", "off", "on"]);
    let until_failed = back.created_ms.saturating_sub(failed.created_ms);
    stage.took(
        &format!("`{image}`: deploy to judged failed"),
        host,
        until_failed,
    );
    if let Some(took) = back.took_ms {
        stage.took(&format!("`{image}`: failed to rolled back"), host, took);
    }
    Ok(())
}
