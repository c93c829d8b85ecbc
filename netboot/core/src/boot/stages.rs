//! The stages of a boot with their times and bytes, for tables.
//!
//! It refuses to judge them.

use serde::{Deserialize, Serialize};

use image_manifest::Stage;

use super::event::{Event, Transfer, What};
use super::progress::Step;
use crate::Timestamp;

/// One stage of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageSummary {
    /// Its name: see [`Step::label`].
    pub name: String,
    /// Milliseconds from the boot's first event to the stage's.
    pub at_ms: u64,
    /// Milliseconds until the next stage began; of the last, until its last event.
    pub elapsed_ms: u64,
    /// Bytes that were sent for it.
    pub bytes: u64,
}

/// Returns the stages of a boot in the order in which they began.
#[must_use]
pub fn stages(started: Timestamp, events: &[Event]) -> Vec<StageSummary> {
    let mut found: Vec<(Step, Timestamp, Timestamp, u64)> = Vec::new();
    for event in events {
        let Some(step) = Step::of(&event.what) else {
            continue;
        };
        let sent = sent(&event.what);
        match found.iter_mut().find(|(known, ..)| *known == step) {
            Some((_, _, last, bytes)) => {
                *last = event.at;
                *bytes = counted(step, *bytes, sent, &event.what);
            }
            None => found.push((step, event.at, event.at, sent)),
        }
    }
    let ends: Vec<_> = found.iter().skip(1).map(|(_, first, ..)| *first).collect();
    found
        .iter()
        .enumerate()
        .map(|(index, &(step, first, last, bytes))| StageSummary {
            name: step.label().to_owned(),
            at_ms: millis(first, started),
            elapsed_ms: millis(ends.get(index).copied().unwrap_or(last), first),
            bytes,
        })
        .collect()
}

/// Returns the bytes that a boot was sent.
#[must_use]
pub fn bytes(events: &[Event]) -> u64 {
    let stages = stages(Timestamp::default(), events);
    stages.iter().map(|stage| stage.bytes).sum()
}

/// The root file system is counted once, by whoever saw it last: the server or stage1.
fn counted(step: Step, before: u64, sent: u64, what: &What) -> u64 {
    match what {
        What::Report(_) if step == Step::Rootfs => before.max(sent),
        _ => before.saturating_add(sent),
    }
}

fn sent(what: &What) -> u64 {
    match what {
        What::Fetch {
            transfer: Transfer::Done { bytes, .. } | Transfer::Failed { bytes, .. },
            ..
        } => *bytes,
        What::Report(report) => match report.stage {
            Stage::RootFetched { bytes, .. } => bytes,
            _ => 0,
        },
        _ => 0,
    }
}

fn millis(later: Timestamp, earlier: Timestamp) -> u64 {
    later.0.saturating_sub(earlier.0)
}
