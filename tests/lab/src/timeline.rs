//! The rack's boots as people read them: one line a stage while it happens, one table at the end.
//!
//! It refuses to interpret: stages and verdicts are printed as the appliance names them.

use std::collections::HashMap;

use crate::firmware::Firmware;
use crate::hosts::{Condition, HostView, Stage};
use crate::rack::Slot;

/// Remembers what was told, so that each stage is told once.
#[derive(Debug, Default)]
pub struct Teller {
    told: HashMap<String, Told>,
}

/// What was told of one host.
#[derive(Debug, Default)]
struct Told {
    boot: String,
    stages: usize,
    verdict: String,
}

impl Teller {
    /// Returns the lines that are new since the last call.
    pub fn news(&mut self, hosts: &[HostView]) -> Vec<String> {
        let mut lines = Vec::new();
        for host in hosts {
            let Some(boot) = &host.boot else { continue };
            let told = self.told.entry(host.name.clone()).or_default();
            if told.boot != boot.id {
                if !told.boot.is_empty() {
                    lines.push(format!("{:<8} starts over", host.name));
                }
                *told = Told {
                    boot: boot.id.clone(),
                    ..Told::default()
                };
            }
            for (index, stage) in boot.stages.iter().enumerate().skip(told.stages) {
                let before = index
                    .checked_sub(1)
                    .and_then(|index| boot.stages.get(index));
                let at = seconds(stage.at_ms);
                let done = before.map_or_else(String::new, done);
                let line = format!("{:<8} {at:>7.1} s  {:<12}{done}", host.name, stage.name);
                lines.push(line.trim_end().to_owned());
            }
            told.stages = boot.stages.len();
            if host.is_settled() && told.verdict != boot.verdict.text {
                lines.push(format!("{:<8} {}", host.name, boot.verdict.text));
                told.verdict.clone_from(&boot.verdict.text);
            }
        }
        lines
    }
}

/// Says what a stage took, now that the next one began.
fn done(stage: &Stage) -> String {
    let moved = if stage.bytes == 0 {
        String::new()
    } else {
        format!("{} in ", size(stage.bytes))
    };
    format!(" ({} took {moved}{} ms)", stage.name, stage.elapsed_ms)
}

/// Lays out the final table: one column a host, one row a stage.
#[must_use]
pub fn table(slots: &[Slot], hosts: &[HostView]) -> String {
    let views: Vec<_> = slots
        .iter()
        .map(|slot| hosts.iter().find(|host| host.name == slot.name))
        .collect();
    let mut rows = vec![row("host", slots.iter().map(|slot| slot.name.to_owned()))];
    rows.push(row(
        "firmware",
        slots.iter().map(|slot| slot.firmware.to_string()),
    ));
    rows.push(row(
        "loader",
        slots
            .iter()
            .zip(&views)
            .map(|(slot, view)| loader(*slot, *view)),
    ));
    for name in stage_names(&views) {
        rows.push(row(
            &format!("{name} ms"),
            views.iter().map(|view| stage_cell(*view, &name)),
        ));
    }
    rows.push(row(
        "bytes",
        views.iter().map(|view| {
            view.and_then(|view| view.boot.as_ref())
                .map_or_else(dash, |boot| boot.bytes.to_string())
        }),
    ));
    rows.push(row(
        "tree",
        views.iter().map(|view| {
            let tree = view.and_then(|view| view.boot.as_ref()?.tree);
            tree.map_or_else(dash, |tree| tree.short())
        }),
    ));
    rows.push(row(
        "verdict",
        views.iter().map(|view| {
            let condition = view.map_or(Condition::Silent, HostView::condition);
            format!("{condition:?}").to_lowercase()
        }),
    ));
    align(&rows)
}

fn row(head: &str, cells: impl Iterator<Item = String>) -> Vec<String> {
    std::iter::once(head.to_owned()).chain(cells).collect()
}

fn loader(slot: Slot, view: Option<&HostView>) -> String {
    match (view.and_then(|view| view.loader.clone()), slot.firmware) {
        (Some(loader), _) => loader,
        (None, Firmware::Bios) => "iPXE in ROM".to_owned(),
        (None, Firmware::UefiPxe | Firmware::UefiHttp) => dash(),
    }
}

fn stage_names(views: &[Option<&HostView>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for boot in views.iter().flatten().filter_map(|view| view.boot.as_ref()) {
        let mut at = 0;
        for stage in &boot.stages {
            if let Some(known) = names.iter().position(|name| *name == stage.name) {
                at = known + 1;
            } else {
                names.insert(at, stage.name.clone());
                at += 1;
            }
        }
    }
    names
}

fn stage_cell(view: Option<&HostView>, name: &str) -> String {
    let stage = view
        .and_then(|view| view.boot.as_ref())
        .and_then(|boot| boot.stages.iter().find(|stage| stage.name == name));
    match stage {
        None => dash(),
        Some(stage) => stage.elapsed_ms.to_string(),
    }
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<_> = (0..columns)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn dash() -> String {
    "-".to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "for people, with one decimal")]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// Writes a size as people read it.
#[expect(clippy::cast_precision_loss, reason = "for people, with one decimal")]
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rack;

    fn host(stages: usize, state: &str) -> HostView {
        let all = [
            json!({"name": "firmware", "at-ms": 5, "elapsed-ms": 1495, "bytes": 0}),
            json!({"name": "kernel", "at-ms": 1500, "elapsed-ms": 80, "bytes": 12_000_000}),
        ];
        serde_json::from_value(json!({
            "name": "bios1",
            "boot": {"id": "b1", "stages": all[..stages], "bytes": 12_000_000, "verdict": {"state": state, "text": "all is well"}},
        }))
        .unwrap()
    }

    #[test]
    fn each_stage_is_told_once_and_the_verdict_last() {
        let mut teller = Teller::default();
        assert_eq!(
            teller.news(&[host(1, "booting")]),
            ["bios1        0.0 s  firmware"]
        );
        assert_eq!(teller.news(&[host(1, "booting")]), [""; 0]);
        assert_eq!(
            teller.news(&[host(2, "healthy")]),
            [
                "bios1        1.5 s  kernel       (firmware took 1495 ms)",
                "bios1    all is well"
            ]
        );
        assert_eq!(teller.news(&[host(2, "healthy")]), [""; 0]);
    }

    #[test]
    fn the_table_has_a_column_for_each_host() {
        let text = table(&rack::SLOTS[..3], &[host(2, "healthy")]);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .collect();
        assert_eq!(lines[0], ["host", "bios1", "uefi1", "http1"]);
        assert_eq!(lines[4], ["kernel", "ms", "80", "-", "-"]);
        assert_eq!(
            lines.last().unwrap(),
            &["verdict", "healthy", "silent", "silent"]
        );
    }
}
