//! What is told on standard error while a verb runs.
//!
//! It refuses to repeat what progress bars show.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::uptime;

/// Variable that chooses what is told, such as `imagebuild=debug`.
const VARIABLE: &str = "IMAGEBUILD_LOG";

/// Starts to tell events on standard error.
pub(super) fn start() {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_timer(uptime())
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_level(true)
        .finish();
    // It fails only when it was called before.
    drop(tracing::subscriber::set_global_default(subscriber));
}
