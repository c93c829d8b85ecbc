//! What can be wrong with the files of a site, each with its place.
//!
//! It refuses to draw: the command line underlines the text.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// One file as the shell read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path, for people.
    pub path: Arc<str>,
    /// What it holds.
    pub text: Arc<str>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Path of the file.
    pub path: Arc<str>,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The bytes of the text that are meant.
    pub span: Range<usize>,
}

impl Location {
    /// Finds the place of a span in a file.
    #[must_use]
    pub fn of(file: &SourceFile, span: Range<usize>) -> Self {
        let end = span.start.min(file.text.len());
        let before = &file.text.as_bytes()[..end];
        let line_start = before
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[line_start..])
            .chars()
            .count()
            + 1;
        Self {
            path: Arc::clone(&file.path),
            line: before.split(|&byte| byte == b'\n').count(),
            column,
            span,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path, self.line, self.column)
    }
}

/// One thing that is wrong with a site; shown as `file:line:column: text`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {kind}")]
pub struct Problem {
    /// Where it is.
    pub location: Location,
    /// What it is.
    pub kind: ProblemKind,
    /// The other place that it contradicts, if there is one.
    pub first: Option<Location>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// The file is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// Nothing reads this key.
    #[error("unknown key `{key}` in {table}{}", expected(.known))]
    UnknownKey {
        /// The key.
        key: String,
        /// The table it stands in.
        table: String,
        /// Keys that the table may have.
        known: Vec<&'static str>,
    },
    /// A key that must be given is not.
    #[error("{table} lacks `{key}`")]
    MissingKey {
        /// The key.
        key: &'static str,
        /// The table it belongs in.
        table: String,
    },
    /// The value has another type.
    #[error("`{key}` must be {expected}, and is {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The value has the right type and cannot be read.
    #[error("`{key}`: {reason}")]
    BadValue {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// The same name, address or table is given twice.
    #[error("{what} is given twice")]
    Duplicate {
        /// What is given twice.
        what: String,
    },
    /// Two values do not fit together.
    #[error("{0}")]
    Contradiction(String),
    /// It is allowed, and an operator should know.
    #[error("{0}")]
    Advice(String),
}

fn expected(known: &[&'static str]) -> String {
    if known.is_empty() {
        return String::new();
    }
    format!("; it may have: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_counts_lines_and_characters_from_one() {
        let file = SourceFile {
            path: "a.toml".into(),
            text: "é = 1\nsecond = é2".into(),
        };
        let cases = [
            (0..1, "a.toml:1:1"),
            (7..9, "a.toml:2:1"),
            (18..19, "a.toml:2:11"),
            (99..99, "a.toml:2:12"),
        ];
        for (span, expected) in cases {
            assert_eq!(Location::of(&file, span).to_string(), expected);
        }
    }
}
