//! What a person sees of a fetch: a bar on a terminal, two lines elsewhere, nothing when nothing is fetched.
//!
//! It refuses to write to standard output, which is for data.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The progress of one fetch; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    begun: Instant,
}

impl Progress {
    /// Begins to fetch so many things of so many bytes; says so when there is anything to fetch.
    pub(crate) fn begin(what: &'static str, count: usize, bytes: u64) -> Self {
        let bar = if count > 0 && std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(
                "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(format!("fetching {count} {what}"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            if count > 0 {
                eprintln!("fetching {count} {what}, {}", HumanBytes(bytes));
            }
            ProgressBar::hidden()
        };
        Self {
            bar,
            what,
            begun: Instant::now(),
        }
    }

    /// Counts bytes that arrived.
    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Takes back bytes of an attempt that failed.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.bar
            .set_position(self.bar.position().saturating_sub(bytes));
    }

    /// Says what was fetched.
    pub(crate) fn finish(&self, count: usize, bytes: u64) {
        self.bar.finish_and_clear();
        if count > 0 {
            let seconds = self.begun.elapsed().as_secs_f64();
            eprintln!(
                "fetched {count} {}, {} in {seconds:.1} s",
                self.what,
                HumanBytes(bytes)
            );
        }
    }
}
