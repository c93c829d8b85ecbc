//! Changes of the site of a running appliance: planned, applied, read again; each recorded.
//!
//! It refuses to change what cannot be recorded: the audit log has the change before it is made.

use std::path::Path;
use std::sync::Arc;

use netboot_core::site::Site;
use serde_json::json;

use super::{
    ApplyError, ApplyRequest, Beside, Candidate, Origin, Plan, Served, SiteError, Source, Upload,
};
use crate::cli::report::chain;
use crate::clock::now;
use crate::operate::{Deed, Ledger, Who};
use crate::secrets::Secrets;
use crate::serve::BindError;
use crate::store::StoreError;

/// Serves a site that was checked.
pub(crate) type Swap = Box<dyn FnOnce(Arc<Site>) + Send>;

/// Finds out whether a site can be served on this computer, and how.
pub(crate) type Ready = Box<dyn Fn(&Site) -> Result<Swap, BindError> + Send + Sync>;

/// What changes the site of a running appliance.
#[derive(Clone)]
pub(crate) struct Sites(Arc<Parts>);

struct Parts {
    source: Source,
    secrets: Arc<Secrets>,
    ledger: Arc<dyn Ledger>,
    ready: Ready,
}

/// What was served again.
#[derive(Debug)]
pub(crate) enum Reloaded {
    /// The site directory.
    Directory,
    /// The applied site; and how the directory differs from it.
    Applied(Result<Beside, SiteError>),
}

/// Why a site is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// It is wrong.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// It cannot be served on this computer.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It was not applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// It could not be recorded, so it was not applied.
    #[error("the change could not be recorded, so it was not made")]
    Record(#[from] StoreError),
    /// Its task stopped.
    #[error("the change was cut short; look at what is served")]
    Cut(#[source] tokio::task::JoinError),
}

impl std::fmt::Debug for Sites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sites").finish_non_exhaustive()
    }
}

impl Sites {
    /// Makes what changes the site that a source holds.
    pub(crate) fn new(
        source: Source,
        secrets: Arc<Secrets>,
        ledger: Arc<dyn Ledger>,
        ready: Ready,
    ) -> Self {
        Self(Arc::new(Parts {
            source,
            secrets,
            ledger,
            ready,
        }))
    }

    /// Tells what is served.
    pub(crate) fn served(&self) -> Served {
        self.0.source.served(&self.0.secrets)
    }

    /// Tells what a site would change.
    ///
    /// # Errors
    /// When it is wrong, or cannot be served here.
    pub(crate) async fn plan(&self, upload: Upload) -> Result<Plan, ChangeError> {
        self.blocking(move |parts| {
            let candidate = parts.source.candidate(&upload, &parts.secrets)?;
            drop((parts.ready)(candidate.site())?);
            Ok(parts.source.plan(&candidate))
        })
        .await
    }

    /// Applies a site.
    ///
    /// # Errors
    /// When it is wrong, cannot be served here, another one was applied meanwhile, or it can be
    /// neither recorded nor kept. The old one is then still served.
    pub(crate) async fn apply(
        &self,
        who: &Who,
        request: ApplyRequest,
    ) -> Result<Plan, ChangeError> {
        let expect = request.expect;
        let candidate = self
            .blocking(move |parts| Ok(parts.source.candidate(&request.site, &parts.secrets)?))
            .await?;
        self.make(
            who,
            "site apply",
            candidate,
            move |parts, candidate, swap| parts.source.apply(candidate, expect, swap),
        )
        .await
    }

    /// Reads again what the appliance was started with, as SIGHUP asks: the site directory only as long as that is
    /// what is served. A site that somebody applied is never replaced by a directory that may be an old checkout.
    ///
    /// # Errors
    /// As [`Sites::apply`].
    pub(crate) async fn reload(&self) -> Result<Reloaded, ChangeError> {
        if self.0.source.origin() == Origin::Applied {
            return self.again().await.map(Reloaded::Applied);
        }
        let candidate = self
            .blocking(|parts| Ok(parts.source.reread(&parts.secrets)?))
            .await?;
        let who = Who {
            name: "signal".to_owned(),
            ..Who::appliance()
        };
        self.make(&who, "site reload", candidate, |parts, candidate, swap| {
            parts.source.reload(candidate, swap)
        })
        .await?;
        Ok(Reloaded::Directory)
    }

    /// Returns the site directory.
    pub(crate) fn directory(&self) -> &Path {
        self.0.source.directory()
    }

    /// Serves the applied site again, with the secrets, authorities and interfaces that there are now.
    async fn again(&self) -> Result<Result<Beside, SiteError>, ChangeError> {
        self.blocking(|parts| {
            parts.source.again(|site| {
                let swap = (parts.ready)(site)?;
                swap(Arc::clone(site));
                Ok::<(), ChangeError>(())
            })?;
            Ok(parts.source.beside())
        })
        .await
    }

    /// Records a change, makes it, and records when it fails after all.
    async fn make(
        &self,
        who: &Who,
        action: &'static str,
        candidate: Candidate,
        make: impl FnOnce(&Parts, Candidate, Swap) -> Result<Plan, ApplyError> + Send + 'static,
    ) -> Result<Plan, ChangeError> {
        let plan = self.0.source.plan(&candidate);
        let deed = |outcome: String| Deed {
            at: now(),
            who: who.clone(),
            action,
            object: "site".to_owned(),
            request: json!({
                "from": plan.from,
                "to": plan.to,
                "changes": plan.difference.changes.len(),
            }),
            outcome,
        };
        let swap = (self.0.ready)(candidate.site())?;
        if plan.changes_nothing() {
            // Nothing is recorded, but somebody who expected another site is still told.
            return self
                .blocking(move |parts| Ok(make(parts, candidate, swap)?))
                .await;
        }
        self.0
            .ledger
            .commit(deed("accepted".to_owned()), Vec::new())
            .await?;
        let done = self
            .blocking(move |parts| Ok(make(parts, candidate, swap)?))
            .await;
        match &done {
            Ok(plan) => {
                tracing::info!(
                    from = %plan.from, to = %plan.to, action,
                    changes = plan.difference.changes.len(),
                    "site changed"
                );
                if !plan.difference.restart.is_empty() {
                    let what = plan.difference.restart.join(", ");
                    tracing::warn!(what, "served only after a restart");
                }
            }
            Err(error) => {
                let failed = deed(format!("failed: {}", chain(error)));
                if let Err(error) = self.0.ledger.commit(failed, Vec::new()).await {
                    tracing::warn!(error = %chain(&error), "failure not recorded");
                }
            }
        }
        done
    }

    /// Runs what reads and writes files.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Parts) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let parts = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&parts)).await {
            Ok(done) => done,
            Err(error) => Err(ChangeError::Cut(error)),
        }
    }
}
