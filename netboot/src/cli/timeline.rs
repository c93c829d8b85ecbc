//! Events of a boot as lines for people.
//!
//! It refuses to judge: the verdict is the core's.

use image_manifest::Stage;
use netboot_core::boot::{Answer, Asked, Event, Protocol, Step, Transfer, What, printable};

use super::table::{bytes, millis};

/// Writes one event: when, which step, what.
pub(super) fn line(started_ms: u64, event: &Event) -> String {
    let at = millis(event.at.0.saturating_sub(started_ms));
    let step = Step::of(&event.what).map_or("", Step::label);
    let text = printable(&describe(&event.what));
    format!("{at:>12}  {step:<11}  {text}\n")
}

fn describe(what: &What) -> String {
    match what {
        What::Dhcp {
            asked,
            answer,
            firmware,
            form,
            ..
        } => {
            let form = form.map(|form| format!(", {}", form.text()));
            format!(
                "{} by {}: {}{}",
                question(*asked),
                firmware.label(),
                reply(answer),
                form.unwrap_or_default()
            )
        }
        What::Fetch {
            name,
            over,
            transfer,
            ..
        } => format!("`{name}` over {}: {}", protocol(*over), how(transfer)),
        What::Refused { reason } => format!("refused: {reason}"),
        What::Report(report) => format!(
            "{} ({} after kernel start)",
            told(&report.stage),
            millis(report.uptime_ms)
        ),
        What::Restarted => "the appliance was restarted".to_owned(),
    }
}

fn question(asked: Asked) -> &'static str {
    match asked {
        Asked::Discover => "discover",
        Asked::Request => "request",
        Asked::Decline => "decline",
        Asked::Release => "release",
        Asked::Inform => "inform",
    }
}

fn reply(answer: &Answer) -> String {
    match answer {
        Answer::Offer => "offer".to_owned(),
        Answer::Ack => "ack".to_owned(),
        Answer::Nak => "nak".to_owned(),
        Answer::Noted => "noted".to_owned(),
        Answer::Silence(reason) => format!("no answer ({reason})"),
    }
}

fn protocol(over: Protocol) -> &'static str {
    match over {
        Protocol::Tftp => "TFTP",
        Protocol::Http => "HTTP",
    }
}

fn how(transfer: &Transfer) -> String {
    match transfer {
        Transfer::Started => "started".to_owned(),
        Transfer::Done {
            bytes: sent,
            elapsed_ms,
        } => format!("{} in {}", bytes(*sent), millis(*elapsed_ms)),
        Transfer::Failed {
            bytes: sent,
            reason,
        } => format!("failed after {}: {reason}", bytes(*sent)),
    }
}

fn told(stage: &Stage) -> String {
    match stage {
        Stage::Stage1 { kernel, started_ms } => {
            format!("kernel {kernel} started stage1 in {}", millis(*started_ms))
        }
        Stage::RootFetched {
            bytes: fetched,
            elapsed_ms,
            retries,
        } => format!(
            "root file system of {} fetched and checked in {}, {retries} retries",
            bytes(*fetched),
            millis(*elapsed_ms)
        ),
        Stage::SwitchRoot => "switches to the root file system".to_owned(),
        Stage::Failed { reason } => format!("gave up: {reason}"),
        Stage::AgentStarted { tree } => format!("agent runs on tree {}", tree.short()),
        Stage::Healthy { tree } => format!("healthy on tree {}", tree.short()),
        Stage::Unhealthy(unwell) => {
            let checks = unwell.failed_checks.iter().map(|check| check.name.clone());
            let failed: Vec<_> = unwell.failed_units.iter().cloned().chain(checks).collect();
            format!(
                "unhealthy: systemd says `{}` {}",
                unwell.state,
                failed.join(", ")
            )
        }
        Stage::Heartbeat {
            state,
            failed_checks,
            ..
        } if failed_checks.is_empty() => format!("heartbeat, system is `{state}`"),
        Stage::Heartbeat {
            state,
            failed_checks,
            ..
        } => format!(
            "heartbeat, system is `{state}`, failing: {}",
            failed_checks.join(", ")
        ),
        Stage::Drift(drift) if drift.paths.is_empty() => "its files are as in its image".to_owned(),
        Stage::Drift(drift) => format!(
            "changed since it booted: {}{}",
            drift.paths.join(", "),
            match drift.omitted {
                0 => String::new(),
                more => format!(" and {more} more"),
            }
        ),
    }
}
