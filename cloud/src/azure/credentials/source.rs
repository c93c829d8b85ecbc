//! Where a token comes from: the first of these that the environment speaks of.
//!
//! - `AZURE_CLIENT_SECRET`, `AZURE_FEDERATED_TOKEN_FILE` or a token of GitHub Actions, each with `AZURE_TENANT_ID` and
//!   `AZURE_CLIENT_ID`;
//! - `IDENTITY_ENDPOINT`, then the metadata server of a virtual machine;
//! - `az account get-access-token`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::{Environment, Token};
use crate::authorize::github::Job;
use crate::escape::escape;
use crate::http::{Content, Http, private};

const LOGIN: &str = "https://login.microsoftonline.com";
/// What GitHub's token has to be for, to be taken.
const EXCHANGE: &str = "api://AzureADTokenExchange";
const METADATA: &str = "http://169.254.169.254";
/// A server of tokens answers within this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// The metadata server is on the same computer or nowhere.
const NEAR: Duration = Duration::from_secs(2);
const LONGEST: usize = 1 << 20;
const ATTEMPTS: u32 = 4;

/// One wish for a token.
pub(super) struct Asking<'a> {
    pub(super) http: &'a Http,
    pub(super) environment: &'a Environment,
    pub(super) login: Option<&'a str>,
    pub(super) audience: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    #[serde(default)]
    expires_in: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cli {
    access_token: String,
    #[serde(rename = "expires_on", default)]
    expires_on: Option<i64>,
}

