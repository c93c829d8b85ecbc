//! Refusals as RFC 9457 says: a JSON document with type, title, status, detail, and what may help.
//!
//! It refuses to tell causes that are ours: those go to the log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Media type of a problem.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// What every `type` begins with.
const BASE: &str = "urn:firstboot:problem:";

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// What kind of problem: `urn:firstboot:problem:` and a constant word.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind, in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This problem, in words.
    pub detail: String,
    /// What may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub help: Option<Box<str>>,
    /// Everything that is wrong with what was sent, where there is more than one thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl Problem {
    /// Makes a problem; `word` is constant, and `title` says the same in words.
    pub(crate) fn new(status: u16, word: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{BASE}{word}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            help: None,
            problems: Vec::new(),
        }
    }

    /// Adds what may help.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into().into_boxed_str());
        self
    }

    /// Adds everything that is wrong.
    #[must_use]
    pub(crate) fn problems(mut self, problems: Vec<String>) -> Self {
        self.problems = problems;
        self
    }

    /// Returns the word that programs tell problems apart by.
    #[must_use]
    pub(crate) fn word(&self) -> &str {
        self.kind.strip_prefix(BASE).unwrap_or(&self.kind)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
