//! What a booting host asks of us besides files: its script, its configuration, and to be heard.
//!
//! It refuses whoever does not show the token of the host's running boot.

use std::net::Ipv4Addr;
use std::sync::Arc;

use image_manifest::{HostConfig, NetworkConfig, Report, Stage};
use netboot_core::Mac;
use netboot_core::boot::{Event, File, Protocol, Transfer, What};
use netboot_core::dhcp::{Decision, Firmware, Profile, Request};
use netboot_core::script::{CommandLine, Script, refusal};
use netboot_core::site::{Host, Mode, Network, Site};

use super::appliance::{Appliance, now};
use super::boots::{BootDetail, Target};
use crate::cli::report::chain;
use crate::images::{self, Bootable};
use crate::store::{Change, Urgency};

/// Seconds between two heartbeats of the agent.
pub const HEARTBEAT_SECONDS: u32 = 20;

/// Why a host is not given what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// No host has this running boot.
    #[error("no running boot has this id")]
    UnknownBoot,
    /// The token is another boot's, or no one's.
    #[error("the token is not this boot's")]
    WrongToken,
    /// The appliance cannot store what it would promise.
    #[error("the appliance's store is not available")]
    Unavailable,
}

impl Appliance {
    /// Adds the event that a DHCP exchange is to the timeline of its host.
    pub(super) fn dhcp_event(
        &self,
        site: &Site,
        request: &Request,
        decision: &Decision,
    ) -> Vec<Change> {
        let about = match decision {
            Decision::Send { reply, .. } => Some(&reply.about),
            Decision::Note { .. } => None,
            // What an operating system asks of someone else is no event of a boot.
            Decision::Ignore(_) if Profile::of(request).firmware == Firmware::Os => {
                return Vec::new();
            }
            Decision::Ignore(_) => None,
        };
        let host = match about {
            Some(about) => about.host.clone(),
            None => {
                let host = site.identify(request.mac(), request.guid);
                host.map(|host| Arc::clone(&host.name))
            }
        };
        let (Some(host), Some(what)) = (host, What::dhcp(request, decision)) else {
            return Vec::new();
        };
        let address = match decision {
            Decision::Send { reply, .. } if !reply.yiaddr.is_unspecified() => Some(reply.yiaddr),
            _ => None,
        };
        self.event(&host, what, |detail| {
            detail.mac = request.mac().or(detail.mac);
            detail.address = address.or(detail.address);
        })
        .1
    }

    /// Adds an event to a host's timeline and returns the boot with what must be stored.
    fn event(
        &self,
        host: &Arc<str>,
        what: What,
        detail: impl FnOnce(&mut BootDetail),
    ) -> (Option<Arc<str>>, Vec<Change>) {
        self.metrics.event(label(&what));
        self.note_try(host, &what);
        let event = Event { at: now(), what };
        match self.boots.record(host, event, detail) {
            Some(recorded) => {
                if recorded.began {
                    tracing::info!(host = &**host, boot = &*recorded.boot, "boot began");
                }
                (Some(recorded.boot), recorded.changes)
            }
            None => (None, Vec::new()),
        }
    }

    /// Adds an event that nobody waits for.
    fn remark(&self, host: &Arc<str>, what: What) {
        let (_, changes) = self.event(host, what, |_| ());
        if changes.is_empty() {
            return;
        }
        if self.writer.submit(changes, Urgency::Deferrable).is_err() {
            tracing::warn!(host = &**host, "timeline misses an event, the store is too slow");
        }
    }

    async fn store(&self, changes: Vec<Change>) -> Result<(), Denied> {
        if changes.is_empty() {
            return Ok(());
        }
        let commit = self
            .writer
            .submit(changes, Urgency::Urgent)
            .map_err(|_| Denied::Unavailable)?;
        commit.durable().await.map_err(|_| Denied::Unavailable)
    }

