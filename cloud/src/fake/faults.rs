//! What goes wrong in a fake, and when: a plan made beforehand, so that tests do not depend on luck.

use std::time::{Duration, Instant};

use super::server::{Called, Kind, Reply};

/// When something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the call takes effect.
    Before,
    /// After it took effect: only its answer is lost.
    After,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Act {
    /// This is answered.
    Answer(Reply),
    /// The connection is cut.
    Cut,
    /// No answer comes, as long as the client waits. [`super::Server::stopped`] tells when that happens.
    Hang,
}

/// One thing that goes wrong, once or several times.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Calls with this label; all changing calls without one.
    pub label: Option<String>,
    /// How many of them go well before.
    pub skip: u64,
    /// How many go wrong then.
    pub times: u64,
    /// When it happens.
    pub when: When,
    /// What happens.
    pub act: Act,
}

/// All that goes wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// What goes wrong at some calls.
    pub faults: Vec<Fault>,
    /// Every answer comes this much later.
    pub latency: Duration,
    /// Calls with this label that are taken in a second, in bursts of as many; more are throttled.
    pub rate: Option<(String, u32)>,
    tokens: f64,
    filled: Option<Instant>,
}

impl Faults {
    /// Takes the next thing that goes wrong at a call, if something does.
    pub(super) fn next(&mut self, called: &Called, when: When) -> Option<Act> {
        let matching = |fault: &&mut Fault| {
            fault.when == when
                && match &fault.label {
                    Some(label) => *label == called.label,
                    None => called.kind == Kind::Changing,
                }
        };
        for fault in self.faults.iter_mut().filter(matching) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Some(fault.act.clone());
            }
        }
        None
    }

    /// Whether a call is one too many.
    pub(super) fn throttles(&mut self, called: &Called, now: Instant) -> bool {
        let Some((label, rate)) = &self.rate else {
            return false;
        };
        if *label != called.label {
            return false;
        }
        let rate = f64::from(*rate);
        let gone = self.filled.map(|filled| now.duration_since(filled));
        self.tokens = match gone {
            Some(gone) => (self.tokens + gone.as_secs_f64() * rate).min(rate),
            None => rate,
        };
        self.filled = Some(now);
        if self.tokens < 1.0 {
            return true;
        }
        self.tokens -= 1.0;
        false
    }
}
