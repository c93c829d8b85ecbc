//! The operator's API: HTTPS, tokens, and an `OpenAPI` document that says all of it.
//!
//! It refuses to change a host: handlers read, or hand an order to the executor. It refuses to say more than was asked:
//! answers are made of types that have no place for a secret.

mod backup;
mod body;
pub(crate) mod client;
mod console;
mod guard;
mod hosts;
mod inventory;
mod openapi;
mod order;
mod orders;
mod problem;
mod records;
mod rollouts;
mod site;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, Response};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use hyper::body::Incoming;
use netboot_core::site::Site;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_service::Service as _;

use crate::auth::{Failures, Pace, Refusals, Role, TokenError, Tokens};
use crate::operate::{Ledger, Operator};
use crate::serve::connections::{self, Service, Speech};
use crate::serve::http::{Limits, Peer};
use crate::site::{Sites, TOTAL_MAX};
use crate::store::{Reader, StoreError, Urgency, Writer};
use crate::tls::Tls;

pub(crate) use self::hosts::{HostAnswer, HostDetail};
pub(crate) use self::inventory::InventoryAnswer;
pub(crate) use self::orders::{EnrollOrder, HostsOrder, PowerOrder};
pub(crate) use self::problem::Problem;
pub(crate) use self::records::{Verification, verify_store};
pub(crate) use self::tokens::NewToken;

/// Protocol that a console's connection is upgraded to.
pub(crate) const CONSOLE: &str = "firstboot-console";

/// Largest request beside a site: a selector of a thousand words takes 64 KiB.
const BODY_MAX: usize = 256 << 10;

/// Largest site: what its files may be together, in base64, and the names around them.
const SITE_MAX: usize = TOTAL_MAX / 3 * 4 + (4 << 20);

/// Connections: people, dashboards and CI, most of them short.
const CONNECTIONS: Limits = Limits {
    connections: 1_024,
    per_address: 128,
    head: Duration::from_secs(30),
    body: Duration::from_secs(30),
    stall: Duration::from_mins(1),
};

/// Consoles that are open at once.
const CONSOLES: usize = 64;

/// Requests a second, and at once: a person types one, `--follow` asks twice a second, a script runs eight at once.
const PER_TOKEN: (u32, u32) = (30, 120);
const PER_PEER: (u32, u32) = (60, 240);

/// Sites that are sent at once: each takes some hundred megabytes until it is judged.
const UPLOADS: usize = 4;

/// How the site of now is found.
pub(crate) type SiteOf = Arc<dyn Fn() -> Arc<Site> + Send + Sync>;

/// What the API answers from.
pub(crate) struct Parts {
    /// The site of now.
    pub(crate) site: SiteOf,
    /// What changes the site.
    pub(crate) sites: Sites,
    /// Who carries orders out.
    pub(crate) operator: Operator,
    /// The audit log.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The store.
    pub(crate) writer: Writer,
    /// The data directory.
    pub(crate) data: PathBuf,
}

