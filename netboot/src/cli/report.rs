//! How failures are told: the whole chain of causes, what may help, and the exit code.
//!
//! It refuses to shorten: all problems of a site are shown at once, each with its line.

use std::error::Error;
use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, LabeledSpan, NamedSource, SourceCode};
use netboot_core::site::{Problem, SourceFile};

use crate::site::SiteError;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: it is done.
    Done = 0,
    /// 1: it failed.
    Failed = 1,
    /// 2: the command line is wrong.
    Usage = 2,
    /// 3: the site is wrong.
    Configuration = 3,
    /// 4: something remote refused or could not be reached; a retry may help.
    Remote = 4,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure as it is told to people.
#[derive(Debug)]
pub struct Failure {
    error: Box<dyn Error + Send + Sync>,
    help: Option<String>,
    exit: Exit,
}

impl Failure {
    /// Wraps an error that ends the program with [`Exit::Failed`].
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            error: error.into(),
            help: None,
            exit: Exit::Failed,
        }
    }

    /// Adds what may help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Ends the program with another code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Tells it on standard error and returns the exit code.
    #[must_use]
    pub fn report(&self) -> Exit {
        if let Some(SiteError::Wrong { files, problems }) = self.error.downcast_ref() {
            eprint!("{}", draw(files, problems));
        }
        eprintln!("error: {}", self.error);
        let mut cause = self.error.source();
        while let Some(error) = cause {
            eprintln!("  caused by: {error}");
            cause = error.source();
        }
        if let Some(help) = &self.help {
            eprintln!("  help: {help}");
        }
        self.exit
    }
}

impl From<SiteError> for Failure {
    fn from(error: SiteError) -> Self {
        let failure = Self::new(error).exit(Exit::Configuration);
        match failure.error.downcast_ref() {
            Some(SiteError::List { .. } | SiteError::Empty { .. }) => failure
                .help("give the directory that holds the site's `*.toml` files with `--site`"),
            _ => failure,
        }
    }
}

/// Returns an error with all its causes, on one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Draws problems with the text that they are about.
#[must_use]
pub fn draw(files: &[SourceFile], problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        let drawn = Drawn {
            problem,
            source: files
                .iter()
                .find(|file| file.path == problem.location.path)
                .map(|file| NamedSource::new(&*file.path, file.text.to_string())),
        };
        // Writing to a string cannot fail.
        GraphicalReportHandler::new()
            .render_report(&mut text, &drawn)
            .ok();
    }
    text
}

#[derive(Debug)]
struct Drawn<'a> {
    problem: &'a Problem,
    source: Option<NamedSource<String>>,
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.problem, f)
    }
}

impl Error for Drawn<'_> {}

impl Diagnostic for Drawn<'_> {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let here = LabeledSpan::new_with_span(None, self.problem.location.span.clone());
        let first = self
            .problem
            .first
            .iter()
            .filter(|first| first.path == self.problem.location.path)
            .map(|first| LabeledSpan::new_with_span(Some("first here".into()), first.span.clone()));
        Some(Box::new(std::iter::once(here).chain(first)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let first = self.problem.first.as_ref()?;
        (first.path != self.problem.location.path)
            .then(|| Box::new(format!("first at {first}")) as Box<dyn fmt::Display>)
    }
}
