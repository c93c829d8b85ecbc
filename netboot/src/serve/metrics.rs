//! Counters of what the appliance does, and the listener that shows them as `OpenMetrics`.
//!
//! It refuses labels without a bound: no host, no hardware address, no file name.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// Connections that read metrics at the same time; one collector needs one.
const READERS: usize = 16;

/// All counters; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    dhcp: Family<Decided, Counter>,
    /// DHCP packets that were not looked at because the store's queue was full.
    pub(crate) dhcp_shed: Counter,
    /// DHCP replies that the kernel did not take.
    pub(crate) dhcp_unsent: Counter,
    /// Time from receiving a DHCP packet to having sent its reply.
    pub(crate) dhcp_seconds: Histogram,
    /// Jobs that wait for the store.
    pub(crate) store_waiting: Gauge,
    /// Transactions and batches that the store refused.
    pub(crate) store_failures: Counter,
    events: Family<Event, Counter>,
    transfers: Family<Transferred, Counter>,
    transfer_bytes: Family<Protocol, Counter>,
    refusals: Family<Refused, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    port: &'static str,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Event {
    event: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Protocol {
    protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Transferred {
    protocol: &'static str,
    outcome: &'static str,
}

impl Metrics {
    /// Makes all counters and the registry that shows them.
    pub(crate) fn new() -> (Self, Registry) {
        let metrics = Self {
            dhcp: Family::default(),
            dhcp_shed: Counter::default(),
            dhcp_unsent: Counter::default(),
            // 50 µs to 1.6 s: a decision in memory takes tens of microseconds, a commit on a busy
            // disk milliseconds, and firmware asks again after 4 s.
            dhcp_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            store_waiting: Gauge::default(),
            store_failures: Counter::default(),
            events: Family::default(),
            transfers: Family::default(),
            transfer_bytes: Family::default(),
            refusals: Family::default(),
        };
        let mut registry = Registry::with_prefix("firstboot");
        let m = &metrics;
        registry.register("dhcp_packets", "DHCP packets by decision", m.dhcp.clone());
        registry.register("dhcp_shed", "DHCP packets shed", m.dhcp_shed.clone());
        registry.register(
            "dhcp_unsent",
            "DHCP replies not sent",
            m.dhcp_unsent.clone(),
        );
        registry.register(
            "dhcp_reply_seconds",
            "Time from a DHCP packet to its reply",
            m.dhcp_seconds.clone(),
        );
        registry.register("store_waiting", "Jobs that wait", m.store_waiting.clone());
        registry.register("store_failures", "Commits failed", m.store_failures.clone());
        registry.register("boot_events", "Events of boots", m.events.clone());
        registry.register("transfers", "Transfers by outcome", m.transfers.clone());
        registry.register("transfer_bytes", "Bytes sent", m.transfer_bytes.clone());
        let refusals = m.refusals.clone();
        registry.register("boot_refusals", "What hosts were refused", refusals);
        (metrics, registry)
    }

    /// Counts one DHCP packet.
    pub(crate) fn decided(&self, port: &'static str, decision: &'static str) {
        self.dhcp.get_or_create(&Decided { port, decision }).inc();
    }

    /// Counts one refusal of what a host shows or reports.
    pub(crate) fn refused(&self, why: &'static str) {
        self.refusals.get_or_create(&Refused { why }).inc();
    }

    /// Counts one event of a boot.
    pub(crate) fn event(&self, event: &'static str) {
        self.events.get_or_create(&Event { event }).inc();
    }

    /// Counts one transfer that ended.
    pub(crate) fn transferred(&self, protocol: &'static str, outcome: &'static str, bytes: u64) {
        self.transfers
            .get_or_create(&Transferred { protocol, outcome })
            .inc();
        self.transfer_bytes
            .get_or_create(&Protocol { protocol })
            .inc_by(bytes);
    }
}

/// Shows the metrics to whoever connects, until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, registry: Registry) {
    let registry = std::sync::Arc::new(registry);
    let readers = std::sync::Arc::new(tokio::sync::Semaphore::new(READERS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: others will be closed by their own limits.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = std::sync::Arc::clone(&readers).try_acquire_owned() else {
            continue;
        };
        let registry = std::sync::Arc::clone(&registry);
        tokio::spawn(async move {
            let show = service_fn(|request| {
                let response = answer(&request, &registry);
                async { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), show)
                .await;
            if let Err(error) = served {
                tracing::debug!(error = %error, "metrics connection ended");
            }
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match exposition(registry) {
            Ok(text) => Response::new(Full::from(text)),
            Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR),
        },
        _ => refusal(StatusCode::NOT_FOUND),
    };
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    response
}

fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn exposition(registry: &Registry) -> io::Result<String> {
    let mut text = String::new();
    encode(&mut text, registry).map_err(io::Error::other)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_shown_by_label() {
        let (metrics, registry) = Metrics::new();
        metrics.decided("67", "offer");
        metrics.decided("67", "offer");
        metrics.transferred("tftp", "done", 1_024);
        let text = exposition(&registry).unwrap();
        for line in [
            "firstboot_dhcp_packets_total{port=\"67\",decision=\"offer\"} 2",
            "firstboot_transfers_total{protocol=\"tftp\",outcome=\"done\"} 1",
            "firstboot_transfer_bytes_total{protocol=\"tftp\"} 1024",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
