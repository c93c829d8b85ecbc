//! Who asks Amazon's cloud: the usual chain of credentials, and a role taken on with a token that is minted each time.
//!
//! A token of GitHub lives five minutes and what it is changed for an hour; both are asked for again when they are needed, so a
//! publish of any length does not outlive them. No secret is printed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::http::request::Parts;
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner};
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, ProvideCredential as _, SignRequest as _, SigningCredential as _};
use tokio::sync::Mutex;

use super::wire;
use crate::authorize::Authorize;
use crate::authorize::github::Job;
use crate::error::Error;
use crate::http::Http;
use crate::provider::Pending;

/// Who is asked for, in Amazon's default trust policies for GitHub.
const AUDIENCE: &str = "sts.amazonaws.com";
/// How often the token service is asked where that may help, and what lies between: the first pause, which doubles.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);

/// Where credentials come from; shared by all regions and interfaces.
pub(super) struct Source {
    http: Http,
    context: Context,
    role: Option<Role>,
    chain: DefaultCredentialProvider,
    held: Mutex<Held>,
}

/// A role that is taken on, and where.
#[derive(Clone, Debug)]
pub(super) struct Role {
    /// Its ARN.
    pub arn: String,
    /// URL of the token service.
    pub url: String,
    /// The region that the token service is asked in.
    pub region: String,
}

#[derive(Default)]
struct Held {
    credential: Option<Credential>,
    loaded: Option<Instant>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Source");
        shown.field("role", &self.role).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn new(http: Http, context: Context, role: Option<Role>) -> Self {
        Self {
            http,
            context,
            role,
            chain: DefaultCredentialProvider::new(),
            held: Mutex::default(),
        }
    }

    async fn credential(&self) -> Result<Credential, Error> {
        let mut held = self.held.lock().await;
        if let Some(credential) = &held.credential
            && credential.is_valid()
        {
            return Ok(credential.clone());
        }
        let credential = match &self.role {
            None => self.chained().await?,
            Some(role) => self.assumed(role).await?,
        };
        held.loaded = Some(Instant::now());
        held.credential = Some(credential.clone());
        Ok(credential)
    }

    async fn chained(&self) -> Result<Credential, Error> {
        let found = self.chain.provide_credential(&self.context).await;
        let found = found.map_err(|error| lacking(error.to_string()))?;
        found
            .ok_or_else(|| lacking("none in the environment, profiles, files or instance metadata"))
    }

