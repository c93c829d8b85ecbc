//! What stage1 and the agent ask and report, and how they prove which boot they are.
//!
//! It refuses a token that was exchanged already, a credential of another boot, a report that is not the newest, and
//! secrets to anyone but the run of stage1 that exchanged the token. Nothing is answered before it is stored.

use std::net::Ipv4Addr;
use std::sync::Arc;

use hyper::StatusCode;
use image_manifest::{
    Credential, Digest, Exchange, HostConfig, HostSecrets, NetworkConfig, Report, Secret, Stage,
};
use netboot_core::Mac;
use netboot_core::boot::{Event, What};
use netboot_core::site::{Host, Mode, Network, Parameters, Site};
use secrecy::ExposeSecret as _;

use super::{HEARTBEAT_SECONDS, label, step};
use crate::cli::report::chain;
use crate::clock::now;
use crate::operate::Reported;
use crate::secrets::SecretError;
use crate::serve::appliance::{Appliance, Presence};
use crate::serve::boots::BootDetail;
use crate::serve::http::Refusal;

/// Why a host is not given what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::serve) enum Denied {
    /// No host has this running boot.
    #[error("no running boot has this id")]
    UnknownBoot,
    /// The token or credential is another boot's, or no one's.
    #[error("the token is not this boot's")]
    WrongToken,
    /// The token was exchanged, with another nonce than this.
    #[error(
        "the boot's token was exchanged before: another program has read it; the host must boot again"
    )]
    Exchanged,
    /// The credential is the boot's, and not shown by the stage1 that got it; or that one has handed over.
    #[error("secrets are given to the stage1 that exchanged the token, until it hands over")]
    HandedOver,
    /// A report with this number or a later one is stored.
    #[error("a report with this number, or a later one, was taken before")]
    Replayed,
    /// A secret of the host could not be read.
    #[error("a secret of the host cannot be read; the appliance's log says why")]
    NoSecret,
    /// The boot's host is at another address.
    #[error("this address is not that of the boot's host")]
    WrongPeer,
    /// The appliance cannot store what it would promise.
    #[error("the appliance's store is not available")]
    Unavailable,
}

