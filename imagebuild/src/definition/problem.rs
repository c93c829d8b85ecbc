//! What is wrong with a definition, and where.
//!
//! It refuses to print itself in colour: the binary underlines the place, this only knows it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One thing that is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Its text, to underline in; empty when it could not be read.
    pub text: Arc<str>,
    /// Bytes of the text that it is about; empty for the file as a whole.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right, if that is known.
    pub help: Option<String>,
}

impl Problem {
    /// Makes a problem of a file as a whole.
    #[must_use]
    pub fn about_file(file: &Path, message: String) -> Self {
        Self {
            file: file.to_path_buf(),
            text: Arc::from(""),
            span: 0..0,
            message,
            help: None,
        }
    }

    /// Says something else about the same place.
    #[must_use]
    pub(super) fn because(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// Returns line and column, counted from one in characters; `None` for the file as a whole.
    #[must_use]
    pub fn position(&self) -> Option<(usize, usize)> {
        if self.text.is_empty() || self.span.is_empty() {
            return None;
        }
        let before = self.text.get(..self.span.start)?;
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        Some((line, before[start..].chars().count() + 1))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.position() {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}
