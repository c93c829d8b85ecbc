//! Hosts, as people and programs read about them.
//!
//! It refuses to show hosts to a token that is for others.

use std::sync::Arc;

use axum::extract::{Path, State};
use netboot_core::selector::Selector;
use netboot_core::site::{Host, Site};
use serde::{Deserialize, Serialize};

use super::body::Asked;
use super::openapi::Refusals;
use super::order::{Answer, Caller};
use super::{Api, Problem};
use crate::clock::now;
use crate::hosts::{BootView, HostView};
use crate::operate::{GenerationView, Refusal, StateView, Who};

/// Which hosts to list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Listed {
    /// A selector, such as `role=web,rack=r1 db1`; all without one.
    select: Option<String>,
}

/// One boot of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct BootAnswer {
    /// Its id.
    pub(crate) id: String,
    /// When it began, in milliseconds since 1970.
    pub(crate) started_ms: u64,
    /// Milliseconds until its last stage began.
    pub(crate) took_ms: Option<u64>,
    /// All bytes that were sent for it.
    pub(crate) bytes: u64,
    /// The tree that the host says it runs.
    pub(crate) tree: Option<String>,
    /// The tree of the image that it was told to boot.
    pub(crate) expected_tree: Option<String>,
    /// How it goes: `silent`, `booting`, `healthy`, `failed`, ….
    pub(crate) state: String,
    /// The same in words.
    pub(crate) verdict: String,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct HostAnswer {
    /// Its name.
    pub(crate) name: String,
    /// Its role.
    pub(crate) role: String,
    /// Its environment.
    pub(crate) environment: Option<String>,
    /// Where it stands.
    pub(crate) rack: Option<String>,
    /// Its address.
    pub(crate) address: Option<String>,
    /// The interface that it boots from.
    pub(crate) mac: Option<String>,
    /// The image of its role.
    pub(crate) image: String,
    /// The firmware that asked first.
    pub(crate) firmware: Option<String>,
    /// The loader that it fetched.
    pub(crate) loader: Option<String>,
    /// What is under way with it.
    pub(crate) deployment: StateView,
    /// Its newest boot; none when it never asked for anything.
    pub(crate) boot: Option<BootAnswer>,
}

/// One host in detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct HostDetail {
    /// The host.
    pub(crate) host: HostAnswer,
    /// Its generations, newest first.
    pub(crate) generations: Vec<GenerationView>,
    /// What happened in its newest boot, in order.
    #[schema(value_type = Vec<Object>)]
    pub(crate) events: Vec<netboot_core::boot::Event>,
    /// Boots before the newest, newest first.
    pub(crate) earlier: Vec<BootAnswer>,
}

/// Lists hosts.
#[utoipa::path(get, path = "/v1/hosts", operation_id = "list_hosts", tag = "hosts", security(("token" = ["viewer"])), params(Listed),
    responses((status = 200, description = "The hosts.", body = Vec<HostAnswer>), Refusals))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Asked(listed): Asked<Listed>,
) -> Result<Answer<Vec<HostAnswer>>, Problem> {
    let site = api.site();
    let selector = match listed.select {
        Some(text) => Some(selector(&text, &site)?),
        None => None,
    };
    let views = crate::hosts::read(&site, &api.parts.data, now());
    let views = views.await.map_err(Refusal::from)?;
    let states = api.parts.operator.states().await?;
    let mut answers = Vec::with_capacity(views.len());
    for view in views {
        let Some(host) = site.host(&view.name) else {
            continue;
        };
        let wanted = selector
            .as_ref()
            .is_none_or(|selector| selector.selects(host));
        if !wanted || !sees(&who, host) {
            continue;
        }
        let state = states.iter().find(|(name, _)| *name == host.name);
        let state = state.map(|(_, state)| state.clone()).unwrap_or_default();
        answers.push(answer(host, view, state));
    }
    Ok(Answer::of(answers))
}

