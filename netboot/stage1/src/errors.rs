//! An error and its causes as one line of text, for the console and for reports.
//!
//! It knows no error type: every module keeps its own.

use std::error::Error;

/// Joins an error and all its causes with colons.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
