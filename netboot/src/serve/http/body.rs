//! The body of an answer: slices of a mapped file, or a short text.
//!
//! It refuses to copy: hyper writes the slices from the mapping.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::serve::catalogue::{End, Outcome, Transfer, TransferLog};

/// Bytes of one frame. Measured: 64 KiB and 256 KiB serve large files alike, and smaller frames share a
/// connection's buffers better.
const FRAME: usize = 64 << 10;

/// The body of an answer.
pub(crate) struct Body {
    rest: Bytes,
    told: Option<Told>,
}

/// A transfer whose end is told to the log, however it ends.
struct Told {
    transfer: Transfer,
    log: Arc<dyn TransferLog>,
    began: Instant,
}

impl Body {
    /// A text, or nothing.
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self {
            rest: text.into(),
            told: None,
        }
    }

    /// A file or a part of it; the log hears of its beginning now and of its end when the body is dropped.
    pub(super) fn file(bytes: Bytes, transfer: Transfer, log: Arc<dyn TransferLog>) -> Self {
        log.began(&transfer);
        let began = Instant::now();
        Self {
            rest: bytes,
            told: Some(Told {
                transfer,
                log,
                began,
            }),
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(FRAME);
        let frame = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let Some(told) = self.told.take() else {
            return;
        };
        let left = self.rest.len() as u64;
        let outcome = match left {
            0 => Outcome::Complete,
            _ => Outcome::Cut("the host closed the connection".to_owned()),
        };
        let end = End {
            bytes: told.transfer.length - left,
            elapsed: told.began.elapsed(),
            outcome,
        };
        told.log.ended(&told.transfer, &end);
    }
}
