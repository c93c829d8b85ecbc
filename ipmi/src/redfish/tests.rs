//! The client against the simulator.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Chain, eject_media, insert_media, inventory, open};
use crate::bmc::{Conversation as _, Depth};
use crate::sim::redfish::{Config, Tls, serve};
use crate::sim::{Board, Fault, Faults, Memory, Moment, Request, Verdict};
use crate::{
    BootDevice, BootFirmware, BootOverride, Credentials, Endpoint, Error, Identity, Persistence,
    PowerState, Protocol, ResetKind, Sent, Trust, Waivers,
};

pub(super) const PASSWORD: &str = "canary-S3cret";

/// A simulated BMC, and everything it was asked.
pub(super) struct Sim {
    pub(super) endpoint: Endpoint,
    pub(super) host: Arc<Memory>,
    pub(super) tls: Tls,
    pub(super) faults: Arc<Faults>,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Pick = fn(&Request) -> Verdict;

fn proceed(_: &Request) -> Verdict {
    Verdict::Proceed
}

pub(super) fn config() -> Config {
    Config::new("operator", SecretString::from(PASSWORD))
}

pub(super) fn credentials(password: &str) -> Credentials {
    Credentials {
        user: "operator".into(),
        password: SecretString::from(password),
        kg: None,
    }
}

impl Sim {
    pub(super) async fn start(config: Config) -> Self {
        Self::start_with(config, proceed).await
    }

    pub(super) async fn start_with(config: Config, hook: Pick) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = Tls::generate(&["127.0.0.1"]).unwrap();
        let host = Arc::new(Memory::new(Identity {
            guid: Some([7; 16]),
            serial: Some("SN-1".to_owned()),
            product: Some("Model 1".to_owned()),
            macs: vec![[0x52, 0x54, 0, 0x77, 0, 1]],
            ..Identity::default()
        }));
        let (faults, seen) = (
            Arc::<Faults>::default(),
            Arc::<Mutex<Vec<String>>>::default(),
        );
        let list = Arc::clone(&seen);
        let board = Board::new(Arc::clone(&host) as _)
            .with_faults(Arc::clone(&faults))
            .with_hook(Arc::new(move |request: &Request| {
                if request.moment == Moment::Before {
                    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
                    list.push(request.what.clone());
                }
                hook(request)
            }));
        let served = serve(listener, Arc::clone(&tls.config), board, config);
        let task = tokio::spawn(async move { served.await.unwrap() });
        let endpoint = Endpoint {
            protocol: Protocol::Redfish,
            host: "127.0.0.1".into(),
            port: Some(port),
            system: None,
            trust: Trust::Pinned(tls.fingerprint),
            waivers: Waivers::default(),
            vendor: None,
        };
        Self {
            endpoint,
            host,
            tls,
            faults,
            seen,
            task,
        }
    }

    pub(super) async fn open(&self) -> Result<Chain, Error> {
        let deadline = Instant::now() + Duration::from_secs(20);
        open(&self.endpoint, &credentials(PASSWORD), deadline).await
    }

    fn trusting(mut self, trust: Trust) -> Self {
        self.endpoint.trust = trust;
        self
    }

    /// How often something was asked.
    pub(super) fn count(&self, what: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|asked| asked.starts_with(what)).count()
    }

    async fn await_count(&self, what: &str, wanted: usize) {
        for _ in 0..200 {
            if self.count(what) == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{wanted} times {what}: {:?}", self.seen.lock().unwrap());
    }
}

pub(super) fn network() -> BootOverride {
    BootOverride {
        device: BootDevice::Network,
        persistence: Persistence::Once,
        firmware: BootFirmware::Uefi,
    }
}

#[tokio::test]
async fn one_session_serves_a_conversation_and_is_closed() {
    let sim = Sim::start(config()).await;
    let mut chain = sim.open().await.unwrap();
    let identity = chain.identity(Depth::Whole).await.unwrap();
    assert_eq!(identity.guid, Some([7; 16]));
    assert_eq!(identity.serial.as_deref(), Some("SN-1"));
    assert_eq!(identity.macs, [[0x52, 0x54, 0, 0x77, 0, 1]]);
    assert_eq!(identity.certificate, Some(sim.tls.fingerprint));
    assert_eq!(chain.power().await, Ok(PowerState::Off));
    assert_eq!(chain.firmware().await.unwrap().len(), 2);
    chain.close().await;
    assert_eq!(sim.count("POST /redfish/v1/SessionService/Sessions"), 1);
    assert_eq!(sim.count("DELETE /redfish/v1/SessionService/Sessions/"), 1);
}