impl Denied {
    /// Returns the word that it is counted under.
    fn label(self) -> &'static str {
        match self {
            Self::UnknownBoot => "unknown-boot",
            Self::WrongToken => "wrong-token",
            Self::Exchanged => "exchanged",
            Self::HandedOver => "handed-over",
            Self::Replayed => "replayed",
            Self::NoSecret => "no-secret",
            Self::WrongPeer => "wrong-peer",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Appliance {
    /// Counts why a host was not given what it asked for, and tells operators, once for each boot and reason: it can
    /// say so itself on its console only, and somebody else may be at work.
    pub(super) fn deny(&self, boot: &str, denied: Denied, peer: Ipv4Addr) {
        self.metrics.refused(denied.label());
        // A report whose answer was lost comes again.
        if matches!(denied, Denied::Replayed | Denied::Unavailable) {
            return;
        }
        if let Some(host) = self.boots.is_first(boot, denied.label()) {
            let text = format!("{peer} was refused: {denied}");
            self.operator.refused(&host, text);
        }
    }

    /// Exchanges the token of a boot; that it was is on disk when this returns.
    pub(super) async fn exchange_token(
        &self,
        boot: &str,
        token: &str,
        exchange: &Exchange,
        peer: Ipv4Addr,
    ) -> Result<Credential, Denied> {
        let (host, detail) = self.boots.find(boot).ok_or(Denied::UnknownBoot)?;
        if !self.key.admits(boot, token) {
            return Err(Denied::WrongToken);
        }
        self.expect(&host, &detail, peer)?;
        let nonce = Digest::of(exchange.nonce.expose().as_bytes());
        let Some(recorded) = self.boots.exchange(boot, nonce) else {
            tracing::warn!(host = &*host, boot, peer = %peer, "boot token shown a second time");
            return Err(Denied::Exchanged);
        };
        self.store(recorded.changes).await?;
        let credential = self.key.credential(boot, &nonce);
        // It is made of hexadecimal digits.
        let credential = credential.parse().map_err(|_| Denied::Unavailable)?;
        Ok(Credential { credential })
    }

    /// Returns what a host is told about itself.
    pub(super) fn host_config(
        &self,
        boot: &str,
        credential: &str,
        peer: Ipv4Addr,
    ) -> Result<HostConfig, Denied> {
        let (name, detail) = self.admit(boot, credential, peer)?;
        let site = self.site();
        let host = site.host(&name).ok_or(Denied::UnknownBoot)?;
        let address = detail.address.unwrap_or(peer);
        let network = site.network_of(address).ok_or(Denied::UnknownBoot)?;
        let mac = detail.mac.or_else(|| host.macs.first().copied());
        let parameters = detail.parameters.unwrap_or_default();
        Ok(config(&site, host, mac, address, network, &parameters))
    }

    /// Returns the secrets of a host, which are read from their places now.
    pub(super) async fn give_secrets(
        &self,
        boot: &str,
        credential: &str,
        exchange: &Exchange,
        peer: Ipv4Addr,
    ) -> Result<HostSecrets, Denied> {
        let (name, detail) = self.admit(boot, credential, peer)?;
        // Whoever stole the credential of a running host does not have this.
        let nonce = Digest::of(exchange.nonce.expose().as_bytes());
        if detail.exchanged != Some(nonce) || !self.boots.give_secrets(boot) {
            tracing::warn!(host = &*name, boot, peer = %peer, "secrets asked for too late");
            return Err(Denied::HandedOver);
        }
        let site = self.site();
        let host = site.host(&name).ok_or(Denied::UnknownBoot)?;
        let role = site.role_of(host).ok_or(Denied::UnknownBoot)?;
        let (names, secrets) = (role.secrets.clone(), Arc::clone(&self.secrets));
        let reader = Arc::clone(&site);
        let read = tokio::task::spawn_blocking(move || {
            let read = |secret: Arc<str>| -> Result<_, SecretError> {
                let bytes = secrets.bytes(&reader, &secret)?;
                Ok((
                    secret.to_string(),
                    Secret::new(bytes.expose_secret().to_vec()),
                ))
            };
            names.into_iter().map(read).collect::<Result<_, _>>()
        });
        let secrets = match read.await {
            Ok(Ok(secrets)) => secrets,
            Ok(Err(error)) => {
                tracing::warn!(host = &*name, error = %chain(&error), "secret not given");
                let reason = chain(&error);
                self.remark(&name, Mode::Authoritative, What::Refused { reason });
                return Err(Denied::NoSecret);
            }
            Err(_) => return Err(Denied::Unavailable),
        };
        let given = HostSecrets { secrets };
        tracing::info!(
            host = &*name,
            boot,
            secrets = given.secrets.len(),
            "secrets given"
        );
        Ok(given)
    }

    /// Takes a report of stage1 or the agent; it is on disk when this returns.
    pub(super) async fn take(
        &self,
        boot: &str,
        credential: &str,
        report: Report,
        peer: Ipv4Addr,
    ) -> Result<(), Denied> {
        let (host, _) = self.admit(boot, credential, peer)?;
        let sequence = report.sequence;
        if !self.boots.is_news(boot, sequence) {
            tracing::info!(
                host = &*host,
                boot,
                sequence,
                "report refused, it is not new"
            );
            return Err(Denied::Replayed);
        }
        let stage = report.stage.clone();
        let what = What::Report(report).tamed();
        Self::log_report(&host, &what);
        self.metrics.event(label(&what));
        self.note_try(&host, &what);
        let recorded = self.boots.report(boot, Event { at: now(), what });
        let mut reported = Reported {
            host,
            boot: boot.to_owned(),
            stage,
            changes: recorded.ok_or(Denied::UnknownBoot)?.changes,
        };
        if !matches!(reported.stage, Stage::Heartbeat { .. }) {
            return self.settle(reported, sequence).await;
        }
        self.store(std::mem::take(&mut reported.changes)).await?;
        self.operator.heartbeat(reported);
        // Not before: what was not stored has to be taken when it comes again.
        self.boots.stored(boot, sequence);
        Ok(())
    }

    /// Has a report stored with what it leads to, and remembers that it is, even when its host has hung up meanwhile:
    /// stage1 leaves what was not answered to the agent, which tells it again.
    async fn settle(&self, reported: Reported, sequence: u64) -> Result<(), Denied> {
        let (operator, boots) = (self.operator.clone(), Arc::clone(&self.boots));
        let settled = tokio::spawn(async move {
            let boot = reported.boot.clone();
            let stored = operator.reported(reported).await;
            stored.map_err(|_| Denied::Unavailable)?;
            boots.stored(&boot, sequence);
            Ok(())
        });
        settled.await.map_err(|_| Denied::Unavailable)?
    }

    /// Tells the operator what a report means.
    fn log_report(host: &Arc<str>, what: &What) {
        let What::Report(report) = what else { return };
        match &report.stage {
            Stage::Failed { reason } => {
                tracing::warn!(host = &**host, reason = reason.as_str(), "boot failed");
            }
            Stage::Unhealthy(unwell) => {
                tracing::warn!(
                    host = &**host,
                    state = unwell.state.as_str(),
                    failed = names(unwell),
                    "host is unhealthy"
                );
            }
            Stage::Healthy { tree } => {
                tracing::info!(host = &**host, digest = %tree, "host is healthy");
            }
            Stage::Drift(drift) if drift.paths.is_empty() => {
                tracing::info!(host = &**host, "files of the host are as in its image");
            }
            Stage::Drift(drift) => {
                let changed = drift.paths.len() as u64 + drift.omitted;
                tracing::warn!(host = &**host, changed, "files of the host were changed");
            }
            Stage::Heartbeat { .. } => {}
            stage => tracing::info!(host = &**host, step = step(stage), "boot went on"),
        }
    }

    /// Finds the host of a boot, for who shows its credential from where the host is.
    fn admit(
        &self,
        boot: &str,
        credential: &str,
        peer: Ipv4Addr,
    ) -> Result<(Arc<str>, BootDetail), Denied> {
        let (name, detail) = self.boots.find(boot).ok_or(Denied::UnknownBoot)?;
        let exchanged = detail.exchanged.ok_or(Denied::WrongToken)?;
        if !self.key.believes(boot, &exchanged, credential) {
            return Err(Denied::WrongToken);
        }
        self.expect(&name, &detail, peer)?;
        Ok((name, detail))
    }

    /// Refuses a peer that is not where the host of a boot is.
    fn expect(&self, name: &Arc<str>, detail: &BootDetail, peer: Ipv4Addr) -> Result<(), Denied> {
        let site = self.site();
        let host = site.host(name).ok_or(Denied::UnknownBoot)?;
        // Beside another DHCP server the host's own system may get another address than its loader.
        if detail.address != Some(peer) && self.presence(host, peer) == Presence::Elsewhere {
            tracing::warn!(host = &**name, peer = %peer, "token shown from another address");
            return Err(Denied::WrongPeer);
        }
        Ok(())
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::UnknownBoot => StatusCode::NOT_FOUND,
            Denied::WrongToken => StatusCode::UNAUTHORIZED,
            Denied::Exchanged | Denied::HandedOver | Denied::WrongPeer => StatusCode::FORBIDDEN,
            Denied::Replayed => StatusCode::CONFLICT,
            Denied::NoSecret => StatusCode::INTERNAL_SERVER_ERROR,
            Denied::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, denied.to_string())
    }
}

fn config(
    site: &Site,
    host: &Host,
    mac: Option<Mac>,
    address: Ipv4Addr,
    network: &Network,
    parameters: &Parameters,
) -> HostConfig {
    let secrets = site.role_of(host).map(|role| role.secrets.as_slice());
    let secrets = secrets.unwrap_or_default();
    // A parameter is a truth, a number or a text: each has its JSON.
    let parameters = parameters.iter().map(|(name, value)| {
        let value = serde_json::to_value(value).unwrap_or_default();
        (name.to_string(), value)
    });
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
        parameters: parameters.collect(),
        secrets: secrets.iter().map(ToString::to_string).collect(),
    }
}

/// Names what is not well, for a line of the log.
fn names(unwell: &image_manifest::Unhealthy) -> String {
    let checks = unwell.failed_checks.iter().map(|check| &check.name);
    let names: Vec<&str> = unwell
        .failed_units
        .iter()
        .chain(checks)
        .map(String::as_str)
        .collect();
    names.join(", ")
}