    /// Takes a role on, again where that may help: a publish of hours does not end because a server rests for a second.
    async fn assumed(&self, role: &Role) -> Result<Credential, Error> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * (1 << attempt)).await;
            }
            // With a token of its own each time: one may be good for a single session.
            match self.assume(role).await? {
                Assumed::Credential(credential) => return Ok(*credential),
                Assumed::Passing(reason) => last = reason,
            }
        }
        Err(lacking(last))
    }

    async fn assume(&self, role: &Role) -> Result<Assumed, Error> {
        let mut form = vec![
            ("Version", "2011-06-15".to_owned()),
            ("RoleArn", role.arn.clone()),
            ("RoleSessionName", "imagebuild".to_owned()),
        ];
        let action = match self.token().await? {
            Some(token) => {
                form.push(("WebIdentityToken", token));
                "AssumeRoleWithWebIdentity"
            }
            None => "AssumeRole",
        };
        form.push(("Action", action.to_owned()));
        let body = wire::form(form.iter().map(|(name, value)| (*name, value.as_str())));
        let mut request = Request::post(&role.url).header("content-type", wire::FORM);
        if action == "AssumeRole" {
            let bare = Request::post(&role.url).header("content-type", wire::FORM);
            let bare = bare.header(wire::CONTENT_SHA256, wire::digest(body.as_bytes()));
            let (mut head, ()) = bare
                .body(())
                .map_err(|_| lacking("`endpoint` is no URL"))?
                .into_parts();
            let credential = self.chained().await?;
            sign(&self.context, &mut head, &credential, "sts", &role.region).await?;
            if let Some(headers) = request.headers_mut() {
                *headers = head.headers;
            }
        }
        let request = request
            .body(body.into())
            .map_err(|_| lacking("`endpoint` is no URL"))?;
        let answer = match self.context.http_send(request).await {
            Ok(answer) => answer,
            Err(error) => return Ok(Assumed::Passing(error.to_string())),
        };
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        if !answer.status().is_success() {
            let (code, message) = wire::refusal(answer.body());
            let status = answer.status();
            let reason = format!(
                "{action} of `{}` was refused: {status} {code}: {message}",
                role.arn
            );
            let passes = status.is_server_error() || status == 429 || passes(&code);
            return if passes {
                Ok(Assumed::Passing(reason))
            } else {
                Err(lacking(reason))
            };
        }
        let credential = issued(&text);
        credential
            .map(|credential| Assumed::Credential(Box::new(credential)))
            .ok_or_else(|| lacking(format!("the answer to {action} cannot be read")))
    }

    /// A token that says who this job is: GitHub's, minted now, or the one in the file that the environment names.
    async fn token(&self) -> Result<Option<String>, Error> {
        let context = &self.context;
        if let Some(job) = Job::of(|name| context.env_var(name)) {
            let token = job.mint(&self.http, AUDIENCE).await;
            return token.map(Some).map_err(lacking);
        }
        let Some(path) = context.env_var("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            return Ok(None);
        };
        let token = context.file_read_as_string(&path).await;
        let token = token.map_err(|error| lacking(error.to_string()))?;
        Ok(Some(token.trim().to_owned()))
    }
}

/// What came of asking the token service once.
enum Assumed {
    Credential(Box<Credential>),
    /// It may go better in a moment.
    Passing(String),
}

/// Whether a refusal that looks like one for good is over in a moment.
fn passes(code: &str) -> bool {
    let codes = [
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "IDPCommunicationError",
    ];
    codes.contains(&code)
}

fn issued(text: &str) -> Option<Credential> {
    let document = wire::document(text)?;
    let credentials = wire::find(document.root(), "Credentials")?;
    let read = |name| wire::text(credentials, name).map(str::to_owned);
    // Seconds of RFC 3339; what cannot be read counts as over, and is asked for again.
    let ends = super::ec2::seconds(wire::text(credentials, "Expiration")?);
    Some(Credential {
        access_key_id: read("AccessKeyId")?,
        secret_access_key: read("SecretAccessKey")?,
        session_token: read("SessionToken"),
        expires_in: Some(Timestamp::from_second(ends).ok()?),
    })
}

fn lacking(reason: impl Into<String>) -> Error {
    Error::Credentials {
        provider: "aws",
        reason: reason.into(),
    }
}

async fn sign(
    context: &Context,
    head: &mut Parts,
    credential: &Credential,
    service: &str,
    region: &str,
) -> Result<(), Error> {
    let signer = RequestSigner::new(service, region).with_standard_session_token();
    let done = signer
        .sign_request(context, head, Some(credential), None)
        .await;
    done.map_err(|error| lacking(error.to_string()))
}

/// Signs requests to one interface in one region.
#[derive(Debug)]
pub(super) struct Signer {
    /// Where credentials come from.
    pub source: Arc<Source>,
    /// Name of the interface, as signatures have it.
    pub service: &'static str,
    /// The region.
    pub region: String,
}

impl Authorize for Signer {
    fn authorize<'a>(&'a self, head: &'a mut Parts) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            let credential = self.source.credential().await?;
            sign(
                &self.source.context,
                head,
                &credential,
                self.service,
                &self.region,
            )
            .await
        })
    }

    fn renew(&self, signed: Instant) {
        // Whoever holds the lock is loading fresh ones right now; and those that came after are not to blame.
        if let Ok(mut held) = self.source.held.try_lock()
            && held.loaded.is_some_and(|loaded| loaded <= signed)
        {
            held.credential = None;
        }
    }
}
