//! The operators' listener: binds it, says where it is, and hands it to the API.
//!
//! It refuses to share limits with hosts: a rack that boots cannot keep an operator out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use netboot_core::site::Site;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::appliance::Appliance;
use super::bind::{self, BindError};
use crate::api::client::URL_FILE;
use crate::api::{Api, ApiError, Parts};
use crate::durable::{self, Readable};
use crate::site::Sites;

/// Binds the port where operators speak TLS.
pub(super) async fn bind(site: &Site) -> Result<TcpListener, BindError> {
    bind::tcp("the operators' API", site.appliance.api).await
}

/// Opens the API of an appliance.
pub(super) async fn open(
    appliance: &Arc<Appliance>,
    sites: &Sites,
    data: &Path,
    registry: &mut Registry,
) -> Result<Arc<Api>, ApiError> {
    let place = Arc::clone(appliance);
    let parts = Parts {
        site: Arc::new(move || place.site()),
        sites: sites.clone(),
        operator: appliance.operator.clone(),
        ledger: Arc::clone(&appliance.ledger),
        writer: appliance.writer.clone(),
        data: data.to_owned(),
    };
    Api::open(parts, registry).await
}

/// Writes down where the API is, for the command line on the same computer.
pub(super) fn publish(listener: &TcpListener, data: &Path) -> io::Result<()> {
    let bound = listener.local_addr()?;
    let here = match bound.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    let url = format!("https://{}\n", SocketAddr::new(here, bound.port()));
    durable::write(data, URL_FILE, url.as_bytes(), Readable::All)
}
