//! Intents against services that lie, lag, lose and are not who they were.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::open;
use super::tests::{PASSWORD, Sim, config, credentials, network};
use crate::journal::{Failure, Journal, Later, Step};
use crate::sim::redfish::Tls;
use crate::sim::{Fault, Moment, Verdict};
use crate::{
    Acted, Bmc, Done, Endpoint, Error, Expected, Identity, Intent, Off, OperationId, PowerState,
    ResetKind, Trust,
};

/// No intent here needs a journal.
struct NoJournal;

impl Journal for NoJournal {
    fn last<'a>(&'a self, _: &'a OperationId) -> Later<'a, Option<Step>> {
        Box::pin(std::future::ready(Err(Failure("none".to_owned()))))
    }

    fn record<'a>(&'a self, _: &'a OperationId, _: Step) -> Later<'a, ()> {
        Box::pin(std::future::ready(Err(Failure("none".to_owned()))))
    }
}

async fn execute(sim: &Sim, intent: &Intent, seconds: u64) -> Result<Done, Error> {
    let bmc = Bmc::new(sim.endpoint.clone(), credentials(PASSWORD)).unwrap();
    let expected = Expected {
        serial: Some("SN-1".to_owned()),
        ..Expected::default()
    };
    let deadline = Duration::from_secs(seconds);
    bmc.execute(&expected, intent, &NoJournal, deadline).await
}

#[tokio::test]
async fn a_bmc_that_loses_answers_gets_each_command_once() {
    // Of three answers one is lost; what was asked has been done.
    let sim = Sim::start_with(config(), |request| {
        let dice = getrandom::u32().unwrap();
        if request.moment == Moment::After && dice.is_multiple_of(3) {
            Verdict::Silence
        } else {
            Verdict::Proceed
        }
    })
    .await;
    for (intent, power) in [
        (Intent::Boot(network()), PowerState::Off),
        (Intent::EnsureOn, PowerState::On),
        (Intent::EnsureOff(Off::Forced), PowerState::Off),
    ] {
        let done = execute(&sim, &intent, 90).await;
        let done = done.unwrap_or_else(|error| panic!("{intent}: {error}"));
        assert_eq!(done.power, power, "{intent}");
    }
    assert_eq!(sim.host.acts(), [ResetKind::On, ResetKind::ForceOff]);
    assert_eq!(sim.host.boots(), [Some(network())]);
}

#[tokio::test]
async fn a_bmc_that_lags_is_waited_for() {
    let sim = Sim::start(config()).await;
    sim.faults.set(Fault::Lag(Duration::from_secs(3)));
    let done = execute(&sim, &Intent::EnsureOn, 30).await.unwrap();
    assert_eq!((done.power, done.acted), (PowerState::On, Acted::Sent));
    assert!(done.elapsed >= Duration::from_secs(3));
    assert_eq!(sim.count("POST /redfish/v1/Systems"), 1);
    let done = execute(&sim, &Intent::EnsureOn, 30).await.unwrap();
    assert_eq!(done.acted, Acted::Nothing);
    assert_eq!(sim.count("POST /redfish/v1/Systems"), 1);
}

#[tokio::test]
async fn a_bmc_that_lies_is_not_believed() {
    let sim = Sim::start(config()).await;
    sim.faults.set(Fault::LiesAboutPower);
    sim.faults.set(Fault::LiesAboutBoot);
    for intent in [Intent::EnsureOn, Intent::Boot(network())] {
        let error = execute(&sim, &intent, 4).await.unwrap_err();
        assert!(
            matches!(error, Error::NotVerified { .. }),
            "{intent}: {error}"
        );
    }
    assert_eq!(sim.count("POST /redfish/v1/Systems"), 1);
}

#[tokio::test]
async fn another_machine_is_not_touched() {
    let sim = Sim::start(config()).await;
    sim.faults.set(Fault::OtherIdentity(Identity {
        serial: Some("SN-2".to_owned()),
        ..Identity::default()
    }));
    for intent in [Intent::EnsureOn, Intent::Boot(network()), Intent::Diagnose] {
        let error = execute(&sim, &intent, 10).await.unwrap_err();
        assert!(
            matches!(error, Error::WrongHost { .. }),
            "{intent}: {error}"
        );
    }
    assert_eq!(sim.count("POST /redfish/v1/Systems"), 0);
    assert_eq!(sim.count("PATCH "), 0);
}

#[tokio::test]
async fn a_key_that_changes_between_two_connections_ends_the_conversation() {
    let (first, second) = (answering(|_, _| None).await, answering(|_, _| None).await);
    // A gate in front of both, that leads to the second after the first connection.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let gate = tokio::spawn(async move {
        for to in [first.0, second.0] {
            let (mut from, _) = listener.accept().await.unwrap();
            let mut to = tokio::net::TcpStream::connect(("127.0.0.1", to))
                .await
                .unwrap();
            // The first connection is cut by its service; then this is over.
            tokio::io::copy_bidirectional(&mut from, &mut to).await.ok();
        }
    });
    let endpoint = Endpoint {
        trust: Trust::FirstUse,
        ..elsewhere(port)
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let error = open(&endpoint, &credentials(PASSWORD), deadline)
        .await
        .unwrap_err();
    gate.abort();
    assert!(matches!(error, Error::Insecure { .. }), "{error}");
}

#[tokio::test]
async fn redirects_stay_within_the_bmc() {
    type Case = (
        &'static str,
        fn(&str, u16) -> Option<(u16, String)>,
        &'static str,
    );
    let cases: [Case; 3] = [
        (
            "another host",
            |_, _| Some((302, "https://evil.example/redfish/v1/".to_owned())),
            "another host",
        ),
        (
            "circles",
            |path, port| Some((301, format!("https://127.0.0.1:{port}{path}"))),
            "in circles",
        ),
        (
            "here",
            |path, _| (!path.ends_with("/v1")).then(|| (308, "/redfish/v1".to_owned())),
            "no systems",
        ),
    ];
    for (name, answer, expected) in cases {
        let (port, _service) = answering(answer).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        let error = open(&elsewhere(port), &credentials(PASSWORD), deadline).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

/// Where something else than the simulator listens.
fn elsewhere(port: u16) -> Endpoint {
    Endpoint {
        protocol: crate::Protocol::Redfish,
        host: "127.0.0.1".into(),
        port: Some(port),
        system: None,
        trust: Trust::FirstUse,
        waivers: crate::Waivers::default(),
        vendor: None,
    }
}

struct Ending(JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A root and an empty collection in one.
const EMPTY: &[u8] = br#"{ "Systems": { "@odata.id": "/redfish/v1/Systems" } }"#;

type Redirect = fn(&str, u16) -> Option<(u16, String)>;

/// A service that redirects, or else shows an empty service, one answer a connection.
async fn answering(redirect: Redirect) -> (u16, Ending) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = Tls::generate(&["127.0.0.1"]).unwrap();
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let answer = service_fn(move |request: hyper::Request<Incoming>| async move {
                let mut response = Response::builder();
                match redirect(request.uri().path(), port) {
                    Some((status, location)) => {
                        response = response.status(status).header("location", location);
                    }
                    None => response = response.header("connection", "close"),
                }
                response.body(Full::new(Bytes::from_static(EMPTY)))
            });
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await
                .ok();
        }
    });
    (port, Ending(task))
}
