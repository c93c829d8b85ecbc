//! Serial consoles over an upgraded connection.
//!
//! It refuses to keep what is typed or shown: the audit log says who had a console and when, not what was said.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ipmi::Console;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::hosts::find;
use super::openapi::Refusals;
use super::order::Caller;
use super::{Api, CONSOLE, Problem};
use crate::clock::now;
use crate::operate::{Deed, Refusal};

/// A console that nobody types into is closed after this time: a BMC has few of them, most of them one.
const IDLE: Duration = Duration::from_hours(4);

/// How often it is looked whether the token that opened a console was revoked, or has expired.
const LOOK: Duration = Duration::from_secs(2);

/// How long somebody may take none of what a console shows.
const STALLED: Duration = Duration::from_mins(1);

/// What is shown last to whom the console is taken from.
const FAREWELL: &[u8] = b"\r\n[the token admits nobody any more]\r\n";

/// Opens the serial console of a host.
///
/// The connection is upgraded to `firstboot-console`: plain bytes, both ways.
#[utoipa::path(post, path = "/v1/hosts/{name}/console", operation_id = "open_console", tag = "hosts", security(("token" = ["operator"])),
    params(("name" = String, Path, description = "Its name.")),
    responses((status = 101, description = "The connection is the console now."), Refusals))]
pub(super) async fn open(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Path(name): Path<String>,
    mut request: Request,
) -> Result<Response, Problem> {
    let site = api.site();
    let opened = async {
        let host = find(&site, &who, &name)?;
        api.parts.operator.console(&host.name).await
    };
    let asks = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|asked| asked == CONSOLE);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (true, Some(upgrade)) = (asks, upgrade) else {
        return Err(Problem::new(
            426,
            "upgrade",
            "a console is no answer",
            format!("ask with `Connection: upgrade` and `Upgrade: {CONSOLE}`"),
        ));
    };
    let Ok(place) = Arc::clone(&api.consoles).try_acquire_owned() else {
        return Err(Problem::new(
            503,
            "consoles",
            "too many consoles",
            "all consoles are in use",
        ));
    };
    let console = match opened.await {
        Ok(console) => console,
        Err(refusal) => {
            api.refused(&who, "console", &name, json!({}), &refusal.to_string())
                .await;
            return Err(refusal.into());
        }
    };
    let deed = Deed {
        at: now(),
        who: who.clone(),
        action: "console",
        object: name.clone(),
        request: json!({}),
        outcome: "opened".to_owned(),
    };
    api.parts
        .ledger
        .commit(deed, Vec::new())
        .await
        .map_err(Refusal::from)?;
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let admits = || api.tokens.is_live(&who.name, now());
            relay(TokioIo::new(upgraded), console, admits).await;
        }
        tracing::info!(
            host = name.as_str(),
            token = who.name.as_str(),
            "console closed"
        );
        drop(place);
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(CONSOLE));
    Ok(response)
}

/// Carries bytes both ways until one side ends, nobody types for long, or the token admits nobody any more.
async fn relay(
    stream: impl AsyncRead + AsyncWrite,
    mut console: Console,
    admits: impl Fn() -> bool,
) {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut typed = vec![0; 256];
    let mut idle = Instant::now() + IDLE;
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            shown = console.output.recv() => {
                let Some(bytes) = shown else {
                    // The one who looks may have gone before it.
                    to.shutdown().await.ok();
                    return;
                };
                if !show(&mut to, &bytes).await {
                    return;
                }
            }
            read = timeout_at(idle, from.read(&mut typed)) => match read {
                Ok(Ok(length)) if length > 0 => {
                    idle = Instant::now() + IDLE;
                    let bytes = Bytes::copy_from_slice(&typed[..length]);
                    if console.input.send(bytes).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            _ = looks.tick() => if !admits() {
                if show(&mut to, FAREWELL).await {
                    to.shutdown().await.ok();
                }
                return;
            },
        }
    }
}

/// Shows something; tells whether whoever looks took it in time.
async fn show(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    let shown = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    matches!(timeout(STALLED, shown).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_console_ends_with_the_token_that_opened_it() {
        let (shows, output) = mpsc::channel(4);
        let (input, mut typed) = mpsc::channel(4);
        let (mut person, stream) = tokio::io::duplex(1_024);
        let live = Arc::new(AtomicBool::new(true));
        let admits = {
            let live = Arc::clone(&live);
            move || live.load(Ordering::SeqCst)
        };
        let relayed = tokio::spawn(relay(stream, Console { output, input }, admits));
        shows.send(Bytes::from_static(b"login: ")).await.unwrap();
        person.write_all(b"root").await.unwrap();
        assert_eq!(typed.recv().await.unwrap(), "root");
        live.store(false, Ordering::SeqCst);
        let mut seen = Vec::new();
        let ended = timeout(3 * LOOK, person.read_to_end(&mut seen)).await;
        ended.expect("it ends soon").unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.starts_with("login: "), "{seen}");
        assert!(seen.contains("admits nobody any more"), "{seen}");
        relayed.await.unwrap();
        assert!(typed.recv().await.is_none(), "the BMC's session is closed");
    }
}
