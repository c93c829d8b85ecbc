//! What a person sees while an image is published: bars on a terminal, plain lines elsewhere.
//!
//! It refuses to write to standard output, which is for data, and to say the same again and again.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cloud::{Progress, Step};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

/// Lines about bytes and waits come no more often than this, for each target.
const PAUSE: Duration = Duration::from_secs(15);

/// The progress of one publish.
#[derive(Debug, Default)]
pub(super) struct Narration {
    bars: Option<MultiProgress>,
    shown: Mutex<BTreeMap<String, Shown>>,
}

#[derive(Debug)]
struct Shown {
    bar: ProgressBar,
    said: Option<Instant>,
    done: u64,
    waits: String,
}

impl Narration {
    pub(super) fn new() -> Self {
        let person = std::io::stderr().is_terminal();
        Self {
            bars: person.then(MultiProgress::new),
            shown: Mutex::default(),
        }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<String, Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of<T>(&self, target: &str, tell: impl FnOnce(&mut Shown) -> T) -> T {
        let mut shown = self.shown();
        let shown = shown.entry(target.to_owned()).or_insert_with(|| Shown {
            bar: self.bar(target),
            said: None,
            done: 0,
            waits: String::new(),
        });
        tell(shown)
    }

    fn bar(&self, target: &str) -> ProgressBar {
        let Some(bars) = &self.bars else {
            return ProgressBar::hidden();
        };
        let bar = bars.add(ProgressBar::no_length());
        let style =
            ProgressStyle::with_template("{prefix:16} {wide_bar} {bytes}/{total_bytes} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(target.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Takes the bars away.
    pub(super) fn finish(&self) {
        for shown in self.shown().values() {
            shown.bar.finish_and_clear();
        }
    }
}

impl Shown {
    /// Whether it is time to say something again.
    fn is_due(&mut self) -> bool {
        let due = self.said.is_none_or(|said| said.elapsed() >= PAUSE);
        if due {
            self.said = Some(Instant::now());
        }
        due
    }
}

impl Progress for Narration {
    fn begins(&self, step: &Step) {
        let Step {
            target,
            action,
            place,
            object,
            ..
        } = step;
        self.of(target, |shown| shown.bar.set_message((*action).to_owned()));
        if self.bars.is_none() {
            eprintln!("{target}: {action} {object} in {place}");
        }
    }

    fn bytes(&self, target: &str, done: u64, of: u64) {
        let due = self.of(target, |shown| {
            shown.bar.set_length(of);
            shown.bar.set_position(done);
            let whole = done == of && shown.done != done;
            shown.done = done;
            shown.is_due() || whole
        });
        if due && self.bars.is_none() {
            eprintln!(
                "{target}: {} of {} are there",
                HumanBytes(done),
                HumanBytes(of)
            );
        }
    }

    fn waits(&self, target: &str, what: &str) {
        let due = self.of(target, |shown| {
            shown.bar.set_message(what.to_owned());
            let new = shown.waits != what;
            what.clone_into(&mut shown.waits);
            shown.is_due() || new
        });
        if due && self.bars.is_none() {
            eprintln!("{target}: waits {what}");
        }
    }
}
