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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::hosts::find;
use super::openapi::Refusals;
use super::order::Caller;
use super::{Api, CONSOLE, Problem};
use crate::clock::now;
use crate::operate::{Deed, Refusal};

/// A console that nobody types into is closed after this time: a BMC has few of them, most of them one.
const IDLE: Duration = Duration::from_hours(4);

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
            relay(TokioIo::new(upgraded), console).await;
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

/// Carries bytes both ways until one side ends.
async fn relay(stream: TokioIo<hyper::upgrade::Upgraded>, mut console: Console) {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut typed = vec![0; 256];
    loop {
        tokio::select! {
            shown = console.output.recv() => {
                let Some(bytes) = shown else {
                    // The one who looks may have gone before it.
                    to.shutdown().await.ok();
                    return;
                };
                if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
            read = tokio::time::timeout(IDLE, from.read(&mut typed)) => match read {
                Ok(Ok(length)) if length > 0 => {
                    let bytes = Bytes::copy_from_slice(&typed[..length]);
                    if console.input.send(bytes).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