/// Shows one host, its generations, and what happened in its newest boot.
#[utoipa::path(get, path = "/v1/hosts/{name}", operation_id = "show_host", tag = "hosts", security(("token" = ["viewer"])),
    params(("name" = String, Path, description = "Its name.")),
    responses((status = 200, description = "The host.", body = HostDetail), Refusals))]
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Path(name): Path<String>,
) -> Result<Answer<HostDetail>, Problem> {
    let site = api.site();
    let host = find(&site, &who, &name)?;
    let read = crate::hosts::read_one(&site, &host, &api.parts.data, now());
    let (view, boots) = read.await.map_err(Refusal::from)?;
    let states = api.parts.operator.states().await?;
    let state = states.into_iter().find(|(name, _)| *name == host.name);
    let state = state.map(|(_, state)| state).unwrap_or_default();
    let generations = api.parts.operator.history(&host.name).await?;
    let mut boots = boots.into_iter();
    let events = boots.next().map(|boot| boot.events).unwrap_or_default();
    Ok(Answer::of(HostDetail {
        host: answer(&host, view, state),
        generations,
        events,
        earlier: boots.map(boot).collect(),
    }))
}

/// Shows the generations of a host, newest first.
#[utoipa::path(get, path = "/v1/hosts/{name}/history", operation_id = "show_history", tag = "hosts", security(("token" = ["viewer"])),
    params(("name" = String, Path, description = "Its name.")),
    responses((status = 200, description = "The generations.", body = Vec<GenerationView>), Refusals))]
pub(super) async fn history(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Path(name): Path<String>,
) -> Result<Answer<Vec<GenerationView>>, Problem> {
    let host = find(&api.site(), &who, &name)?;
    let generations = api.parts.operator.history(&host.name).await?;
    Ok(Answer::of(generations))
}

/// Reads a selector and checks that each of its words selects somebody.
fn selector(text: &str, site: &Site) -> Result<Selector, Problem> {
    let read = text.parse::<Selector>();
    read.and_then(|selector| selector.check(site).map(|()| selector))
        .map_err(|error| {
            Problem::new(
                400,
                "selector",
                "the hosts are not known",
                error.to_string(),
            )
        })
}

/// Tells whether somebody may see a host.
pub(super) fn sees(who: &Who, host: &Host) -> bool {
    who.scope.as_ref().is_none_or(|scope| scope.selects(host))
}

fn answer(host: &Host, view: HostView, deployment: StateView) -> HostAnswer {
    HostAnswer {
        name: view.name,
        role: view.role,
        environment: host.environment.as_ref().map(ToString::to_string),
        rack: host.rack.as_ref().map(ToString::to_string),
        address: view.address.map(|address| address.to_string()),
        mac: view.mac.map(|mac| mac.to_string()),
        image: view.image,
        firmware: view.firmware.map(str::to_owned),
        loader: view.loader,
        deployment,
        boot: view.boot.map(boot),
    }
}

fn boot(view: BootView) -> BootAnswer {
    BootAnswer {
        id: view.id,
        started_ms: view.started_ms,
        took_ms: view.stages.last().map(|stage| stage.at_ms),
        bytes: view.bytes,
        tree: view.tree.map(|tree| tree.to_string()),
        expected_tree: view.expected_tree.map(|tree| tree.to_string()),
        state: view.verdict.state.label().to_owned(),
        verdict: view.verdict.text,
    }
}

/// Finds a host that somebody may see; the others are as if they were not there.
pub(super) fn find(site: &Site, who: &Who, name: &str) -> Result<Arc<Host>, Refusal> {
    let host = site.host(name).filter(|host| sees(who, host));
    host.cloned().ok_or_else(|| Refusal::Unknown {
        what: "host",
        name: name.chars().take(100).collect(),
    })
}

impl Api {
    /// Tells whether somebody may see a host, by its name; what left the site is seen by tokens for all hosts.
    pub(super) fn may_see(&self, who: &Who, name: &str) -> bool {
        who.scope.is_none() || self.site().host(name).is_some_and(|host| sees(who, host))
    }
}
