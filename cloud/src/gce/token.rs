//! Credentials of Google's cloud: found where its own tools look, or made from the identity of a GitHub job.
//!
//! It refuses to keep a token of GitHub: it lives for five minutes, so a new one is asked for whenever one is needed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hyper::http::request::Parts;
use reqsign_core::{Context, ProvideCredential, Signer};
use reqsign_google::{
    Credential, DefaultCredentialProvider, EnvCredentialProvider, FileCredentialProvider,
    RequestSigner, StaticCredentialProvider, VmMetadataCredentialProvider,
    WellKnownCredentialProvider,
};

use super::target::Target;
use crate::authorize::Authorize;
use crate::authorize::github::Job;
use crate::error::Error;
use crate::provider::Pending;

/// What tokens are asked for; what they may do is said by the roles of who asks.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Who asks in Google's cloud.
pub(super) struct Google {
    context: Context,
    source: Source,
    signer: Mutex<Signer<Credential>>,
}

impl std::fmt::Debug for Google {
    /// The context may hold an environment, and that secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Google").field(&self.source).finish()
    }
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

    fn renew(&self, _: Instant) {
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
            Place::Found(found) => look(found, context).await,
            Place::Job(federation, found) => match federation.file(context) {
                Some(file) => {
                    let file = StaticCredentialProvider::new(file).with_scope(SCOPE);
                    file.provide_credential(context).await
                }
                None => look(found, context).await,
            },
        }
    }
}

/// Looks where Google's tools look. The kept chain says of nothing why it was not taken, and goes on as somebody else when the
/// file that the environment names is broken.
async fn look(
    found: &DefaultCredentialProvider,
    context: &Context,
) -> reqsign_core::Result<Option<Credential>> {
    let named = EnvCredentialProvider::new().with_scope(SCOPE);
    let named = named.provide_credential(context).await;
    let named = named.map_err(|error| {
        reqsign_core::Error::config_invalid(format!(
            "what `GOOGLE_APPLICATION_CREDENTIALS` names: {error}"
        ))
    });
    if let Some(credential) = named? {
        return Ok(Some(credential));
    }
    match found.provide_credential(context).await? {
        Some(credential) => Ok(Some(credential)),
        None => Err(reqsign_core::Error::credential_invalid(
            "`GOOGLE_APPLICATION_CREDENTIALS` names no file, nobody ran `gcloud auth application-default login`, and there is no metadata server",
        )),
    }
}

impl Federation {
    /// The file that describes this job's identity, as `google-github-actions/auth` writes it; here it is never on disk.
    fn file(&self, context: &Context) -> Option<String> {
        let job = Job::of(|name| context.env_var(name))?;
        let audience = format!("https:{}", self.audience);
        let mut file = serde_json::json!({
            "type": "external_account",
            "audience": self.audience,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": self.token_url,
            "credential_source": {
                "url": job.url(&audience),
                "headers": { "Authorization": job.authorization() },
                "format": { "type": "json", "subject_token_field_name": "value" },
            },
        });
        if let Some(impersonation) = &self.impersonation {
            file["service_account_impersonation_url"] = impersonation.as_str().into();
        }
        Some(file.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use hyper::Request;
    use reqsign_core::StaticEnv;

    use super::*;
    use crate::authorize::context;
    use crate::fake::Server;
    use crate::fake::gce::Gce;
    use crate::http::Http;

    async fn ask(google: &Google) -> Result<String, Error> {
        let request = Request::get("https://compute.googleapis.com/").body(());
        let (mut head, ()) = request.unwrap().into_parts();
        google.authorize(&mut head).await?;
        Ok(head.headers["authorization"].to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn a_github_job_asks_as_itself_or_as_a_service_account_with_a_fresh_identity_each_time() {
        let cloud = Gce::new("acme", "images");
        let server = Server::start(Arc::new(cloud.clone())).await.unwrap();
        let url = server.url();
        let env = |token: &str| StaticEnv {
            home_dir: None,
            envs: HashMap::from([
                (
                    "ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(),
                    format!("{url}/oidc?api-version=2"),
                ),
                (
                    "ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(),
                    token.to_owned(),
                ),
            ]),
        };
        let target: Target = toml::from_str(&format!(
            r#"
            name = "gce"
            project = "acme"
            bucket = "images"
            workload-identity-provider = "projects/1/locations/global/workloadIdentityPools/ci/providers/github"
            endpoints = {{ token = "{url}", credentials = "https://iamcredentials.googleapis.com" }}
            "#
        ))
        .unwrap();
        let google = Google::new(&target, context(&Http::new()).with_env(env("runner-token")));
        let first = ask(&google).await.unwrap();
        assert!(first.starts_with("Bearer ya29."), "{first}");
        assert_eq!(
            ask(&google).await.unwrap(),
            first,
            "it is kept as long as it is good"
        );
        google.renew(Instant::now());
        assert_ne!(ask(&google).await.unwrap(), first);
        let identities = server.calls();
        let identities = identities
            .iter()
            .find(|(called, _)| called.label == "github:token");
        assert_eq!(identities.map(|(_, count)| *count), Some(2));

        let refused = Google::new(&target, context(&Http::new()).with_env(env("stolen-token")));
        let error = ask(&refused).await.unwrap_err();
        assert!(matches!(error, Error::Credentials { .. }), "{error}");
        assert!(!format!("{error} {error:?} {refused:?}").contains("stolen-token"));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named_and_nobody_else_is_asked() {
        let target: Target =
            toml::from_str("name = 'gce'\nproject = 'acme'\nbucket = 'images'").unwrap();
        let variable = "GOOGLE_APPLICATION_CREDENTIALS";
        let env = StaticEnv {
            home_dir: None,
            envs: HashMap::from([(variable.to_owned(), "/nowhere/key.json".to_owned())]),
        };
        let google = Google::new(&target, context(&Http::new()).with_env(env));
        let error = ask(&google).await.unwrap_err().to_string();
        assert!(error.contains(variable), "{error}");
        assert!(error.contains("`/nowhere/key.json`"), "{error}");
    }

    #[test]
    fn a_service_account_is_asked_as_where_the_target_names_one() {
        let target: Target = toml::from_str(
            r#"
            name = "gce"
            project = "acme"
            bucket = "images"
            workload-identity-provider = "projects/1/locations/global/workloadIdentityPools/ci/providers/github"
            service-account = "publisher@acme.iam.gserviceaccount.com"
            "#,
        )
        .unwrap();
        let Place::Job(federation, _) = Place::of(&target) else {
            panic!("it is a job");
        };
        let env = StaticEnv {
            home_dir: None,
            envs: HashMap::from([
                (
                    "ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(),
                    "https://t/x".to_owned(),
                ),
                ("ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(), "t".to_owned()),
            ]),
        };
        let file = federation.file(&Context::new().with_env(env)).unwrap();
        let file: serde_json::Value = serde_json::from_str(&file).unwrap();
        let provider = "%2F%2Fiam.googleapis.com%2Fprojects%2F1%2Flocations%2Fglobal%2FworkloadIdentityPools%2Fci%2Fproviders%2Fgithub";
        assert_eq!(
            file["credential_source"]["url"],
            format!("https://t/x?audience=https%3A{provider}")
        );
        let account = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/publisher@acme.iam.gserviceaccount.com:generateAccessToken";
        assert_eq!(file["service_account_impersonation_url"], account);
        assert!(federation.file(&Context::new()).is_none());
    }
}
