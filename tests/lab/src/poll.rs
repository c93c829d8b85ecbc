//! Bounded polling: the only way in which the lab waits for something that cannot tell it.
//!
//! It refuses to wait for a fixed time and hope: every wait has a condition and a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// Asks every 20 ms until the answer is there or the time is over.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_ends_the_wait() {
        let mut asked = 0;
        let answer = until(Duration::from_secs(5), || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(answer, Some(3));
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        assert_eq!(until(Duration::ZERO, || None::<()>), None);
    }
}
