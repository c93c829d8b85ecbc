//! What is known about each host: who it is, and how its newest boot goes.
//!
//! It refuses to write, and to judge: the store is read only, and the verdict is the core's.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use image_manifest::{Digest, Stage};
use netboot_core::boot::{
    Event, Expectation, File, StageSummary, Verdict, What, bytes, stages, verdict,
};
use netboot_core::lifecycle::{HostState, Policy};
use netboot_core::site::{Host, Site};
use netboot_core::{Mac, Timestamp};
use serde::Serialize;

use crate::images::reference;
use crate::operate::{StateView, persist};
use crate::serve::{HEARTBEAT_SECONDS, read_boot};
use crate::store::{DocumentRow, LeaseRow, Reader, StoreError, Stored, StoredBoot};

/// One host with its newest boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// The interface that it boots from.
    pub mac: Option<Mac>,
    /// Its address: reserved, or else what it holds.
    pub address: Option<Ipv4Addr>,
    /// What it is for.
    pub role: String,
    /// The image of its role, in its environment.
    pub image: String,
    /// Its generation and what is under way with it.
    pub deployment: StateView,
    /// The firmware that asked first.
    pub firmware: Option<&'static str>,
    /// The loader that it fetched.
    pub loader: Option<String>,
    /// Its newest boot; none when it never asked for anything.
    pub boot: Option<BootView>,
}

/// One boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BootView {
    /// Its id.
    pub id: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// Its stages so far.
    pub stages: Vec<StageSummary>,
    /// All bytes that were sent for it.
    pub bytes: u64,
    /// The tree that the host says it runs.
    pub tree: Option<Digest>,
    /// The tree of the image that it was told to boot.
    pub expected_tree: Option<Digest>,
    /// What became of it.
    pub verdict: Verdict,
    /// Everything that happened, in order.
    #[serde(skip)]
    pub events: Vec<Event>,
}

/// Reads what is known about all hosts of a site; a data directory without a store knows nothing.
///
/// # Errors
/// When the store cannot be read.
pub async fn read(site: &Site, data: &Path, now: Timestamp) -> Result<Vec<HostView>, StoreError> {
    let stored = match Reader::open(data).await? {
        Some(mut reader) => reader.read().await?,
        None => Stored::default(),
    };
    let boots: HashMap<&str, &StoredBoot> = stored
        .boots
        .iter()
        .map(|boot| (boot.boot.host.as_str(), boot))
        .collect();
    let view = |host: &std::sync::Arc<Host>| {
        let boot = boots.get(&*host.name).copied();
        view(site, host, &stored.leases, &stored.documents, boot, now)
    };
    site.hosts().map(view).collect()
}

/// Reads one host with all boots that are kept of it, newest first.
///
/// # Errors
/// When the store cannot be read.
pub async fn read_one(
    site: &Site,
    host: &Host,
    data: &Path,
    now: Timestamp,
) -> Result<(HostView, Vec<BootView>), StoreError> {
    let (leases, states, boots) = match Reader::open(data).await? {
        Some(mut reader) => (
            reader.leases().await?,
            reader.documents(Some(persist::STATE)).await?,
            reader.boots_of(&host.name).await?,
        ),
        None => Default::default(),
    };
    let mut views = Vec::with_capacity(boots.len());
    for boot in &boots {
        views.push(boot_view(boot, now)?);
    }
    let newest = boots.first();
    let view = view(site, host, &leases, &states, newest, now)?;
    Ok((view, views))
}

fn view(
    site: &Site,
    host: &Host,
    leases: &[LeaseRow],
    documents: &[DocumentRow],
    stored: Option<&StoredBoot>,
    now: Timestamp,
) -> Result<HostView, StoreError> {
    let state = documents
        .iter()
        .find(|row| row.kind == persist::STATE && *row.name == *host.name);
    let state: HostState = state.map(persist::read).transpose()?.unwrap_or_default();
    let detail = stored.map(read_boot).transpose()?.map(|(detail, _)| detail);
    let boot = stored.map(|stored| boot_view(stored, now)).transpose()?;
    let holder = format!("host:{}", host.name);
    let held = leases
        .iter()
        .find(|lease| lease.client == holder && lease.until_ms > now.0)
        .map(|lease| Ipv4Addr::from_bits(lease.address));
    let booted = detail.as_ref();
    Ok(HostView {
        name: host.name.to_string(),
        mac: booted
            .and_then(|detail| detail.mac)
            .or_else(|| host.macs.first().copied()),
        address: host
            .address
            .or(held)
            .or_else(|| booted.and_then(|detail| detail.address)),
        role: host.role.to_string(),
        image: site.image_of(host).map(reference).unwrap_or_default(),
        deployment: StateView::with(&state, &Policy::of(site, host), None),
        firmware: boot.as_ref().and_then(|boot| firmware(&boot.events)),
        loader: boot.as_ref().and_then(|boot| loader(&boot.events)),
        boot,
    })
}

fn boot_view(stored: &StoredBoot, now: Timestamp) -> Result<BootView, StoreError> {
    let (detail, events) = read_boot(stored)?;
    let expected_tree = detail.target.map(|target| target.tree);
    let expectation = Expectation {
        tree: expected_tree,
        heartbeat: Duration::from_secs(HEARTBEAT_SECONDS.into()),
    };
    let started = Timestamp(stored.boot.started_ms);
    Ok(BootView {
        id: stored.boot.id.clone(),
        started_ms: started.0,
        stages: stages(started, &events),
        bytes: bytes(&events),
        tree: events.iter().rev().find_map(|event| tree(&event.what)),
        expected_tree,
        verdict: verdict(&events, &expectation, now),
        events,
    })
}

fn firmware(events: &[Event]) -> Option<&'static str> {
    events.iter().find_map(|event| match &event.what {
        What::Dhcp { firmware, .. } => Some(firmware.label()),
        _ => None,
    })
}

fn loader(events: &[Event]) -> Option<String> {
    events.iter().find_map(|event| match &event.what {
        What::Fetch {
            file: File::Loader,
            name,
            ..
        } => Some(name.clone()),
        _ => None,
    })
}

fn tree(what: &What) -> Option<Digest> {
    let What::Report(report) = what else {
        return None;
    };
    match &report.stage {
        Stage::AgentStarted { tree } | Stage::Healthy { tree } | Stage::Heartbeat { tree, .. } => {
            Some(*tree)
        }
        Stage::Unhealthy(unwell) => Some(unwell.tree),
        Stage::Drift(drift) => Some(drift.tree),
        Stage::Stage1 { .. }
        | Stage::RootFetched { .. }
        | Stage::SwitchRoot
        | Stage::Failed { .. } => None,
    }
}