    /// Notes how far the transfer of a file came, if its peer is a host.
    pub(super) fn transfer(
        &self,
        peer: Ipv4Addr,
        name: &str,
        over: Protocol,
        asked: Wanted<'_>,
        transfer: Transfer,
    ) {
        let Some(host) = self.host_at(peer) else {
            return;
        };
        let file = match asked {
            Wanted::Loader => Some((File::Loader, name)),
            Wanted::Artifact(digest) => self
                .boots
                .file(&host.name, digest)
                .map(|file| (file, file_name(file))),
        };
        let Some((file, name)) = file else {
            return;
        };
        self.remark(
            &host.name,
            What::Fetch {
                file,
                name: name.to_owned(),
                over,
                transfer,
            },
        );
    }

    /// Notes that a peer asked for something that it cannot have, if it is a host.
    pub(super) fn refused(&self, peer: Ipv4Addr, reason: String) {
        if let Some(host) = self.host_at(peer) {
            tracing::warn!(host = &*host.name, reason = reason.as_str(), "host was refused");
            self.remark(&host.name, What::Refused { reason });
        }
    }

    /// Renders the script of the host with this hardware address. What it says is on disk.
    pub(super) async fn script(self: &Arc<Self>, mac: Mac, peer: Ipv4Addr) -> String {
        let site = self.site();
        let Some(host) = site.host_by_mac(mac) else {
            tracing::info!(mac = %mac, peer = %peer, "no host has this hardware address");
            return refusal(&format!("no host of site {} has {mac}", site.name));
        };
        match self.host_script(&site, host, mac, peer).await {
            Ok(script) => script,
            Err(reason) => {
                tracing::warn!(host = &*host.name, reason = reason.as_str(), "host was refused");
                let text = refusal(&format!("{} cannot boot: {reason}", host.name));
                self.remark(&host.name, What::Refused { reason });
                text
            }
        }
    }

    async fn host_script(
        self: &Arc<Self>,
        site: &Arc<Site>,
        host: &Arc<Host>,
        mac: Mac,
        peer: Ipv4Addr,
    ) -> Result<String, String> {
        let address = self.address_of(host);
        let network = address
            .and_then(|address| site.network_of(address))
            .or_else(|| site.network_of(peer))
            .ok_or_else(|| format!("no network covers {peer}"))?;
        let role = site
            .role_of(host)
            .ok_or_else(|| format!("its role {} is gone", host.role))?;
        let images = self.images.clone();
        let image = role.image.clone();
        let image = tokio::task::spawn_blocking(move || images::resolve(&images, &image))
            .await
            .map_err(|error| chain(&error))?
            .map_err(|error| chain(&error))?;
        self.arrived(peer, host);

        let what = What::Fetch {
            file: File::Script,
            name: mac.dashed(),
            over: Protocol::Http,
            transfer: Transfer::Started,
        };
        let target = target(&image);
        let (boot, mut changes) = self.event(&host.name, what, |detail| {
            detail.mac = Some(mac);
            detail.address = address.or(Some(peer));
            detail.target = Some(target);
        });
        let boot = boot.ok_or("the appliance has no randomness")?;
        let token = self.key.token(&boot);
        let own = [
            image.kernel.command_line.as_str(),
            role.command_line.as_deref().unwrap_or_default(),
        ];
        let url = site.url(network);
        let script = Script {
            host: &host.name,
            image: &image.manifest.name,
            url: &url,
            kernel: &image.kernel_artifact.digest.to_string(),
            initrd: &image.initrd.digest.to_string(),
            command_line: &CommandLine {
                own: &own,
                url: &url,
                boot: &boot,
                token: &token,
                mac,
                address: address.filter(|_| network.mode == Mode::Authoritative),
                prefix: network.subnet.prefix(),
                router: network.router,
            }
            .render()
            .map_err(|error| chain(&error))?,
        }
        .render();
        let (_, sent) = self.event(&host.name, script_sent(mac, script.len()), |_| ());
        changes.extend(sent);
        self.store(changes).await.map_err(|error| error.to_string())?;
        tracing::info!(
            host = &*host.name,
            image = image.manifest.name.as_str(),
            digest = %image.digest,
            boot = &*boot,
            "host boots image"
        );
        Ok(script)
    }

