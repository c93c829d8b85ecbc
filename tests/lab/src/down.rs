//! `lab down`: ends everything that a lab started and removes what it left, also after a crash.
//!
//! It refuses to touch what the lab did not start, and keeps images, locks and the key.

use crate::process;
use crate::state::{Error, State};

/// Ends everything, removes what it left, and says how many processes there were.
///
/// # Errors
/// When something that a run left cannot be removed.
pub fn down(state: &State) -> Result<usize, Error> {
    let ended = end_all(state);
    state.clear_run()?;
    Ok(ended)
}

/// Ends everything, recorded or not, and says how many processes there were.
#[must_use]
pub fn end_all(state: &State) -> usize {
    let mut ended = 0;
    // A damaged record is no reason to leave anything running: the mark finds all of it.
    if let Ok(running) = state.running() {
        for process in running.processes() {
            ended += usize::from(process.is_alive());
            process.end();
        }
    }
    for process in process::marked(state.path()) {
        ended += usize::from(process.is_alive());
        process.end();
    }
    ended
}

/// Says what `down` did.
#[must_use]
pub fn summary(ended: usize) -> String {
    match ended {
        0 => "nothing of the lab was running".to_owned(),
        ended => format!("ended {ended} processes"),
    }
}
