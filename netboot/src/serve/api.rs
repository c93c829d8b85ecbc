//! What a booting host asks of us besides files: its script here, and in `protocol` all that it has to prove itself for.
//!
//! It refuses a script to whoever is not where the host is.

mod protocol;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use image_manifest::{Credential, Exchange, HostConfig, HostSecrets, Report, Stage};
use netboot_core::Mac;
use netboot_core::boot::{Event, File, Protocol, Transfer, What};
use netboot_core::dhcp::{Decision, Firmware, Profile, Request};
use netboot_core::script::{CommandLine, Script, refusal};
use netboot_core::site::{Host, Mode, Site};

use self::protocol::Denied;
use super::appliance::{Appliance, Presence};
use super::boots::{BootDetail, Target};
use super::catalogue::{self, End, Outcome, TransferLog, Wanted};
use super::http::{BootApi, Peer, Refusal};
use crate::cli::report::chain;
use crate::clock::now;
use crate::images::Bootable;
use crate::store::{Change, Urgency};

/// Seconds between two heartbeats of the agent.
pub const HEARTBEAT_SECONDS: u32 = 20;

impl Appliance {
    /// Adds the event that a DHCP exchange is to the timeline of its host.
    pub(super) fn dhcp_event(
        &self,
        site: &Site,
        request: &Request,
        decision: &Decision,
    ) -> Vec<Change> {
        let ignored = matches!(decision, Decision::Ignore(_));
        if ignored && Profile::of(request).firmware == Firmware::Os {
            // What an operating system asks of someone else is no event of a boot.
            return Vec::new();
        }
        let host = if let Decision::Send { reply, .. } = decision {
            reply.about.host.clone()
        } else {
            let host = site.identify(request.mac(), request.guid);
            host.map(|host| Arc::clone(&host.name))
        };
        let (Some(host), Some(what)) = (host, What::dhcp(request, decision)) else {
            return Vec::new();
        };
        let address = match decision {
            Decision::Send { reply, .. } if !reply.yiaddr.is_unspecified() => Some(reply.yiaddr),
            _ => None,
        };
        let booting = Profile::of(request).firmware != Firmware::Os;
        self.event(&host, Mode::Authoritative, what, |detail| {
            // Its system may have other interfaces and addresses than its firmware.
            if booting {
                detail.mac = request.mac().or(detail.mac);
                detail.address = address.or(detail.address);
            }
        })
        .1
    }

