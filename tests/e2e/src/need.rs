//! Tools that a test needs.
//!
//! It refuses to let a test pass in silence when a tool is missing: in CI that is a failure, at a
//! desk it is said aloud.

use std::env;

use lab::tools;

/// Says whether all these programs are there.
///
/// # Panics
/// In CI (`CI=true`), when one is missing.
#[must_use]
pub fn has(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| tools::find(program).is_none())
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(!is_ci(), "missing: {missing:?}");
    eprintln!("SKIPPED for want of {missing:?}");
    false
}

/// Says whether this is CI, where nothing may be skipped.
#[must_use]
pub fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}
