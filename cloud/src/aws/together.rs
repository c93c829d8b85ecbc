//! Several things at once, in one task: what they share may be borrowed, and all of them end with it.

use std::pin::Pin;
use std::task::Poll;

use crate::error::Error;
use crate::provider::Pending;

/// Waits for all of them; answers are in the order of the questions.
pub(super) async fn together<T>(mut all: Vec<Pending<'_, T>>) -> Vec<T> {
    let mut answers: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut waits = false;
        for (pending, answer) in all.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                match Pin::new(pending).poll(context) {
                    Poll::Ready(ready) => *answer = Some(ready),
                    Poll::Pending => waits = true,
                }
            }
        }
        if waits {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}

/// Waits for all of them, also when some fail: what can be finished is.
pub(super) async fn all<T>(all: Vec<Pending<'_, Result<T, Error>>>) -> Result<Vec<T>, Error> {
    let of = all.len();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for answer in together(all).await {
        match answer {
            Ok(answer) => good.push(answer),
            Err(error) => bad.push(error),
        }
    }
    if bad.is_empty() {
        return Ok(good);
    }
    if of == 1 {
        return Err(bad.remove(0));
    }
    let failures = bad.iter().map(|error| crate::http::chain(error)).collect();
    Err(Error::Partly {
        failures,
        of,
        first: Box::new(bad.remove(0)),
    })
}
