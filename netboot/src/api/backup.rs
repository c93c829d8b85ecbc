//! Backups over the API.
//!
//! It refuses to hold an archive in memory: it is written as it is read.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::mpsc;

use super::openapi::Refusals;
use super::order::Ordered;
use super::tokens::whole_site;
use super::{Api, Problem};
use crate::backup;
use crate::cli::report::chain;
use crate::clock::now;
use crate::operate::{Deed, Refusal};

/// Bytes of one piece, and pieces that wait for a slow reader.
const PIECE: usize = 64 << 10;
const WAITING: usize = 4;

/// Takes a backup: one tar archive with everything that the appliance knows, keys included.
///
/// `manifest.json`, its first file, names all others with their digests.
#[utoipa::path(post, path = "/v1/backup", operation_id = "take_backup", tag = "records", security(("token" = ["admin"])),
    responses((status = 200, description = "The archive.", content_type = "application/x-tar"), Refusals))]
pub(super) async fn take(
    State(api): State<Arc<Api>>,
    Ordered(order): Ordered,
) -> Result<Response, Problem> {
    let allowed = whole_site(&order.who);
    api.judged(&order, "backup", "site", &json!({}), allowed)
        .await?;
    let Ok(turn) = Arc::clone(&api.backups).try_acquire_owned() else {
        return Err(Problem::new(
            409,
            "conflict",
            "something else is under way",
            "a backup is being taken",
        ));
    };
    let deed = Deed {
        at: now(),
        who: order.who.clone(),
        action: "backup",
        object: "site".to_owned(),
        request: json!({}),
        outcome: "done".to_owned(),
    };
    // Before it is taken, so that the copy says who has it.
    api.parts
        .ledger
        .commit(deed, Vec::new())
        .await
        .map_err(Refusal::from)?;
    let taken = backup::take(&api.parts.data, now())
        .await
        .map_err(|error| {
            tracing::warn!(error = %chain(&error), "backup failed");
            Problem::new(
                503,
                "unavailable",
                "the appliance cannot do it now",
                chain(&error),
            )
        })?;
    let (pieces, stream) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE, Pieces(pieces.clone()));
        if let Err(error) = taken.write(&mut out).and_then(|()| out.flush()) {
            tracing::warn!(error = %error, "backup was cut off");
            // The answer must not look whole. Whoever has gone does not hear it.
            pieces.blocking_send(Err(error)).ok();
        }
        drop(turn);
    });
    let body = Body::new(Stream(stream));
    Ok(([(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

/// Writes into a channel.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = self.0.blocking_send(Ok(piece));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A body out of a channel.
struct Stream(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