#[tokio::test]
async fn a_conversation_that_is_dropped_or_cancelled_leaves_no_session() {
    let sim = Sim::start(config()).await;
    let chain = sim.open().await.unwrap();
    drop(chain);
    sim.await_count("DELETE ", 1).await;
    sim.faults.set(Fault::Late(Duration::from_millis(200)));
    // The answers of root and session take 200 ms each: this stops waiting in the middle of the login.
    let stopped = tokio::time::timeout(Duration::from_millis(300), sim.open()).await;
    assert!(stopped.is_err());
    sim.await_count("DELETE ", 2).await;
    let unknown = Endpoint {
        system: Some("no-such-system".into()),
        ..sim.endpoint.clone()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let failed = open(&unknown, &credentials(PASSWORD), deadline).await;
    assert!(matches!(failed, Err(Error::WrongHost { .. })), "{failed:?}");
    sim.await_count("DELETE ", 3).await;
}

#[tokio::test]
async fn a_wrong_password_is_offered_once_and_never_printed() {
    let sim = Sim::start(config()).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let error = open(&sim.endpoint, &credentials("canary-wrong"), deadline)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(
        !format!("{error} {error:?}").contains("canary"),
        "{error:?}"
    );
    assert_eq!(sim.count("POST "), 1);
    assert_eq!(sim.count("GET /redfish/v1/Systems"), 0);
    let chain = sim.open().await.unwrap();
    assert!(!format!("{chain:?}").contains("canary"), "{chain:?}");
}

#[tokio::test]
async fn only_the_bmc_that_is_trusted_is_spoken_to() {
    let sim = Sim::start(config()).await;
    let other = Tls::generate(&["127.0.0.1"]).unwrap();
    let elsewhere = Tls::generate(&["bmc.example"]).unwrap();
    let authority = |tls: &Tls| Trust::Authority(tls.pem.as_bytes().into());
    let own = authority(&sim.tls);
    let mut sim = sim;
    for (name, trust) in [
        ("another key", Trust::Pinned(other.fingerprint)),
        ("another authority", authority(&other)),
        ("no authority", authority(&elsewhere)),
    ] {
        sim = sim.trusting(trust);
        let error = sim.open().await.unwrap_err();
        assert!(matches!(error, Error::Insecure { .. }), "{name}: {error}");
    }
    assert_eq!(sim.count(""), 0, "nothing may be sent to a stranger");
    for (name, trust) in [("authority", own), ("first use", Trust::FirstUse)] {
        sim = sim.trusting(trust);
        let chain = sim
            .open()
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(chain.certificate(), Some(sim.tls.fingerprint), "{name}");
        chain.close().await;
    }
}

#[tokio::test]
async fn an_override_is_set_read_back_and_gone_after_its_boot() {
    let sim = Sim::start(config()).await;
    let mut chain = sim.open().await.unwrap();
    let http = BootOverride {
        device: BootDevice::Http {
            uri: Some("http://10.77.0.1/boot.efi".to_owned()),
        },
        ..network()
    };
    for wanted in [network(), http] {
        chain.set_boot(&wanted).await.unwrap();
        assert_eq!(chain.boot().await, Ok(Some(wanted.clone())));
        let patches = sim.count("PATCH ");
        chain.set_boot(&wanted).await.unwrap();
        assert_eq!(
            sim.count("PATCH "),
            patches,
            "what is so already is not sent"
        );
    }
    assert_eq!(chain.reset(ResetKind::On).await, Ok(Sent::Accepted));
    assert_eq!(chain.power().await, Ok(PowerState::On));
    let after = chain.boot().await.unwrap().unwrap();
    assert_eq!(after.device, BootDevice::None);
    chain.set_boot(&network()).await.unwrap();
    let none = BootOverride {
        device: BootDevice::None,
        ..network()
    };
    chain.set_boot(&none).await.unwrap();
    assert_eq!(
        chain.boot().await.unwrap().unwrap().device,
        BootDevice::None
    );
    chain.close().await;
}

#[tokio::test]
async fn a_reset_whose_answer_is_lost_is_not_sent_again() {
    let sim = Sim::start_with(config(), |request| {
        let is_reset = request.what.ends_with("ComputerSystem.Reset");
        if is_reset && request.moment == Moment::After {
            Verdict::Silence
        } else {
            Verdict::Proceed
        }
    })
    .await;
    let mut chain = sim.open().await.unwrap();
    let sent = chain.reset(ResetKind::On).await.unwrap();
    assert!(matches!(sent, Sent::Unsure { .. }), "{sent:?}");
    assert_eq!(sim.count("POST /redfish/v1/Systems/1/Actions/"), 1);
    // The conversation goes on over another connection, in the same session.
    assert_eq!(chain.power().await, Ok(PowerState::On));
    assert_eq!(sim.count("POST /redfish/v1/SessionService"), 1);
    chain.close().await;
    assert_eq!(sim.host.acts(), [ResetKind::On]);
}

#[tokio::test]
async fn a_reset_that_is_not_offered_is_not_sent() {
    let sim = Sim::start(config()).await;
    let mut chain = sim.open().await.unwrap();
    let error = chain.reset(ResetKind::ForceRestart).await.unwrap_err();
    // The host is off: the service offers it and refuses it.
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    assert!(sim.host.acts().is_empty());
    chain.close().await;
}

#[tokio::test]
async fn a_task_is_waited_for() {
    let config = Config {
        tasks: Some(Duration::from_millis(1200)),
        ..config()
    };
    let sim = Sim::start(config).await;
    let mut chain = sim.open().await.unwrap();
    let began = Instant::now();
    assert_eq!(chain.reset(ResetKind::On).await, Ok(Sent::Accepted));
    assert!(began.elapsed() >= Duration::from_millis(1200));
    assert!(sim.count("GET /redfish/v1/TaskService/TaskMonitors/") > 0);
    chain.close().await;
}

#[tokio::test]
async fn several_systems_must_be_told_apart() {
    let config = Config {
        systems: 3,
        ..config()
    };
    let mut sim = Sim::start(config).await;
    let error = sim.open().await.unwrap_err();
    assert_eq!(
        error,
        Error::Ambiguous {
            systems: "1, 2, 3".to_owned()
        }
    );
    sim.endpoint.system = Some("1".into());
    let mut chain = sim.open().await.unwrap();
    assert_eq!(chain.power().await, Ok(PowerState::Off));
    chain.close().await;
    sim.await_count("DELETE ", 2).await;
}

#[tokio::test]
async fn without_a_free_session_basic_serves() {
    let sim = Sim::start(config()).await;
    sim.faults.set(Fault::SessionsExhausted);
    let mut chain = sim.open().await.unwrap();
    assert_eq!(chain.reset(ResetKind::On).await, Ok(Sent::Accepted));
    chain.close().await;
    assert_eq!(sim.count("DELETE "), 0);
}

#[tokio::test]
async fn a_session_that_aged_away_is_opened_again() {
    let config = Config {
        idle: Duration::from_millis(100),
        ..config()
    };
    let sim = Sim::start(config).await;
    let mut chain = sim.open().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(chain.power().await, Ok(PowerState::Off));
    chain.close().await;
    assert_eq!(sim.count("POST /redfish/v1/SessionService"), 2);
}

#[tokio::test]
async fn answers_that_break_off_are_no_answers() {
    let sim = Sim::start(config()).await;
    let mut chain = sim.open().await.unwrap();
    sim.faults.set(Fault::Short);
    let error = chain.power().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    sim.faults.clear();
    assert_eq!(chain.power().await, Ok(PowerState::Off));
    chain.close().await;
}

#[tokio::test]
async fn media_are_inserted_once_and_ejected() {
    let sim = Sim::start(config()).await;
    let mut chain = sim.open().await.unwrap();
    for _ in 0..2 {
        insert_media(&mut chain, "http://10.77.0.1/rescue.iso")
            .await
            .unwrap();
    }
    assert_eq!(sim.count("POST /redfish/v1/Managers/1/VirtualMedia"), 1);
    let error = insert_media(&mut chain, "http://10.77.0.1/other.iso")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    for _ in 0..2 {
        eject_media(&mut chain).await.unwrap();
    }
    assert_eq!(sim.count("POST /redfish/v1/Managers/1/VirtualMedia"), 3);
    chain.close().await;
}

#[tokio::test]
async fn an_inventory_has_parts_and_sensors() {
    let sim = Sim::start(config()).await;
    let mut chain = sim.open().await.unwrap();
    for kind in [ResetKind::On, ResetKind::ForceOff] {
        chain.reset(kind).await.unwrap();
    }
    let inventory = inventory(&mut chain).await.unwrap();
    chain.close().await;
    let names: Vec<_> = inventory.parts.iter().map(|part| &*part.name).collect();
    assert!(
        names.contains(&"Simulated host") && names.contains(&"Supply 1"),
        "{names:?}"
    );
    let inlet = inventory
        .sensors
        .iter()
        .find(|sensor| sensor.name == "Inlet")
        .unwrap();
    assert_eq!((inlet.value, &*inlet.unit), (Some(22.0), "Cel"));
    let events: Vec<_> = inventory
        .events
        .iter()
        .map(|event| &*event.message)
        .collect();
    assert_eq!(
        events,
        ["The power was changed: on.", "The power was changed: off."]
    );
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let age = i64::try_from(now).unwrap() - inventory.events[1].at.unwrap();
    assert!((0..60).contains(&age), "{age}");
    assert_eq!(sim.count("POST /redfish/v1/Systems"), 2);
}
