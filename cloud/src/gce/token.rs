//! Credentials of Google's cloud: found where its own tools look, or made from the identity of a GitHub job.
//!
//! It refuses to keep a token of GitHub: it lives for five minutes, so a new one is asked for whenever one is needed.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::http::request::Parts;
use reqsign_core::{Context, ProvideCredential, Signer};
use reqsign_google::{
    Credential, DefaultCredentialProvider, EnvCredentialProvider, FileCredentialProvider,
    RequestSigner, StaticCredentialProvider, VmMetadataCredentialProvider,
    WellKnownCredentialProvider,
};

use super::target::Target;
use crate::authorize::Authorize;
use crate::error::Error;
use crate::escape::escape;
use crate::provider::Pending;

/// What tokens are asked for; what they may do is said by the roles of who asks.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Who asks in Google's cloud.
#[derive(Debug)]
pub(super) struct Google {
    context: Context,
    source: Source,
    signer: Mutex<Signer<Credential>>,
}

impl Google {
    /// Finds out where credentials of a target come from; none is asked for yet.
    pub(super) fn new(target: &Target, context: Context) -> Self {
        let source = Source(Arc::new(Place::of(target)));
        let signer = Mutex::new(signer(&context, &source));
        Self {
            context,
            source,
            signer,
        }
    }
}

fn signer(context: &Context, source: &Source) -> Signer<Credential> {
    let request = RequestSigner::new("storage").with_scope(SCOPE);
    Signer::new(context.clone(), source.clone(), request)
}

impl Authorize for Google {
    fn authorize<'a>(&'a self, head: &'a mut Parts) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            let signer = self.signer.lock();
            let signer = signer.unwrap_or_else(PoisonError::into_inner).clone();
            let done = signer.sign(head, None).await;
            done.map_err(|error| Error::Credentials {
                provider: "Google's cloud",
                reason: error.to_string(),
            })
        })
    }

    fn renew(&self) {
        let fresh = signer(&self.context, &self.source);
        *self.signer.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}

/// Where credentials come from.
#[derive(Clone, Debug)]
struct Source(Arc<Place>);

#[derive(Debug)]
enum Place {
    File(FileCredentialProvider),
    Found(DefaultCredentialProvider),
    /// A GitHub job, when it is one; otherwise what is found.
    Job(Federation, DefaultCredentialProvider),
}

#[derive(Debug)]
struct Federation {
    audience: String,
    token_url: String,
    impersonation: Option<String>,
}

impl Place {
    fn of(target: &Target) -> Self {
        if let Some(path) = &target.credentials_file {
            return Self::File(FileCredentialProvider::new(path).with_scope(SCOPE));
        }
        let found = DefaultCredentialProvider::builder()
            .env(EnvCredentialProvider::new().with_scope(SCOPE))
            .well_known(WellKnownCredentialProvider::new().with_scope(SCOPE))
            .vm_metadata(VmMetadataCredentialProvider::new().with_scope(SCOPE))
            .build();
        let Some(provider) = &target.workload_identity_provider else {
            return Self::Found(found);
        };
        let endpoints = &target.endpoints;
        let impersonation = target.service_account.as_ref().map(|account| {
            format!(
                "{}/v1/projects/-/serviceAccounts/{account}:generateAccessToken",
                endpoints.credentials
            )
        });
        let federation = Federation {
            audience: format!("//iam.googleapis.com/{provider}"),
            token_url: format!("{}/v1/token", endpoints.token),
            impersonation,
        };
        Self::Job(federation, found)
    }
}

impl ProvideCredential for Source {
    type Credential = Credential;

    async fn provide_credential(
        &self,
        context: &Context,
    ) -> reqsign_core::Result<Option<Credential>> {
        match &*self.0 {
            Place::File(file) => file.provide_credential(context).await,
            Place::Found(found) => found.provide_credential(context).await,
            Place::Job(federation, found) => match federation.file(context) {
                Some(file) => {
                    let file = StaticCredentialProvider::new(file).with_scope(SCOPE);
                    file.provide_credential(context).await
                }
                None => found.provide_credential(context).await,
            },
        }
    }
}

impl Federation {
    /// The file that describes this job's identity, as `google-github-actions/auth` writes it; here it is never on disk.
    fn file(&self, context: &Context) -> Option<String> {
        let url = context.env_var("ACTIONS_ID_TOKEN_REQUEST_URL")?;
        let token = context.env_var("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?;
        let joint = if url.contains('?') { '&' } else { '?' };
        let audience = escape(&format!("https:{}", self.audience));
        let mut file = serde_json::json!({
            "type": "external_account",
            "audience": self.audience,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": self.token_url,
            "credential_source": {
                "url": format!("{url}{joint}audience={audience}"),
                "headers": { "Authorization": format!("Bearer {token}") },
                "format": { "type": "json", "subject_token_field_name": "value" },
            },
        });
        if let Some(impersonation) = &self.impersonation {
            file["service_account_impersonation_url"] = impersonation.as_str().into();
        }
        Some(file.to_string())
    }
}
