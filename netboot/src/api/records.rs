//! Events and the audit log.
//!
//! It refuses to read more than a page at once.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::body::Asked;
use super::openapi::Refusals;
use super::order::{Answer, Caller};
use super::{Api, Problem};
use crate::audit::{self, Anchor, Broken, Record, Verifier};
use crate::operate::{EventView, Refusal, Since};
use crate::store::{Order, Page, Reader, RecordRow, StoreError};

/// Records of one answer, unless fewer are asked for.
const PAGE: u32 = 1_000;

/// For how long it is waited for something new at most.
const LONGEST: Duration = Duration::from_mins(1);

/// Which events are wanted.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Events {
    /// Only what came after this number, oldest first; without it the newest ones.
    after: Option<u64>,
    /// Only about this host, `rollout/ID` or `site`.
    subject: Option<String>,
    /// How many at most.
    limit: Option<u32>,
    /// How long to wait for the first one, in seconds; 60 at most.
    wait_seconds: Option<u64>,
}

/// Which records of the audit log are wanted.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Audited {
    /// Only what came after this number, oldest first; without it the newest ones.
    after: Option<u64>,
    /// Only about this object.
    object: Option<String>,
    /// How many at most.
    limit: Option<u32>,
}

/// How to check the audit log.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Checked {
    /// A place that was written down: `SEQ:sha256:…`.
    anchor: Option<String>,
}

/// Whether the audit log holds together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Verification {
    /// Whether every record fits.
    pub(crate) intact: bool,
    /// How many records there are, or fit before the first that does not.
    pub(crate) records: u64,
    /// The end of the log, to be written down elsewhere and given at the next time.
    pub(crate) anchor: Option<String>,
    /// What does not fit, in words.
    pub(crate) broken: Option<String>,
}

/// Shows what happened; with `wait-seconds`, as soon as something happens.
#[utoipa::path(get, path = "/v1/events", operation_id = "list_events", tag = "records", security(("token" = ["viewer"])), params(Events),
    responses((status = 200, description = "The events, oldest first.", body = Vec<EventView>), Refusals))]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Asked(asked): Asked<Events>,
) -> Result<Answer<Vec<EventView>>, Problem> {
    let until = Instant::now() + Duration::from_secs(asked.wait_seconds.unwrap_or(0)).min(LONGEST);
    let limit = asked.limit.unwrap_or(PAGE).min(PAGE);
    let page = match who.scope {
        // What it may not see is looked through by the page, however few it asks for.
        Some(_) => PAGE,
        None => limit,
    };
    let mut since = Since {
        after: asked.after,
        host: asked.subject,
        limit: Some(page),
        wait_seconds: None,
    };
    loop {
        since.wait_seconds = Some((until - Instant::now()).as_secs());
        let mut events = api.parts.operator.events(&since).await?;
        let newest = events.last().map(|event| event.seq);
        events.retain(|event| api.may_see(&who, &event.subject));
        if !events.is_empty() || newest.is_none() {
            let more = events.len().saturating_sub(limit as usize);
            match since.after {
                Some(_) => events.truncate(limit as usize),
                None => drop(events.drain(..more)),
            }
            return Ok(Answer::of(events));
        }
        // What this token may not see is not looked at again.
        since.after = newest;
    }
}

/// Shows the audit log.
#[utoipa::path(get, path = "/v1/audit", operation_id = "list_audit", tag = "records", security(("token" = ["admin"])), params(Audited),
    responses((status = 200, description = "The records, oldest first.", body = Vec<Record>), Refusals))]
pub(super) async fn audit(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Asked(asked): Asked<Audited>,
) -> Result<Answer<Vec<Record>>, Problem> {
    api.asks_whole_site(&who, "GET /v1/audit").await?;
    let limit = asked.limit.unwrap_or(PAGE);
    let rows = api
        .page(audit::KIND, asked.object.as_deref(), asked.after, limit)
        .await?;
    let records = rows.iter().map(|row| serde_json::from_str(&row.body));
    let records = records.collect::<Result<_, _>>().map_err(|_| {
        Problem::new(
            500,
            "audit",
            "the audit log is damaged",
            "a record cannot be read",
        )
        .help("`netboot audit verify` names it")
    })?;
    Ok(Answer::of(records))
}

/// Checks that the audit log was not changed.
#[utoipa::path(get, path = "/v1/audit/verify", operation_id = "verify_audit", tag = "records", security(("token" = ["admin"])), params(Checked),
    responses((status = 200, description = "What was found.", body = Verification), Refusals))]
pub(super) async fn verify(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Asked(checked): Asked<Checked>,
) -> Result<Answer<Verification>, Problem> {
    api.asks_whole_site(&who, "GET /v1/audit/verify").await?;
    let anchor = checked
        .anchor
        .map(|text| text.parse::<Anchor>())
        .transpose();
    let anchor =
        anchor.map_err(|why| Problem::new(400, "anchor", "the anchor is not understood", why))?;
    let found = verify_store(&api.parts.data, anchor)
        .await
        .map_err(Refusal::from)?;
    Ok(Answer::of(found))
}

/// Checks the audit log in a data directory.
pub(crate) async fn verify_store(
    data: &std::path::Path,
    anchor: Option<Anchor>,
) -> Result<Verification, StoreError> {
    let mut verifier = Verifier::new(anchor);
    let mut last = 0;
    if let Some(mut reader) = Reader::open(data).await? {
        loop {
            let page = Page {
                subject: None,
                beyond: Some(last),
                order: Order::OldestFirst,
                limit: PAGE,
            };
            let rows = reader.records(audit::KIND, &page).await?;
            for row in &rows {
                if let Err(broken) = verifier.take(row) {
                    return Ok(Verification::broken(last, &broken));
                }
                last = row.seq;
            }
            if rows.is_empty() {
                break;
            }
        }
    }
    Ok(match verifier.finish() {
        Ok(whole) => Verification {
            intact: true,
            records: whole.records,
            anchor: Some(whole.end.to_string()),
            broken: None,
        },
        Err(broken) => Verification::broken(last, &broken),
    })
}

impl Verification {
    fn broken(records: u64, broken: &Broken) -> Self {
        Self {
            intact: false,
            records,
            anchor: None,
            broken: Some(broken.to_string()),
        }
    }
}

impl Api {
    /// Reads one page of records, oldest first.
    async fn page(
        &self,
        kind: &str,
        subject: Option<&str>,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<RecordRow>, Refusal> {
        let Some(mut reader) = Reader::open(&self.parts.data).await? else {
            return Ok(Vec::new());
        };
        let page = Page {
            subject,
            beyond: after,
            order: match after {
                Some(_) => Order::OldestFirst,
                None => Order::NewestFirst,
            },
            limit: limit.min(PAGE),
        };
        let mut rows = reader.records(kind, &page).await?;
        if after.is_none() {
            rows.reverse();
        }
        Ok(rows)
    }
}