    /// Returns what a host is told about itself.
    pub(super) fn host_config(
        &self,
        boot: &str,
        token: &str,
        peer: Ipv4Addr,
    ) -> Result<HostConfig, Denied> {
        let name = self.admit(boot, token)?;
        let site = self.site();
        let host = site.host(&name).ok_or(Denied::UnknownBoot)?;
        let detail = self.boots.detail(&name).ok_or(Denied::UnknownBoot)?;
        let address = self.address_of(host).or(detail.address).unwrap_or(peer);
        let network = site.network_of(address).ok_or(Denied::UnknownBoot)?;
        let mac = detail.mac.or_else(|| host.macs.first().copied());
        Ok(config(host, mac, address, network))
    }

    /// Takes a report of stage1 or the agent; it is on disk when this returns.
    pub(super) async fn report(
        &self,
        boot: &str,
        token: &str,
        report: Report,
    ) -> Result<(), Denied> {
        let host = self.admit(boot, token)?;
        match &report.stage {
            Stage::Failed { reason } => {
                tracing::warn!(host = &*host, reason = reason.as_str(), "boot failed");
            }
            Stage::Unhealthy(unwell) => {
                tracing::warn!(host = &*host, state = unwell.state.as_str(), "host is unhealthy");
            }
            Stage::Healthy { tree } => tracing::info!(host = &*host, digest = %tree, "host is healthy"),
            Stage::Heartbeat { .. } => {}
            stage => tracing::info!(host = &*host, step = step(stage), "boot went on"),
        }
        let (_, changes) = self.event(&host, What::Report(report), |_| ());
        self.store(changes).await
    }

    fn admit(&self, boot: &str, token: &str) -> Result<Arc<str>, Denied> {
        let host = self.boots.host_of(boot).ok_or(Denied::UnknownBoot)?;
        if self.key.admits(boot, token) {
            Ok(host)
        } else {
            Err(Denied::WrongToken)
        }
    }
}

/// What a peer loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// A loader, by name.
    Loader,
    /// An artifact, by digest.
    Artifact(&'a image_manifest::Digest),
}

fn target(image: &Bootable) -> Target {
    Target {
        image: image.manifest.name.clone(),
        manifest: image.digest,
        tree: image.manifest.tree,
        kernel: image.kernel_artifact.digest,
        initrd: image.initrd.digest,
        rootfs: image.rootfs.digest,
    }
}

fn script_sent(mac: Mac, length: usize) -> What {
    What::Fetch {
        file: File::Script,
        name: mac.dashed(),
        over: Protocol::Http,
        transfer: Transfer::Done {
            bytes: length as u64,
            elapsed_ms: 0,
        },
    }
}

fn config(host: &Host, mac: Option<Mac>, address: Ipv4Addr, network: &Network) -> HostConfig {
    HostConfig {
        name: host.name.to_string(),
        ssh_keys: host.login_keys.iter().map(ToString::to_string).collect(),
        network: NetworkConfig {
            mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
            address,
            prefix: network.subnet.prefix(),
            router: network.router,
            dns: network.dns.clone(),
            domain: network.domain.as_ref().map(ToString::to_string),
        },
        heartbeat_seconds: HEARTBEAT_SECONDS,
    }
}

fn file_name(file: File) -> &'static str {
    match file {
        File::Loader => "loader",
        File::Script => "script",
        File::Kernel => "kernel",
        File::Initrd => "initrd",
        File::Rootfs => "rootfs",
    }
}

fn label(what: &What) -> &'static str {
    match what {
        What::Dhcp { .. } => "dhcp",
        What::Fetch { file, .. } => file_name(*file),
        What::Refused { .. } => "refused",
        What::Report(report) => step(&report.stage),
        What::Restarted => "restarted",
    }
}

fn step(stage: &Stage) -> &'static str {
    match stage {
        Stage::Stage1 { .. } => "stage1",
        Stage::RootFetched { .. } => "root-fetched",
        Stage::SwitchRoot => "switch-root",
        Stage::Failed { .. } => "failed",
        Stage::AgentStarted { .. } => "agent-started",
        Stage::Healthy { .. } => "healthy",
        Stage::Unhealthy(_) => "unhealthy",
        Stage::Heartbeat { .. } => "heartbeat",
    }
}
