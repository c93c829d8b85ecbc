//! What the kept signers see of this computer: its environment, its files, its programs, and our one HTTP client.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use reqsign_core::{CommandExecute, CommandOutput, Context, FileRead, HttpSend, OsEnv};
use std::time::Duration;

use crate::http::{Content, Http};

/// Longest answer of a server of credentials that is read.
const LONGEST: usize = 1 << 20;
/// A server of credentials answers within this time, or is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The context in which credentials are looked for.
#[must_use]
pub fn context(http: &Http) -> Context {
    Context::new()
        .with_file_read(Files)
        .with_http_send(Sender(http.clone()))
        .with_env(OsEnv)
        .with_command_execute(Programs)
}

#[derive(Clone, Copy, Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let read = tokio::fs::read(path).await;
        read.map_err(|error| failed(&format!("failed to read `{path}`: {error}")))
    }
}

#[derive(Clone, Debug)]
struct Sender(Http);

impl HttpSend for Sender {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let exchange = exchange(&self.0, request);
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer.map_err(|reason| failed(&reason)),
            Err(_) => Err(failed("no answer from the server of credentials")),
        }
    }
}

async fn exchange(http: &Http, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
    let (parts, body) = request.into_parts();
    let host = parts.uri.host().unwrap_or_default().to_owned();
    let mut head = Request::builder().method(parts.method).uri(parts.uri);
    if let Some(headers) = head.headers_mut() {
        *headers = parts.headers;
        // Ours is set where requests are sent.
        headers.remove(hyper::header::HOST);
    }
    let answer = http.send(head, Content::Bytes(body)).await;
    let answer = answer.map_err(|error| format!("failed to ask `{host}`: {error}"))?;
    let (parts, body) = answer.into_parts();
    let body = http_body_util::Limited::new(body, LONGEST).collect().await;
    let body = body.map_err(|error| format!("failed to read the answer of `{host}`: {error}"))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

/// Programs that users named in their own configuration (`credential_process`, `executable`).
#[derive(Clone, Copy, Debug)]
struct Programs;

impl CommandExecute for Programs {
    async fn command_execute<'a>(
        &'a self,
        program: &'a str,
        arguments: &'a [&'a str],
    ) -> reqsign_core::Result<CommandOutput> {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.map_err(|_| failed(&format!("`{program}` does not end")))?;
        let output =
            output.map_err(|error| failed(&format!("failed to run `{program}`: {error}")))?;
        Ok(CommandOutput {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

fn failed(reason: &str) -> reqsign_core::Error {
    reqsign_core::Error::unexpected(reason)
}
