//! How failures are printed: problems underlined in their files, all else as a chain.
//!
//! It refuses to hide a cause.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use imagebuild::definition::Problem;
use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report,
};

use super::failure::Failure;

/// Prints a failure on standard error.
pub(super) fn report(failure: &Failure) {
    let text = match failure {
        Failure::Problems(problems) => problems.iter().map(underline).collect(),
        failure => chain(failure.error(), failure.help()),
    };
    // Nobody is left to tell when this fails.
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Writes an error, its causes, and what may help.
fn chain(error: &(dyn Error + 'static), help: Option<&str>) -> String {
    let mut text = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        push(&mut text, format_args!("  caused by: {error}\n"));
        cause = error.source();
    }
    if let Some(help) = help {
        push(&mut text, format_args!("  help: {help}\n"));
    }
    text
}

/// Writes a problem with the line that it is about.
fn underline(problem: &Problem) -> String {
    let mut text = format!("error: {problem}\n");
    if problem.position().is_none() {
        if let Some(help) = &problem.help {
            push(&mut text, format_args!("  help: {help}\n"));
        }
        return text;
    }
    let label = LabeledSpan::new_with_span(None, problem.span.clone());
    let mut diagnostic = MietteDiagnostic::new(problem.message.clone()).with_label(label);
    diagnostic.help.clone_from(&problem.help);
    let source = NamedSource::new(problem.file.display().to_string(), problem.text.to_string());
    let report = Report::new(diagnostic).with_source_code(source);
    let theme = if io::stderr().is_terminal() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::none()
    };
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false);
    // What cannot be drawn was said in words already.
    let mut drawn = String::new();
    // What cannot be drawn was said in words already, and so was what stands above the frame.
    if handler.render_report(&mut drawn, report.as_ref()).is_ok() {
        let frame = drawn
            .lines()
            .skip_while(|line| !line.contains("-[") && !line.contains("─["));
        frame.for_each(|line| push(&mut text, format_args!("{line}\n")));
    }
    text
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    text.write_fmt(what).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_problem_names_its_file_line_and_column_and_shows_the_line() {
        let text = "name = \"host\"\nnmae = 1\n";
        let problem = Problem {
            file: "images/host/image.toml".into(),
            text: Arc::from(text),
            span: 14..18,
            message: "unknown key `nmae`".to_owned(),
            help: Some("did you mean `name`?".to_owned()),
        };
        let shown = underline(&problem);
        for expected in [
            "error: images/host/image.toml:2:1: unknown key `nmae`",
            "nmae = 1",
            "did you mean `name`?",
        ] {
            assert!(shown.contains(expected), "{expected} in\n{shown}");
        }
    }

    #[test]
    fn every_cause_is_shown() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to build")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("disk full"));
        let shown = chain(&error, Some("buy one"));
        assert_eq!(
            shown,
            "error: failed to build\n  caused by: disk full\n  help: buy one\n"
        );
    }
}