impl Asking<'_> {
    /// Asks for a token, or says why there is none.
    pub(super) async fn token(&self) -> Result<Token, String> {
        let variable = |name| self.environment.variable(name);
        if let Some(secret) = variable("AZURE_CLIENT_SECRET") {
            return self.login(&[("client_secret", secret)]).await;
        }
        if let Some(file) = variable("AZURE_FEDERATED_TOKEN_FILE") {
            let read = tokio::fs::read_to_string(file).await;
            let assertion = read.map_err(|error| format!("failed to read `{file}`: {error}"))?;
            return self.exchange(assertion.trim()).await;
        }
        let job = Job::of(|name| self.environment.variable(name).map(str::to_owned));
        if let (Some(job), Some(_)) = (job, variable("AZURE_CLIENT_ID")) {
            let assertion = job.mint(self.http, EXCHANGE).await?;
            return self.exchange(&assertion).await;
        }
        if let Some(endpoint) = variable("IDENTITY_ENDPOINT") {
            return self.identity(endpoint).await;
        }
        let metadata = match self.metadata().await {
            Ok(token) => return Ok(token),
            Err(reason) => reason,
        };
        let cli = self.cli().await;
        cli.map_err(|cli| {
            format!(
                "the environment has none (`AZURE_CLIENT_ID`, `AZURE_TENANT_ID` and `AZURE_CLIENT_SECRET` or \
                 `AZURE_FEDERATED_TOKEN_FILE`); {metadata}; {cli}"
            )
        })
    }

    async fn exchange(&self, assertion: &str) -> Result<Token, String> {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let form = [
            ("client_assertion_type", kind),
            ("client_assertion", assertion),
        ];
        self.login(&form).await
    }

    async fn login(&self, proof: &[(&str, &str)]) -> Result<Token, String> {
        let variable = |name| {
            let found = self.environment.variable(name);
            found.ok_or_else(|| format!("`{name}` is not set"))
        };
        let (tenant, client) = (variable("AZURE_TENANT_ID")?, variable("AZURE_CLIENT_ID")?);
        let host = self.environment.variable("AZURE_AUTHORITY_HOST");
        let host = self.login.or(host).unwrap_or(LOGIN).trim_end_matches('/');
        private::check(host)?;
        let scope = format!("{}/.default", self.audience);
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("scope", scope.as_str()),
        ];
        form.extend(proof);
        let form: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", escape(value)))
            .collect();
        let url = format!("{host}/{}/oauth2/v2.0/token", escape(tenant));
        let head = || {
            let head = Request::builder().method(Method::POST).uri(url.as_str());
            head.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        };
        let content = Content::Bytes(Bytes::from(form.join("&")));
        let body = self.ask(host, head, content, PATIENCE, ATTEMPTS).await?;
        read(&body)
    }

    async fn identity(&self, endpoint: &str) -> Result<Token, String> {
        let url = self.managed(endpoint, "2019-08-01");
        let secret = self.environment.variable("IDENTITY_HEADER");
        let head = || {
            let head = Request::builder().uri(url.as_str());
            head.header("x-identity-header", secret.unwrap_or_default())
        };
        let from = "the identity endpoint";
        let body = self.ask(from, head, Content::None, PATIENCE, ATTEMPTS);
        read(&body.await?)
    }

    async fn metadata(&self) -> Result<Token, String> {
        let host = self
            .environment
            .variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
        let host = host.unwrap_or(METADATA).trim_end_matches('/');
        let endpoint = format!("{host}/metadata/identity/oauth2/token");
        let url = self.managed(&endpoint, "2018-02-01");
        let head = || {
            Request::builder()
                .uri(url.as_str())
                .header("metadata", "true")
        };
        let body = self.ask("the metadata server", head, Content::None, NEAR, 1);
        read(&body.await?)
    }

    fn managed(&self, endpoint: &str, version: &str) -> String {
        let client = self.environment.variable("AZURE_CLIENT_ID");
        let client = client.map(|id| format!("&client_id={}", escape(id)));
        format!(
            "{endpoint}?api-version={version}&resource={}{}",
            escape(self.audience),
            client.unwrap_or_default()
        )
    }

    async fn cli(&self) -> Result<Token, String> {
        let mut command = tokio::process::Command::new("az");
        command.args(["account", "get-access-token", "--output", "json"]);
        command.args(["--resource", self.audience]);
        command
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.map_err(|_| "`az` does not end".to_owned())?;
        let output = output.map_err(|error| format!("`az` cannot be run: {error}"))?;
        if !output.status.success() {
            return Err("`az account get-access-token` failed (`az login`?)".to_owned());
        }
        let answer: Cli = serde_json::from_slice(&output.stdout)
            .map_err(|_| "`az` answers without a token".to_owned())?;
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let left = answer.expires_on.unwrap_or(now + 600) - now;
        Ok(Token {
            text: answer.access_token.into(),
            life: Duration::from_secs(left.try_into().unwrap_or_default()),
        })
    }

    /// Asks a server of tokens, again where that may help. Nothing of what was sent is in an error.
    async fn ask(
        &self,
        from: &str,
        head: impl Fn() -> Builder,
        content: Content,
        patience: Duration,
        attempts: u32,
    ) -> Result<Vec<u8>, String> {
        let mut last = String::new();
        for attempt in 0..attempts {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
            }
            let once = once(self.http, head(), content.clone());
            last = match tokio::time::timeout(patience, once).await {
                Err(_) => format!("{from} does not answer"),
                Ok(Err(reason)) => format!("{from} cannot be asked: {reason}"),
                Ok(Ok((status, body))) if status.is_success() => return Ok(body),
                Ok(Ok((status, body))) => {
                    let said = format!("{from} says {}", said(status, &body));
                    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
                        return Err(said);
                    }
                    said
                }
            };
        }
        Err(last)
    }
}

async fn once(
    http: &Http,
    head: Builder,
    content: Content,
) -> Result<(StatusCode, Vec<u8>), String> {
    let answer = http.send(head, content).await;
    let (parts, body) = answer.map_err(|error| error.to_string())?.into_parts();
    let body = Limited::new(body, LONGEST).collect().await;
    let body = body.map_err(|error| error.to_string())?;
    Ok((parts.status, body.to_bytes().to_vec()))
}

fn read(body: &[u8]) -> Result<Token, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| "an answer has no token".to_owned())?;
    // Some servers write the number as text.
    let life = match &answer.expires_in {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    };
    Ok(Token {
        text: answer.access_token.into(),
        life: Duration::from_secs(life.unwrap_or(600)),
    })
}

/// What a server says about a refusal: its word, and the first line of its sentence.
fn said(status: StatusCode, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let word = body["error"].as_str().unwrap_or_default();
    let sentence = body["error_description"].as_str().unwrap_or_default();
    let sentence = sentence.lines().next().unwrap_or_default();
    let sentence: String = sentence
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    format!("{} {word} {sentence}", status.as_u16())
        .trim()
        .to_owned()
}