    /// Adds an event to a host's timeline and returns the boot with what must be stored.
    fn event(
        &self,
        host: &Arc<str>,
        mode: Mode,
        what: What,
        detail: impl FnOnce(&mut BootDetail),
    ) -> (Option<Arc<str>>, Vec<Change>) {
        self.metrics.event(label(&what));
        self.note_try(host, &what);
        let what = what.tamed();
        let event = Event { at: now(), what };
        match self.boots.record(host, event, mode, detail) {
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
    fn remark(&self, host: &Arc<str>, mode: Mode, what: What) {
        let (_, changes) = self.event(host, mode, what, |_| ());
        if changes.is_empty() {
            return;
        }
        if self.writer.submit(changes, Urgency::Deferrable).is_err() {
            tracing::warn!(
                host = &**host,
                "timeline misses an event, the store is too slow"
            );
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

    /// Adds how far a transfer came to the timeline of its host, if its peer is one.
    fn fetch(&self, transfer: &catalogue::Transfer, step: Transfer) {
        let Some(host) = self.host_at(v4(transfer.peer)) else {
            return;
        };
        let (file, name) = match &transfer.wanted {
            Wanted::Loader(name) => (File::Loader, name.clone()),
            Wanted::Artifact(digest) => match self.boots.file(&host.name, digest) {
                Some(file) => (file, file_name(file).to_owned()),
                // Someone looks at another image from a host's address.
                None => return,
            },
        };
        let what = What::Fetch {
            file,
            name,
            over: transfer.over,
            transfer: step,
        };
        let mode = self.mode_at(v4(transfer.peer));
        self.remark(&host.name, mode, what);
    }

    /// Renders the script of the host with this hardware address. What it says is on disk.
    async fn script_of(&self, mac: Mac, peer: Ipv4Addr) -> String {
        let site = self.site();
        let Some(host) = site.host_by_mac(mac) else {
            tracing::info!(mac = %mac, peer = %peer, "no host has this hardware address");
            return refusal(&format!("no host of site {} has {mac}", site.name));
        };
        if !matches!(self.presence(host, peer), Presence::Here | Presence::Unseen) {
            // Not in the host's timeline: it has nothing to do with it.
            tracing::warn!(host = &*host.name, peer = %peer, "script asked for from another address");
            return refusal(&format!("{peer} is not the address of {mac}"));
        }
        match self.host_script(&site, host, mac, peer).await {
            Ok(script) => script,
            Err(reason) => {
                tracing::warn!(
                    host = &*host.name,
                    reason = reason.as_str(),
                    "host was refused"
                );
                let text = refusal(&format!("{} cannot boot: {reason}", host.name));
                self.remark(&host.name, Mode::Authoritative, What::Refused { reason });
                text
            }
        }
    }

    async fn host_script(
        &self,
        site: &Arc<Site>,
        host: &Arc<Host>,
        mac: Mac,
        peer: Ipv4Addr,
    ) -> Result<String, String> {
        let network = site
            .network_of(peer)
            .ok_or_else(|| format!("no network covers {peer}"))?;
        if network.mode == Mode::Authoritative && self.boots.has_reported(&host.name) {
            return Err("it runs, and no firmware has asked for its address since".to_owned());
        }
        let role = site
            .role_of(host)
            .ok_or_else(|| format!("its role {} is gone", host.role))?;
        let booting = self.booting(site, host).await?;
        let image = &booting.image;
        self.arrived(peer, host);

        let what = What::Fetch {
            file: File::Script,
            name: mac.dashed(),
            over: Protocol::Http,
            transfer: Transfer::Started,
        };
        let (target, parameters) = (target(image), booting.parameters.clone());
        let (boot, mut changes) = self.event(&host.name, network.mode, what, |detail| {
            detail.mac = Some(mac);
            detail.address = Some(peer);
            detail.target = Some(target);
            detail.parameters = Some(parameters);
        });
        let boot = boot.ok_or("the appliance has no randomness")?;
        let generation = self.begin(&host.name, &boot, &booting).await?;
        let token = self.key.token(&boot);
        let own = [
            image.kernel.command_line.as_str(),
            role.command_line.as_deref().unwrap_or_default(),
        ];
        let (url, tls) = (site.url(network), site.secure_url(network));
        let authority = self.tls.ca_hash().to_string();
        let script = Script {
            host: &host.name,
            image: &image.manifest.name,
            url: &url,
            kernel: &image.kernel_artifact.digest.to_string(),
            initrd: &image.initrd.digest.to_string(),
            command_line: &CommandLine {
                own: &own,
                url: &url,
                tls: &tls,
                authority: &authority,
                boot: &boot,
                token: &token,
                mac,
                address: (network.mode == Mode::Authoritative).then_some(peer),
                prefix: network.subnet.prefix(),
                router: network.router,
            }
            .render()
            .map_err(|error| chain(&error))?,
        }
        .render();
        let (_, sent) = self.event(
            &host.name,
            network.mode,
            script_sent(mac, script.len()),
            |_| (),
        );
        changes.extend(sent);
        self.store(changes)
            .await
            .map_err(|error| error.to_string())?;
        tracing::info!(
            host = &*host.name,
            image = image.manifest.name.as_str(),
            digest = %image.digest,
            generation,
            boot = &*boot,
            "host boots image"
        );
        Ok(script)
    }
}

impl BootApi for Appliance {
    async fn script(&self, mac: Mac, peer: Peer) -> Result<String, Refusal> {
        Ok(self.script_of(mac, v4(peer.remote.ip())).await)
    }

    async fn exchange(
        &self,
        boot: &str,
        token: &str,
        exchange: Exchange,
        peer: Peer,
    ) -> Result<Credential, Refusal> {
        let peer = v4(peer.remote.ip());
        let exchanged = self.exchange_token(boot, token, &exchange, peer);
        Ok(exchanged
            .await
            .inspect_err(|denied| self.deny(boot, *denied, peer))?)
    }

    async fn host(&self, boot: &str, credential: &str, peer: Peer) -> Result<HostConfig, Refusal> {
        let peer = v4(peer.remote.ip());
        let config = self.host_config(boot, credential, peer);
        Ok(config.inspect_err(|denied| self.deny(boot, *denied, peer))?)
    }

    async fn secrets(
        &self,
        boot: &str,
        credential: &str,
        exchange: Exchange,
        peer: Peer,
    ) -> Result<HostSecrets, Refusal> {
        let peer = v4(peer.remote.ip());
        let given = self.give_secrets(boot, credential, &exchange, peer);
        Ok(given
            .await
            .inspect_err(|denied| self.deny(boot, *denied, peer))?)
    }

    async fn report(
        &self,
        boot: &str,
        credential: &str,
        report: Report,
        peer: Peer,
    ) -> Result<(), Refusal> {
        let peer = v4(peer.remote.ip());
        let taken = self.take(boot, credential, report, peer);
        Ok(taken
            .await
            .inspect_err(|denied| self.deny(boot, *denied, peer))?)
    }
}

impl TransferLog for Appliance {
    fn began(&self, transfer: &catalogue::Transfer) {
        self.fetch(transfer, Transfer::Started);
    }

    fn ended(&self, transfer: &catalogue::Transfer, end: &End) {
        let bytes = end.bytes;
        let (outcome, step) = match &end.outcome {
            Outcome::Complete => {
                let elapsed_ms = u64::try_from(end.elapsed.as_millis()).unwrap_or(u64::MAX);
                ("complete", Transfer::Done { bytes, elapsed_ms })
            }
            Outcome::Cut(reason) => {
                let reason = reason.clone();
                ("cut", Transfer::Failed { bytes, reason })
            }
        };
        let over = protocol(transfer.over);
        self.metrics.transferred(over, outcome, bytes);
        self.fetch(transfer, step);
    }

    fn refused(&self, peer: IpAddr, over: Protocol, asked: &str, reason: &str) {
        self.metrics.transferred(protocol(over), "refused", 0);
        if is_autoexec(asked) {
            return;
        }
        if let Some(host) = self.host_at(v4(peer)) {
            tracing::warn!(host = &*host.name, file = asked, reason, "host was refused");
            let reason = format!("`{asked}`: {reason}");
            self.remark(&host.name, Mode::Authoritative, What::Refused { reason });
        }
    }

    fn ignored(&self, over: Protocol, why: &'static str) {
        self.metrics.transferred(protocol(over), why, 0);
    }
}

/// Who: iPXE for UEFI since 2022 (`ipxe/ipxe`, `autoexec_efi.c`). What it does: before anything else
/// it asks where it came from for `autoexec.ipxe`, and goes on without. What we do: refuse it, and
/// keep it out of the timeline and the log, where it would look like trouble. Proof: the timelines
/// of `uefi1` and `http1` in the lab.
fn is_autoexec(asked: &str) -> bool {
    asked.rsplit('/').next() == Some("autoexec.ipxe")
}

/// Everything that boots has an IPv4 address here; what has none is no host.
fn v4(address: IpAddr) -> Ipv4Addr {
    match address.to_canonical() {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn protocol(over: Protocol) -> &'static str {
    match over {
        Protocol::Tftp => "tftp",
        Protocol::Http => "http",
    }
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
        Stage::Drift(_) => "drift",
    }
}

#[cfg(test)]
mod tests;
