//! The outcome of a trial as a `JUnit` file, which CI systems show.
//!
//! It writes; what a host said is text to it, and no markup.

use std::fmt::Write as _;

use image_manifest::CheckResult;

use super::Outcome;

/// Writes a report: one case for the boot, one for each check.
#[must_use]
pub fn report(image: &str, outcome: &Outcome) -> String {
    let checks = outcome
        .verdict
        .as_ref()
        .map_or(&[][..], |verdict| &verdict.checks);
    let boot = boot(outcome);
    let failures = checks
        .iter()
        .filter(|check| check.problem.is_some())
        .count()
        + usize::from(boot.problem.is_some());
    let seconds = format!(
        "{}.{:03}",
        outcome.elapsed_ms / 1000,
        outcome.elapsed_ms % 1000
    );
    let image = escape(image);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{image}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\" time=\"{seconds}\">\n",
        checks.len() + 1
    );
    for check in std::iter::once(&boot).chain(checks) {
        let name = escape(&check.name);
        // Writing to a string does not fail.
        let written = match &check.problem {
            None => writeln!(text, "  <testcase classname=\"{image}\" name=\"{name}\"/>"),
            Some(problem) => writeln!(
                text,
                "  <testcase classname=\"{image}\" name=\"{name}\"><failure message=\"{}\"/></testcase>",
                escape(problem)
            ),
        };
        written.unwrap_or_default();
    }
    text.push_str("</testsuite>\n");
    text
}

/// Whether the host came to a verdict at all, and init was well.
fn boot(outcome: &Outcome) -> CheckResult {
    let unwell = outcome.verdict.as_ref();
    let unwell = unwell.filter(|verdict| !verdict.healthy && verdict.state != "running");
    let unwell = unwell.map(|verdict| format!("init says {}", verdict.state));
    CheckResult {
        name: "boot".to_owned(),
        problem: outcome.failure.clone().or(unwell),
    }
}

/// Text as an attribute of XML 1.0, which has no control characters at all.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