/// The operator's API.
pub(crate) struct Api {
    parts: Parts,
    tokens: Tokens,
    by_token: Pace<String>,
    by_peer: Pace<std::net::IpAddr>,
    failures: Failures,
    refusals: Refusals,
    consoles: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    /// Hosts whose BMC is read for somebody.
    inventories: Mutex<BTreeSet<Arc<str>>>,
    backups: Arc<Semaphore>,
    /// Tokens are changed one after the other: who is the last admin depends on it.
    token_changes: tokio::sync::Mutex<()>,
    answers: Family<[(&'static str, String); 1], Counter>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no token for the first admin.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The tokens could not be read, or the first one not stored.
    #[error("failed to read or store the tokens of operators")]
    Store(#[from] StoreError),
}

impl Api {
    /// Takes up the tokens of a store, and makes the first one where there is none.
    ///
    /// # Errors
    /// When the tokens cannot be read, or the first one cannot be made or stored.
    pub(crate) async fn open(parts: Parts, registry: &mut Registry) -> Result<Arc<Self>, ApiError> {
        crate::backup::sweep(&parts.data);
        let stored = match Reader::open(&parts.data).await? {
            Some(mut reader) => reader.documents(None).await?,
            None => Vec::new(),
        };
        let tokens = Tokens::restore(&stored);
        if let Some(change) = tokens.ensure_admin(&parts.data, crate::clock::now())? {
            let submitted = parts.writer.submit(vec![change], Urgency::Urgent);
            submitted.map_err(StoreError::from)?.durable().await?;
            tracing::warn!(
                file = %parts.data.join(crate::auth::FIRST_FILE).display(),
                "token of an admin written"
            );
        }
        let answers = Family::default();
        registry.register(
            "api_answers",
            "Answers of the operator's API by status",
            answers.clone(),
        );
        let api = Arc::new(Self {
            parts,
            tokens,
            by_token: Pace::new(PER_TOKEN.0, PER_TOKEN.1),
            by_peer: Pace::new(PER_PEER.0, PER_PEER.1),
            failures: Failures::default(),
            refusals: Refusals::default(),
            consoles: Arc::new(Semaphore::new(CONSOLES)),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            inventories: Mutex::default(),
            backups: Arc::new(Semaphore::new(1)),
            token_changes: tokio::sync::Mutex::default(),
            answers,
        });
        Ok(api)
    }

    /// Serves a listener until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, tls: Arc<Tls>) {
        let speech = Speech::Tls(tls.config());
        let router = router(&self);
        let door = Arc::new(Door { api: self, router });
        connections::accept(door, CONNECTIONS, vec![(listener, speech)]).await;
    }

    fn site(&self) -> Arc<Site> {
        (self.parts.site)()
    }
}

/// The API as connections see it.
struct Door {
    api: Arc<Api>,
    router: Router,
}

impl Service for Door {
    type Body = Body;

    async fn answer(&self, mut request: Request<Incoming>, peer: Peer) -> Response<Body> {
        request.extensions_mut().insert(From(peer.remote));
        let Ok(response) = self.router.clone().call(request).await;
        let status = response.status().as_u16().to_string();
        self.api.answers.get_or_create(&[("status", status)]).inc();
        response
    }

    fn turned_away(&self, why: &'static str) {
        self.api
            .answers
            .get_or_create(&[("status", why.to_owned())])
            .inc();
    }
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
struct From(SocketAddr);

/// All routes, each behind the role that it needs.
///
/// The document of [`openapi`] says the same; a test asks every route of it with every role.
fn router(api: &Arc<Api>) -> Router {
    let whole = DefaultBodyLimit::max(SITE_MAX);
    let few = from_fn_with_state(Arc::clone(api), guard::one_of_few);
    let viewer = Router::new()
        .route("/v1/hosts", get(hosts::list))
        .route("/v1/hosts/{name}", get(hosts::one))
        .route("/v1/hosts/{name}/history", get(hosts::history))
        .route("/v1/hosts/{name}/inventory", get(inventory::show))
        .route("/v1/rollouts", get(rollouts::list))
        .route("/v1/rollouts/{id}", get(rollouts::one))
        .route("/v1/events", get(records::events))
        .route("/v1/site", get(site::show));
    let operator = Router::new()
        .route("/v1/deploy", post(orders::deploy))
        .route("/v1/rollback", post(orders::rollback))
        .route("/v1/cancel", post(orders::cancel))
        .route("/v1/power", post(orders::power))
        .route("/v1/rollouts", post(rollouts::start))
        .route("/v1/rollouts/{id}/{control}", post(rollouts::control))
        .route("/v1/hosts/{name}/console", post(console::open))
        .route(
            "/v1/site/plan",
            post(site::plan).layer(whole).layer(few.clone()),
        );
    let admin = Router::new()
        .route("/v1/site", post(site::apply).layer(whole).layer(few))
        .route("/v1/enroll", post(orders::enroll))
        .route("/v1/audit", get(records::audit))
        .route("/v1/audit/verify", get(records::verify))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{name}", delete(tokens::revoke))
        .route("/v1/backup", post(backup::take));
    let behind = |routes: Router<Arc<Api>>, role: Role| {
        routes.route_layer(from_fn_with_state((Arc::clone(api), role), guard::admit))
    };
    Router::new()
        .merge(behind(viewer, Role::Viewer))
        .merge(behind(operator, Role::Operator))
        .merge(behind(admin, Role::Admin))
        .route("/v1/openapi.json", get(openapi::show))
        .fallback(guard::nothing)
        .method_not_allowed_fallback(guard::method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::clone(api))
}
