//! TLS of the running appliance: which names its certificate has, where hosts reach it, and its renewal.
//!
//! It refuses to end with a certificate that cannot be renewed: the old one stays, and the log says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use netboot_core::site::Site;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use super::bind::{self, BindError, Wires};
use crate::cli::report::chain;
use crate::clock::now;
use crate::tls::{LOOK_EVERY, Names, Tls};

/// Returns what the certificate has to be good for: where hosts and operators reach the appliance.
pub(super) fn names(site: &Site, wires: &Wires) -> Names {
    let networks = site.networks.iter().map(|network| network.appliance);
    let hosts = wires.addresses().chain(networks).map(IpAddr::V4);
    let here = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        site.appliance.api.ip(),
    ];
    let addresses = hosts
        .chain(here)
        .filter(|address| !address.is_unspecified());
    Names {
        addresses: addresses.collect(),
        names: own_names().collect(),
    }
}

/// Returns the names of this computer that a certificate can hold.
fn own_names() -> impl Iterator<Item = String> {
    let host = nix::unistd::gethostname().ok();
    let host = host.and_then(|name| name.into_string().ok());
    let plain = |name: &String| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        !name.is_empty() && name.bytes().all(fits)
    };
    ["localhost".to_owned()]
        .into_iter()
        .chain(host.filter(plain))
}

/// Binds the ports where hosts speak TLS.
pub(super) async fn bind(site: &Site, wires: &Wires) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    for address in wires.addresses() {
        let socket = SocketAddrV4::new(address, site.appliance.https_port);
        listeners.push(bind::tcp("HTTPS", SocketAddr::V4(socket)).await?);
    }
    Ok(listeners)
}

/// Renews the certificate when its time comes, until it is dropped.
pub(super) async fn renew(tls: Arc<Tls>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look(&tls).await;
    }
}

/// Renews the certificate if its time has come, or the given one was replaced.
pub(super) async fn look(tls: &Arc<Tls>) {
    let renewed = Arc::clone(tls);
    // Files are read.
    let renewed = tokio::task::spawn_blocking(move || renewed.renew(now())).await;
    if let Ok(Err(error)) = renewed {
        tracing::warn!(error = %chain(&error), "certificate not renewed");
    }
}
