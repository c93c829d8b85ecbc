//! The `OpenAPI` document: made from the types and routes themselves, shown to everyone, and kept as a golden file.
//!
//! It refuses to be written by hand.

use std::collections::BTreeMap;

use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi};

use super::{Problem, backup, console, hosts, inventory, orders, records, rollouts, site, tokens};
use crate::operate::Control;

/// What the document is made of.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Firstboot",
        version = "1",
        description = "The operator's API of a Firstboot appliance.\n\nEvery call but the one for this document needs a \
            bearer token. The scope of a call's security is the lowest role that may make it: `viewer`, `operator` or \
            `admin`. What is refused is answered with a problem document (RFC 9457). Times are in milliseconds since 1970."
    ),
    paths(
        hosts::list,
        hosts::one,
        hosts::history,
        inventory::show,
        console::open,
        orders::deploy,
        orders::rollback,
        orders::cancel,
        orders::power,
        orders::enroll,
        rollouts::list,
        rollouts::one,
        rollouts::start,
        rollouts::control,
        records::events,
        records::audit,
        records::verify,
        site::show,
        site::plan,
        site::apply,
        tokens::list,
        tokens::create,
        tokens::revoke,
        backup::take,
        show,
    ),
    components(schemas(Problem, Control)),
    tags(
        (name = "hosts", description = "What is known about hosts."),
        (name = "orders", description = "What hosts shall do."),
        (name = "rollouts", description = "Deployments over many hosts."),
        (name = "records", description = "What happened."),
        (name = "site", description = "Networks, roles, hosts: what is served."),
        (name = "tokens", description = "Who may ask."),
    ),
    modifiers(&Bearer),
)]
struct Document;

/// Says how tokens are shown.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("fb_ and 43 letters")
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Names a request, so that asking twice is asking once.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it only describes a header; `Ordered` reads it")]
pub(super) struct Key {
    /// Chosen by who asks; the same key gets the same answer, and nothing is done twice.
    #[param(rename = "idempotency-key", max_length = 100)]
    key: Option<String>,
}

/// What every call may be refused with.
pub(super) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        [
            ("400", "The request is not understood, or makes no sense."),
            ("401", "No token, or one that admits nobody."),
            ("403", "The token's role or hosts do not suffice."),
            ("404", "There is no such thing."),
            ("409", "Something else is under way, or a limit holds."),
            (
                "429",
                "Too many requests; `Retry-After` says how long to wait.",
            ),
            ("502", "A BMC refuses."),
            ("503", "The appliance cannot do it now."),
        ]
        .into_iter()
        .map(|(status, text)| {
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build();
            let response = ResponseBuilder::new()
                .description(text)
                .content(super::problem::MEDIA_TYPE, content)
                .build();
            (status.to_owned(), response.into())
        })
        .collect()
    }
}

/// Returns the document.
pub(crate) fn document() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Shows this document.
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "show_document", tag = "records",
    responses((status = 200, description = "The document.", content_type = "application/json")))]
pub(super) async fn show() -> impl IntoResponse {
    let media = [(axum::http::header::CONTENT_TYPE, "application/json")];
    (media, document())
}
